//! A foreign publisher that uses one event id for two orders. An event id names one event: what comes of the second order
//! depends on whether the first is still in the outbox.

use async_nats::HeaderMap;
use serde_json::{Value, json};
use testkit::eventually;
use uuid::Uuid;

use crate::support::{Installation, PATIENCE, sample};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_foreign_order_under_an_event_id_soon_after_the_first_is_a_dead_letter() {
    let installation = Installation::running(None, &[], &sample()).await;
    let event_id = Uuid::now_v7().to_string();
    let (first, second) = (foreign_order(), foreign_order());
    publish(&installation, &event_id, &first).await;
    becomes(&installation, &first, "confirmed", Some("captured")).await;
    publish(&installation, &event_id, &second).await;
    let buried = || async {
        let listed = installation.millrace(&["dead-letters", "list", "--flat", "--json"]).await.json();
        match listed["letters"].as_array().ok_or("no list")?.as_slice() {
            [one] if one["consumer"] == "order-foreign" && one["reason"] == "attempts_exhausted" => Ok(()),
            _ => Err(listed.to_string()),
        }
    };
    eventually(PATIENCE, buried, "the second order to be a dead letter").await;
    let orders = installation.shop.orders().await.unwrap();
    assert_eq!(orders.len(), 1, "the second order was taken in: {orders:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_foreign_order_under_an_event_id_long_after_the_first_ends_at_its_deadline_uncharged() {
    let settings = [("MILLRACE_ORDER_DEADLINE", "6s"), ("MILLRACE_TOPOLOGY_DUPLICATE_WINDOW", "1s")];
    let installation = Installation::running(None, &settings, &sample()).await;
    let event_id = Uuid::now_v7().to_string();
    let (first, second) = (foreign_order(), foreign_order());
    publish(&installation, &event_id, &first).await;
    becomes(&installation, &first, "confirmed", Some("captured")).await;
    installation.quiet().await;
    // As when `outbox.keep_published` is over.
    let forgotten = format!("delete from outbox_message where message_id = '{event_id}.v2'");
    assert_eq!(installation.damage("order", &forgotten).await, 1);
    // And the broker's own memory of message ids.
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    publish(&installation, &event_id, &second).await;
    let order = becomes(&installation, &second, "cancelled", None).await;
    assert_eq!(order["reason"], "deadline", "{order}");
    installation.quiet().await;
    let ledger = installation.shop.ledger().await.unwrap();
    let paid: Vec<_> = ledger.intents.iter().filter_map(|intent| intent.order_id.as_deref()).collect();
    assert_eq!(paid, [first["order_id"].as_str().unwrap()]);
    installation.no_dead_letters().await;
}

fn foreign_order() -> Value {
    json!({ "order_id": Uuid::now_v7(), "customer_id": "somebody", "amount": 12.5, "currency": "EUR",
        "timestamp": "2026-01-02T03:04:05Z", "items": [{ "product_id": "mug", "quantity": 1 }] })
}

async fn publish(installation: &Installation, event_id: &str, order: &Value) {
    let mut headers = HeaderMap::new();
    headers.insert("ce-id", event_id);
    let client = installation.nats.client().await;
    client.publish_with_headers("orders.created", headers, order.to_string().into()).await.unwrap();
    client.flush().await.unwrap();
}

async fn becomes(installation: &Installation, order: &Value, status: &str, payment: Option<&str>) -> Value {
    let found = || async {
        let known = installation.shop.orders().await?;
        let one = known.iter().find(|one| one["order_id"] == order["order_id"]).ok_or("it is not known")?;
        let right = one["status"] == status && payment.is_none_or(|payment| one["payment"] == payment);
        if right { Ok(one.clone()) } else { Err(one.to_string()) }
    };
    eventually(PATIENCE, found, &format!("the order to be {status}")).await
}
