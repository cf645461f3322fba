//! What the tests of notification share.

use std::time::Duration;

use contracts::notifications::{Channel, Notice};
use contracts::orders::{Contact, OrderCreated, PricedItem};
use contracts::topology::{TopologySettings, topology};
use contracts::{CustomerId, Money, OrderId, ProductId, Timestamp};
use millrace::connection::{Connection, NatsSettings};
use millrace::event::Cause;
use millrace::health::Health;
use millrace::kit::{Kit, KitParts, KitSettings};
use millrace::store::{Database, DatabaseUrl, Writer};
use notification::domain::{Fact, Policy, Status};
use notification::model::{Due, Intent, NotificationModel, Outcome};
use notification::store::{MIGRATIONS, Reads};
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
        Self { url: DatabaseUrl::Sqlite(folder.path().join("notification.db")), _folder: Some(folder) }
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
        service: "notification",
        connection: Connection::open(&settings, "notification", |_| {}).await.unwrap(),
        database_url: place.url.clone(),
        settings: KitSettings::default(),
        topology: topology(&TopologySettings::default()),
        health: Health::new(),
        shutdown: CancellationToken::new(),
    }
}

pub(crate) fn policy() -> Policy {
    Policy { email: true, sms: true, claim: Duration::from_secs(60), give_up_after: Duration::from_secs(3600) }
}

/// The service's database with its writer, and no broker: what is published stays in the outbox.
pub(crate) struct Bench {
    pub(crate) writer: Writer<NotificationModel>,
    pub(crate) reads: Reads,
    pub(crate) database: Database,
    _kit: Kit<NotificationModel>,
}

impl Bench {
    pub(crate) async fn at(place: &Place) -> Self {
        Self::with(place, policy()).await
    }

    pub(crate) async fn with(place: &Place, policy: Policy) -> Self {
        let model = NotificationModel { policy, message_domain: "millrace.example".into() };
        let kit = Kit::start(kit_parts(place, "nats://127.0.0.1:1").await, model, MIGRATIONS).await.unwrap();
        let database = kit.database();
        Self { writer: kit.writer(), reads: Reads::new(database.clone()), database, _kit: kit }
    }

    pub(crate) async fn submit(&self, intent: Intent) -> Outcome {
        self.writer.submit_because(Cause::spontaneous(), intent).await.unwrap()
    }

    /// What the one who brought the fact has to send.
    pub(crate) async fn learn(&self, order_id: OrderId, fact: Fact) -> Due {
        due(self.submit(Intent::Learn { order_id, fact, correlation_id: "c-1".into() }).await)
    }

    pub(crate) async fn claim(&self, order_id: OrderId, channels: &[Channel]) -> Due {
        due(self.submit(Intent::Claim { order_id, channels: channels.to_vec() }).await)
    }

    pub(crate) async fn statuses(&self, order_id: OrderId) -> Vec<(Notice, Channel, Status)> {
        let all = self.reads.deliveries(order_id).await.unwrap();
        all.into_iter().map(|((notice, channel), delivery)| (notice, channel, delivery.status)).collect()
    }

    /// Subjects of what is in the outbox for one order, in commit order.
    pub(crate) async fn published(&self, order_id: OrderId) -> Vec<String> {
        let rows = self.database.unpublished(0, i64::MAX, 100_000).await.unwrap();
        let of_order = rows.into_iter().filter(|row| row.message.lane == order_id.to_string());
        of_order.map(|row| row.message.subject).collect()
    }
}

fn due(outcome: Outcome) -> Due {
    match outcome {
        Outcome::Due(due) => due,
        Outcome::Done => Due::default(),
    }
}

pub(crate) fn order(order_id: OrderId, email: Option<&str>, phone: Option<&str>) -> OrderCreated {
    OrderCreated {
        order_id,
        customer_id: CustomerId::new("c1").unwrap(),
        total: Money::new(1998, "EUR".parse().unwrap()).unwrap(),
        items: vec![PricedItem {
            product_id: ProductId::new("mug").unwrap(),
            quantity: 2,
            unit_price_minor: Some(999),
        }],
        payment_method: None,
        contact: Contact { email: email.map(Into::into), phone: phone.map(Into::into) },
        created_at: Timestamp::from_unix_ms(1_700_000_000_000),
    }
}
