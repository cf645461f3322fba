//! Timelines that are rebuilt from the streams: what counts as history, and what is left alone.

use std::time::Duration;

use contracts::OrderId;
use contracts::api::{ReplayFindings, ReplayPhase, ReplayQuery, ReplayRequest, ReplayStarted, ReplayStatus, subjects};
use contracts::payments::PaymentCaptured;
use millrace::request_reply::{RequestError, request_json};
use millrace::store::DatabaseUrl;
use serde_json::{Value, json};
use testkit::eventually;
use uuid::Uuid;

use crate::support::{Backend, PATIENCE, World, authorized, eur, now, on_both_backends, reserved};

on_both_backends! {
    every_kind_of_event_comes_back_as_it_was,
    an_event_that_is_on_the_timeline_already_still_decides_its_order,
    what_the_streams_no_longer_hold_stays_and_is_counted,
    an_event_that_was_mended_and_replayed_comes_back_mended,
}

async fn change(world: &World, statements: &str) {
    match &world.database_url {
        DatabaseUrl::Sqlite(path) => {
            let db = rusqlite::Connection::open(path).unwrap();
            db.busy_timeout(PATIENCE).unwrap();
            db.execute_batch(statements).unwrap();
        }
        DatabaseUrl::Postgres(url) => {
            let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            client.batch_execute(statements).await.unwrap();
        }
    }
}

async fn begin(world: &World, order_id: Option<OrderId>, view: &str) -> Result<ReplayStarted, RequestError> {
    let request = ReplayRequest { view: view.into(), order_id, dry_run: false };
    request_json(&world.connection, subjects::ORDERS_REPLAY, &request, Duration::from_secs(5)).await
}

async fn replay(world: &World) -> ReplayFindings {
    let started = begin(world, None, "timeline").await.unwrap();
    let query = ReplayQuery { replay_id: started.replay_id };
    let over = || async {
        let asked = request_json(&world.connection, &started.status_subject, &query, Duration::from_secs(5)).await;
        let status: ReplayStatus = asked.map_err(|e| e.to_string())?;
        if status.phase.is_over() { Ok(status) } else { Err(format!("{status:?}")) }
    };
    let status = eventually(PATIENCE, over, "the rebuild to end").await;
    assert_eq!((status.phase, &status.error), (ReplayPhase::Done, &None));
    status.found
}

/// Without the numbers: what comes back gets a new one.
async fn timeline(world: &World, id: OrderId) -> Vec<Value> {
    let mut entries = world.service.get(&format!("/orders/{id}/timeline")).await.body["timeline"].clone();
    let entries = entries.as_array_mut().unwrap();
    entries.iter_mut().for_each(|entry| drop(entry.as_object_mut().unwrap().remove("seq")));
    entries.sort_by_key(|entry| entry["event_id"].to_string());
    entries.clone()
}

async fn length(world: &World, id: OrderId, wanted: usize) -> Vec<Value> {
    let check = || async {
        let entries = timeline(world, id).await;
        if entries.len() == wanted { Ok(entries) } else { Err(format!("{entries:#?}")) }
    };
    eventually(PATIENCE, check, "the timeline").await
}

async fn foreign_order(world: &World) -> OrderId {
    let id = OrderId::generate();
    let order = json!({ "order_id": id, "customer_id": "elsewhere", "amount": 12.5, "currency": "EUR",
        "timestamp": "2026-01-01T00:00:00Z", "items": [{ "product_id": "mug", "quantity": 1 }], "version": "v1" });
    let stored = world.connection.jetstream().publish("orders.created", order.to_string().into()).await.unwrap();
    stored.await.unwrap();
    world.service.becomes(id, json!({ "status": "processing" })).await;
    id
}

async fn every_kind_of_event_comes_back_as_it_was(backend: Backend) {
    let world = World::start(backend).await;
    let (confirmed, cancelled) = (world.service.place().await, world.service.place().await);
    world.say_yes(confirmed).await;
    let captured =
        PaymentCaptured { order_id: confirmed, payment_id: "pi_1".into(), amount: eur(4_498), captured_at: now() };
    world.publish("payment", &captured).await;
    world.service.post(&format!("/orders/{cancelled}/cancel"), &json!({})).await;
    let foreign = foreign_order(&world).await;
    // Whoever published it is named.
    world.publish("payment-of-another-house", &authorized(foreign)).await;
    let before =
        [length(&world, confirmed, 5).await, length(&world, cancelled, 2).await, length(&world, foreign, 2).await];
    assert_eq!(replay(&world).await.changes(), 0);

    change(&world, "delete from order_timeline").await;
    assert_eq!(timeline(&world, confirmed).await, Vec::<Value>::new());
    let found = replay(&world).await;
    assert_eq!((found.missing, found.altered, found.stray, found.orders), (9, 0, 0, 3), "{found:?}");
    let after = [timeline(&world, confirmed).await, timeline(&world, cancelled).await, timeline(&world, foreign).await];
    assert_eq!(after, before);
    assert_eq!(found.examples.len(), 3);

    // What happens next is put behind what came back.
    world.publish("payment", &captured).await;
    length(&world, confirmed, 6).await;
    assert!(
        matches!(begin(&world, None, "stock").await, Err(RequestError::Service { error, .. }) if error.code == 400)
    );
}

/// The worst moment: the rebuild shows an event that the service has not handled yet.
async fn an_event_that_is_on_the_timeline_already_still_decides_its_order(backend: Backend) {
    let world = World::start(backend).await;
    let id = world.service.place().await;
    let events = [Uuid::now_v7(), Uuid::now_v7()];
    for (n, event_id) in events.iter().enumerate() {
        change(
            &world,
            &format!(
                "insert into order_timeline (order_id, seq, at, event_type, service, event_id, detail)
                 values ('{id}', {}, 1, 'payments.authorized', 'payment', '{event_id}', '{{}}')",
                n + 100
            ),
        )
        .await;
    }
    world.publish_as(&events[0].to_string().into(), "payment", &authorized(id)).await;
    world.publish_as(&events[1].to_string().into(), "inventory", &reserved(id)).await;
    world.service.becomes(id, json!({ "status": "confirmed", "payment": "authorized", "stock": "reserved" })).await;
    let shown = length(&world, id, 4).await;
    assert_eq!(shown.iter().filter(|entry| entry["event"] == "orders.confirmed").count(), 1, "{shown:#?}");
    let found = replay(&world).await;
    assert_eq!((found.missing, found.altered, found.stray), (0, 2, 0), "{found:?}");
}

async fn what_the_streams_no_longer_hold_stays_and_is_counted(backend: Backend) {
    let world = World::start(backend).await;
    let world = &world;
    let old = world.service.place().await;
    world.say_yes(old).await;
    let before = length(world, old, 4).await;
    let purge = |stream| async move {
        world.connection.jetstream().get_stream(stream).await.unwrap().purge().await.unwrap();
    };
    purge("ORDERS").await;
    // Of this one its beginning is still there, and not what became of it.
    let half = world.service.place().await;
    world.say_yes(half).await;
    let begun = length(world, half, 4).await;
    purge("PAYMENTS").await;
    purge("INVENTORY").await;
    let new = world.service.place().await;
    world.say_yes(new).await;
    let recent = length(world, new, 4).await;
    change(world, &format!("delete from order_timeline where order_id = '{new}'")).await;
    let found = replay(world).await;
    assert_eq!((found.missing, found.altered, found.stray), (4, 0, 0), "{found:?}");
    assert_eq!((found.older_orders, found.older_entries), (2, 6), "{found:?}");
    assert_eq!(timeline(world, old).await, before);
    assert_eq!(timeline(world, half).await, begun);
    assert_eq!(timeline(world, new).await, recent);
}

/// What an operator has corrected and replayed is the truth about an event, and not the message that nobody could read.
async fn an_event_that_was_mended_and_replayed_comes_back_mended(backend: Backend) {
    let world = World::start(backend).await;
    let id = world.service.place().await;
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("ce-id", "broken-1");
    headers.insert("ce-source", "/millrace/payment");
    let js = world.connection.jetstream();
    let broken = js.publish_with_headers("payments.authorized", headers.clone(), "{ twelve".into()).await.unwrap();
    broken.await.unwrap();
    let mended = serde_json::to_vec(&authorized(id)).unwrap();
    let subject = "replays.order-payments.payments.authorized";
    js.publish_with_headers(subject, headers, mended.into()).await.unwrap().await.unwrap();
    let before = length(&world, id, 2).await;
    let found = replay(&world).await;
    assert_eq!((found.changes(), found.unreadable), (0, 1), "{found:?}");
    change(&world, "delete from order_timeline where event_id = 'broken-1'").await;
    assert_eq!(replay(&world).await.missing, 1);
    assert_eq!(timeline(&world, id).await, before);
}
