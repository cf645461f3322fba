use std::collections::BTreeMap;

use super::{Finding, Index};
use crate::commands::verify::evidence::{Entry, Evidence, Id, Message};

/// I6: an order's timeline is the fold of the streams: each event about it once, and nothing else.
pub(super) fn check(evidence: &Evidence, index: &Index<'_>) -> Finding {
    let mut finding = Finding::new("I6", "each timeline is the fold of the streams: every event once, nothing else");
    let orders = evidence.orders.keys().chain(index.messages.keys().copied()).chain(evidence.timelines.keys());
    let mut orders: Vec<&Id> = orders.collect();
    orders.sort_unstable();
    orders.dedup();
    for id in orders {
        let timeline = evidence.timelines.get(id).map(Vec::as_slice).unwrap_or_default();
        finding.look(Some(id), compare(index.about(id), timeline));
    }
    finding.remarks.push(format!("{} entries", evidence.timelines.values().map(Vec::len).sum::<usize>()));
    finding
}

fn compare(messages: &[&Message], timeline: &[Entry]) -> Vec<String> {
    // An event in two versions, or stored twice by the broker, is one event.
    let mut events: BTreeMap<&str, (&str, u32)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for message in messages.iter().filter(|message| !message.is_older_version()) {
        match &message.event_id {
            Some(id) => drop(events.insert(id, (&message.event_type, 0))),
            None => wrong.push(format!("{} {} on {} has no event id", message.subject, message.seq, message.stream)),
        }
    }
    for entry in timeline {
        match events.get_mut(entry.event_id.as_str()) {
            None => wrong.push(format!("{} {} is on the timeline and on no stream", entry.event_type, entry.event_id)),
            Some((event_type, _)) if *event_type != entry.event_type => {
                wrong.push(format!(
                    "{} is {event_type} on its stream and {} on the timeline",
                    entry.event_id, entry.event_type
                ));
            }
            Some((_, shown)) => *shown += 1,
        }
    }
    for (id, (event_type, shown)) in events {
        if shown != 1 {
            wrong.push(format!("{event_type} {id} is on the timeline {shown} times"));
        }
    }
    wrong
}
