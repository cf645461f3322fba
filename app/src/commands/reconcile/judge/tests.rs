//! Orders that are well, then each of them spoilt in one way.

use super::*;
use crate::commands::reconcile::facts::{
    Amount, Delivery, Event, Handled, Handling, Intent, Notices, Order, OutboxRow, Payment, Reservation,
};

const NOW: i64 = 1_000_000;
const THEN: i64 = 10_000;

const MOMENT: Moment = Moment { settled_before: NOW, overdue_before: NOW, keys_known_since: 0 };

fn eur(minor: i64) -> Amount {
    Amount { minor, currency: "EUR".into() }
}

fn event(seq: u64, subject: &str) -> Event {
    let service = subject.split('.').next().unwrap();
    let durables: &[(&str, &'static str)] = match service {
        "orders" => {
            &[("payment-orders", "payment"), ("inventory-orders", "inventory"), ("notification-orders", "notification")]
        }
        "payments" => &[("order-payments", "order")],
        _ => &[("order-inventory", "order")],
    };
    let handled = |(durable, service): &(&str, &'static str)| Handling {
        durable: (*durable).to_owned(),
        service,
        state: Handled::Yes,
    };
    Event {
        stream: service.to_uppercase(),
        seq,
        subject: subject.to_owned(),
        event_id: format!("e-{seq}"),
        stored_at: THEN,
        handling: durables.iter().map(handled).collect(),
    }
}

/// An order that ended well, with everything that follows.
fn ended(end: &str) -> Facts {
    let confirmed = end == "confirmed";
    let delivery = |notice: &str| Delivery {
        notice: notice.into(),
        channel: "email".into(),
        status: "sent".into(),
        next_attempt_at: THEN,
    };
    let events = vec![
        event(1, "orders.created.v2"),
        event(2, "payments.authorized"),
        event(3, "inventory.reserved"),
        event(4, &format!("orders.{end}")),
        event(5, if confirmed { "payments.captured" } else { "payments.voided" }),
        event(6, if confirmed { "inventory.committed" } else { "inventory.released" }),
    ];
    Facts {
        order_id: "o-1".into(),
        order: Some(Order {
            status: end.to_owned(),
            total: eur(1_999),
            email: true,
            phone: false,
            accepted_at: THEN,
            deadline_at: THEN,
            ended_at: Some(THEN),
        }),
        timeline: events.iter().map(|event| event.event_id.clone()).collect(),
        payment: Some(Payment {
            state: if confirmed { "captured" } else { "voided" }.into(),
            cancelled: !confirmed,
            amount: Some(eur(1_999)),
            payment_id: Some("pi_1".into()),
            due_at: None,
            updated_at: THEN,
            problem: None,
        }),
        reservation: Some(Reservation {
            status: if confirmed { "committed" } else { "released" }.into(),
            changed_at: THEN,
        }),
        notices: Some(Notices {
            deliveries: vec![
                delivery("acknowledgement"),
                delivery(if confirmed { "confirmation" } else { "cancellation" }),
            ],
        }),
        gateway: Some(vec![Intent {
            id: "pi_1".into(),
            status: if confirmed { "succeeded" } else { "canceled" }.into(),
            amount: eur(1_999),
            captured: if confirmed { 1_999 } else { 0 },
            refunded: 0,
            created_at: THEN,
        }]),
        outbox: events
            .iter()
            .map(|event| OutboxRow {
                service: "order",
                id: event.seq as i64,
                subject: event.subject.clone(),
                created_at: THEN,
                place: Some((event.stream.clone(), event.seq)),
                on_stream: true,
            })
            .collect(),
        events,
    }
}

fn found(facts: &Facts) -> Vec<Disagreement> {
    match judge(facts, MOMENT) {
        Judgement::Settled(found) => found,
        Judgement::UnderWay => panic!("it is under way"),
    }
}

/// What is found after an order was spoilt, with whether it can be fixed.
fn spoilt(end: &str, spoil: impl FnOnce(&mut Facts)) -> Vec<(Kind, bool)> {
    let mut facts = ended(end);
    spoil(&mut facts);
    let found = found(&facts);
    for one in &found {
        assert!(!one.remedy.is_empty() && !one.says.is_empty(), "{one:?}");
    }
    found.iter().map(|one| (one.kind, !one.fixes.is_empty())).collect()
}

fn hold(id: &str) -> Intent {
    let status = "requires_capture".into();
    Intent { id: id.into(), status, amount: eur(1_999), captured: 0, refunded: 0, created_at: THEN }
}

#[test]
fn orders_that_are_well_have_nothing_to_complain_about() {
    for end in ["confirmed", "cancelled"] {
        assert_eq!(found(&ended(end)), [], "{end}");
    }
    let mut without_gateway = ended("confirmed");
    without_gateway.gateway = None;
    assert_eq!(found(&without_gateway), []);
}

#[test]
fn an_order_to_which_something_just_happened_is_not_judged() {
    let mut facts = ended("confirmed");
    facts.payment.as_mut().unwrap().state = "authorized".into();
    facts.events[3].stored_at = NOW + 1;
    assert_eq!(judge(&facts, MOMENT), Judgement::UnderWay);
}

#[test]
fn each_disagreement_is_found_by_its_name_and_only_safe_ones_are_fixed() {
    use Kind::*;
    fn payment(facts: &mut Facts) -> &mut Payment {
        facts.payment.as_mut().unwrap()
    }
    fn intents(facts: &mut Facts) -> &mut Vec<Intent> {
        facts.gateway.as_mut().unwrap()
    }
    fn never(facts: &mut Facts, event: usize, service: &str) {
        let event = &mut facts.events[event];
        event.handling.iter_mut().find(|one| one.service == service).unwrap().state = Handled::Never;
    }
    /// What happened, to an order that ended how, and what is found of it: the kind, and whether it can be fixed.
    type Case = (&'static str, &'static str, fn(&mut Facts), &'static [(Kind, bool)]);
    let cases: &[Case] = &[
        ("an order lost", "confirmed", |f| f.order = None, &[(OrderUnknown, false)]),
        (
            "a deadline passed",
            "confirmed",
            |f| {
                let order = f.order.as_mut().unwrap();
                (order.status, order.ended_at) = ("processing".into(), None);
            },
            &[(OrderOverdue, false)],
        ),
        ("an event passed over", "confirmed", |f| never(f, 3, "payment"), &[(EventNotHandled, true)]),
        (
            "a reservation that was never told",
            "confirmed",
            |f| {
                never(f, 3, "inventory");
                f.reservation.as_mut().unwrap().status = "held".into();
            },
            &[(EventNotHandled, true), (StockNotCommitted, true)],
        ),
        (
            "an event that waits",
            "confirmed",
            |f| (f.outbox[0].place, f.outbox[0].on_stream) = (None, false),
            &[(EventNotPublished, false)],
        ),
        ("an event forgotten", "confirmed", |f| f.outbox[0].on_stream = false, &[(EventLost, true)]),
        (
            "a dead letter",
            "confirmed",
            |f| f.events[3].handling[0].state = Handled::DeadLetter(7),
            &[(DeadLetterWaits, false)],
        ),
        ("a dead letter given up", "confirmed", |f| f.events[3].handling[0].state = Handled::GivenUp, &[]),
        ("an event not handled yet", "confirmed", |f| f.events[3].handling[0].state = Handled::NotYet, &[]),
        ("an entry removed", "confirmed", |f| assert!(f.timeline.remove("e-5")), &[(TimelineGap, false)]),
        (
            "an entry that never came",
            "confirmed",
            |f| {
                f.timeline.remove("e-5");
                never(f, 4, "order");
            },
            &[(EventNotHandled, true), (TimelineGap, true)],
        ),
        (
            "an entry on its way",
            "confirmed",
            |f| {
                f.timeline.remove("e-5");
                f.events[4].handling[0].state = Handled::NotYet;
            },
            &[],
        ),
        ("a payment lost", "confirmed", |f| f.payment = None, &[(PaymentMissing, false), (ChargeUnrecorded, false)]),
        (
            "never captured",
            "confirmed",
            |f| {
                payment(f).state = "authorized".into();
                *intents(f) = vec![hold("pi_1")];
            },
            &[(NotCaptured, false)],
        ),
        (
            "never told to capture",
            "confirmed",
            |f| {
                payment(f).state = "authorized".into();
                *intents(f) = vec![hold("pi_1")];
                never(f, 3, "payment");
            },
            &[(EventNotHandled, true), (NotCaptured, true)],
        ),
        (
            "money held for nothing",
            "cancelled",
            |f| {
                payment(f).state = "authorized".into();
                *intents(f) = vec![hold("pi_1")];
            },
            &[(MoneyKept, false)],
        ),
        (
            "a capture refused",
            "confirmed",
            |f| {
                payment(f).state = "capture_failed".into();
                *intents(f) = vec![hold("pi_1")];
            },
            &[(PaymentNeedsOperator, false)],
        ),
        ("a step that nobody takes", "confirmed", |f| payment(f).due_at = Some(THEN), &[(PaymentStepOverdue, false)]),
        ("a step that is due soon", "cancelled", |f| payment(f).due_at = Some(NOW + 1), &[]),
        (
            "another amount",
            "confirmed",
            |f| payment(f).amount = Some(eur(1_998)),
            &[(AmountsDiffer, false), (AmountsDiffer, false)],
        ),
        ("another amount that was released", "cancelled", |f| intents(f)[0].amount = eur(5), &[]),
        ("a charge that is none", "confirmed", |f| *intents(f) = vec![hold("pi_1")], &[(GatewayDisagrees, false)]),
        ("refunded by hand", "confirmed", |f| intents(f)[0].refunded = 1_999, &[(GatewayDisagrees, false)]),
        ("forgotten by the gateway", "confirmed", |f| intents(f).clear(), &[(GatewayDisagrees, false)]),
        ("a second hold", "confirmed", |f| intents(f).push(hold("pi_2")), &[(HoldUnrecorded, false)]),
        (
            "a hold of a declined order",
            "cancelled",
            |f| {
                (payment(f).state, payment(f).payment_id) = ("declined".into(), None);
                *intents(f) = vec![hold("pi_2")];
            },
            &[(HoldUnrecorded, true)],
        ),
        (
            "a second charge",
            "confirmed",
            |f| {
                let second = Intent { id: "pi_2".into(), ..intents(f)[0].clone() };
                intents(f).push(second);
            },
            &[(ChargeUnrecorded, false), (ChargedTwice, false)],
        ),
        ("a reservation lost", "confirmed", |f| f.reservation = None, &[(ReservationMissing, false)]),
        (
            "units held for nothing",
            "cancelled",
            |f| f.reservation.as_mut().unwrap().status = "held".into(),
            &[(StockStillHeld, false)],
        ),
        (
            "a customer who was not told",
            "confirmed",
            |f| drop(f.notices.as_mut().unwrap().deliveries.pop()),
            &[(NoticeNotSent, false)],
        ),
        (
            "a mail that nobody sends",
            "confirmed",
            |f| f.notices.as_mut().unwrap().deliveries[1].status = "due".into(),
            &[(NoticeNotSent, false)],
        ),
        (
            "a mail that was given up",
            "confirmed",
            |f| f.notices.as_mut().unwrap().deliveries[1].status = "failed".into(),
            &[],
        ),
    ];
    for (story, end, spoil, expected) in cases {
        assert_eq!(spoilt(end, spoil), *expected, "{story}");
    }
}

/// Told of the order again, payment would find the key forgotten and hold the money a second time.
#[test]
fn an_order_whose_payment_key_may_be_forgotten_is_not_told_to_payment_again() {
    let mut facts = ended("confirmed");
    facts.payment = None;
    for event in &mut facts.events {
        event.handling.iter_mut().filter(|one| one.service == "payment").for_each(|one| one.state = Handled::Never);
    }
    let fixes = |facts: &Facts, moment| match judge(facts, moment) {
        Judgement::Settled(found) => {
            assert!(found.iter().any(|one| one.kind == Kind::PaymentMissing), "{found:?}");
            found.into_iter().flat_map(|one| one.fixes).collect::<Vec<_>>()
        }
        Judgement::UnderWay => panic!("it is under way"),
    };
    assert_eq!(fixes(&facts, Moment { keys_known_since: THEN + 1, ..MOMENT }), []);
    assert!(!fixes(&facts, MOMENT).is_empty());
    // What was asked for once is not asked for again.
    facts.payment = Some(Payment { state: "authorized".into(), ..ended("confirmed").payment.unwrap() });
    let found = spoilt("confirmed", |spoilt| *spoilt = facts.clone());
    assert!(found.iter().all(|(kind, fixable)| *kind != Kind::NotCaptured || *fixable), "{found:?}");
}

#[test]
fn a_hold_of_an_order_nobody_knows_may_be_somebody_elses() {
    let facts = Facts { order_id: "o-9".into(), gateway: Some(vec![hold("pi_9")]), ..Facts::default() };
    let found = found(&facts);
    assert_eq!((found.len(), found[0].kind, &found[0].fixes), (1, Kind::HoldUnrecorded, &vec![]));
    assert!(found[0].remedy.contains("millrace payments release o-9 pi_9"), "{}", found[0].remedy);
}

#[test]
fn kinds_have_the_names_that_scripts_go_by() {
    assert_eq!(Kind::EventNotHandled.as_str(), "event_not_handled");
    assert_eq!(Kind::HoldUnrecorded.as_str(), "hold_unrecorded");
}
