//! The gateway's client against the gateway simulator, over real sockets.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::time::Duration;

use millrace::http_client::http_client;
use payment::gateway::{Authorization, Gateway, GatewayError, GatewaySettings, Step};
use simulators::gateway::{Settings, run};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// A simulator of its own for each test; it stops with the test.
struct Simulator {
    url: String,
    client: reqwest::Client,
    _stop: DropGuard,
}

impl Simulator {
    async fn start(settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        tokio::spawn(run(listener, settings, shutdown.clone()));
        let client = http_client(Duration::from_secs(10), Duration::from_secs(10)).unwrap();
        Self { url, client, _stop: shutdown.drop_guard() }
    }

    fn gateway(&self, timeout_ms: u64) -> Gateway {
        let settings = GatewaySettings { url: self.url.clone(), timeout_ms, ..GatewaySettings::default() };
        Gateway::new(self.client.clone(), &settings).unwrap()
    }

    async fn set_mode(&self, mode: serde_json::Value) {
        let answer = self.client.put(format!("{}/_control/mode", self.url)).json(&mode).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }

    async fn ledger(&self) -> serde_json::Value {
        self.client.get(format!("{}/_control/ledger", self.url)).send().await.unwrap().json().await.unwrap()
    }

    /// The one payment of an order; a second one would be a double charge.
    async fn only_intent(&self, order_id: Uuid) -> serde_json::Value {
        let url = format!("{}/_control/ledger?order_id={order_id}", self.url);
        let ledger: serde_json::Value = self.client.get(url).send().await.unwrap().json().await.unwrap();
        let intents = ledger["intents"].as_array().unwrap();
        assert_eq!(intents.len(), 1, "{ledger}");
        intents[0].clone()
    }
}

async fn usual() -> (Simulator, Gateway, Uuid) {
    let simulator = Simulator::start(Settings::default()).await;
    let gateway = simulator.gateway(5_000);
    (simulator, gateway, Uuid::now_v7())
}

async fn authorized(gateway: &Gateway, order_id: Uuid, token: &str) -> String {
    match gateway.authorize(order_id, 1_999, "EUR", token).await.unwrap() {
        Authorization::Authorized { intent_id } => intent_id,
        declined @ Authorization::Declined { .. } => panic!("{declined:?}"),
    }
}

#[track_caller]
fn permanent_code<T: std::fmt::Debug>(result: Result<T, GatewayError>) -> String {
    match result.unwrap_err() {
        GatewayError::Permanent { code, .. } => code,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn an_order_is_authorized_captured_and_refunded_once_however_often_it_is_asked() {
    let (simulator, gateway, order_id) = usual().await;
    let intent_id = authorized(&gateway, order_id, "pm_card_visa").await;
    assert_eq!(authorized(&gateway, order_id, "pm_card_visa").await, intent_id);
    for _ in 0..3 {
        gateway.capture(order_id, &intent_id).await.unwrap();
    }
    for _ in 0..3 {
        gateway.refund(order_id, &intent_id, 1_999).await.unwrap();
    }
    let intent = simulator.only_intent(order_id).await;
    assert_eq!((&intent["captured"], &intent["captures"]), (&1_999.into(), &1.into()));
    assert_eq!((&intent["refunded"], &intent["refunds"]), (&1_999.into(), &1.into()));
    assert_eq!(intent["currency"], "eur");
}

#[tokio::test]
async fn a_lost_answer_is_fetched_by_a_retry_and_the_card_is_charged_once() {
    let (simulator, gateway, order_id) = usual().await;
    let first = gateway.authorize(order_id, 1_999, "EUR", "pm_answer_lost").await.unwrap_err();
    assert!(first.is_transient(), "{first}");
    let intent_id = authorized(&gateway, order_id, "pm_answer_lost").await;

    simulator.set_mode(serde_json::json!({ "mode": "lose_answers", "requests": 1 })).await;
    assert!(gateway.capture(order_id, &intent_id).await.unwrap_err().is_transient());
    gateway.capture(order_id, &intent_id).await.unwrap();

    let intent = simulator.only_intent(order_id).await;
    assert_eq!((&intent["status"], &intent["captures"]), (&"succeeded".into(), &1.into()));
    let ledger = simulator.ledger().await;
    let seen: Vec<_> = ledger["requests"].as_array().unwrap().iter().map(|r| (&r["status"], &r["replayed"])).collect();
    let (none, ok, fresh, replayed) = (serde_json::Value::Null, 200.into(), false.into(), true.into());
    assert_eq!(seen, [(&none, &fresh), (&ok, &replayed), (&none, &fresh), (&ok, &replayed)]);
}

#[tokio::test]
async fn declines_are_outcomes_with_the_banks_reason() {
    let (simulator, gateway, _) = usual().await;
    for (token, reason) in [
        ("pm_card_chargeDeclined", "card_declined"),
        ("pm_card_visa_chargeDeclined", "card_declined"),
        ("pm_card_chargeDeclinedInsufficientFunds", "insufficient_funds"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card"),
    ] {
        let order_id = Uuid::now_v7();
        for _ in 0..2 {
            match gateway.authorize(order_id, 500, "usd", token).await.unwrap() {
                Authorization::Declined { code, message } => {
                    assert_eq!((code.as_str(), message.is_empty()), (reason, false))
                }
                authorized @ Authorization::Authorized { .. } => panic!("{authorized:?}"),
            }
        }
        assert_eq!(simulator.only_intent(order_id).await["authorized"], 0);
    }
}

#[tokio::test]
async fn a_payment_slower_than_our_patience_is_found_later_and_held_once() {
    let simulator = Simulator::start(Settings { slow_ms: 800, ..Settings::default() }).await;
    let impatient = simulator.gateway(100);
    let order_id = Uuid::now_v7();
    let first = impatient.authorize(order_id, 1_999, "EUR", "pm_slow").await.unwrap_err();
    assert!(first.is_transient() && first.to_string().contains("100 ms"), "{first}");

    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let outcome = loop {
        match impatient.authorize(order_id, 1_999, "EUR", "pm_slow").await {
            Ok(outcome) => break outcome,
            Err(error) => assert!(error.is_transient() && tokio::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let intent = simulator.only_intent(order_id).await;
    assert_eq!(outcome, Authorization::Authorized { intent_id: intent["id"].as_str().unwrap().into() });
    let ledger = simulator.ledger().await;
    let conflicts = ledger["requests"].as_array().unwrap().iter().filter(|request| request["status"] == 409).count();
    assert!(conflicts > 0, "no retry came while the first attempt was under way: {ledger}");
}

#[tokio::test]
async fn an_unreachable_bank_and_a_flaky_one_are_worth_another_try() {
    let (simulator, gateway, order_id) = usual().await;
    assert!(gateway.authorize(order_id, 1, "EUR", "pm_unreachable").await.unwrap_err().is_transient());
    assert_eq!(simulator.ledger().await["intents"], serde_json::json!([]));

    for _ in 0..2 {
        let error = gateway.authorize(order_id, 1, "EUR", "pm_flaky").await.unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("503"), "{error}");
    }
    assert!(gateway.authorize(order_id, 1, "EUR", "pm_flaky").await.is_ok());
}

#[tokio::test]
async fn a_capture_that_fails_for_good_is_permanent_and_the_hold_can_still_be_released() {
    let (simulator, gateway, order_id) = usual().await;
    let intent_id = authorized(&gateway, order_id, "pm_capture_fails").await;
    for _ in 0..2 {
        assert_eq!(permanent_code(gateway.capture(order_id, &intent_id).await), "card_declined");
    }
    gateway.void(order_id, &intent_id).await.unwrap();
    let intent = simulator.only_intent(order_id).await;
    assert_eq!((&intent["status"], &intent["captured"]), (&"canceled".into(), &0.into()));
}

#[tokio::test]
async fn what_somebody_else_did_already_is_a_success_and_what_can_no_longer_be_done_is_not() {
    let (_simulator, gateway, order_id) = usual().await;
    // Another order id makes another key, as if the first answer had expired or an operator had been faster.
    let other = Uuid::now_v7();
    let captured = authorized(&gateway, order_id, "pm_card_visa").await;
    gateway.capture(order_id, &captured).await.unwrap();
    gateway.capture(other, &captured).await.unwrap();
    assert_eq!(permanent_code(gateway.void(order_id, &captured).await), "payment_intent_unexpected_state");
    gateway.refund(order_id, &captured, 1_999).await.unwrap();
    gateway.refund(other, &captured, 1_999).await.unwrap();

    let voided = authorized(&gateway, other, "pm_card_visa").await;
    gateway.void(other, &voided).await.unwrap();
    let third = Uuid::now_v7();
    gateway.void(third, &voided).await.unwrap();
    assert_eq!(permanent_code(gateway.capture(third, &voided).await), "payment_intent_unexpected_state");
    assert_eq!(permanent_code(gateway.refund(third, &voided, 1).await), "payment_intent_unexpected_state");
}

#[tokio::test]
async fn bad_requests_are_permanent_and_name_what_was_wrong() {
    let (_simulator, gateway, order_id) = usual().await;
    let authorize =
        async |amount, currency, token| permanent_code(gateway.authorize(order_id, amount, currency, token).await);
    assert_eq!(authorize(0, "EUR", "pm_card_visa").await, "parameter_invalid_integer");
    assert_eq!(authorize(1, "EURO", "pm_card_visa").await, "invalid_request_error");
    assert_eq!(authorize(1, "EUR", "pm_card_unknown").await, "resource_missing");
    assert_eq!(permanent_code(gateway.capture(order_id, "pi_unknown").await), "resource_missing");
    // None of these left a trace under the key; the good request takes place.
    authorized(&gateway, order_id, "pm_card_visa").await;
    assert_eq!(authorize(7, "EUR", "pm_card_visa").await, "idempotency_error");
}

#[tokio::test]
async fn an_id_cannot_reach_another_address() {
    let (simulator, gateway, order_id) = usual().await;
    permanent_code(gateway.capture(order_id, "../refunds?x=").await);
    let ledger = simulator.ledger().await;
    assert_eq!(ledger["requests"][0]["path"], "/v1/payment_intents/..%2Frefunds%3Fx=/capture");
}

#[tokio::test]
async fn outages_are_transient_and_pass() {
    let (simulator, gateway, order_id) = usual().await;
    let brief = simulator.gateway(100);
    for (mode, gateway) in [
        (serde_json::json!({ "mode": "down" }), &gateway),
        (serde_json::json!({ "mode": "errors" }), &gateway),
        (serde_json::json!({ "mode": "errors", "status": 429 }), &gateway),
        (serde_json::json!({ "mode": "timeout" }), &brief),
    ] {
        simulator.set_mode(mode.clone()).await;
        let error = gateway.authorize(order_id, 1_999, "EUR", "pm_card_visa").await.unwrap_err();
        assert!(error.is_transient(), "{mode}: {error}");
    }
    simulator.set_mode(serde_json::json!({ "mode": "ok" })).await;
    authorized(&gateway, order_id, "pm_card_visa").await;
    assert_eq!(simulator.only_intent(order_id).await["captures"], 0);
}

#[tokio::test]
async fn a_rejected_key_or_a_wrong_address_does_not_fail_the_payment() {
    let (simulator, _, order_id) = usual().await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (settings, hint) in [
        (
            GatewaySettings {
                url: simulator.url.clone(),
                secret_key: "pk_test_1".into(),
                ..GatewaySettings::default()
            },
            "401",
        ),
        (GatewaySettings { url: format!("http://{closed}"), ..GatewaySettings::default() }, "cannot be reached"),
    ] {
        let gateway = Gateway::new(simulator.client.clone(), &settings).unwrap();
        let error = gateway.authorize(order_id, 1, "EUR", "pm_card_visa").await.unwrap_err();
        assert!(matches!(error, GatewayError::Transient { step: Step::Authorize, .. }), "{error}");
        assert!(error.to_string().contains(hint), "{error}");
    }
}
