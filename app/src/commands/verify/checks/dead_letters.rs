use super::Finding;
use crate::commands::verify::evidence::Evidence;

/// I5: what was sent to be unreadable is a dead letter, whole, and nothing else is.
pub(super) fn check(evidence: &Evidence) -> Finding {
    let mut finding = Finding::new("I5", "every dead letter is accounted for, and every unreadable message is one");
    for letter in &evidence.dead_letters {
        let explained = evidence.poison.keys().any(|mark| letter.body.contains(mark));
        let told = format!(
            "{} of {} {} at {}: {}: {}",
            letter.subject, letter.stream, letter.seq, letter.consumer, letter.reason, letter.error
        );
        finding.look(None, (!explained).then(|| format!("nothing explains the dead letter {told}")));
        finding.remarks.push(told);
    }
    for (mark, published) in &evidence.poison {
        let letters = evidence.dead_letters.iter().filter(|letter| letter.body.contains(mark)).count() as u64;
        let right = (1..=*published).contains(&letters);
        finding.look(
            None,
            (!right).then(|| format!("{mark} was published {published} times and left {letters} dead letters")),
        );
    }
    finding
}
