//! What becomes of an order's money when everything works, and when the customer or the bank says no.

use contracts::api::{OrderQuery, PaymentStatus, subjects};
use contracts::orders::OrderCreated;
use millrace::request_reply::{RequestError, request_json};
use payment::domain::State;
use serde_json::json;

use crate::support::{Backend, PATIENCE, World, cancelled, confirmed, created, on_both_backends};

on_both_backends! {
    a_confirmed_order_is_authorized_then_captured_once,
    a_cancelled_order_is_given_its_hold_back,
    an_order_cancelled_before_it_was_created_is_never_authorized,
    a_confirmation_before_the_order_is_remembered,
    a_declined_card_is_told,
}

async fn a_confirmed_order_is_authorized_then_captured_once(backend: Backend) {
    let mut world = World::start(backend).await;
    let order = created("pm_card_visa");
    let event_id = world.publish(&order).await;
    world.state(order.order_id, State::Authorized).await;
    let confirmed = confirmed(&order);
    let confirmed_id = world.publish(&confirmed).await;
    let row = world.state(order.order_id, State::Captured).await;
    assert_eq!((row.due_at, row.attempts), (None, 0));
    // Again, from a broker that forgot it has delivered them.
    world.publish_as(&event_id, &order).await;
    world.publish_as(&confirmed_id, &confirmed).await;
    world.publish(&confirmed).await;
    world.all_acknowledged().await;
    world.told(order.order_id, &["payments.authorized", "payments.captured"]).await;
    let intents = world.intents(order.order_id).await;
    assert_eq!(intents.len(), 1);
    assert_eq!((intents[0].captures, intents[0].captured, intents[0].refunded), (1, 4_998, 0));
    assert_eq!(world.ledger().await.requests.len(), 2, "the gateway was asked more than needed");
    assert_eq!(world.dead_letters().await, 0);
    world.stop().await;
}

async fn a_cancelled_order_is_given_its_hold_back(backend: Backend) {
    let world = World::start(backend).await;
    let order = created("pm_card_visa");
    world.publish(&order).await;
    world.state(order.order_id, State::Authorized).await;
    world.publish(&cancelled(&order)).await;
    world.told(order.order_id, &["payments.authorized", "payments.voided"]).await;
    let intents = world.intents(order.order_id).await;
    assert_eq!(json!(intents[0].status), "canceled");
    assert_eq!(intents[0].captures, 0);
}

async fn an_order_cancelled_before_it_was_created_is_never_authorized(backend: Backend) {
    let world = World::start(backend).await;
    let order = created("pm_card_visa");
    world.publish(&cancelled(&order)).await;
    world.state(order.order_id, State::Cancelled).await;
    world.publish(&order).await;
    world.all_acknowledged().await;
    let row = world.state(order.order_id, State::Cancelled).await;
    assert!(row.payment.charge.is_some(), "the order was not recorded");
    assert!(world.ledger().await.requests.is_empty());
    world.told(order.order_id, &[]).await;
}

async fn a_confirmation_before_the_order_is_remembered(backend: Backend) {
    let world = World::start(backend).await;
    let order = created("pm_card_visa");
    world.publish(&confirmed(&order)).await;
    world.state(order.order_id, State::Expected).await;
    world.publish(&order).await;
    world.told(order.order_id, &["payments.authorized", "payments.captured"]).await;
}

async fn a_declined_card_is_told(backend: Backend) {
    let world = World::start(backend).await;
    let order = created("pm_card_chargeDeclinedInsufficientFunds");
    world.publish(&order).await;
    let row = world.state(order.order_id, State::Declined).await;
    assert_eq!(row.payment.refusal.unwrap().code, "insufficient_funds");
    world.told(order.order_id, &["payments.declined"]).await;
    // A payment method nobody has heard of is the order's problem, not the gateway's.
    let order = created("pm_nobody_has_heard_of");
    world.publish(&order).await;
    world.told(order.order_id, &["payments.declined"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_without_payment_method_is_paid_by_the_default() {
    let world = World::start(Backend::Sqlite).await;
    let order = OrderCreated { payment_method: None, ..created("") };
    world.publish(&order).await;
    world.state(order.order_id, State::Authorized).await;
    assert_eq!(world.intents(order.order_id).await[0].payment_method, "pm_card_visa");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_says_where_a_payment_stands() {
    let world = World::start(Backend::Sqlite).await;
    let ask = async |order_id| {
        request_json::<_, PaymentStatus>(
            &world.connection,
            subjects::PAYMENT_PROCESS,
            &OrderQuery { order_id },
            PATIENCE,
        )
        .await
    };
    let order = created("pm_card_visa");
    testkit::eventually(
        PATIENCE,
        async || matches!(ask(order.order_id).await, Err(RequestError::Service { error, .. }) if error.code == 404),
        "an answer about an order nobody knows",
    )
    .await;
    world.publish(&order).await;
    world.state(order.order_id, State::Authorized).await;
    let status = ask(order.order_id).await.unwrap();
    assert_eq!((status.status.as_str(), status.amount), ("authorized", Some(order.total)));
    assert!(status.payment_id.is_some());
}
