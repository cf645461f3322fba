//! The same promises of both backends.

use std::collections::HashSet;
use std::time::Duration;

use contracts::orders::{CancelReason, Contact, OrderConfirmed, OrderCreated, PricedItem};
use contracts::{CustomerId, OrderId, ProductId, Timestamp, subjects};
use futures::future::join_all;
use millrace::event::{Cause, Event, EventId, Retired};
use millrace::outbox::{Relay, RelaySettings};
use millrace::store::{Database, DatabaseSettings, Writer, WriterSettings};
use order::domain::{Cancellation, End, Fact, Payment, Placement, Status, Stock};
use order::model::{CatalogChange, Intent, KeyUse, Observed, OrderModel, Outcome};
use order::store::{MIGRATIONS, Page, Reads};
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{Backend, connect, database, eur, now, on_both_backends, product};

on_both_backends! {
    every_column_survives_the_trip,
    an_order_that_is_created_twice_is_there_once,
    the_same_key_in_one_batch_places_one_order,
    the_same_key_at_two_instances_places_one_order,
    a_key_is_bound_to_its_request_until_its_time_is_over,
    facts_that_come_first_decide_the_order_when_it_comes,
    two_instances_that_hear_different_halves_confirm_once,
    an_event_is_on_the_timeline_once_and_at_its_time,
    the_list_is_paged_newest_first_without_gaps,
    only_overdue_processing_orders_are_found_and_expired,
    a_foreign_order_is_passed_on_under_its_id_and_a_clash_changes_nothing,
    the_copy_of_the_catalog_follows_its_changes,
}

const KEY_LIFETIME: Duration = Duration::from_secs(3600);

struct Store {
    writer: Writer<OrderModel>,
    database: Database,
    reads: Reads,
}

/// The relay is not run, so the outbox keeps what would be published.
async fn open(url: &millrace::store::DatabaseUrl, model: OrderModel) -> Store {
    let stop = CancellationToken::new();
    let database = Database::open(url, "order", &DatabaseSettings::default(), MIGRATIONS, &stop).await.unwrap();
    let (_, sender) = Relay::new(connect("nats://127.0.0.1:9").await, database.clone(), RelaySettings::default());
    let settings = WriterSettings::default();
    let (writer, _) = Writer::start(&database, model, "/millrace/order", Retired::default(), settings, sender).unwrap();
    Store { writer, reads: Reads::new(database.clone()), database }
}

fn model() -> OrderModel {
    OrderModel { deadline: Duration::from_secs(900), key_lifetime: KEY_LIFETIME }
}

async fn store(backend: Backend) -> (Store, TempDir) {
    let (url, folder) = database(backend).await;
    (open(&url, model()).await, folder)
}

impl Store {
    async fn submit(&self, intent: Intent) -> Outcome {
        self.writer.submit_because(Cause::spontaneous(), intent).await.unwrap()
    }

    async fn place(&self) -> OrderId {
        let order = order();
        let id = order.order_id;
        assert_eq!(self.submit(create(&order)).await, Outcome::Created);
        id
    }

    /// Subjects in the outbox that are about an order, in commit order.
    async fn outbox(&self, id: OrderId) -> Vec<String> {
        let rows = self.database.unpublished(0, i64::MAX, 10_000).await.unwrap();
        let about = rows.into_iter().filter(|row| row.message.lane.starts_with(&id.to_string()));
        about.map(|row| row.message.subject).collect()
    }

    async fn end(&self, id: OrderId) -> Option<End> {
        self.reads.order(id).await.unwrap().unwrap().placed.unwrap().ended.map(|(end, _)| end)
    }
}

fn order() -> OrderCreated {
    let item = |id: &str, quantity, price| PricedItem {
        product_id: ProductId::new(id).unwrap(),
        quantity,
        unit_price_minor: price,
    };
    OrderCreated {
        order_id: OrderId::generate(),
        customer_id: CustomerId::new("c-1").unwrap(),
        total: eur(4_498),
        items: vec![item("mug", 2, Some(999)), item("pot", 1, None)],
        payment_method: Some("pm_card_visa".into()),
        contact: Contact { email: Some("ada@example.com".into()), phone: Some("+4915112345678".into()) },
        created_at: Timestamp::from_unix_ms(now().unix_ms()),
    }
}

fn create(order: &OrderCreated) -> Intent {
    Intent::Create { order: Box::new(order.clone()), key: None }
}

fn create_with(order: &OrderCreated, key: &str, hash: &str) -> Intent {
    let key = KeyUse { key: key.into(), request_hash: hash.into() };
    Intent::Create { order: Box::new(order.clone()), key: Some(key) }
}

fn observe(order_id: OrderId, fact: Fact, at_ms: i64) -> Intent {
    let observed = Observed {
        event_id: Uuid::now_v7().to_string(),
        event_type: "payments.authorized".into(),
        service: "payment".into(),
        at: Timestamp::from_unix_ms(at_ms),
        detail: json!({ "amount": eur(4_498), "note": "é \" \\ 漢" }),
    };
    Intent::Observe { order_id, fact, observed }
}

fn yes(order_id: OrderId) -> [Intent; 2] {
    [Fact::Payment(Payment::Authorized), Fact::Stock(Stock::Reserved)].map(|fact| observe(order_id, fact, 5))
}

async fn every_column_survives_the_trip(backend: Backend) {
    let (store, _folder) = store(backend).await;
    let order = order();
    assert_eq!(store.reads.order(order.order_id).await.unwrap(), None);
    store.submit(create(&order)).await;
    let read = store.reads.order(order.order_id).await.unwrap().unwrap();
    let placed = read.placed.clone().unwrap();
    assert_eq!(placed.order, order);
    assert_eq!(
        (placed.status(), placed.foreign, read.payment, read.stock),
        (Status::Processing, false, Payment::Pending, Stock::Pending)
    );
    assert_eq!(placed.deadline_at.unix_ms() - placed.accepted_at.unix_ms(), 900_000);

    let rejected = observe(order.order_id, Fact::Stock(Stock::Rejected), 1_234);
    store.submit(rejected.clone()).await;
    let read = store.reads.order(order.order_id).await.unwrap().unwrap();
    let placed = read.placed.unwrap();
    assert_eq!((placed.status(), placed.cancel_reason()), (Status::Cancelled, Some(CancelReason::OutOfStock)));
    assert!(placed.ended_at().unwrap() >= placed.accepted_at);
    assert_eq!(placed.order, order, "what was ordered has changed");

    let Intent::Observe { observed, .. } = rejected else { unreachable!() };
    let timeline = store.reads.timeline(order.order_id).await.unwrap();
    assert_eq!(timeline[0].what, observed);
    assert_eq!(timeline.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [2, 1, 3]);
}

async fn an_order_that_is_created_twice_is_there_once(backend: Backend) {
    let (store, _folder) = store(backend).await;
    let order = order();
    for _ in 0..2 {
        // The same intent again, as after a connection that was lost during the commit.
        assert_eq!(store.submit(create_with(&order, "k", "h")).await, Outcome::Created);
    }
    assert_eq!(store.outbox(order.order_id).await, ["orders.created.v2", "orders.created"]);
}

async fn the_same_key_in_one_batch_places_one_order(backend: Backend) {
    let (store, _folder) = store(backend).await;
    let orders: Vec<_> = (0..10).map(|_| order()).collect();
    let outcomes = join_all(orders.iter().map(|order| store.submit(create_with(order, "k", "h")))).await;
    let created: Vec<_> =
        orders.iter().zip(&outcomes).filter(|(_, o)| **o == Outcome::Created).map(|(o, _)| o.order_id).collect();
    assert_eq!(created.len(), 1, "{outcomes:?}");
    let replays = outcomes.iter().filter(|outcome| **outcome == Outcome::Replayed(created[0])).count();
    assert_eq!(replays, 9, "{outcomes:?}");
    assert_eq!(store.database.backlog().await.unwrap().rows, 2);
}

async fn the_same_key_at_two_instances_places_one_order(backend: Backend) {
    let (url, _folder) = database(backend).await;
    let (one, other) = (open(&url, model()).await, open(&url, model()).await);
    for round in 0..20 {
        let (key, mine, theirs) = (format!("key-{round}"), order(), order());
        let outcomes =
            tokio::join!(one.submit(create_with(&mine, &key, "h")), other.submit(create_with(&theirs, &key, "h")));
        match outcomes {
            (Outcome::Created, Outcome::Replayed(id)) => assert_eq!(id, mine.order_id),
            (Outcome::Replayed(id), Outcome::Created) => assert_eq!(id, theirs.order_id),
            unexpected => panic!("{unexpected:?}"),
        }
    }
    assert_eq!(one.database.backlog().await.unwrap().rows, 40);
}

async fn a_key_is_bound_to_its_request_until_its_time_is_over(backend: Backend) {
    let (url, _folder) = database(backend).await;
    let store = open(&url, model()).await;
    let first = order();
    assert_eq!(store.submit(create_with(&first, "k", "one")).await, Outcome::Created);
    assert_eq!(store.submit(create_with(&order(), "k", "two")).await, Outcome::KeyTaken);
    let used = store.reads.key("k").await.unwrap().unwrap();
    assert_eq!((used.request_hash.as_str(), used.order_id), ("one", first.order_id));

    // The time of a key is over at once for this instance.
    let hasty = open(&url, OrderModel { key_lifetime: Duration::ZERO, ..model() }).await;
    let second = order();
    assert_eq!(hasty.submit(create_with(&second, "k", "two")).await, Outcome::Created);
    assert_eq!(hasty.reads.key("k").await.unwrap().unwrap().order_id, second.order_id);
    store.submit(Intent::ForgetKeys { used_before: Timestamp::from_unix_ms(now().unix_ms() - 60_000) }).await;
    assert!(store.reads.key("k").await.unwrap().is_some(), "a young key was forgotten");
    store.submit(Intent::ForgetKeys { used_before: Timestamp::from_unix_ms(now().unix_ms() + 60_000) }).await;
    assert_eq!(store.reads.key("k").await.unwrap(), None);
}

async fn facts_that_come_first_decide_the_order_when_it_comes(backend: Backend) {
    let (store, _folder) = store(backend).await;
    let order = order();
    let id = order.order_id;
    for intent in yes(id) {
        store.submit(intent).await;
    }
    assert_eq!(store.submit(Intent::Cancel { order_id: id }).await, Outcome::Cancellation(Cancellation::UnknownOrder));
    assert_eq!(store.reads.order(id).await.unwrap(), None, "an order that is only known from facts is shown");
    assert!(store.reads.list(&Page { limit: 10, ..Page::default() }).await.unwrap().orders.is_empty());
    assert_eq!(store.outbox(id).await, Vec::<String>::new());

    store.submit(create(&order)).await;
    assert_eq!(store.end(id).await, Some(End::Confirmed));
    assert_eq!(store.reads.order(id).await.unwrap().unwrap().placed.unwrap().order, order);
    let mut events: Vec<_> =
        store.outbox(id).await.iter().filter_map(|subject| Some(subjects::event_on(subject)?.event)).collect();
    events.dedup();
    assert_eq!(events, ["orders.created", "orders.confirmed"]);
    assert_eq!(store.submit(Intent::Cancel { order_id: id }).await, Outcome::Cancellation(Cancellation::TooLate));
}

async fn two_instances_that_hear_different_halves_confirm_once(backend: Backend) {
    let (url, _folder) = database(backend).await;
    let (one, other) = (open(&url, model()).await, open(&url, model()).await);
    let orders: Vec<_> = (0..30).map(|_| order()).collect();
    // Half of the orders are known before the facts race, half only afterwards.
    join_all(orders[..15].iter().map(|order| one.submit(create(order)))).await;
    let halves = orders.iter().map(|order| async {
        let [payment, stock] = yes(order.order_id);
        tokio::join!(one.submit(payment), other.submit(stock));
    });
    join_all(halves).await;
    join_all(orders[15..].iter().map(|order| other.submit(create(order)))).await;
    for order in &orders {
        assert_eq!(one.end(order.order_id).await, Some(End::Confirmed));
        let confirmed = one.outbox(order.order_id).await.into_iter().filter(|s| s == OrderConfirmed::SUBJECT).count();
        assert_eq!(confirmed, 1);
        let seqs: Vec<_> = one.reads.entries_after(order.order_id, 0).await.unwrap().iter().map(|e| e.seq).collect();
        assert_eq!(seqs, [1, 2, 3, 4]);
    }
}

async fn an_event_is_on_the_timeline_once_and_at_its_time(backend: Backend) {
    let (store, _folder) = store(backend).await;
    let id = store.place().await;
    let late = now().unix_ms() + 60_000;
    let (first, second) = (observe(id, Fact::Notice, late), observe(id, Fact::Notice, 1_000));
    for intent in [&first, &second, &first, &second] {
        store.submit(intent.clone()).await;
    }
    // In one batch, too.
    let again = observe(id, Fact::Notice, 2_000);
    join_all((0..5).map(|_| store.submit(again.clone()))).await;
    let by_time: Vec<_> = store.reads.timeline(id).await.unwrap().iter().map(|entry| entry.seq).collect();
    assert_eq!(by_time, [3, 4, 1, 2]);
    let behind: Vec<_> = store.reads.entries_after(id, 2).await.unwrap().iter().map(|entry| entry.seq).collect();
    assert_eq!(behind, [3, 4]);
}

async fn the_list_is_paged_newest_first_without_gaps(backend: Backend) {
    let (store, _folder) = store(backend).await;
    let other_customer = OrderCreated { customer_id: CustomerId::new("c-2").unwrap(), ..order() };
    store.submit(create(&other_customer)).await;
    // Many in one batch, so that many share a millisecond.
    let orders: Vec<_> = (0..25).map(|_| order()).collect();
    join_all(orders.iter().map(|order| store.submit(create(order)))).await;
    let cancelled = orders[3].order_id;
    store.submit(Intent::Cancel { order_id: cancelled }).await;

    let mut page = Page { limit: 10, ..Page::default() };
    let mut seen = Vec::new();
    loop {
        let listed = store.reads.list(&page).await.unwrap();
        seen.extend(listed.orders.iter().map(|order| (order.placed.as_ref().unwrap().accepted_at, order.id)));
        // Newer orders do not move the pages.
        store.place().await;
        match listed.next {
            Some(next) => page.after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen.len(), 26);
    assert!(seen.is_sorted_by(|a, b| a.0 >= b.0), "not the newest first");
    assert_eq!(seen.iter().map(|(_, id)| id).collect::<HashSet<_>>().len(), 26, "an order came twice");

    let reads = &store.reads;
    let of =
        |page: Page| async move { reads.list(&page).await.unwrap().orders.iter().map(|o| o.id).collect::<Vec<_>>() };
    let by_status = Page { status: Some(Status::Cancelled), limit: 10, ..Page::default() };
    assert_eq!(of(by_status).await, [cancelled]);
    let by_customer = Page { customer_id: Some(other_customer.customer_id.clone()), limit: 10, ..Page::default() };
    assert_eq!(of(by_customer).await, [other_customer.order_id]);
}

async fn only_overdue_processing_orders_are_found_and_expired(backend: Backend) {
    let (store, _folder) = store(backend).await;
    let (open, confirmed) = (store.place().await, store.place().await);
    for intent in yes(confirmed) {
        store.submit(intent).await;
    }
    let later = Timestamp::from_unix_ms(now().unix_ms() + 901_000);
    assert_eq!(store.reads.overdue(now(), 10).await.unwrap(), []);
    assert_eq!(store.reads.overdue(later, 10).await.unwrap(), [open]);
    assert_eq!(store.reads.overdue(later, 0).await.unwrap(), []);
    // Asked for too early it does nothing.
    store.submit(Intent::Expire { order_id: open }).await;
    assert_eq!(store.end(open).await, None);
}

async fn a_foreign_order_is_passed_on_under_its_id_and_a_clash_changes_nothing(backend: Backend) {
    let (store, _folder) = store(backend).await;
    let order = OrderCreated { payment_method: None, contact: Contact::default(), ..order() };
    let accept = |order: &OrderCreated, id: &EventId| Intent::AcceptForeign {
        order: Box::new(order.clone()),
        event_id: id.clone(),
    };
    let id = EventId::generate();
    assert_eq!(store.submit(accept(&order, &id)).await, Outcome::Foreign(Placement::Accepted(None)));
    assert_eq!(store.submit(accept(&order, &id)).await, Outcome::Foreign(Placement::Known));
    assert_eq!(store.submit(accept(&order, &EventId::generate())).await, Outcome::Foreign(Placement::Known));
    let another = OrderCreated { total: eur(1), ..order.clone() };
    assert_eq!(store.submit(accept(&another, &EventId::generate())).await, Outcome::Foreign(Placement::Clash));

    let placed = store.reads.order(order.order_id).await.unwrap().unwrap().placed.unwrap();
    assert!(placed.foreign);
    assert_eq!(placed.order, order);
    assert_eq!(store.outbox(order.order_id).await, ["orders.created.v2"]);
    assert_eq!(store.reads.timeline(order.order_id).await.unwrap()[0].what.event_id, id.to_string());
}

async fn the_copy_of_the_catalog_follows_its_changes(backend: Backend) {
    let (store, _folder) = store(backend).await;
    let (mug, pot, tea) = (product("mug", eur(999)), product("pot", eur(2_500)), product("tea", eur(450)));
    let save = |change| store.submit(Intent::SaveCatalog(change));
    save(CatalogChange { replace: true, put: vec![mug.clone(), pot.clone()], ..CatalogChange::default() }).await;
    let dearer = product("mug", eur(1_099));
    save(CatalogChange {
        put: vec![dearer.clone(), tea.clone()],
        remove: vec![pot.product_id.clone()],
        ..CatalogChange::default()
    })
    .await;
    assert_eq!(store.reads.catalog().await.unwrap(), [dearer, tea.clone()]);
    // In one batch the last word counts.
    let changes = [
        CatalogChange { put: vec![mug.clone()], ..CatalogChange::default() },
        CatalogChange { replace: true, put: vec![pot.clone()], ..CatalogChange::default() },
        CatalogChange {
            put: vec![mug.clone(), tea],
            remove: vec![ProductId::new("tea").unwrap()],
            ..CatalogChange::default()
        },
    ];
    join_all(changes.into_iter().map(save)).await;
    assert_eq!(store.reads.catalog().await.unwrap(), [mug, pot]);
    save(CatalogChange { replace: true, ..CatalogChange::default() }).await;
    assert_eq!(store.reads.catalog().await.unwrap(), []);
}
