//! Every order of events, every crash: the services' own decisions, explored exhaustively.
//!
//! The decisions are the functions that run in production (`services/*/src/domain`). Around them is a small model of
//! what they live in: databases with inbox and outbox, streams that deliver late, in any order and repeatedly, and a
//! gateway that may refuse, fall silent, or do what nobody hears of. See `scenario.rs` for what bounds the exploration and
//! `promises.rs` for what is asked of every state. Notifications move neither money nor goods and are left out. With
//! `-- --nocapture` the shortest way to each broken promise is shown, for each safety that is switched off.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a model that cannot be built must fail its test")]
#![expect(clippy::print_stdout, reason = "the way to a broken promise is for whoever runs a test to read")]

mod explorer;
mod gateway;
mod intern;
mod kinds;
mod moves;
mod promises;
mod scenario;
mod services;
mod world;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::Instant;

use contracts::payments::Step;

use crate::explorer::{Explored, explore};
use crate::scenario::{ONE_ORDER, ONE_ORDER_IN_OUTBOXES, Safeties, Scenario, TWO_ORDERS};
use crate::world::World;

/// Somewhat more than the largest scenario needs.
const MOST_STATES: usize = 3_000_000;

/// Explores all of a scenario and finds every promise kept.
fn holds(name: &str, scenario: Scenario) -> World {
    let (began, mut world) = (Instant::now(), World::new(scenario));
    let Explored { states, steps, at_rest, depth } =
        explore(&mut world, MOST_STATES).unwrap_or_else(|violation| panic!("{name}: {violation}"));
    let seconds = began.elapsed().as_secs_f32();
    let line = format!(
        "{name}: {states} states, {steps} steps, {at_rest} at rest, the farthest {depth} steps away, {seconds:.1} s\n"
    );
    // Past the capture of the test runner: how much was looked at is worth seeing every time.
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    world
}

/// Finds the promise broken that a safety is there for, and shows the shortest way to it.
fn breaks(promise: &str, scenario: Scenario) {
    let violation = explore(&mut World::new(scenario), MOST_STATES).expect_err("without this safety nothing broke");
    println!("{violation}");
    assert!(violation.promise.contains(promise), "another promise broke first: {violation}");
    assert!(!violation.trace.is_empty());
}

#[test]
fn an_order_keeps_every_promise_whatever_the_gateway_does() {
    let world = holds("one order", ONE_ORDER);
    let met = payments_met(&world);
    for state in ["authorize_unknown", "cancelled", "captured", "capture_failed", "declined", "void_failed", "voided"] {
        assert!(
            met.contains(state),
            "no run leads to a payment that is {state}, so nothing is shown about it: {met:?}"
        );
    }
}

#[test]
fn an_order_keeps_every_promise_whatever_happens_to_its_events() {
    holds("one order, outboxes and a forgetful broker", ONE_ORDER_IN_OUTBOXES);
}

#[test]
fn an_order_that_is_short_of_one_product_keeps_every_promise() {
    let world = holds("one order, one product missing", Scenario { shelf: [1, 0], ..ONE_ORDER });
    let met = payments_met(&world);
    assert!(!met.contains("captured"), "an order that cannot be fulfilled was charged: {met:?}");
}

#[test]
fn two_orders_that_want_the_last_unit_keep_every_promise() {
    holds("two orders, one unit short", TWO_ORDERS);
}

#[test]
#[ignore = "takes a minute or two; nothing has been found here that the others do not find"]
fn larger_scenarios_keep_every_promise_too() {
    holds("one order, three calls", Scenario { calls: 3, ..ONE_ORDER });
    holds("one order, outboxes, two calls", Scenario { calls: 2, ..ONE_ORDER_IN_OUTBOXES });
    let refusals = &[Step::Authorize, Step::Capture, Step::Void];
    holds("two orders, captures and voids may fail", Scenario { refusals, ..TWO_ORDERS });
}

fn payments_met(world: &World) -> BTreeSet<&'static str> {
    world.services.payments.all().iter().flatten().map(|payment| payment.state.as_str()).collect()
}

// One safety off at a time: what each is there for, and proof that a broken promise is found.

#[test]
fn without_the_inbox_an_event_takes_effect_twice() {
    breaks("takes effect once", Scenario { safeties: Safeties { inbox: false, ..Safeties::ALL }, ..ONE_ORDER });
}

/// The inbox is not the last line: decisions are idempotent by themselves. Money and goods do not depend on it.
#[test]
fn without_the_inbox_the_domains_alone_keep_money_and_goods_right() {
    let safeties = Safeties { inbox: false, watch_inbox: false, ..Safeties::ALL };
    holds("one order, no inbox", Scenario { safeties, ..ONE_ORDER });
}

#[test]
fn without_the_outbox_a_crash_leaves_goods_reserved_for_nobody() {
    let safeties = Safeties { outbox: false, ..Safeties::ALL };
    let quiet = Scenario { gives_up: false, refusals: &[], deadline_comes: true, ..ONE_ORDER_IN_OUTBOXES };
    breaks("nothing stays reserved", Scenario { safeties, ..quiet });
}

#[test]
fn without_a_tombstone_in_payment_money_stays_on_hold() {
    let safeties = Safeties { payment_tombstone: false, ..Safeties::ALL };
    breaks("no money stays on hold", Scenario { gives_up: false, refusals: &[], safeties, ..ONE_ORDER });
}

#[test]
fn without_a_tombstone_in_inventory_goods_stay_reserved() {
    let safeties = Safeties { inventory_tombstone: false, ..Safeties::ALL };
    breaks("nothing stays reserved", Scenario { gives_up: false, refusals: &[], safeties, ..ONE_ORDER });
}

#[test]
fn with_a_new_idempotency_key_per_attempt_money_is_put_on_hold_twice() {
    let safeties = Safeties { idempotency_key: false, ..Safeties::ALL };
    breaks("a card is put on hold once", Scenario { safeties, ..ONE_ORDER });
}

#[test]
fn with_an_acknowledgement_before_the_commit_a_crash_leaves_goods_reserved_for_nobody() {
    let safeties = Safeties { commit_before_ack: false, ..Safeties::ALL };
    breaks("nothing stays reserved", Scenario { deadline_comes: true, safeties, ..ONE_ORDER });
}

#[test]
fn an_authorization_ahead_of_the_record_is_forgotten_in_a_crash() {
    let safeties = Safeties { record_before_authorize: false, ..Safeties::ALL };
    breaks("the gateway is not asked", Scenario { safeties, ..ONE_ORDER });
}
