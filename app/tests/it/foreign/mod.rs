//! Services of other teams in other languages, with client libraries that were not written here.

mod client;
mod defects;
mod installed;

use std::collections::BTreeMap;

use futures::StreamExt;
use serde_json::{Value, json};
use testkit::eventually;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::support::{Installation, PATIENCE, order, sample};
use client::Client;

#[tokio::test(flavor = "multi_thread")]
async fn a_service_in_python_takes_part() {
    if let Some(client) = Client::python().await {
        takes_part(client).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_in_node_takes_part() {
    if let Some(client) = Client::node().await {
        takes_part(client).await;
    }
}

/// The five fields that producers in the wild send.
fn minimal_order(amount: f64) -> Value {
    json!({
        "order_id": Uuid::now_v7(), "customer_id": "partner-7", "amount": amount, "currency": "EUR",
        "timestamp": "2026-01-02T03:04:05Z",
    })
}

/// An amount that is not what the catalog says: 2 mugs and a kettle are 60.99 there.
fn full_order() -> Value {
    let mut order = minimal_order(59.9);
    order["items"] = json!([{ "product_id": "mug", "quantity": 2 }, { "product_id": "kettle", "quantity": 1 }]);
    order["version"] = json!("v1");
    order
}

async fn takes_part(client: Client) {
    let installation = Installation::running(None, &[], &sample()).await;
    let client = client.of(&installation);
    let relayed = installation.nats.client().await.subscribe("partner.orders").await.unwrap();
    let own = installation.shop.place(&order(0)).await;
    let (minimal, full) = (minimal_order(12.5), full_order());
    client.publish(&["--bare"], &[&minimal]).await;
    let stored = client.publish(&[], &[&full]).await;
    assert_eq!(stored[0]["stream"], "ORDERS");

    let (minimal_id, full_id) = (minimal["order_id"].as_str().unwrap(), full["order_id"].as_str().unwrap());
    confirmed(&installation, minimal_id, 1_250).await;
    confirmed(&installation, full_id, 5_990).await;
    confirmed(&installation, &own.order_id, own.total_minor).await;
    installation.quiet().await;
    let sold: BTreeMap<_, _> =
        installation.stock().await.unwrap().into_iter().map(|(id, [_, _, committed])| (id, committed)).collect();
    assert_eq!(sold, BTreeMap::from([("kettle".into(), 1), ("mug".into(), 3), ("rare".into(), 0)]));

    let read = client.lines("read-orders", &["--idle", "3", "--forward", "partner.orders"], "").await;
    saw_each_order_in_both_versions_and_acts_once(&read, &[&own.order_id, full_id, minimal_id]);
    let foreign: Vec<_> = read.iter().filter(|line| line["event_id"] == stored[0]["event_id"]).collect();
    assert_eq!(foreign.len(), 2, "the publisher's event id stays the id of the event: {read:?}");
    events_survive_the_way_through_their_sdk(&installation, relayed, &read).await;
    gets_answers(&client, &installation, full_id).await;
    gets_errors(&client).await;
    discovers_the_services(&client).await;
    installation.no_dead_letters().await;
}

/// Confirmed, and charged exactly this much exactly once.
async fn confirmed(installation: &Installation, order_id: &str, minor: i64) {
    let settled = || async {
        let (status, text) = installation.shop.fetch(&installation.shop.order_url(order_id)).await?;
        let order: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        let is_settled = status == 200 && order["status"] == "confirmed" && order["payment"] == "captured";
        if is_settled { Ok(()) } else { Err(text) }
    };
    eventually(PATIENCE, settled, "the order to be confirmed and paid").await;
    let ledger = installation.shop.ledger().await.unwrap();
    let of_order: Vec<_> = ledger.intents.iter().filter(|i| i.order_id.as_deref() == Some(order_id)).collect();
    assert_eq!(of_order.len(), 1, "{of_order:?}");
    assert_eq!((of_order[0].captures, of_order[0].captured), (1, minor), "{of_order:?}");
}

fn saw_each_order_in_both_versions_and_acts_once(read: &[Value], order_ids: &[&str]) {
    assert!(read.iter().all(|line| line["refused"].is_null()), "{read:?}");
    for id in order_ids {
        let of_order: Vec<_> = read.iter().filter(|line| line["body"]["order_id"] == *id).collect();
        let mut versions: Vec<_> = of_order.iter().map(|line| line["version"].as_i64().unwrap()).collect();
        versions.sort_unstable();
        assert_eq!(versions, [1, 2], "{of_order:?}");
        assert_eq!(of_order.iter().filter(|line| line["acts"] == true).count(), 1, "{of_order:?}");
        let mut ids: Vec<_> = of_order.iter().filter_map(|line| line["event_id"].as_str()).collect();
        ids.dedup();
        assert_eq!(ids.len(), 1, "one event: {of_order:?}");
        let ours: Vec<_> = of_order.iter().filter(|line| line["source"] == "/millrace/order").collect();
        assert!(!ours.is_empty(), "{of_order:?}");
        for line in ours {
            let named = format!("urn:millrace:schema:orders.created:v{}", line["version"]);
            assert_eq!(json!([line["type"], line["schema"], line["about"]]), json!(["orders.created", named, id]));
            assert!(line["correlation_id"].is_string(), "{line}");
        }
    }
    assert_eq!(read.len(), 2 * order_ids.len());
}

/// Each event that came back is the one that stands in the stream, attribute by attribute.
async fn events_survive_the_way_through_their_sdk(
    installation: &Installation,
    mut relayed: async_nats::Subscriber,
    read: &[Value],
) {
    let stream = async_nats::jetstream::new(installation.nats.client().await).get_stream("ORDERS").await.unwrap();
    let mut originals = BTreeMap::new();
    for sequence in 1..=stream.cached_info().state.last_sequence {
        let message = stream.get_raw_message(sequence).await.unwrap();
        if message.subject.starts_with("orders.created")
            && let Some(id) = message.headers.get("ce-id")
        {
            originals.insert((id.to_string(), message.payload.clone()), message.headers.clone());
        }
    }
    let forwarded = read.iter().filter(|line| line["event_id"].is_string()).count();
    assert!(forwarded >= 5, "{read:?}");
    for _ in 0..forwarded {
        let back = tokio::time::timeout(PATIENCE, relayed.next()).await.expect("an event on its way back").unwrap();
        let headers = back.headers.unwrap();
        let id = headers.get("ce-id").unwrap().to_string();
        let body: Value = serde_json::from_slice(&back.payload).unwrap();
        let same = |payload: &[u8]| serde_json::from_slice::<Value>(payload).unwrap() == body;
        let original = originals.iter().find(|((of, payload), _)| *of == id && same(payload));
        let ((_, _), original) = original.unwrap_or_else(|| panic!("{id} is not in the stream as {body}"));
        assert_eq!(attributes(&headers), attributes(original));
    }
}

/// All attributes; the time as an instant, of which some languages keep only milliseconds.
fn attributes(headers: &async_nats::HeaderMap) -> BTreeMap<String, String> {
    let attribute = |(name, values): (&async_nats::HeaderName, &Vec<async_nats::HeaderValue>)| {
        let (name, mut value) = (name.to_string(), values[0].to_string());
        if name == "ce-time" {
            let at = OffsetDateTime::parse(&value, &Rfc3339).unwrap();
            value = (at.unix_timestamp_nanos() / 1_000_000).to_string();
        }
        name.starts_with("ce-").then_some((name, value))
    };
    headers.iter().filter_map(attribute).collect()
}

async fn gets_answers(client: &Client, installation: &Installation, order_id: &str) {
    let question = json!({ "order_id": order_id }).to_string();
    let (_, shown) = installation.shop.fetch(&installation.shop.order_url(order_id)).await.unwrap();
    assert_eq!(client.ask("api.orders.get", &question).await.unwrap(), serde_json::from_str::<Value>(&shown).unwrap());
    let payment = client.ask("api.payment.process", &question).await.unwrap();
    assert_eq!(
        json!([payment["status"], payment["amount"]]),
        json!(["captured", { "minor": 5_990, "currency": "EUR" }])
    );
    let stock = client.ask("api.inventory.stock", r#"{"product_id":"mug"}"#).await.unwrap();
    assert_eq!(json!([stock["levels"][0]["product_id"], stock["levels"][0]["committed"]]), json!(["mug", 3]));
    assert_eq!(client.ask("api.inventory.stock", "{}").await.unwrap()["levels"].as_array().unwrap().len(), 3);
}

async fn gets_errors(client: &Client) {
    let unknown = json!({ "order_id": Uuid::nil() }).to_string();
    for (subject, question, code, part) in [
        ("api.orders.get", unknown.as_str(), 404, "00000000-0000-0000-0000-000000000000"),
        ("api.orders.get", r#"{"order_id":"seven"}"#, 400, "order_id"),
        ("api.orders.get", "seven", 400, "JSON"),
        ("api.payment.process", unknown.as_str(), 404, "00000000-0000-0000-0000-000000000000"),
        ("api.payment.process", "{}", 400, "order_id"),
        ("api.inventory.stock", r#"{"product_id":"tea-pot"}"#, 404, "tea-pot"),
        ("api.inventory.stock", r#"{"product_id":"tea pot"}"#, 400, "product_id"),
        ("api.nobody", "{}", 503, "api.nobody"),
    ] {
        let error = client.ask(subject, question).await.expect_err(subject);
        assert_eq!(error["code"], code, "{subject} {question}: {error}");
        assert!(error["description"].as_str().unwrap().contains(part), "{subject} {question}: {error}");
    }
}

async fn discovers_the_services(client: &Client) {
    let services = client.lines("discover", &[], "").await;
    let mut endpoints = BTreeMap::new();
    for service in &services {
        assert_eq!(service["type"], "io.nats.micro.v1.info_response", "{service}");
        assert!(service["description"].as_str().is_some_and(|text| !text.is_empty()), "{service}");
        for endpoint in service["endpoints"].as_array().unwrap() {
            assert!(endpoint["metadata"]["description"].is_string(), "{service}");
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            endpoints.insert(text(&endpoint["subject"]), text(&service["name"]));
        }
    }
    for (subject, name) in [
        ("api.inventory.adjust", "inventory"),
        ("api.inventory.stock", "inventory"),
        ("api.orders.get", "order"),
        ("api.payment.process", "payment"),
    ] {
        assert_eq!(endpoints.get(subject).map(String::as_str), Some(name), "{subject} in {endpoints:?}");
    }
}
