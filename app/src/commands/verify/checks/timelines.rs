use std::collections::BTreeMap;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

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
    let mut events: BTreeMap<&str, (&Message, u32)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for message in messages.iter().filter(|message| !message.is_older_version()) {
        match &message.event_id {
            Some(id) => drop(events.insert(id, (message, 0))),
            None => wrong.push(format!("{} {} on {} has no event id", message.subject, message.seq, message.stream)),
        }
    }
    for entry in timeline {
        match events.get_mut(entry.event_id.as_str()) {
            None => wrong.push(format!("{} {} is on the timeline and on no stream", entry.event_type, entry.event_id)),
            Some((message, _)) if message.event_type != entry.event_type => {
                wrong.push(format!(
                    "{} is {} on its stream and {} on the timeline",
                    entry.event_id, message.event_type, entry.event_type
                ));
            }
            Some((message, _)) if happened_at(message).is_some_and(|at| entry.at != Some(at)) => {
                wrong.push(format!(
                    "{} {} happened at {} and is on the timeline at {:?}",
                    entry.event_type, entry.event_id, message.at, entry.at
                ));
            }
            Some((_, shown)) => *shown += 1,
        }
    }
    for (id, (message, shown)) in events {
        if shown != 1 {
            let event_type = &message.event_type;
            wrong.push(format!("{event_type} {id} is on the timeline {shown} times"));
        }
    }
    wrong
}

/// Unix milliseconds, as precise as the database keeps it.
fn happened_at(message: &Message) -> Option<i64> {
    let at = OffsetDateTime::parse(&message.at, &Rfc3339).ok()?;
    i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
}
