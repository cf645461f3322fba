//! A foreign order that nobody can read, from the moment an operator hears of it to its confirmation.

use serde_json::{Value, json};
use testkit::eventually;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::support::cli::Ran;
use crate::support::{Installation, PATIENCE, sample};

struct Operator(Installation);

impl Operator {
    async fn runs(&self, args: &[&str]) -> Ran {
        self.0.millrace(&[&["dead-letters"], args].concat()).await
    }

    async fn asks(&self, args: &[&str]) -> Value {
        let ran = self.runs(&[args, &["--json"]].concat()).await;
        assert_eq!(ran.code, 0, "{args:?}: {ran}");
        ran.json()
    }

    async fn publishes(&self, order: &Value) {
        let client = self.0.nats.client().await;
        client.publish("orders.created", order.to_string().into()).await.unwrap();
        client.flush().await.unwrap();
    }

    /// Waits until so many letters wait for a decision, and gives the newest one's id.
    async fn waiting(&self, count: usize) -> String {
        let waiting = || async {
            let listed = self.asks(&["list", "--flat"]).await;
            let letters = listed["letters"].as_array().unwrap();
            if letters.len() == count { Ok(letters[count - 1]["id"].to_string()) } else { Err(listed.to_string()) }
        };
        eventually(PATIENCE, waiting, "dead letters").await
    }

    async fn confirmed(&self, order: &Value) {
        let confirmed = || async {
            let orders = self.0.shop.orders().await?;
            let found = orders.iter().find(|known| known["order_id"] == order["order_id"]).ok_or("it is not known")?;
            if found["status"] == "confirmed" && found["payment"] == "captured" {
                Ok(())
            } else {
                Err(found.to_string())
            }
        };
        eventually(PATIENCE, confirmed, "the order to be confirmed and paid").await;
        let ledger = self.0.shop.ledger().await.unwrap();
        let id = order["order_id"].as_str();
        let intents: Vec<_> = ledger.intents.iter().filter(|intent| intent.order_id.as_deref() == id).collect();
        assert!(matches!(intents.as_slice(), [one] if one.captures == 1), "{intents:?}");
    }
}

/// What a publisher sends that has understood the contract, but not the amount.
fn unreadable_order() -> (Value, Value) {
    let mut order = json!({
        "order_id": Uuid::now_v7(), "customer_id": "somebody", "amount": "12.50", "currency": "EUR",
        "timestamp": "2026-01-02T03:04:05Z", "items": [{ "product_id": "mug", "quantity": 1 }],
    });
    let wrong = order.clone();
    order["amount"] = json!(12.5);
    (wrong, order)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_nobody_can_read_is_found_corrected_and_confirmed() {
    let editor = [("EDITOR", r#"sed -i s/"\"12.50\""/12.50/"#)];
    let operator = Operator(Installation::running(None, &editor, &sample()).await);
    let (wrong, right) = unreadable_order();
    operator.publishes(&wrong).await;
    let id = operator.waiting(1).await;

    let grouped = operator.asks(&["list"]).await;
    let group = &grouped["groups"][0];
    assert_eq!(
        json!([group["consumer"], group["subject"], group["reason"], group["count"]]),
        json!(["order-foreign", "orders.created", "undecodable", 1])
    );
    assert_eq!(operator.asks(&["list", "--reason", "permanent"]).await["count"], 0);
    assert_eq!(operator.asks(&["list", "--subject", "orders.>", "--since", "1h"]).await["count"], 1);
    let table = operator.runs(&["list"]).await;
    assert!(table.stdout.contains("order-foreign") && table.stdout.contains("/amount"), "{table}");

    let shown = operator.asks(&["show", &id]).await;
    assert_eq!((&shown["body"], &shown["state"]), (&wrong, &json!("waiting")));
    assert!(shown["errors"][0].as_str().unwrap().contains("/amount"), "{shown}");
    let page = operator.runs(&["show", &id]).await;
    assert!(page.stdout.contains(r#""amount": "12.50""#), "{page}");
    let doctor = operator.0.millrace(&["doctor", "--json"]).await.json();
    let check = doctor["checks"].as_array().unwrap().iter().find(|check| check["name"] == "dead letters").unwrap();
    assert!(check["found"] == "1 waiting for a decision" && check["ok"] == true, "{check}");

    // Nothing was repaired: it fails again, and the exit code says so.
    let again = operator.runs(&["replay", &id, "--json"]).await;
    assert_eq!((again.code, &again.json()["letters"][0]["outcome"]), (1, &json!("failed_again")), "{again}");
    let id = operator.waiting(1).await;
    assert_eq!(again.json()["letters"][0]["dead_letter"].to_string(), id);

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), right.to_string()).unwrap();
    let body = ["replay", &id, "--body", file.path().to_str().unwrap(), "--as", "ada@desk"];
    assert_eq!(operator.asks(&body).await["letters"][0]["outcome"], "handled");
    operator.confirmed(&right).await;
    // The order is there already, and stays as it is.
    let insisting = [body.as_slice(), &["--again"]].concat();
    assert_eq!(operator.asks(&insisting).await["letters"][0]["outcome"], "handled");
    operator.0.quiet().await;
    operator.confirmed(&right).await;

    let (wrong, right) = unreadable_order();
    operator.publishes(&wrong).await;
    let edited = operator.waiting(1).await;
    assert_eq!(operator.asks(&["replay", &edited, "--edit"]).await["letters"][0]["outcome"], "handled");
    operator.confirmed(&right).await;

    operator.publishes(&unreadable_order().0).await;
    let hopeless = operator.waiting(1).await;
    assert_eq!(operator.runs(&["discard", &hopeless]).await.code, 2, "without a reason");
    operator.asks(&["discard", &hopeless, "--reason", "a test of theirs"]).await;
    assert_eq!(operator.asks(&["list"]).await["count"], 0);
    let all = operator.asks(&["list", "--flat", "--state", "all"]).await;
    let states: Vec<_> =
        all["letters"].as_array().unwrap().iter().map(|letter| letter["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["failed_again", "handled", "handled", "discarded"]);
    let audit = operator.asks(&["audit"]).await;
    let told: Vec<_> = audit["entries"].as_array().unwrap().iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert_eq!(
        told,
        ["replayed", "failed_again", "replayed", "handled", "replayed", "handled", "replayed", "handled", "discarded"]
    );
    assert_eq!(audit["entries"][2]["who"], "ada@desk");
    assert_eq!(audit["entries"][3]["who"], "consumer order-foreign");
    assert_eq!(operator.runs(&["show", "4711"]).await.code, 1);
    assert_eq!(operator.runs(&["replay", "1", "--consumer", "x"]).await.code, 2, "filters with ids");
    assert_eq!(operator.asks(&["replay", "--all"]).await["letters"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_fails_again_stops_the_rest_and_a_rate_is_kept() {
    let operator = Operator(Installation::running(None, &[], &sample()).await);
    for _ in 0..4 {
        operator.publishes(&unreadable_order().0).await;
    }
    operator.waiting(4).await;
    let canary = operator.runs(&["replay", "--all", "--canary", "1", "--json"]).await;
    let told = canary.json();
    let outcomes: Vec<_> = told["letters"].as_array().unwrap().iter().map(|one| one["outcome"].clone()).collect();
    assert_eq!(outcomes, ["failed_again", "not_tried", "not_tried", "not_tried"]);
    assert_eq!((canary.code, &told["stopped_by_canary"]), (1, &json!(true)), "{canary}");

    operator.waiting(4).await;
    let slow = operator.runs(&["replay", "--all", "--rate", "1", "--json"]).await;
    assert_eq!(slow.json()["letters"].as_array().unwrap().len(), 4, "{slow}");
    let audit = operator.asks(&["audit"]).await;
    let entries = audit["entries"].as_array().unwrap();
    let at: Vec<_> = entries.iter().filter(|entry| entry["action"] == "replayed").map(|entry| &entry["at"]).collect();
    let of = |at: &Value| OffsetDateTime::parse(at.as_str().unwrap(), &Rfc3339).unwrap();
    // The first leaves at once, three more a second apart.
    assert!(of(at[4]) - of(at[1]) >= time::Duration::milliseconds(2_500), "{audit}");
}
