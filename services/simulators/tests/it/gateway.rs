use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use simulators::gateway::{Settings, run};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{PATIENCE, http};

struct Gateway {
    url: String,
    client: reqwest::Client,
    shutdown: CancellationToken,
    server: JoinHandle<std::io::Result<()>>,
}

impl Gateway {
    async fn start(settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(run(listener, settings, shutdown.clone()));
        Self { url, client: http(), shutdown, server }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth("sk_test_1")
    }

    fn pay(&self, key: &str, amount: u32, token: &str) -> RequestBuilder {
        let amount = amount.to_string();
        self.request(Method::POST, "/v1/payment_intents").header("Idempotency-Key", key).form(&[
            ("amount", amount.as_str()),
            ("currency", "eur"),
            ("payment_method", token),
            ("capture_method", "manual"),
            ("confirm", "true"),
            ("metadata[order_id]", key),
        ])
    }

    async fn paid(&self, key: &str) -> String {
        let intent = answer(self.pay(key, 1_000, "pm_card_visa")).await.1;
        intent["id"].as_str().unwrap().to_owned()
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> (StatusCode, Value) {
        answer(self.request(Method::POST, path).form(form)).await
    }

    async fn get(&self, path: &str) -> Value {
        answer(self.request(Method::GET, path)).await.1
    }
}

async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

fn is_replayed(response: &Response) -> bool {
    response.headers().get("idempotent-replayed").is_some_and(|value| value == "true")
}

#[tokio::test]
async fn the_same_key_and_parameters_get_the_stored_answer_whatever_it_was() {
    let gateway = Gateway::start(Settings::default()).await;
    for token in ["pm_card_visa", "pm_card_chargeDeclined"] {
        let first = gateway.pay(token, 1_000, token).send().await.unwrap();
        let second = gateway.pay(token, 1_000, token).send().await.unwrap();
        assert!(!is_replayed(&first) && is_replayed(&second));
        assert_eq!(first.status(), second.status());
        assert_eq!(first.bytes().await.unwrap(), second.bytes().await.unwrap());
    }
    assert_eq!(gateway.get("/_control/ledger").await["intents"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_same_key_with_other_parameters_is_refused() {
    let gateway = Gateway::start(Settings::default()).await;
    let intent = gateway.paid("k").await;
    let (status, body) = answer(gateway.pay("k", 1_001, "pm_card_visa")).await;
    assert_eq!((status, &body["error"]["type"]), (StatusCode::BAD_REQUEST, &json!("idempotency_error")));
    let capture = gateway.request(Method::POST, &format!("/v1/payment_intents/{intent}/capture"));
    let (status, _) = answer(capture.header("Idempotency-Key", "k")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "another path is another request");
}

#[tokio::test]
async fn a_second_request_during_the_first_is_a_conflict_and_does_nothing() {
    let gateway = Gateway::start(Settings { slow_ms: 500, ..Settings::default() }).await;
    let slow = tokio::spawn(gateway.pay("k", 1_000, "pm_slow").send());
    let conflict = tokio::time::timeout(PATIENCE, async {
        loop {
            let (status, body) = answer(gateway.pay("k", 1_000, "pm_slow")).await;
            if status == StatusCode::CONFLICT {
                break body;
            }
        }
    });
    assert_eq!(conflict.await.unwrap()["error"]["code"], "idempotency_key_in_use");
    slow.await.unwrap().unwrap();
    assert_eq!(gateway.get("/_control/ledger").await["intents"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_client_that_gives_up_does_not_undo_what_it_asked_for() {
    let gateway = Gateway::start(Settings { slow_ms: 600, ..Settings::default() }).await;
    let given_up = gateway.pay("k", 1_000, "pm_slow").timeout(Duration::from_millis(300)).send().await;
    assert!(given_up.unwrap_err().is_timeout());
    let held = async {
        while gateway.get("/_control/ledger?order_id=k").await["intents"] == json!([]) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, held).await.unwrap();
}

#[tokio::test]
async fn money_moves_as_the_state_of_the_intent_allows() {
    let gateway = Gateway::start(Settings::default()).await;
    let intent = gateway.paid("k").await;
    let path = format!("/v1/payment_intents/{intent}");
    let status = async |path: &str, form: &[(&str, &str)]| gateway.post(path, form).await.0.as_u16();

    assert_eq!(status("/v1/refunds", &[("payment_intent", &intent)]).await, 400);
    assert_eq!(status(&format!("{path}/capture"), &[("amount_to_capture", "1001")]).await, 400);
    assert_eq!(status(&format!("{path}/capture"), &[("amount_to_capture", "900")]).await, 200);
    assert_eq!(status(&format!("{path}/capture"), &[]).await, 400);
    assert_eq!(status(&format!("{path}/cancel"), &[]).await, 400);
    assert_eq!(status("/v1/refunds", &[("payment_intent", &intent), ("amount", "901")]).await, 400);
    assert_eq!(status("/v1/refunds", &[("payment_intent", &intent), ("amount", "300")]).await, 200);
    assert_eq!(status("/v1/refunds", &[("payment_intent", &intent)]).await, 200);
    let (_, refused) = gateway.post("/v1/refunds", &[("payment_intent", &intent)]).await;
    assert_eq!(refused["error"]["code"], "charge_already_refunded");

    let read = gateway.get(&format!("{path}?expand[]=latest_charge")).await;
    assert_eq!((&read["status"], &read["amount_received"]), (&json!("succeeded"), &json!(900)));
    assert_eq!(read["latest_charge"]["amount_refunded"], 900);
    let summary = gateway.get("/_control/ledger").await["intents"][0].clone();
    assert_eq!((&summary["captures"], &summary["refunds"]), (&json!(1), &json!(2)));
    assert_eq!((&summary["captured"], &summary["refunded"]), (&json!(900), &json!(900)));
}

#[tokio::test]
async fn a_payment_with_automatic_capture_is_charged_at_once() {
    let gateway = Gateway::start(Settings::default()).await;
    let form = [("amount", "5"), ("currency", "EUR"), ("payment_method", "pm_card_visa"), ("confirm", "true")];
    let (_, intent) = gateway.post("/v1/payment_intents", &form).await;
    assert_eq!((&intent["status"], &intent["amount_received"]), (&json!("succeeded"), &json!(5)));
}

#[tokio::test]
async fn the_listing_goes_back_page_by_page() {
    let gateway = Gateway::start(Settings::default()).await;
    let mut expected = Vec::new();
    for key in 0..5 {
        expected.insert(0, gateway.paid(&key.to_string()).await);
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = gateway.get(&format!("/v1/payment_intents?limit=2{after}")).await;
        let ids = page["data"].as_array().unwrap().iter().map(|intent| intent["id"].as_str().unwrap().to_owned());
        seen.extend(ids);
        if page["has_more"] == false {
            break;
        }
        after = format!("&starting_after={}", seen.last().unwrap());
    }
    assert_eq!(seen, expected);
    assert_eq!(gateway.get("/v1/payment_intents?limit=0").await["error"]["param"], "limit");
}

#[tokio::test]
async fn a_request_without_a_test_key_is_refused() {
    let gateway = Gateway::start(Settings::default()).await;
    let url = format!("{}/v1/payment_intents", gateway.url);
    assert_eq!(answer(gateway.client.get(&url)).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(answer(gateway.client.get(&url).bearer_auth("sk_live_1")).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(answer(gateway.request(Method::DELETE, "/v1/payment_intents")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn finished_payments_make_room_and_are_counted_but_a_hold_is_never_forgotten() {
    let settings = Settings { ledger_intents: 2, ledger_requests: 3, ..Settings::default() };
    let gateway = Gateway::start(settings).await;
    let held = gateway.paid("held").await;
    let done = gateway.paid("done").await;
    let (status, refused) = answer(gateway.pay("more", 1, "pm_card_visa")).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(refused["error"]["message"].as_str().unwrap().contains("ledger_intents"), "{refused}");

    gateway.post(&format!("/v1/payment_intents/{done}/cancel"), &[]).await;
    gateway.paid("more").await;
    let ledger = gateway.get("/_control/ledger").await;
    assert_eq!((&ledger["intents_dropped"], &ledger["requests_dropped"]), (&json!(1), &json!(2)));
    assert_eq!(ledger["intents"][0]["id"], held);
    assert_eq!(ledger["requests"].as_array().unwrap().len(), 3);
    let newest = gateway.get("/_control/ledger?requests=1").await["requests"].clone();
    assert_eq!((newest.as_array().unwrap().len(), &newest[0]["idempotency_key"]), (1, &json!("more")));
}

#[tokio::test]
async fn the_mode_can_be_read_and_set_and_nonsense_is_refused() {
    let gateway = Gateway::start(Settings::default()).await;
    let put = async |body: Value| answer(gateway.request(Method::PUT, "/_control/mode").json(&body)).await;
    assert_eq!(gateway.get("/_control/mode").await, json!({ "mode": "ok" }));
    let mode = json!({ "mode": "errors", "status": 500, "requests": 1 });
    assert_eq!(put(mode.clone()).await, (StatusCode::OK, mode.clone()));
    assert_eq!(gateway.get("/_control/mode").await, mode);
    assert_eq!(answer(gateway.pay("k", 1, "pm_card_visa")).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(gateway.get("/_control/mode").await, json!({ "mode": "ok" }));
    for (nonsense, name) in [
        (json!({ "mode": "broken" }), "lose_answers"),
        (json!({ "mode": "ok", "speed": 1 }), "speed"),
        (json!({ "mode": "errors", "status": 200 }), "status"),
    ] {
        let (status, body) = put(nonsense).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(body["error"].as_str().unwrap().contains(name), "{body}");
    }
}

#[tokio::test]
async fn a_shutdown_waits_for_nobody_who_is_being_kept_waiting() {
    let gateway = Gateway::start(Settings { slow_ms: 600_000, ..Settings::default() }).await;
    let slow = tokio::spawn(gateway.pay("slow", 1, "pm_slow").send());
    while answer(gateway.pay("slow", 1, "pm_slow")).await.0 != StatusCode::CONFLICT {}
    let mode = gateway.request(Method::PUT, "/_control/mode").json(&json!({ "mode": "timeout" }));
    mode.send().await.unwrap();
    let held = tokio::spawn(gateway.pay("held", 1, "pm_card_visa").send());
    assert_eq!(gateway.client.get(format!("{}/livez", gateway.url)).send().await.unwrap().status(), StatusCode::OK);
    gateway.shutdown.cancel();
    tokio::time::timeout(PATIENCE, gateway.server).await.unwrap().unwrap().unwrap();
    assert!(slow.await.unwrap().is_err());
    assert!(held.await.unwrap().is_err());
}
