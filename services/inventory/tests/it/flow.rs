//! The running service, on a real broker.

use std::time::Duration;

use contracts::api::{StockAdjustment, StockLevel, StockLevels, StockQuery, subjects};
use contracts::catalog::{BUCKET, Product};
use contracts::inventory::{InventoryCommitted, InventoryRejected, InventoryReserved};
use contracts::orders::{OrderConfirmed, OrderCreated};
use contracts::{Money, OrderId, Timestamp};
use futures::StreamExt;
use inventory::{Parts, Settings};
use millrace::connection::{Connection, NatsSettings};
use millrace::event::{Cause, Event, EventId, Retired, encode, encode_headers};
use millrace::kit;
use millrace::request_reply::{RequestError, request_json};
use testkit::{TestNats, eventually};
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{PATIENCE, Place, item, kit_parts, order, product};

/// A running inventory service and a client that plays everybody else.
struct Running {
    client: async_nats::Client,
    connection: Connection,
    shutdown: CancellationToken,
    service: JoinHandle<Result<(), kit::Error>>,
}

impl Running {
    async fn start(nats: &TestNats, place: &Place) -> Self {
        let kit = kit_parts(place, &nats.url()).await;
        let shutdown = kit.shutdown.clone();
        let service = tokio::spawn(inventory::run(Parts { kit, settings: Settings::default() }));
        let settings = NatsSettings { url: nats.url(), ..NatsSettings::default() };
        let connection = Connection::open(&settings, "test", |_| {}).await.unwrap();
        let running = Self { client: nats.client().await, connection, shutdown, service };
        // The endpoints and the streams stand; what follows cannot be missed.
        eventually(PATIENCE, || running.stock(StockQuery::default()), "the service to answer").await;
        eventually(PATIENCE, || running.jetstream_info("ORDERS", "inventory-orders"), "the consumer").await;
        running
    }

    async fn jetstream_info(&self, stream: &str, durable: &str) -> Result<(), String> {
        let js = async_nats::jetstream::new(self.client.clone());
        let stream = js.get_stream(stream).await.map_err(|e| e.to_string())?;
        stream.consumer_info(durable).await.map(|_| ()).map_err(|e| e.to_string())
    }

    async fn stock(&self, query: StockQuery) -> Result<StockLevels, RequestError> {
        request_json(&self.connection, subjects::INVENTORY_STOCK, &query, Duration::from_secs(2)).await
    }

    async fn adjust(&self, product_id: &str, delta: i64) -> Result<StockLevel, RequestError> {
        let asked = StockAdjustment {
            adjustment_id: Uuid::now_v7(),
            product_id: product(product_id),
            delta,
            reason: "count".into(),
        };
        request_json(&self.connection, subjects::INVENTORY_ADJUST, &asked, Duration::from_secs(5)).await
    }

    async fn list(&self, id: &str, opening_stock: u32) {
        let unit_price = Money::new(100, "EUR".parse().unwrap()).unwrap();
        let entry = Product { product_id: product(id), name: id.into(), unit_price, opening_stock };
        self.put(id, serde_json::to_vec(&entry).unwrap()).await;
    }

    async fn put(&self, key: &str, value: Vec<u8>) {
        let js = async_nats::jetstream::new(self.client.clone());
        let bucket = eventually(PATIENCE, || js.get_key_value(BUCKET), "the bucket").await;
        bucket.put(key, value.into()).await.unwrap();
    }

    /// As the order service does it.
    async fn publish<E: Event>(&self, event: &E) -> EventId {
        let js = async_nats::jetstream::new(self.client.clone());
        let id = EventId::generate();
        for version in encode(event, &id, &Retired::default()).unwrap() {
            let cause = Cause { correlation_id: "c-1".into(), ..Cause::default() };
            let mut headers = async_nats::HeaderMap::new();
            for (name, value) in encode_headers(&version, "/millrace/order", OffsetDateTime::now_utc(), &cause) {
                headers.insert(name, value);
            }
            js.publish_with_headers(version.subject, headers, version.body.into()).await.unwrap().await.unwrap();
        }
        id
    }

    async fn listen(&self) -> async_nats::Subscriber {
        let heard = self.client.subscribe("inventory.>").await.unwrap();
        self.client.flush().await.unwrap();
        heard
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.service).await.unwrap().unwrap().unwrap();
    }
}

async fn next<E: Event>(heard: &mut async_nats::Subscriber) -> (E, async_nats::HeaderMap) {
    let message = tokio::time::timeout(PATIENCE, heard.next()).await.unwrap().unwrap();
    assert_eq!(message.subject.as_str(), E::SUBJECT);
    (serde_json::from_slice(&message.payload).unwrap(), message.headers.unwrap())
}

fn confirmed(order: &OrderCreated) -> OrderConfirmed {
    OrderConfirmed { order_id: order.order_id, total: order.total, confirmed_at: Timestamp::from_unix_ms(0) }
}

fn code(answer: Result<impl std::fmt::Debug, RequestError>) -> (u16, String) {
    match answer {
        Err(RequestError::Service { error, .. }) => (error.code, error.description),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_held_and_committed_and_says_why_on_sqlite() {
    an_order_is_held_and_committed_and_says_why(&Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_held_and_committed_and_says_why_on_postgres() {
    an_order_is_held_and_committed_and_says_why(&Place::postgres().await).await;
}

async fn an_order_is_held_and_committed_and_says_why(place: &Place) {
    let nats = testkit::nats().await;
    let running = Running::start(&nats, place).await;
    let mut heard = running.listen().await;
    running.list("mug", 3).await;
    // At once: the product is found even if the watch has not seen it yet.
    let order = order(OrderId::generate(), &[("mug", 2)]);
    let cause = running.publish(&order).await;
    let (reserved, headers) = next::<InventoryReserved>(&mut heard).await;
    assert_eq!((reserved.order_id, &reserved.items[..]), (order.order_id, &[item("mug", 2)][..]));
    assert_eq!(headers.get("ce-correlationid").unwrap().as_str(), "c-1");
    assert_eq!(headers.get("ce-causationid").unwrap().as_str(), cause.as_str());
    assert_eq!(headers.get("ce-source").unwrap().as_str(), "/millrace/inventory");
    running.publish(&confirmed(&order)).await;
    assert_eq!(next::<InventoryCommitted>(&mut heard).await.0.items, [item("mug", 2)]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_handled_before_a_restart_is_not_handled_again() {
    let (nats, place) = (testkit::nats().await, Place::sqlite());
    let running = Running::start(&nats, &place).await;
    running.list("mug", 3).await;
    let first = order(OrderId::generate(), &[("mug", 2)]);
    let mut heard = running.listen().await;
    running.publish(&first).await;
    next::<InventoryReserved>(&mut heard).await;
    running.stop().await;

    let running = Running::start(&nats, &place).await;
    let mut heard = running.listen().await;
    // The same business fact under a new event id: the order is known.
    running.publish(&first).await;
    running.publish(&order(OrderId::generate(), &[("mug", 2)])).await;
    let (rejected, _) = next::<InventoryRejected>(&mut heard).await;
    assert_eq!((rejected.shortages[0].requested, rejected.shortages[0].available), (2, 1));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_can_be_asked_for_and_adjusted() {
    let (nats, place) = (testkit::nats().await, Place::sqlite());
    let running = Running::start(&nats, &place).await;
    running.put("broken", b"not a product".to_vec()).await;
    running.list("mug", 3).await;
    running.list("pen", 1).await;
    let all = || async {
        let levels = running.stock(StockQuery::default()).await.map_err(|e| e.to_string())?.levels;
        if levels.len() == 2 { Ok(levels) } else { Err(format!("{levels:?}")) }
    };
    eventually(PATIENCE, all, "both products, in spite of the entry that is none").await;

    assert_eq!(running.adjust("mug", 4).await.unwrap().available, 7);
    let one = running.stock(StockQuery { product_id: Some(product("mug")) }).await.unwrap().levels;
    assert_eq!(one, [StockLevel { product_id: product("mug"), available: 7, reserved: 0, committed: 0 }]);
    let (status, text) = code(running.adjust("mug", -8).await);
    assert_eq!((status, text.starts_with("delta: ")), (409, true), "{text}");
    let (status, text) = code(running.adjust("jug", 1).await);
    assert_eq!((status, text.starts_with("product_id: ")), (404, true), "{text}");
    assert_eq!(code(running.adjust("mug", 0).await).0, 400);
    assert_eq!(code(running.stock(StockQuery { product_id: Some(product("jug")) }).await).0, 404);
    let nonsense = serde_json::json!({"product_id": "mug", "delta": "many"});
    let answer: Result<StockLevel, _> =
        request_json(&running.connection, subjects::INVENTORY_ADJUST, &nonsense, Duration::from_secs(5)).await;
    assert_eq!(code(answer).0, 400);
    running.stop().await;
}
