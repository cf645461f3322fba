//! A running payment service, and everything a test needs to see what it did.

use std::time::Duration;

use async_nats::HeaderMap;
use contracts::orders::{CancelReason, Contact, OrderCancelled, OrderConfirmed, OrderCreated};
use contracts::topology::{TopologySettings, topology};
use contracts::{CustomerId, Money, OrderId, Timestamp};
use millrace::config::HumanDuration;
use millrace::connection::{Connection, NatsSettings};
use millrace::event::{Cause, Event, EventId, Retired, encode, encode_headers};
use millrace::health::Health;
use millrace::kit::{self, KitParts, KitSettings};
use millrace::store::{Database, DatabaseSettings, DatabaseUrl};
use payment::domain::State;
use payment::gateway::GatewaySettings;
use payment::model::Row;
use payment::settings::BreakerSettings;
use payment::store::{MIGRATIONS, Reads};
use payment::{Parts, SERVICE, Settings};
use simulators::gateway::ledger::{Ledger, Summary};
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
        Backend::Sqlite => DatabaseUrl::Sqlite(folder.path().join("payment.db")),
        Backend::Postgres => testkit::fresh_database().await.parse().unwrap(),
    };
    (url, folder)
}

pub(crate) async fn connect(nats: &TestNats) -> Connection {
    let settings =
        NatsSettings { url: nats.url(), reconnect_base_ms: 10, reconnect_max_ms: 100, ..NatsSettings::default() };
    Connection::open(&settings, SERVICE, |_| {}).await.unwrap()
}

/// Quick retries; everything else as shipped.
pub(crate) fn quick() -> Settings {
    Settings {
        breaker: BreakerSettings { open_for: HumanDuration::from_millis(500), ..BreakerSettings::default() },
        retry_first: HumanDuration::from_millis(50),
        retry_most: HumanDuration::from_millis(500),
        sweep_every: HumanDuration::from_millis(50),
        ..Settings::default()
    }
}

struct Running {
    task: JoinHandle<Result<(), kit::Error>>,
    shutdown: CancellationToken,
    connection: Connection,
}

pub(crate) struct World {
    nats: TestNats,
    pub(crate) connection: Connection,
    pub(crate) reads: Reads,
    pub(crate) database_url: DatabaseUrl,
    _folder: TempDir,
    gateway: String,
    settings: Settings,
    service: Option<Running>,
    http: reqwest::Client,
}

impl World {
    pub(crate) async fn start(backend: Backend) -> Self {
        Self::start_with(backend, quick()).await
    }

    pub(crate) async fn start_with(backend: Backend, settings: Settings) -> Self {
        let nats = testkit::nats().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateway = format!("http://{}", listener.local_addr().unwrap());
        let simulator = simulators::gateway::Settings { slow_ms: 1_000, ..Default::default() };
        tokio::spawn(simulators::gateway::run(listener, simulator, CancellationToken::new()));
        let (database_url, folder) = database(backend).await;
        let stop = CancellationToken::new();
        let opened = Database::open(&database_url, SERVICE, &DatabaseSettings::default(), MIGRATIONS, &stop).await;
        let settings = Settings {
            gateway: GatewaySettings { url: gateway.clone(), timeout_ms: 3_000, ..settings.gateway },
            ..settings
        };
        let mut world = Self {
            connection: connect(&nats).await,
            nats,
            reads: Reads { database: opened.unwrap() },
            database_url,
            _folder: folder,
            gateway,
            settings,
            service: None,
            http: millrace::http_client::http_client(PATIENCE, PATIENCE).unwrap(),
        };
        world.resume().await;
        world
    }

    /// Starts the service, also after [`stop`](Self::stop).
    pub(crate) async fn resume(&mut self) {
        let (shutdown, connection) = (CancellationToken::new(), connect(&self.nats).await);
        let kit = KitParts {
            service: SERVICE,
            connection: connection.clone(),
            database_url: self.database_url.clone(),
            settings: KitSettings::default(),
            topology: topology(&TopologySettings::default()),
            health: Health::default(),
            shutdown: shutdown.clone(),
        };
        let task = tokio::spawn(payment::run(Parts { kit, settings: self.settings.clone() }));
        self.service = Some(Running { task, shutdown, connection });
        let jetstream = self.connection.jetstream();
        let consumer = || jetstream.get_stream("DEAD_LETTERS");
        eventually(PATIENCE, consumer, "the topology").await;
    }

    /// Stops the service in good order.
    pub(crate) async fn stop(&mut self) {
        let Running { task, shutdown, .. } = self.service.take().unwrap();
        shutdown.cancel();
        tokio::time::timeout(PATIENCE, task).await.expect("the service did not stop").unwrap().unwrap();
    }

    /// As a crash: whatever handlers and sweep are doing is dropped where it stands.
    pub(crate) async fn crash(&mut self) {
        let Running { task, shutdown, connection } = self.service.take().unwrap();
        task.abort();
        let _ = task.await;
        // The rest of the process goes, too, and the broker notices.
        shutdown.cancel();
        connection.close(PATIENCE).await.unwrap();
    }

    /// Publishes as the order service does.
    pub(crate) async fn publish<E: Event>(&self, event: &E) -> EventId {
        let id = EventId::generate();
        self.publish_as(&id, event).await;
        id
    }

    pub(crate) async fn publish_as<E: Event>(&self, id: &EventId, event: &E) {
        for encoded in encode(event, id, &Retired::default()).unwrap() {
            let mut headers = HeaderMap::new();
            let cause = Cause { correlation_id: format!("test-{}", event.key()), ..Cause::default() };
            for (name, value) in encode_headers(&encoded, "/millrace/order", OffsetDateTime::now_utc(), &cause) {
                // Published twice means delivered twice here: the stream's deduplication is not what is tested.
                if name != "Nats-Msg-Id" {
                    headers.insert(name, value);
                }
            }
            let publish =
                self.connection.jetstream().publish_with_headers(encoded.subject, headers, encoded.body.into()).await;
            publish.unwrap().await.unwrap();
        }
    }

    /// Waits until the order's payment is in this state.
    pub(crate) async fn state(&self, order_id: OrderId, wanted: State) -> Row {
        let check = || async {
            match self.reads.get(order_id).await.unwrap() {
                Some(row) if row.payment.state == wanted => Ok(row),
                other => Err(format!("{other:?}")),
            }
        };
        eventually(PATIENCE, check, &format!("{wanted}")).await
    }

    /// Waits until every message of the consumer is acknowledged.
    pub(crate) async fn all_acknowledged(&self) {
        let check = || async {
            let stream = self.connection.jetstream().get_stream("ORDERS").await.map_err(|e| e.to_string())?;
            let info = stream.consumer_info("payment-orders").await.map_err(|e| e.to_string())?;
            let left = info.num_pending + info.num_ack_pending as u64;
            if left == 0 { Ok(()) } else { Err(format!("{left} messages are not acknowledged")) }
        };
        eventually(PATIENCE, check, "acknowledgements").await;
    }

    pub(crate) async fn dead_letters(&self) -> u64 {
        let mut stream = self.connection.jetstream().get_stream("DEAD_LETTERS").await.unwrap();
        stream.info().await.unwrap().state.messages
    }

    /// Waits until the order's events are these, in this order, each with the order's correlation id.
    pub(crate) async fn told(&self, order_id: OrderId, wanted: &[&str]) {
        let check = || async {
            let told = self.published(order_id).await;
            if told == wanted { Ok(()) } else { Err(format!("{told:?}")) }
        };
        eventually(PATIENCE, check, &format!("{wanted:?}")).await;
    }

    async fn published(&self, order_id: OrderId) -> Vec<String> {
        let mut stream = self.connection.jetstream().get_stream("PAYMENTS").await.unwrap();
        let last = stream.info().await.unwrap().state.last_sequence;
        let mut told = Vec::new();
        for sequence in 1..=last {
            let message = stream.get_raw_message(sequence).await.unwrap();
            if message.headers.get("ce-subject").unwrap().as_str() == order_id.to_string() {
                let correlation = message.headers.get("ce-correlationid").unwrap().as_str();
                assert_eq!(correlation, format!("test-{order_id}"));
                told.push(message.subject.to_string());
            }
        }
        told
    }

    /// `down`, `errors`, `lose_answers`, `ok`, ...
    /// Damages the database.
    pub(crate) async fn execute(&self, sql: &str) {
        match &self.database_url {
            DatabaseUrl::Sqlite(path) => {
                let db = rusqlite::Connection::open(path).unwrap();
                db.busy_timeout(PATIENCE).unwrap();
                db.execute_batch(sql).unwrap();
            }
            DatabaseUrl::Postgres(url) => {
                let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
                tokio::spawn(connection);
                client.batch_execute(sql).await.unwrap();
            }
        }
    }

    pub(crate) async fn gateway_is(&self, mode: serde_json::Value) {
        let url = format!("{}/_control/mode", self.gateway);
        self.http.put(url).json(&mode).send().await.unwrap().error_for_status().unwrap();
    }

    pub(crate) async fn ledger(&self) -> Ledger {
        self.http.get(format!("{}/_control/ledger", self.gateway)).send().await.unwrap().json().await.unwrap()
    }

    /// Puts money on hold behind the service's back. Returns the gateway's name for it.
    pub(crate) async fn hold(&self, order_id: OrderId) -> String {
        let form = [
            ("amount", "4998".to_owned()),
            ("currency", "eur".into()),
            ("payment_method", "pm_card_visa".into()),
            ("capture_method", "manual".into()),
            ("confirm", "true".into()),
            ("metadata[order_id]", order_id.to_string()),
        ];
        let url = format!("{}/v1/payment_intents", self.gateway);
        let answer = self.http.post(url).bearer_auth("sk_test_1").form(&form).send().await.unwrap();
        let intent: serde_json::Value = answer.error_for_status().unwrap().json().await.unwrap();
        intent["id"].as_str().unwrap().to_owned()
    }

    /// What the gateway holds for an order.
    pub(crate) async fn intents(&self, order_id: OrderId) -> Vec<Summary> {
        let id = order_id.to_string();
        self.ledger().await.intents.into_iter().filter(|intent| intent.order_id.as_ref() == Some(&id)).collect()
    }
}

pub(crate) fn created(method: &str) -> OrderCreated {
    OrderCreated {
        order_id: OrderId::generate(),
        customer_id: CustomerId::new("c-1").unwrap(),
        total: Money::new(4_998, "EUR".parse().unwrap()).unwrap(),
        items: Vec::new(),
        payment_method: Some(method.to_owned()),
        contact: Contact::default(),
        created_at: now(),
    }
}

pub(crate) fn confirmed(order: &OrderCreated) -> OrderConfirmed {
    OrderConfirmed { order_id: order.order_id, total: order.total, confirmed_at: now() }
}

pub(crate) fn cancelled(order: &OrderCreated) -> OrderCancelled {
    OrderCancelled { order_id: order.order_id, reason: CancelReason::Customer, cancelled_at: now() }
}

pub(crate) fn now() -> Timestamp {
    Timestamp(OffsetDateTime::now_utc())
}
