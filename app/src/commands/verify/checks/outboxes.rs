use std::collections::{BTreeMap, BTreeSet};

use millrace::dead_letter;

use super::Finding;
use crate::commands::verify::evidence::{Consumer, Evidence, Message};

/// I7: nothing is left to publish or to handle, what was published was committed first, and each consumer handled each
/// of its events once.
pub(super) fn check(evidence: &Evidence) -> Finding {
    let mut finding =
        Finding::new("I7", "outboxes are empty, every event is on its stream and was handled once by each");
    let stored: BTreeMap<&str, &Message> =
        evidence.messages.iter().filter_map(|message| Some((message.message_id.as_deref()?, message))).collect();
    let letters: BTreeSet<&str> =
        evidence.dead_letters.iter().filter_map(|letter| letter.message_id.as_deref()).collect();
    let mut committed = BTreeSet::new();
    for (service, rows) in &evidence.outboxes {
        for row in rows {
            if dead_letter::is_letter(&row.subject) {
                let lost = !row.published || !letters.contains(row.message_id.as_str());
                finding.look(None, lost.then(|| format!("{service}'s dead letter {} is at no broker", row.message_id)));
                continue;
            }
            committed.insert(row.message_id.as_str());
            let at_the_broker = stored.get(row.message_id.as_str());
            let wrong = match (row.published, at_the_broker) {
                (false, _) => Some("was never confirmed".to_owned()),
                (true, None) => Some("counts as published and is on no stream".to_owned()),
                (true, Some(message)) if message.subject != row.subject => Some(format!("is on {}", message.subject)),
                (true, Some(_)) => None,
            };
            let order = at_the_broker.and_then(|message| message.order.as_ref());
            finding.look(order, wrong.map(|what| format!("{service}'s {} {} {what}", row.subject, row.message_id)));
        }
    }
    let mut times: BTreeMap<&str, u32> = BTreeMap::new();
    for message in &evidence.messages {
        let Some(message_id) = message.message_id.as_deref() else { continue };
        let times = times.entry(message_id).or_default();
        *times += 1;
        let twice = (*times == 2).then(|| format!("{} {message_id} is on its stream more than once", message.subject));
        let stray = (!committed.contains(message_id))
            .then(|| format!("{} {message_id} is on its stream and in nobody's outbox", message.subject));
        finding.look(message.order.as_ref(), twice.into_iter().chain(stray));
    }
    for consumer in &evidence.consumers {
        let open = (consumer.open > 0).then(|| format!("{} has {} messages left", consumer.durable, consumer.open));
        finding.look(None, open);
        handled_once(evidence, consumer, &mut finding);
    }
    let rows: usize = evidence.outboxes.values().map(Vec::len).sum();
    let marks: usize = evidence.inboxes.values().map(Vec::len).sum();
    finding.remarks.push(format!("{} messages, {rows} outbox rows, {marks} inbox marks", evidence.messages.len()));
    finding
}

/// The inbox marks of a consumer are the events of its subjects, each once.
fn handled_once(evidence: &Evidence, consumer: &Consumer, finding: &mut Finding) {
    let Some(service) = &consumer.service else { return };
    let mut marks: BTreeMap<&str, u32> = BTreeMap::new();
    for (durable, event) in evidence.inboxes.get(service).into_iter().flatten() {
        if *durable == consumer.durable {
            *marks.entry(event).or_default() += 1;
        }
    }
    let theirs = |message: &&Message| message.stream == consumer.stream && consumer.subjects.contains(&message.subject);
    let mut seen = BTreeSet::new();
    for message in evidence.messages.iter().filter(theirs) {
        let buried = evidence.dead_letters.iter().any(|letter| {
            letter.consumer == consumer.durable && letter.stream == message.stream && letter.seq == message.seq
        });
        let Some(event) = message.event_id.as_deref() else { continue };
        if !seen.insert(event) || buried {
            continue;
        }
        let wrong = match marks.get(event).copied().unwrap_or(0) {
            1 => None,
            times => Some(format!("{} handled {} {event} {times} times", consumer.durable, message.subject)),
        };
        finding.look(message.order.as_ref(), wrong);
    }
    for event in marks.keys().filter(|event| !seen.contains(*event)) {
        finding.look(None, [format!("{} handled {event}, which is on no stream", consumer.durable)]);
    }
}
