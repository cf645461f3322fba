use super::Finding;
use crate::commands::verify::evidence::{Evidence, Poison};

/// I5: what was sent to be unreadable is a dead letter, whole, and nothing else is.
pub(super) fn check(evidence: &Evidence) -> Finding {
    let mut finding = Finding::new("I5", "every dead letter is accounted for, and every unreadable message is one");
    for letter in &evidence.dead_letters {
        let poison = evidence.poison.iter().find(|(mark, _)| letter.body.contains(*mark));
        let told = format!(
            "{} of {} {} at {}: {}: {}",
            letter.subject, letter.stream, letter.seq, letter.consumer, letter.reason, letter.error
        );
        let wrong = match poison {
            None => Some(format!("nothing explains the dead letter {told}")),
            Some((_, poison)) if letter.body != poison.body => Some(format!("the body is not the whole of it: {told}")),
            // Its number may have been given to another message after a power loss.
            Some(_)
                if (letter.consumer.as_str(), letter.reason.as_str()) != ("order-foreign", "undecodable")
                    || (letter.stream.as_str(), letter.subject.as_str()) != ("ORDERS", "orders.created") =>
            {
                Some(format!("not what could not be read, where, and by whom: {told}"))
            }
            Some(_) => None,
        };
        finding.look(None, wrong);
        finding.remarks.push(told);
    }
    for (mark, Poison { published, .. }) in &evidence.poison {
        let letters = evidence.dead_letters.iter().filter(|letter| letter.body.contains(mark)).count() as u64;
        let right = (1..=*published).contains(&letters);
        finding.look(
            None,
            (!right).then(|| format!("{mark} was published {published} times and left {letters} dead letters")),
        );
    }
    finding
}
