//! What the tests of inventory share.

use std::time::Duration;

use contracts::orders::{Contact, Item, OrderCreated, PricedItem};
use contracts::topology::{TopologySettings, topology};
use contracts::{CustomerId, Money, OrderId, ProductId, Timestamp};
use inventory::model::{Intent, InventoryModel, Outcome};
use inventory::store::{MIGRATIONS, Reads};
use millrace::connection::{Connection, NatsSettings};
use millrace::event::Cause;
use millrace::health::Health;
use millrace::kit::{Kit, KitParts, KitSettings};
use millrace::store::{Database, DatabaseUrl, Writer};
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes, so that only a defect runs into it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A place for one database, and where it is.
pub(crate) struct Place {
    pub(crate) url: DatabaseUrl,
    _folder: Option<tempfile::TempDir>,
}

impl Place {
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { url: DatabaseUrl::Sqlite(folder.path().join("inventory.db")), _folder: Some(folder) }
    }

    pub(crate) async fn postgres() -> Self {
        Self { url: DatabaseUrl::Postgres(testkit::fresh_database().await), _folder: None }
    }
}

/// The parts of a service, with a broker at `nats_url` that need not exist.
pub(crate) async fn kit_parts(place: &Place, nats_url: &str) -> KitParts {
    let settings = NatsSettings {
        url: nats_url.to_owned(),
        reconnect_base_ms: 10,
        reconnect_max_ms: 100,
        ..NatsSettings::default()
    };
    KitParts {
        service: "inventory",
        connection: Connection::open(&settings, "inventory", |_| {}).await.unwrap(),
        database_url: place.url.clone(),
        settings: KitSettings::default(),
        topology: topology(&TopologySettings::default()),
        health: Health::new(),
        shutdown: CancellationToken::new(),
    }
}

/// The service's database with its writer, and no broker: what is published stays in the outbox.
pub(crate) struct Bench {
    pub(crate) writer: Writer<InventoryModel>,
    pub(crate) reads: Reads,
    pub(crate) database: Database,
    _kit: Kit<InventoryModel>,
}

impl Bench {
    pub(crate) async fn at(place: &Place) -> Self {
        let kit = Kit::start(kit_parts(place, "nats://127.0.0.1:1").await, InventoryModel, MIGRATIONS).await.unwrap();
        let database = kit.database();
        Self { writer: kit.writer(), reads: Reads::new(database.clone()), database, _kit: kit }
    }

    pub(crate) async fn submit(&self, intent: Intent) -> Outcome {
        self.writer.submit_because(Cause::spontaneous(), intent).await.unwrap()
    }

    pub(crate) async fn add(&self, id: &str, opening_stock: u32) -> Outcome {
        self.submit(Intent::AddProduct { product_id: product(id), opening_stock }).await
    }

    /// available, reserved, committed
    pub(crate) async fn counts(&self, id: &str) -> (i64, i64, i64) {
        let level = self.reads.level(&product(id)).await.unwrap().unwrap();
        (level.available, level.reserved, level.committed)
    }

    /// Subjects of what is in the outbox for one order, in commit order.
    pub(crate) async fn published(&self, order_id: OrderId) -> Vec<String> {
        let rows = self.database.unpublished(0, i64::MAX, 100_000).await.unwrap();
        let of_order = rows.into_iter().filter(|row| row.message.lane == order_id.to_string());
        of_order.map(|row| row.message.subject).collect()
    }
}

pub(crate) fn product(id: &str) -> ProductId {
    ProductId::new(id).unwrap()
}

pub(crate) fn item(id: &str, quantity: u32) -> Item {
    Item { product_id: product(id), quantity }
}

pub(crate) fn order(order_id: OrderId, items: &[(&str, u32)]) -> OrderCreated {
    let priced = |(id, quantity): &(&str, u32)| PricedItem {
        product_id: product(id),
        quantity: *quantity,
        unit_price_minor: Some(100),
    };
    OrderCreated {
        order_id,
        customer_id: CustomerId::new("c1").unwrap(),
        total: Money::new(100, "EUR".parse().unwrap()).unwrap(),
        items: items.iter().map(priced).collect(),
        payment_method: None,
        contact: Contact::default(),
        created_at: Timestamp::from_unix_ms(1_700_000_000_000),
    }
}
