//! A running order service, and everything a test needs to play the other services.

use std::sync::Mutex;
use std::time::Duration;

use async_nats::HeaderMap;
use contracts::catalog::{BUCKET, Product};
use contracts::inventory::InventoryReserved;
use contracts::payments::PaymentAuthorized;
use contracts::topology::{TopologySettings, topology};
use contracts::{Money, OrderId, ProductId, Timestamp};
use millrace::connection::{Connection, NatsSettings};
use millrace::event::{Cause, Event, EventId, Retired, encode, encode_headers};
use millrace::health::Health;
use millrace::kit::{self, KitParts, KitSettings};
use millrace::store::DatabaseUrl;
use order::{Parts, Settings};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{TestNats, eventually};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

/// Runs an async test once on each backend.
macro_rules! on_both_backends {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() { super::$name(crate::support::Backend::Sqlite).await })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() { super::$name(crate::support::Backend::Postgres).await })*
        }
    };
}
pub(crate) use on_both_backends;

/// An empty database, and the folder it is in.
pub(crate) async fn database(backend: Backend) -> (DatabaseUrl, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let url = match backend {
        Backend::Sqlite => DatabaseUrl::Sqlite(folder.path().join("order.db")),
        Backend::Postgres => testkit::fresh_database().await.parse().unwrap(),
    };
    (url, folder)
}

pub(crate) async fn connect(url: &str) -> Connection {
    let settings =
        NatsSettings { url: url.to_owned(), reconnect_base_ms: 10, reconnect_max_ms: 100, ..NatsSettings::default() };
    Connection::open(&settings, "order", |_| {}).await.unwrap()
}

/// One instance of the service.
pub(crate) struct Instance {
    pub(crate) base: String,
    pub(crate) health: Health,
    running: Mutex<Option<JoinHandle<Result<(), kit::Error>>>>,
    shutdown: CancellationToken,
    http: reqwest::Client,
}

/// An answer of the API.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn order_id(&self) -> OrderId {
        self.body["order_id"].as_str().unwrap_or_else(|| panic!("{self:?}")).parse().unwrap()
    }
}

impl Instance {
    pub(crate) async fn start(nats_url: &str, database_url: &DatabaseUrl, settings: Settings) -> Self {
        let shutdown = CancellationToken::new();
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", http.local_addr().unwrap());
        let health = Health::new();
        let kit = KitParts {
            service: "order",
            connection: connect(nats_url).await,
            database_url: database_url.clone(),
            settings: KitSettings::default(),
            topology: topology(&TopologySettings::default()),
            health: health.clone(),
            shutdown: shutdown.clone(),
        };
        let running = Mutex::new(Some(tokio::spawn(order::run(Parts { kit, settings, http }))));
        let client = millrace::http_client::http_client(PATIENCE, PATIENCE).unwrap();
        Self { base, health, running, shutdown, http: client }
    }

    pub(crate) async fn stop(&self) {
        self.shutdown.cancel();
        let running = self.running.lock().unwrap().take().unwrap();
        tokio::time::timeout(PATIENCE, running).await.expect("the service did not stop").unwrap().unwrap();
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        self.try_send(request).await.unwrap()
    }

    pub(crate) async fn try_send(&self, request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        Ok(Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) })
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn place_with_key(&self, body: &Value, key: &str) -> Answer {
        self.send(self.request(Method::POST, "/orders").header("Idempotency-Key", key).json(body)).await
    }

    /// Places a right order.
    pub(crate) async fn place(&self) -> OrderId {
        let answer = self.post("/orders", &body()).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.order_id()
    }

    /// Waits until the order looks like this.
    pub(crate) async fn becomes(&self, id: OrderId, wanted: Value) -> Value {
        let check = || async {
            let answer = self.get(&format!("/orders/{id}")).await;
            let fields = wanted.as_object().unwrap();
            if fields.iter().all(|(name, value)| answer.body.get(name) == Some(value)) {
                Ok(answer.body)
            } else {
                Err(answer.body.to_string())
            }
        };
        eventually(PATIENCE, check, &wanted.to_string()).await
    }

    /// Types on the order's timeline.
    pub(crate) async fn timeline(&self, id: OrderId) -> Vec<String> {
        let answer = self.get(&format!("/orders/{id}/timeline")).await;
        let entries = answer.body["timeline"].as_array().unwrap_or_else(|| panic!("{answer:?}")).clone();
        entries.iter().map(|entry| entry["event"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) async fn ready(&self) {
        let check = || async {
            let readiness = self.health.readiness();
            if readiness.ready { Ok(()) } else { Err(format!("{:?}", readiness.components)) }
        };
        eventually(PATIENCE, check, "readiness").await;
    }
}

/// The service with a broker and a catalog.
pub(crate) struct World {
    pub(crate) nats: TestNats,
    pub(crate) connection: Connection,
    pub(crate) database_url: DatabaseUrl,
    pub(crate) service: Instance,
    _folder: TempDir,
}

impl World {
    pub(crate) async fn start(backend: Backend) -> Self {
        Self::start_with(backend, Settings::default()).await
    }

    pub(crate) async fn start_with(backend: Backend, settings: Settings) -> Self {
        let nats = testkit::nats().await;
        let (database_url, folder) = database(backend).await;
        let service = Instance::start(&nats.url(), &database_url, settings).await;
        let connection = connect(&nats.url()).await;
        let world = Self { nats, connection, database_url, service, _folder: folder };
        for product in products() {
            world.put(&product).await;
        }
        world.service.ready().await;
        let all =
            || async { world.service.get("/catalog").await.body["products"].as_array().is_some_and(|p| p.len() == 5) };
        eventually(PATIENCE, all, "the catalog").await;
        world
    }

    pub(crate) async fn bucket(&self) -> async_nats::jetstream::kv::Store {
        eventually(PATIENCE, || self.connection.jetstream().get_key_value(BUCKET), "the bucket").await
    }

    pub(crate) async fn put(&self, product: &Product) {
        let value = serde_json::to_vec(product).unwrap();
        self.bucket().await.put(product.product_id.as_str(), value.into()).await.unwrap();
    }

    /// Publishes as one of our services does.
    pub(crate) async fn publish<E: Event>(&self, service: &str, event: &E) -> EventId {
        let id = EventId::generate();
        self.publish_as(&id, service, event).await;
        id
    }

    pub(crate) async fn publish_as<E: Event>(&self, id: &EventId, service: &str, event: &E) {
        let encoded = encode(event, id, &Retired::default()).unwrap().remove(0);
        let mut headers = HeaderMap::new();
        let source = format!("/millrace/{service}");
        for (name, value) in encode_headers(&encoded, &source, OffsetDateTime::now_utc(), &Cause::default()) {
            // Published twice means delivered twice here: the stream's deduplication is not what is tested.
            if name != "Nats-Msg-Id" {
                headers.insert(name, value);
            }
        }
        let context = self.connection.jetstream();
        context.publish_with_headers(encoded.subject, headers, encoded.body.into()).await.unwrap().await.unwrap();
    }

    /// Payment and stock both say yes.
    pub(crate) async fn say_yes(&self, id: OrderId) {
        self.publish("payment", &authorized(id)).await;
        self.publish("inventory", &reserved(id)).await;
    }

    /// Messages on a subject, oldest first.
    pub(crate) async fn published(&self, subject: &str) -> Vec<async_nats::jetstream::message::StreamMessage> {
        let stream_name = if subject.starts_with("dead_letters") { "DEAD_LETTERS" } else { "ORDERS" };
        let mut stream = self.connection.jetstream().get_stream(stream_name).await.unwrap();
        let last = stream.info().await.unwrap().state.last_sequence;
        let mut found = Vec::new();
        for sequence in 1..=last {
            let message = stream.get_raw_message(sequence).await.unwrap();
            if message.subject.as_str() == subject
                || (subject.ends_with('>') && message.subject.starts_with(subject.trim_end_matches('>')))
            {
                found.push(message);
            }
        }
        found
    }
}

pub(crate) fn eur(minor: i64) -> Money {
    Money::new(minor, "EUR".parse().unwrap()).unwrap()
}

pub(crate) fn product(id: &str, unit_price: Money) -> Product {
    Product { product_id: ProductId::new(id).unwrap(), name: format!("A {id}"), unit_price, opening_stock: 100 }
}

pub(crate) fn products() -> Vec<Product> {
    vec![
        product("mug", eur(999)),
        product("pot", eur(2_500)),
        product("gift", eur(0)),
        product("yacht", eur(99_999_999)),
        product("tea", Money::new(450, "GBP".parse().unwrap()).unwrap()),
    ]
}

/// A right order: two mugs and a pot, 44.98 EUR.
pub(crate) fn body() -> Value {
    json!({
        "customer_id": "c-1",
        "payment_method": "pm_card_visa",
        "email": "ada@example.com",
        "items": [{ "product_id": "mug", "quantity": 2 }, { "product_id": "pot", "quantity": 1 }],
    })
}

pub(crate) fn now() -> Timestamp {
    Timestamp(OffsetDateTime::now_utc())
}

pub(crate) fn authorized(order_id: OrderId) -> PaymentAuthorized {
    PaymentAuthorized { order_id, payment_id: "pi_1".into(), amount: eur(4_498), authorized_at: now() }
}

pub(crate) fn reserved(order_id: OrderId) -> InventoryReserved {
    InventoryReserved { order_id, items: Vec::new(), reserved_at: now() }
}
