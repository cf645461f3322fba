use std::collections::{BTreeMap, BTreeSet};

use contracts::orders::OrderCreated;
use contracts::subjects;
use millrace::event::Event;

use super::{Finding, Index};
use crate::commands::verify::evidence::{CancelAnswer, Evidence, Id, Listed, OrderRow, Wish};

/// I1: every accepted order reached exactly one end.
pub(super) fn check(evidence: &Evidence, index: &Index<'_>) -> Finding {
    let mut finding = Finding::new("I1", "every accepted order reached exactly one end");
    for wish in &evidence.wishes {
        finding.look(wish.accepted.first(), wish_was_heard(wish));
        for id in &wish.accepted {
            finding.look(Some(id), order_ended(evidence, index, id, wish));
        }
    }
    for (id, order) in &evidence.orders {
        let known = index.wishes.contains_key(id);
        let stray =
            (!known).then(|| format!("is in the order database ({}) and nobody was told of it", order.customer));
        finding.look(Some(id), stray);
    }
    let mut customers: BTreeMap<&str, Vec<&Id>> = BTreeMap::new();
    for (id, order) in &evidence.orders {
        customers.entry(&order.customer).or_default().push(id);
    }
    for (customer, ids) in customers.into_iter().filter(|(_, ids)| ids.len() > 1) {
        finding.look(ids.first().copied(), [format!("{customer} wanted one order and has {}: {ids:?}", ids.len())]);
    }
    let ends = evidence.orders.values().fold(BTreeMap::<String, u64>::new(), |mut ends, order| {
        *ends.entry(order.end()).or_default() += 1;
        ends
    });
    finding.remarks = ends.into_iter().map(|(end, count)| format!("{count} {end}")).collect();
    finding
}

fn wish_was_heard(wish: &Wish) -> Vec<String> {
    let mut wrong: Vec<_> =
        wish.refused.iter().map(|why| format!("the order of {} was refused: {why}", wish.customer)).collect();
    match wish.accepted.len() {
        0 if wish.refused.is_empty() => wrong.push(format!("{} never got an answer", wish.customer)),
        0 | 1 => {}
        many => wrong.push(format!("one idempotency key was answered with {many} orders: {:?}", wish.accepted)),
    }
    wrong
}

fn order_ended(evidence: &Evidence, index: &Index<'_>, id: &Id, wish: &Wish) -> Vec<String> {
    let Some(order) = evidence.orders.get(id) else {
        return vec!["was accepted and is not in the order database".into()];
    };
    let mut wrong = Vec::new();
    if !order.is_confirmed() && !order.is_cancelled() {
        wrong.push(format!("is still {}", order.status));
    }
    if order.total != wish.total {
        wrong.push(format!("costs {} instead of {} cents", order.total, wish.total));
    }
    match evidence.listed.get(id) {
        None => wrong.push("the API does not list it".into()),
        Some(listed) if (&listed.status, &listed.reason) != (&order.status, &order.reason) => {
            wrong.push(format!("the API says {} and the database {}", listed.status, order.end()));
        }
        // Elsewhere the rest of the story may still be on its way.
        Some(listed) if !evidence.without_streams => wrong.extend(rest_of_the_story(order, listed)),
        Some(_) => {}
    }
    wrong.extend(match evidence.without_streams {
        false => end_on_the_stream(index, id, order),
        true => end_on_the_timeline(evidence, id, order),
    });
    if order.is_confirmed() || order.is_cancelled() {
        wrong.extend(end_is_possible(order, wish));
    }
    wrong
}

/// What the order service says of money and goods, once everything has settled.
fn rest_of_the_story(order: &OrderRow, listed: &Listed) -> Option<String> {
    let (payment, stock) = (listed.payment.as_str(), listed.stock.as_str());
    let fits = match order.is_confirmed() {
        true => (payment, stock) == ("captured", "committed"),
        false => {
            matches!(payment, "pending" | "declined" | "voided") && matches!(stock, "pending" | "rejected" | "released")
        }
    };
    let ended = order.is_confirmed() || order.is_cancelled();
    (ended && !fits).then(|| format!("is {}, and the order service says payment {payment}, stock {stock}", order.end()))
}

/// The stream tells the end the database knows, once.
fn end_on_the_stream(index: &Index<'_>, id: &Id, order: &OrderRow) -> Vec<String> {
    let mut wrong = Vec::new();
    let ends: Vec<_> = index.about(id).iter().filter(|message| message.is_end()).collect();
    match ends.as_slice() {
        [] => wrong.push("its end was never published".into()),
        [end] => {
            let told = subjects::newest_on(&end.subject).unwrap_or_default().trim_start_matches("orders.");
            if told != order.status || end.reason != order.reason {
                wrong.push(format!("the stream says {told} {:?}, the database {}", end.reason, order.end()));
            }
        }
        many => {
            let distinct: BTreeSet<_> = many.iter().map(|end| (&end.subject, &end.message_id)).collect();
            let seqs: Vec<_> = many.iter().map(|end| end.seq).collect();
            wrong.push(match distinct.len() {
                1 => format!("its end is on the stream {} times under one message id (sequences {seqs:?})", many.len()),
                _ => format!("it has {} different ends on the stream: {distinct:?}", distinct.len()),
            });
        }
    }
    let created = index.about(id).iter().filter(|message| message.subject == OrderCreated::SUBJECT).count();
    if created != 1 {
        wrong.push(format!("{} is on the stream {created} times", OrderCreated::SUBJECT));
    }
    wrong
}

/// The timeline, which is all that can be seen from outside, tells the end once.
fn end_on_the_timeline(evidence: &Evidence, id: &Id, order: &OrderRow) -> Vec<String> {
    let entries = evidence.timelines.get(id).map(Vec::as_slice).unwrap_or_default();
    let told = |event: &str| entries.iter().filter(|entry| entry.event_type == event).count();
    let ends = (told("orders.confirmed"), told("orders.cancelled"));
    let expected = if order.is_confirmed() { (1, 0) } else { (0, 1) };
    let mut wrong = Vec::new();
    if (order.is_confirmed() || order.is_cancelled()) && ends != expected {
        wrong.push(format!(
            "its timeline has {} confirmations and {} cancellations, and it is {}",
            ends.0,
            ends.1,
            order.end()
        ));
    }
    if told("orders.created") != 1 {
        wrong.push(format!("orders.created is on its timeline {} times", told("orders.created")));
    }
    wrong
}

/// By what the customer did and was told.
fn end_is_possible(order: &OrderRow, wish: &Wish) -> Option<String> {
    let end = order.end();
    let possible = match order.reason.as_deref() {
        None => order.is_confirmed() && !wish.card_is_bad,
        Some("payment_declined") => wish.card_is_bad,
        Some("out_of_stock") => wish.wants_scarce,
        Some("customer") => wish.cancel.is_some(),
        Some("deadline") => order.ended_at.is_some_and(|ended| ended - order.accepted_at >= wish.deadline_ms),
        Some(_) => false,
    };
    if !possible {
        return Some(format!("ended as {end}, which nothing in its story explains"));
    }
    match wish.cancel {
        Some(CancelAnswer::Cancelled) if !order.is_cancelled() => {
            Some(format!("the customer was told that it is cancelled, and it is {end}"))
        }
        Some(CancelAnswer::TooLate) if !order.is_confirmed() => {
            Some(format!("the customer was told that it is confirmed, and it is {end}"))
        }
        Some(CancelAnswer::Unanswered) => Some("the wish to cancel it was never answered".into()),
        _ => None,
    }
}
