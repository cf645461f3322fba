use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::{Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use simulators::gateway::ledger::Ledger;
use simulators::mail::Counts;
use testkit::eventually;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::PATIENCE;

/// A customer of the API, who can also look into the books of the payment gateway and the mail server.
#[derive(Clone)]
pub(crate) struct Shop {
    http: reqwest::Client,
    api: String,
    gateway: String,
    mail: String,
}

/// An order that was answered with 202.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) order_id: String,
    /// In minor units, as the answer said.
    pub(crate) total_minor: i64,
}

impl Shop {
    pub(crate) fn new(http: &str, gateway: &str, mail: &str) -> Self {
        let url = |address: &str| format!("http://{address}");
        let client = millrace::http_client::http_client(Duration::from_secs(45), Duration::from_secs(5)).unwrap();
        Self { http: client, api: url(http), gateway: url(gateway), mail: url(mail) }
    }

    pub(crate) fn url(&self) -> &str {
        &self.api
    }

    pub(crate) fn order_url(&self, order_id: &str) -> String {
        format!("{}/orders/{order_id}", self.api)
    }

    /// One attempt to place an order.
    pub(crate) async fn attempt(&self, order: &Value, key: &str) -> Result<Response, reqwest::Error> {
        self.http.post(format!("{}/orders", self.api)).header("Idempotency-Key", key).json(order).send().await
    }

    /// Places an order that is accepted at the first attempt.
    pub(crate) async fn accepted_at_once(&self, order: &Value) -> Accepted {
        let answer = self.attempt(order, &Uuid::now_v7().to_string()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED, "{answer:?}");
        Accepted::of(answer).await.unwrap()
    }

    /// As a good client does it: repeats the request with the same key until it is accepted.
    pub(crate) async fn place(&self, order: &Value) -> Accepted {
        let key = Uuid::now_v7().to_string();
        let accepted = || async {
            let answer = self.attempt(order, &key).await.map_err(|e| e.to_string())?;
            let status = answer.status();
            // Everything else would be a wrong answer to a good order, whatever was killed.
            assert!([StatusCode::ACCEPTED, StatusCode::SERVICE_UNAVAILABLE].contains(&status), "{answer:?}");
            if status != StatusCode::ACCEPTED {
                return Err(status.to_string());
            }
            Accepted::of(answer).await
        };
        eventually(PATIENCE, accepted, "the order to be accepted").await
    }

    /// Asks for a cancellation; whether it comes in time, and whether anybody answers, is left open. Returns the status.
    pub(crate) async fn try_cancel(&self, order_id: &str) -> Option<u16> {
        let answer = self.http.post(format!("{}/orders/{order_id}/cancel", self.api)).send().await;
        answer.ok().map(|answer| answer.status().as_u16())
    }

    /// Every order the API knows of.
    pub(crate) async fn orders(&self) -> Result<Vec<Value>, String> {
        let mut orders = Vec::new();
        let mut after = String::new();
        loop {
            let page: Value = self.json(&format!("{}/orders?limit=100{after}", self.api)).await?;
            orders.extend(page["orders"].as_array().ok_or("no list")?.iter().cloned());
            match page["next_cursor"].as_str() {
                Some(cursor) => after = format!("&cursor={cursor}"),
                None => return Ok(orders),
            }
        }
    }

    pub(crate) async fn timeline(&self, order_id: &str) -> Vec<Value> {
        let timeline: Value = self.json(&format!("{}/orders/{order_id}/timeline", self.api)).await.unwrap();
        timeline["timeline"].as_array().unwrap().clone()
    }

    pub(crate) async fn ledger(&self) -> Result<Ledger, String> {
        self.json(&format!("{}/_control/ledger?requests=0", self.gateway)).await
    }

    /// `down`, `errors`, `ok`, ...
    pub(crate) async fn gateway_is(&self, mode: Value) {
        let url = format!("{}/_control/mode", self.gateway);
        self.http.put(url).json(&mode).send().await.unwrap().error_for_status().unwrap();
    }

    /// Puts money on hold behind everybody's back. Returns the gateway's name for it.
    pub(crate) async fn hold(&self, order_id: &str) -> String {
        let form = [
            ("amount", "1050"),
            ("currency", "eur"),
            ("payment_method", "pm_card_visa"),
            ("capture_method", "manual"),
            ("confirm", "true"),
            ("metadata[order_id]", order_id),
        ];
        let url = format!("{}/v1/payment_intents", self.gateway);
        let answer = self.http.post(url).bearer_auth("sk_test_1").form(&form).send().await.unwrap();
        let intent: Value = answer.error_for_status().unwrap().json().await.unwrap();
        intent["id"].as_str().unwrap().to_owned()
    }

    /// How many requests the payment gateway has had.
    pub(crate) async fn gateway_requests(&self) -> u64 {
        let ledger: Ledger = self.json(&format!("{}/_control/ledger", self.gateway)).await.unwrap();
        ledger.requests_dropped + ledger.requests.len() as u64
    }

    /// How often each Message-ID came in.
    pub(crate) async fn mails(&self) -> Result<Counts, String> {
        self.json(&format!("{}/counts", self.mail)).await
    }

    /// Status and text of a plain GET.
    pub(crate) async fn fetch(&self, url: &str) -> Result<(u16, String), String> {
        let answer = self.http.get(url).send().await.map_err(|e| e.to_string())?;
        let status = answer.status().as_u16();
        Ok((status, answer.text().await.map_err(|e| e.to_string())?))
    }

    async fn json<T: DeserializeOwned>(&self, url: &str) -> Result<T, String> {
        match self.fetch(url).await? {
            (200, text) => serde_json::from_str(&text).map_err(|e| format!("{url}: {e}: {text}")),
            (status, text) => Err(format!("{url}: {status} {text}")),
        }
    }
}

impl From<(&str, i64)> for Accepted {
    fn from((order_id, total_minor): (&str, i64)) -> Self {
        Self { order_id: order_id.to_owned(), total_minor }
    }
}

impl Accepted {
    pub(crate) async fn of(answer: Response) -> Result<Self, String> {
        let receipt: Value = answer.json().await.map_err(|e| e.to_string())?;
        let order_id = receipt["order_id"].as_str().ok_or("no order_id")?.to_owned();
        Ok(Self { order_id, total_minor: receipt["total"]["minor"].as_i64().ok_or("no total")? })
    }
}

/// The order number `n` of a mix: most are fine, some are declined, some cards take seconds, some orders want what there
/// is not enough of.
pub(crate) fn order(n: usize) -> Value {
    let mut items = vec![json!({ "product_id": "mug", "quantity": 1 + n % 3 })];
    match n % 10 {
        4 => items = vec![json!({ "product_id": "rare", "quantity": 1 })],
        odd if odd % 2 == 1 => items.push(json!({ "product_id": "kettle", "quantity": 1 })),
        _ => {}
    }
    let card = match n % 10 {
        7 => "pm_card_chargeDeclined",
        2 => "pm_slow",
        _ => "pm_card_visa",
    };
    json!({
        "customer_id": format!("customer-{}", n % 5), "email": "someone@example.org",
        "payment_method": card, "items": items,
    })
}

/// An order number `n` that nothing is wrong with.
pub(crate) fn good_order(n: usize) -> Value {
    json!({
        "customer_id": format!("customer-{}", n % 5), "email": "someone@example.org",
        "payment_method": "pm_card_visa", "items": [{ "product_id": "mug", "quantity": 1 + n % 3 }],
    })
}

impl Shop {
    /// Places good orders at a steady rate until it is over. Each is accepted at once, whatever is going on.
    pub(crate) async fn sell_until(&self, over: &AtomicBool, every: Duration) -> Vec<Accepted> {
        let mut placing = JoinSet::new();
        let mut ticks = tokio::time::interval(every);
        while !over.load(Ordering::Relaxed) {
            ticks.tick().await;
            let (shop, n) = (self.clone(), placing.len());
            placing.spawn(async move { shop.accepted_at_once(&good_order(n)).await });
        }
        placing.join_all().await
    }

    /// Places order number `n` of the mix for certain; every tenth customer changes their mind at once.
    pub(crate) async fn place_number(&self, n: usize) -> Accepted {
        let accepted = self.place(&order(n)).await;
        if n % 10 == 9 {
            self.try_cancel(&accepted.order_id).await;
        }
        accepted
    }
}
