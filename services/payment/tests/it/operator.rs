//! What an operator can do about a payment that does not go on by itself.

use contracts::OrderId;
use contracts::api::{OrderQuery, PaymentQuery, PaymentRecord, PaymentRecords, PaymentRelease, PaymentSettlement};
use contracts::api::{Settled, subjects};
use millrace::config::HumanDuration;
use millrace::request_reply::{RequestError, request_json};
use payment::Settings;
use payment::domain::State;
use serde::Serialize;
use serde_json::json;

use crate::support::{Backend, PATIENCE, World, cancelled, confirmed, created, on_both_backends, quick};

on_both_backends! {
    a_refused_capture_is_asked_for_anew_and_charged_once,
    a_hold_on_no_record_is_released_when_its_order_is_off,
}

type Answer = Result<PaymentRecord, RequestError>;

impl World {
    async fn ask(&self, subject: &str, question: &impl Serialize) -> Answer {
        request_json(&self.connection, subject, question, PATIENCE).await
    }

    async fn retry(&self, order_id: OrderId) -> Answer {
        self.ask(subjects::PAYMENT_RETRY, &OrderQuery { order_id }).await
    }

    async fn settle(&self, order_id: OrderId, settled: Settled) -> Answer {
        self.ask(subjects::PAYMENT_SETTLE, &PaymentSettlement { order_id, settled }).await
    }

    async fn release(&self, order_id: OrderId, payment_id: &str, order_is_unknown: bool) -> Answer {
        let payment_id = payment_id.to_owned();
        self.ask(subjects::PAYMENT_RELEASE, &PaymentRelease { order_id, payment_id, order_is_unknown }).await
    }
}

/// The code of a refusal.
fn code(answer: Answer) -> u16 {
    match answer {
        Err(RequestError::Service { error, .. }) => error.code,
        other => panic!("{other:?}"),
    }
}

async fn a_refused_capture_is_asked_for_anew_and_charged_once(backend: Backend) {
    let world = World::start(backend).await;
    let order = created("pm_card_visa");
    world.publish(&order).await;
    world.state(order.order_id, State::Authorized).await;
    assert_eq!(code(world.retry(order.order_id).await), 409, "nothing has failed yet");
    world.gateway_is(json!({ "mode": "errors", "status": 402 })).await;
    world.publish(&confirmed(&order)).await;
    world.state(order.order_id, State::CaptureFailed).await;
    let query = PaymentQuery { needs_operator: true, ..PaymentQuery::default() };
    let listed: PaymentRecords =
        request_json(&world.connection, subjects::PAYMENT_LIST, &query, PATIENCE).await.unwrap();
    assert_eq!(listed.payments.len(), 1);
    assert!(listed.payments[0].needs_operator && listed.payments[0].problem.is_some(), "{listed:?}");

    let again = world.retry(order.order_id).await.unwrap();
    assert_eq!((again.state.as_str(), again.attempts), ("capture_failed", 1), "refused once more");
    world.gateway_is(json!({ "mode": "down", "requests": 1 })).await;
    assert_eq!(code(world.retry(order.order_id).await), 503, "no answer is no refusal");
    assert_eq!(world.retry(order.order_id).await.unwrap().state, "captured");
    world.told(order.order_id, &["payments.authorized", "payments.failed", "payments.captured"]).await;
    let intents = world.intents(order.order_id).await;
    assert_eq!((intents.len(), intents[0].captures, intents[0].captured), (1, 1, 4_998));
    assert_eq!(code(world.retry(order.order_id).await), 409);
    assert_eq!(code(world.retry(OrderId::generate()).await), 404);
}

/// A gateway repeats a refusal for as long as it remembers its idempotency key.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_a_new_question_and_not_the_old_answer_again() {
    let world = World::start(Backend::Sqlite).await;
    let order = created("pm_capture_fails");
    world.publish(&order).await;
    world.publish(&confirmed(&order)).await;
    world.state(order.order_id, State::CaptureFailed).await;
    for attempts in 1..=2 {
        assert_eq!(world.retry(order.order_id).await.unwrap().attempts, attempts);
    }
    let ledger = world.ledger().await;
    let captures: Vec<_> = ledger.requests.iter().filter(|request| request.path.ends_with("/capture")).collect();
    assert_eq!(captures.len(), 3, "{captures:?}");
    assert!(captures.iter().all(|request| !request.replayed), "{captures:?}");
    world.told(order.order_id, &["payments.authorized", "payments.failed"]).await;

    assert_eq!(code(world.settle(order.order_id, Settled::Refunded).await), 409);
    assert_eq!(world.settle(order.order_id, Settled::Captured).await.unwrap().state, "captured");
    world.told(order.order_id, &["payments.authorized", "payments.failed", "payments.captured"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_of_unknown_fate_is_looked_for_and_never_made_twice() {
    let settings = Settings { authorize_within: HumanDuration::from_millis(300), ..quick() };
    let world = World::start_with(Backend::Sqlite, settings).await;
    world.gateway_is(json!({ "mode": "lose_answers" })).await;
    let (held, never) = (created("pm_card_visa"), created("pm_unreachable"));
    world.publish(&held).await;
    world.publish(&never).await;
    for order in [&held, &never] {
        world.state(order.order_id, State::AuthorizeUnknown).await;
        world.publish(&cancelled(order)).await;
    }
    world.all_acknowledged().await;
    world.gateway_is(json!({ "mode": "ok" })).await;
    let retried = async |order_id| world.retry(order_id).await.map(|record| record.state);
    // Fails fast for as long as the breaker is open.
    let voided = async || retried(held.order_id).await.is_ok_and(|state| state == "voided");
    testkit::eventually(PATIENCE, voided, "the hold to be found and released").await;
    assert_eq!(retried(never.order_id).await.unwrap(), "declined");
    let intents = world.intents(held.order_id).await;
    assert_eq!((intents.len(), json!(intents[0].status)), (1, json!("canceled")));
    assert!(world.intents(never.order_id).await.is_empty());
    world.told(held.order_id, &["payments.failed", "payments.authorized", "payments.voided"]).await;
}

async fn a_hold_on_no_record_is_released_when_its_order_is_off(backend: Backend) {
    let world = World::start(backend).await;
    // Nobody knows the order.
    let nobodys = OrderId::generate();
    let hold = world.hold(nobodys).await;
    assert_eq!(code(world.release(nobodys, &hold, false).await), 404);
    assert_eq!(world.release(nobodys, &hold, true).await.unwrap().state, "voided");
    assert_eq!(json!(world.intents(nobodys).await[0].status), "canceled");
    assert_eq!(code(world.release(nobodys, &hold, true).await), 409, "it holds nothing any more");

    // A card that was declined, and a hold all the same.
    let order = created("pm_card_chargeDeclined");
    world.publish(&order).await;
    world.state(order.order_id, State::Declined).await;
    let hold = world.hold(order.order_id).await;
    assert_eq!(code(world.release(order.order_id, &hold, true).await), 409, "the order is not off yet");
    world.publish(&cancelled(&order)).await;
    world.all_acknowledged().await;
    assert_eq!(world.release(order.order_id, &hold, false).await.unwrap().state, "voided");

    // Not this one's hold, and not one that is on record.
    let order = created("pm_card_visa");
    world.publish(&order).await;
    let row = world.state(order.order_id, State::Authorized).await;
    assert_eq!(code(world.release(order.order_id, &hold, false).await), 409);
    let second = world.hold(order.order_id).await;
    assert_eq!(code(world.release(order.order_id, &second, true).await), 409);
    assert_eq!(world.state(order.order_id, State::Authorized).await, row, "nothing has changed");
}
