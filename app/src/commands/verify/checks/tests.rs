//! A checker is worth what it notices: each test takes a run in which all is well, spoils one ledger, and wants to be told.

use super::super::evidence::*;
use super::{Finding, all};

const CONFIRMED: &str = "01";
const DECLINED: &str = "02";
const FOREIGN: &str = "03";

/// Three orders: one confirmed, one whose card was declined after its stock was held, one of another system.
fn sound() -> Evidence {
    let mut evidence = Evidence::default();
    evidence.opening.insert("cup".into(), 10);
    evidence.adjustments.push(("cup".into(), 5));
    evidence.booked_adjustments.insert("cup".into(), 15);
    evidence.stock.insert("cup".into(), Stock { available: 12, reserved: 0, committed: 3 });
    evidence.samples.taken = 4;
    evidence.poison.insert("poison-1".into(), Poison { body: "{ poison-1".into(), published: 1 });
    evidence.dead_letters.push(Letter {
        body: "{ poison-1".into(),
        consumer: "order-foreign".into(),
        reason: "undecodable".into(),
        stream: "ORDERS".into(),
        subject: "orders.created".into(),
        ..Letter::default()
    });
    for (durable, service, stream, subjects) in [
        (
            "payment-orders",
            Some("payment"),
            "ORDERS",
            &["orders.created.v2", "orders.confirmed", "orders.cancelled"][..],
        ),
        ("order-payments", Some("order"), "PAYMENTS", &["payments.captured", "payments.declined"]),
        ("order-foreign", None, "ORDERS", &["orders.created"]),
    ] {
        evidence.consumers.push(Consumer {
            durable: durable.into(),
            service: service.map(str::to_owned),
            stream: stream.into(),
            subjects: subjects.iter().map(|subject| (*subject).to_owned()).collect(),
            open: 0,
        });
    }
    place(&mut evidence, CONFIRMED, "confirmed", None);
    place(&mut evidence, DECLINED, "cancelled", Some("payment_declined"));
    place(&mut evidence, FOREIGN, "confirmed", None);
    evidence.wishes[1].card_is_bad = true;
    evidence.wishes[2].foreign = true;
    evidence.wishes[2].email = false;
    evidence.wishes[2].items.clear();
    evidence.mails.retain(|id, _| !id.starts_with(FOREIGN));
    evidence
}

fn place(evidence: &mut Evidence, id: &str, status: &str, reason: Option<&str>) {
    let (id, reason) = (id.to_owned(), reason.map(str::to_owned));
    let confirmed = status == "confirmed";
    evidence.wishes.push(Wish {
        customer: format!("customer-{id}"),
        accepted: vec![id.clone()],
        total: 4_200,
        items: vec![("cup".into(), 3)],
        email: true,
        deadline_ms: 60_000,
        ..Wish::default()
    });
    let row = OrderRow {
        customer: format!("customer-{id}"),
        status: status.into(),
        reason: reason.clone(),
        total: 4_200,
        accepted_at: 1_000,
        ended_at: Some(2_000),
    };
    evidence.orders.insert(id.clone(), row);
    let (payment, stock) = if confirmed { ("captured", "committed") } else { ("declined", "released") };
    let listed = Listed { status: status.into(), reason: reason.clone(), payment: payment.into(), stock: stock.into() };
    evidence.listed.insert(id.clone(), listed);
    evidence.payments.insert(id.clone(), if confirmed { "captured" } else { "declined" }.into());
    evidence.charges.push(Charge {
        id: format!("pi_{id}"),
        order: Some(id.clone()),
        status: if confirmed { "succeeded" } else { "requires_payment_method" }.into(),
        captures: u32::from(confirmed),
        captured: if confirmed { 4_200 } else { 0 },
        refunded: 0,
    });
    evidence.reservations.insert(id.clone(), if confirmed { "committed" } else { "released" }.into());
    let end = if confirmed { "confirmation" } else { "cancellation" };
    for notice in ["acknowledgement", end] {
        evidence.mails.insert(format!("{id}.{notice}@millrace.example"), 1);
    }
    publish(evidence, &id, "order", "ORDERS", "orders.created.v2", "orders.created");
    publish(evidence, &id, "order", "ORDERS", &format!("orders.{status}"), &format!("orders.{status}"));
    if let Some(end) = evidence.messages.last_mut() {
        end.reason = reason;
    }
    let paid = if confirmed { "payments.captured" } else { "payments.declined" };
    publish(evidence, &id, "payment", "PAYMENTS", paid, paid);
}

/// An event in its outbox, on its stream, on its timeline, and handled.
fn publish(evidence: &mut Evidence, id: &str, service: &str, stream: &str, subject: &str, event_type: &str) {
    let event_id = format!("{id}-{subject}");
    let message_id = format!("{event_id}.v1");
    let row = OutboxRow { message_id: message_id.clone(), subject: subject.into(), published: true };
    evidence.outboxes.entry(service.into()).or_default().push(row);
    evidence.messages.push(Message {
        stream: stream.into(),
        seq: evidence.messages.len() as u64 + 1,
        subject: subject.into(),
        message_id: Some(message_id),
        event_id: Some(event_id.clone()),
        event_type: event_type.into(),
        order: Some(id.into()),
        at: "1970-01-01T00:00:01.5Z".into(),
        ..Message::default()
    });
    let entry = Entry { event_id: event_id.clone(), event_type: event_type.into(), at: Some(1_500) };
    evidence.timelines.entry(id.into()).or_default().push(entry);
    let (reader, durable) =
        if stream == "ORDERS" { ("payment", "payment-orders") } else { ("order", "order-payments") };
    evidence.inboxes.entry(reader.into()).or_default().push((durable.into(), event_id));
}

/// The findings after spoiling.
fn after(spoil: impl FnOnce(&mut Evidence)) -> Vec<Finding> {
    let mut evidence = sound();
    spoil(&mut evidence);
    all(&evidence)
}

/// Wants exactly this invariant to be violated, in these words, about this order.
fn caught(id: &str, order: Option<&str>, words: &str, spoil: impl FnOnce(&mut Evidence)) {
    let findings = after(spoil);
    let broken: Vec<_> = findings.iter().filter(|f| !f.violations.is_empty()).map(|f| f.id).collect();
    assert!(broken.contains(&id), "{words:?} was not noticed by {id}: {findings:#?}");
    let found = findings.iter().filter(|f| f.id == id).flat_map(|f| &f.violations);
    let told = found.clone().any(|violation| violation.what.contains(words) && violation.order.as_deref() == order);
    assert!(told, "no {words:?} about {order:?} among {:#?}", found.collect::<Vec<_>>());
}

fn order<'a>(evidence: &'a mut Evidence, id: &str) -> &'a mut OrderRow {
    evidence.orders.get_mut(id).unwrap()
}

/// So many mails came in under this Message-ID.
fn mailed(e: &mut Evidence, message_id: String, times: u64) {
    e.mails.insert(message_id, times);
}

fn is_end(message: &Message, id: &str) -> bool {
    message.is_end() && message.order.as_deref() == Some(id)
}

#[test]
fn a_sound_run_has_no_violations_and_every_invariant_looked_at_something() {
    let findings = after(|_| {});
    for finding in &findings {
        assert!(finding.violations.is_empty(), "{finding:#?}");
        assert!(finding.checked > 0, "{finding:#?}");
    }
    assert_eq!(findings.iter().map(|f| f.id).collect::<Vec<_>>(), ["I1", "I2", "I3", "I4", "I5", "I6", "I7"]);
}

#[test]
fn i1_notices_an_order_without_an_end_with_two_ends_with_a_wrong_one_or_lost() {
    let some = Some(CONFIRMED);
    caught("I1", some, "still processing", |e| order(e, CONFIRMED).status = "processing".into());
    caught("I1", some, "not in the order database", |e| drop(e.orders.remove(CONFIRMED)));
    caught("I1", None, "never got an answer", |e| e.wishes[0].accepted.clear());
    caught("I1", some, "2 orders", |e| e.wishes[0].accepted.push("04".into()));
    caught("I1", some, "was refused", |e| e.wishes[0].refused.push("422".into()));
    caught("I1", Some("99"), "nobody was told", |e| drop(e.orders.insert("99".into(), OrderRow::default())));
    caught("I1", some, "the API says", |e| e.listed.get_mut(CONFIRMED).unwrap().status = "cancelled".into());
    let listed = |change: fn(&mut Listed)| move |e: &mut Evidence| change(e.listed.get_mut(CONFIRMED).unwrap());
    caught("I1", some, "says payment authorized", listed(|listed| listed.payment = "authorized".into()));
    caught("I1", some, "stock reserved", listed(|listed| listed.stock = "reserved".into()));
    caught("I1", Some(DECLINED), "stock committed", |e| {
        e.listed.get_mut(DECLINED).unwrap().stock = "committed".into();
    });
    caught("I1", some, "never published", |e| e.messages.retain(|m| !is_end(m, CONFIRMED)));
    caught("I1", some, "different ends", |e| {
        let mut other = e.messages.iter().find(|m| is_end(m, CONFIRMED)).unwrap().clone();
        other.subject = "orders.cancelled".into();
        other.message_id = Some("another".into());
        e.messages.push(other);
    });
    caught("I1", some, "2 times under one message id", |e| {
        let again = e.messages.iter().find(|m| is_end(m, CONFIRMED)).unwrap().clone();
        e.messages.push(again);
    });
    caught("I1", Some(DECLINED), "nothing in its story", |e| e.wishes[1].card_is_bad = false);
    caught("I1", some, "told that it is cancelled", |e| e.wishes[0].cancel = Some(CancelAnswer::Cancelled));
    caught("I1", Some(DECLINED), "told that it is confirmed", |e| e.wishes[1].cancel = Some(CancelAnswer::TooLate));
    caught("I1", Some(DECLINED), "nothing in its story", |e| {
        // The deadline was a minute away.
        order(e, DECLINED).reason = Some("deadline".into());
    });
}

#[test]
fn i1_notices_two_orders_of_one_wish_though_only_one_was_answered() {
    caught("I1", Some(CONFIRMED), "wanted one order and has 2", |e| {
        let twin = order(e, CONFIRMED).clone();
        e.orders.insert("01b".into(), twin);
    });
}

#[test]
fn i2_notices_money_taken_twice_not_at_all_in_part_or_left_on_hold() {
    let some = Some(CONFIRMED);
    caught("I2", some, "charged 2 times", |e| e.charges[0].captures = 2);
    caught("I2", some, "charged 0 times", |e| e.charges.retain(|charge| charge.order.as_deref() != some));
    caught("I2", some, "were kept", |e| e.charges[0].captured = 4_199);
    caught("I2", some, "were kept", |e| e.charges[0].refunded = 4_200);
    caught("I2", some, "2 payments", |e| {
        let twin = Charge { id: "pi_twin".into(), captures: 0, captured: 0, ..e.charges[0].clone() };
        e.charges.push(twin);
    });
    caught("I2", Some(DECLINED), "on hold", |e| e.charges[1].status = "requires_capture".into());
    caught("I2", Some(DECLINED), "was charged 1 times", |e| {
        e.charges[1].captures = 1;
        e.charges[1].captured = 4_200;
    });
    caught("I2", some, "the payment service says", |e| {
        e.payments.insert(CONFIRMED.into(), "authorized".into());
    });
    caught("I2", Some("99"), "belongs to no order", |e| e.charges[2].order = Some("99".into()));
    caught("I2", None, "forgotten", |e| e.forgotten.push("the gateway has forgotten 3 payments".into()));
}

#[test]
fn i3_notices_units_that_vanish_appear_stay_held_or_are_sold_twice() {
    let spoil = |change: fn(&mut Stock)| move |e: &mut Evidence| change(e.stock.get_mut("cup").unwrap());
    caught("I3", None, "came in", spoil(|stock| stock.available -= 1));
    caught("I3", None, "still held", spoil(|stock| (stock.available, stock.reserved) = (11, 1)));
    caught("I3", None, "below zero", spoil(|stock| stock.available = -1));
    caught("I3", None, "confirmed orders took 3, 6", spoil(|stock| (stock.available, stock.committed) = (9, 6)));
    caught("I3", None, "never seen", |e| e.samples.taken = 0);
    caught("I3", None, "not in stock", |e| e.stock.clear());
    caught("I3", None, "adjustments come to 0", |e| e.booked_adjustments.clear());
    caught("I3", None, "seen during the run", |e| e.samples.wrong.push("cup: -1 available".into()));
    caught("I3", Some(CONFIRMED), "reservation is held", |e| {
        drop(e.reservations.insert(CONFIRMED.into(), "held".into()))
    });
    caught("I3", Some(DECLINED), "reservation is committed", |e| {
        e.reservations.insert(DECLINED.into(), "committed".into());
    });
}

#[test]
fn i4_notices_a_confirmation_that_is_missing_or_that_nobody_should_have_got_and_allows_a_repeated_one() {
    let confirmation = |id: &str| format!("{id}.confirmation@millrace.example");
    caught("I4", Some(CONFIRMED), "never sent", |e| e.mails.retain(|id, _| *id != confirmation(CONFIRMED)));
    caught("I4", Some(DECLINED), "nothing explains", |e| mailed(e, confirmation(DECLINED), 1));
    caught("I4", Some(FOREIGN), "no address", |e| mailed(e, confirmation(FOREIGN), 1));
    let repeated = after(|e| mailed(e, confirmation(CONFIRMED), 3));
    assert!(repeated[3].violations.is_empty() && repeated[3].remarks[0].contains("1 of them came more than once"));
}

#[test]
fn i5_notices_a_dead_letter_that_nothing_explains_and_one_that_is_missing() {
    caught("I5", None, "nothing explains the dead letter", |e| {
        e.dead_letters.push(Letter { body: "a good order".into(), ..Letter::default() });
    });
    caught("I5", None, "left 0 dead letters", |e| e.dead_letters.clear());
    caught("I5", None, "not the whole of it", |e| e.dead_letters[0].body = "poison-1".into());
    caught("I5", None, "by whom", |e| e.dead_letters[0].consumer = "payment-orders".into());
    caught("I5", None, "by whom", |e| e.dead_letters[0].reason = "permanent".into());
    caught("I5", None, "left 2 dead letters", |e| e.dead_letters.push(e.dead_letters[0].clone()));
}

#[test]
fn i6_notices_an_event_that_is_missing_on_a_timeline_there_twice_or_made_up() {
    fn timeline(e: &mut Evidence) -> &mut Vec<Entry> {
        e.timelines.get_mut(CONFIRMED).unwrap()
    }
    let some = Some(CONFIRMED);
    caught("I6", some, "on the timeline 0 times", |e| drop(timeline(e).pop()));
    caught("I6", some, "on the timeline 2 times", |e| {
        let again = timeline(e)[0].clone();
        timeline(e).push(again);
    });
    caught("I6", some, "on no stream", |e| {
        timeline(e).push(Entry { event_id: "made up".into(), event_type: "payments.voided".into(), at: None });
    });
    caught("I6", some, "on its stream and", |e| timeline(e)[0].event_type = "orders.confirmed".into());
    caught("I6", some, "happened at", |e| timeline(e)[0].at = Some(1_501));
}

#[test]
fn i7_notices_what_was_not_published_not_committed_not_handled_or_handled_twice() {
    fn outbox(e: &mut Evidence) -> &mut Vec<OutboxRow> {
        e.outboxes.get_mut("order").unwrap()
    }
    fn marks(e: &mut Evidence) -> &mut Vec<(String, String)> {
        e.inboxes.get_mut("payment").unwrap()
    }
    let some = Some(CONFIRMED);
    caught("I7", some, "never confirmed", |e| outbox(e)[0].published = false);
    caught("I7", None, "on no stream", |e| {
        let row = OutboxRow { message_id: "lost".into(), subject: "orders.confirmed".into(), published: true };
        outbox(e).push(row);
    });
    for published in [true, false] {
        caught("I7", None, "is at no broker", |e| {
            e.dead_letters[0].message_id = Some("another".into());
            let subject = "dead_letters.order-foreign.ORDERS-1-2".into();
            outbox(e).push(OutboxRow { message_id: "letter".into(), subject, published });
        });
    }
    caught("I7", some, "in nobody's outbox", |e| drop(outbox(e).remove(0)));
    caught("I7", some, "more than once", |e| e.messages.push(e.messages[0].clone()));
    caught("I7", some, "0 times", |e| drop(marks(e).remove(0)));
    caught("I7", some, "2 times", |e| {
        let again = marks(e)[0].clone();
        marks(e).push(again);
    });
    caught("I7", None, "which is on no stream", |e| marks(e).push(("payment-orders".into(), "made up".into())));
    caught("I7", None, "has 7 messages left", |e| e.consumers[0].open = 7);
}

#[test]
fn an_event_that_became_a_dead_letter_need_not_be_handled() {
    let findings = after(|e| {
        let (stream, seq) = (e.messages[0].stream.clone(), e.messages[0].seq);
        e.inboxes.get_mut("payment").unwrap().remove(0);
        let body = "poison-1".to_owned();
        e.dead_letters = vec![Letter { consumer: "payment-orders".into(), stream, seq, body, ..Letter::default() }];
    });
    assert!(findings[6].violations.is_empty(), "{findings:#?}");
}
