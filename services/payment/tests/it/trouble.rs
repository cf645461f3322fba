//! What becomes of an order's money when the gateway, the network or this service fails.

use contracts::api::{OrderQuery, PaymentStatus, subjects};
use millrace::config::HumanDuration;
use millrace::request_reply::{RequestError, request_json};
use payment::Settings;
use payment::domain::State;
use serde_json::json;

use crate::support::{Backend, PATIENCE, World, cancelled, confirmed, created, on_both_backends, quick};

on_both_backends! {
    an_order_whose_answers_are_lost_is_charged_once,
    a_gateway_that_is_away_costs_no_dead_letters_and_no_orders,
    a_capture_that_fails_for_good_is_shown_to_the_operator,
    a_payment_that_cannot_be_read_holds_up_no_other,
}

async fn an_order_whose_answers_are_lost_is_charged_once(backend: Backend) {
    let world = World::start(backend).await;
    let order = created("pm_answer_lost");
    world.publish(&order).await;
    world.state(order.order_id, State::Authorized).await;
    world.gateway_is(json!({ "mode": "lose_answers", "requests": 2 })).await;
    world.publish(&confirmed(&order)).await;
    world.told(order.order_id, &["payments.authorized", "payments.captured"]).await;
    let intents = world.intents(order.order_id).await;
    assert_eq!(intents.len(), 1);
    assert_eq!((intents[0].captures, intents[0].captured), (1, 4_998));
    assert_eq!(world.dead_letters().await, 0);
}

async fn a_gateway_that_is_away_costs_no_dead_letters_and_no_orders(backend: Backend) {
    let world = World::start(backend).await;
    world.gateway_is(json!({ "mode": "down" })).await;
    let orders: Vec<_> = (0..12).map(|_| created("pm_card_visa")).collect();
    for order in &orders {
        world.publish(order).await;
    }
    let query = OrderQuery { order_id: orders[0].order_id };
    let ask =
        async || request_json::<_, PaymentStatus>(&world.connection, subjects::PAYMENT_PROCESS, &query, PATIENCE).await;
    testkit::eventually(
        PATIENCE,
        async || matches!(ask().await, Err(RequestError::Service { error, .. }) if error.code == 503),
        "the breaker to open, so that requests fail fast",
    )
    .await;
    // One is cancelled meanwhile; whether it is on hold nobody can know yet.
    world.publish(&cancelled(&orders[1])).await;
    world.gateway_is(json!({ "mode": "ok" })).await;
    for (at, order) in orders.iter().enumerate() {
        world.state(order.order_id, if at == 1 { State::Voided } else { State::Authorized }).await;
    }
    world.all_acknowledged().await;
    assert_eq!(world.dead_letters().await, 0);
    let ledger = world.ledger().await;
    assert_eq!(ledger.intents.len(), 12);
    assert!(ledger.intents.iter().all(|intent| intent.captures == 0));
}

async fn a_capture_that_fails_for_good_is_shown_to_the_operator(backend: Backend) {
    let world = World::start(backend).await;
    let order = created("pm_capture_fails");
    world.publish(&order).await;
    world.publish(&confirmed(&order)).await;
    let row = world.state(order.order_id, State::CaptureFailed).await;
    assert!(row.payment.refusal.is_some());
    world.told(order.order_id, &["payments.authorized", "payments.failed"]).await;
    let shown = world.reads.needing_operator(10).await.unwrap();
    assert_eq!(shown.iter().map(|row| row.payment.order_id).collect::<Vec<_>>(), [order.order_id]);
    assert_eq!(world.dead_letters().await, 0);
}

async fn a_payment_that_cannot_be_read_holds_up_no_other(backend: Backend) {
    let world = World::start(backend).await;
    world.gateway_is(json!({ "mode": "down" })).await;
    let (damaged, fine) = (created("pm_card_visa"), created("pm_card_visa"));
    for order in [&damaged, &fine] {
        world.publish(order).await;
        world.state(order.order_id, State::Authorizing).await;
    }
    world.all_acknowledged().await;
    let sql = format!("update payments set state = 'nonsense', due_at = 1 where order_id = '{}'", damaged.order_id);
    world.execute(&sql).await;
    world.gateway_is(json!({ "mode": "ok" })).await;
    world.state(fine.order_id, State::Authorized).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_nobody_answers_for_is_retried_without_holding_up_others() {
    let world = World::start(Backend::Sqlite).await;
    let (stuck, fine) = (created("pm_unreachable"), created("pm_card_visa"));
    world.publish(&stuck).await;
    world.publish(&fine).await;
    world.state(fine.order_id, State::Authorized).await;
    let retried = async || world.reads.get(stuck.order_id).await.unwrap().is_some_and(|row| row.attempts >= 2);
    testkit::eventually(PATIENCE, retried, "a second attempt").await;
    world.all_acknowledged().await;
    assert_eq!(world.dead_letters().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_nobody_answers_for_ends_with_an_operator_before_its_key_expires() {
    let settings = Settings { authorize_within: HumanDuration::from_millis(300), ..quick() };
    let world = World::start_with(Backend::Sqlite, settings).await;
    let order = created("pm_unreachable");
    world.publish(&order).await;
    world.state(order.order_id, State::AuthorizeUnknown).await;
    world.told(order.order_id, &["payments.failed"]).await;
    assert_eq!(world.reads.needing_operator(10).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_older_than_the_gateways_memory_is_not_paid_by_a_database_that_never_heard_of_it() {
    let settings = Settings { authorize_within: HumanDuration::from_millis(300), ..quick() };
    let mut world = World::start_with(Backend::Sqlite, settings).await;
    world.stop().await;
    let order = created("pm_card_visa");
    world.publish(&order).await;
    // So old that the gateway may have forgotten what it did under the order's key.
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    world.resume().await;
    world.state(order.order_id, State::AuthorizeUnknown).await;
    world.publish(&confirmed(&order)).await;
    world.all_acknowledged().await;
    assert_eq!(world.intents(order.order_id).await.len(), 0);
    assert_eq!(world.reads.needing_operator(10).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_due_when_the_service_stopped_is_seen_to_when_it_is_back() {
    let mut world = World::start(Backend::Sqlite).await;
    let order = created("pm_card_visa");
    world.publish(&order).await;
    world.state(order.order_id, State::Authorized).await;
    world.gateway_is(json!({ "mode": "errors", "status": 500 })).await;
    world.publish(&confirmed(&order)).await;
    let recorded = async || world.reads.get(order.order_id).await.unwrap().is_some_and(|row| row.payment.confirmed);
    testkit::eventually(PATIENCE, recorded, "the confirmation on record").await;
    world.all_acknowledged().await;
    world.stop().await;
    world.gateway_is(json!({ "mode": "ok" })).await;
    world.resume().await;
    world.told(order.order_id, &["payments.authorized", "payments.captured"]).await;
    assert_eq!(world.intents(order.order_id).await[0].captures, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_cancelled_after_a_crash_in_its_authorization_keeps_no_hold() {
    let settings = Settings { grace: HumanDuration::from_secs(4), ..quick() };
    let mut world = World::start_with(Backend::Sqlite, settings).await;
    let order = created("pm_slow");
    world.publish(&order).await;
    world.state(order.order_id, State::Authorizing).await;
    // The gateway is at it, and nobody will ever get this answer.
    world.crash().await;
    world.publish(&cancelled(&order)).await;
    world.resume().await;
    world.told(order.order_id, &["payments.authorized", "payments.voided"]).await;
    let intents = world.intents(order.order_id).await;
    assert_eq!(intents.len(), 1);
    assert_eq!(json!(intents[0].status), "canceled");
}
