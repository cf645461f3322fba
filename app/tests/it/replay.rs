//! History told again: to rebuild a read model while it serves, to a service that joins late, and to services that have
//! heard it all before.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use contracts::api::{ReplayQuery, ReplayRequest, ReplayStarted, ReplayStatus, subjects};
use futures::TryStreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use simulators::gateway::ledger::Ledger;
use simulators::mail::Counts;
use testkit::eventually;
use tokio::task::JoinSet;

use crate::support::{Accepted, Backend, Books, Installation, PATIENCE, SERVICES, Shop, Sql, sample};

const STREAMS: [&str; 4] = ["ORDERS", "PAYMENTS", "INVENTORY", "NOTIFICATIONS"];
const STOP_LIMIT: Duration = Duration::from_secs(25);

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

on_both_backends! {
    a_damaged_timeline_is_rebuilt_while_orders_flow,
    a_rebuild_that_is_killed_in_the_middle_leaves_what_was_there_and_can_be_begun_again,
    history_told_again_to_every_service_changes_nothing,
}

/// A timeline without the numbers of its entries: what comes back gets a new one.
type Timeline = Vec<Value>;

async fn timeline(shop: &Shop, id: &str) -> Timeline {
    let mut entries = shop.timeline(id).await;
    entries.iter_mut().for_each(|entry| drop(entry.as_object_mut().unwrap().remove("seq")));
    // Entries of one millisecond are in the order in which they were learnt.
    entries.sort_by_key(|entry| (entry["at"].to_string(), entry["event_id"].to_string()));
    entries
}

async fn timelines(shop: &Shop, accepted: &[Accepted]) -> BTreeMap<String, Timeline> {
    let mut all = BTreeMap::new();
    for one in accepted {
        all.insert(one.order_id.clone(), timeline(shop, &one.order_id).await);
    }
    all
}

async fn place(shop: &Shop, orders: std::ops::Range<usize>) -> Vec<Accepted> {
    let mut placing = JoinSet::new();
    for n in orders {
        let shop = shop.clone();
        placing.spawn(async move { shop.place_number(n).await });
    }
    placing.join_all().await
}

/// Runs `millrace replay timeline` and says what it found.
async fn replay(installation: &Installation, args: &[&str], code: i32) -> Value {
    let ran = installation.millrace(&[&["replay", "timeline", "--json"], args].concat()).await;
    assert_eq!(ran.code, code, "{args:?}: {ran}");
    ran.json()["found"].clone()
}

fn changes(found: &Value) -> [u64; 3] {
    ["missing", "altered", "stray"].map(|name| found[name].as_u64().unwrap())
}

async fn a_damaged_timeline_is_rebuilt_while_orders_flow(backend: Backend) {
    let products = sample();
    let installation = Installation::on(backend, &products).await;
    let shop = installation.shop.clone();
    let mut accepted = place(&shop, 0..20).await;
    Books::close(&installation, &accepted, &products).await;
    let before = timelines(&shop, &accepted).await;
    let healthy = replay(&installation, &["--dry-run"], 0).await;
    assert_eq!(changes(&healthy), [0, 0, 0], "{healthy}");
    assert_eq!(healthy["orders"], 20, "{healthy}");
    assert_eq!(healthy["events"], before.values().map(Vec::len).sum::<usize>(), "{healthy}");

    // Orders that were authorized: 0, 1, 3 of each ten, in whatever order they were accepted.
    let paid = |timeline: &Timeline| timeline.iter().any(|entry| entry["event"] == "payments.authorized");
    let ids: Vec<&String> = before.iter().filter(|(_, timeline)| paid(timeline)).map(|(id, _)| id).collect();
    let [lost, thinned, altered, untouched] = [ids[0], ids[1], ids[2], ids[3]];
    let database = Sql::new(installation.database_url("order"));
    database
        .run(&format!(
            "delete from order_timeline where order_id = '{lost}';
             delete from order_timeline where order_id = '{thinned}' and event_type like 'payments.%';
             update order_timeline set event_type = 'payments.voided', at = 1, service = 'nobody', detail = '{{}}'
                 where order_id = '{altered}' and event_type = 'payments.authorized';
             insert into order_timeline (order_id, seq, at, event_type, service, event_id, detail)
                 values ('{altered}', 1000, 2, 'payments.refunded', 'payment', 'no-such-event', '{{}}');"
        ))
        .await;
    let of_payment = |timeline: &Timeline| {
        timeline.iter().filter(|entry| entry["event"].as_str().unwrap().starts_with("payments.")).count() as u64
    };
    let missing = before[lost].len() as u64 + of_payment(&before[thinned]);
    let damaged = timelines(&shop, &accepted).await;
    let would = replay(&installation, &["--dry-run"], 1).await;
    assert_eq!(changes(&would), [missing, 1, 1], "{would}");
    assert_eq!(timelines(&shop, &accepted).await, damaged, "a dry run has changed something");

    // One order alone.
    let one = replay(&installation, &["--order", thinned], 0).await;
    assert_eq!(changes(&one), [of_payment(&before[thinned]), 0, 0], "{one}");
    assert_eq!(timeline(&shop, thinned).await, before[thinned]);
    assert_eq!(timeline(&shop, lost).await, Timeline::new());

    // All of them, under load and with somebody looking.
    let over = AtomicBool::new(false);
    let flowing = async {
        let mut placed = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let from = accepted.len() + placed.len();
            placed.extend(place(&shop, from..from + 4).await);
        }
        placed
    };
    let watching = async {
        let mut most = 0;
        while !over.load(Ordering::Relaxed) {
            assert_eq!(timeline(&shop, untouched).await, before[untouched]);
            let shown = timeline(&shop, lost).await;
            assert!(shown.len() >= most, "{} entries after {most}: {shown:?}", shown.len());
            assert!(shown.iter().all(|entry| before[lost].contains(entry)), "{shown:?}");
            most = shown.len();
        }
    };
    let rebuilding = async {
        let found = replay(&installation, &[], 0).await;
        over.store(true, Ordering::Relaxed);
        found
    };
    let (placed, (), found) = tokio::join!(flowing, watching, rebuilding);
    assert_eq!(changes(&found), [before[lost].len() as u64, 1, 1], "{found}");
    assert_eq!(timelines(&shop, &accepted).await, before);
    accepted.extend(placed);
    // Compares every timeline with the streams.
    Books::close(&installation, &accepted, &products).await;
    let again = replay(&installation, &[], 0).await;
    assert_eq!(changes(&again), [0, 0, 0], "{again}");

    let nobody = installation.millrace(&["replay", "stock"]).await;
    assert_eq!(nobody.code, 2, "{nobody}");
}

/// Asks one of the endpoints of the order service.
async fn ask<A: DeserializeOwned>(
    client: &async_nats::Client,
    subject: &str,
    question: &impl Serialize,
) -> Result<A, String> {
    let question = serde_json::to_vec(question).unwrap();
    let answer = client.request(subject.to_owned(), question.into()).await.map_err(|e| e.to_string())?;
    serde_json::from_slice(&answer.payload).map_err(|e| format!("{e}: {answer:?}"))
}

async fn a_rebuild_that_is_killed_in_the_middle_leaves_what_was_there_and_can_be_begun_again(backend: Backend) {
    let products = sample();
    let mut installation = Installation::on(backend, &products).await;
    let shop = installation.shop.clone();
    let accepted = place(&shop, 0..10).await;
    Books::close(&installation, &accepted, &products).await;
    let before = timelines(&shop, &accepted).await;
    let database = Sql::new(installation.database_url("order"));
    database.run("delete from order_timeline where event_type like 'inventory.%'").await;
    let damaged = timelines(&shop, &accepted).await;

    // Nobody can write, so it cannot come to its end.
    let held = database.hold("order_timeline").await;
    let client = installation.nats.client().await;
    let request = ReplayRequest { view: "timeline".into(), order_id: None, dry_run: false };
    let started: ReplayStarted = ask(&client, subjects::ORDERS_REPLAY, &request).await.unwrap();
    let query = ReplayQuery { replay_id: started.replay_id };
    let reading = || async {
        let status: ReplayStatus = ask(&client, &started.status_subject, &query).await?;
        if status.total > 0 { Ok(status) } else { Err(format!("{status:?}")) }
    };
    let status = eventually(PATIENCE, reading, "the rebuild to begin").await;
    assert!(!status.phase.is_over(), "{status:?}");
    let second = installation.millrace(&["replay", "timeline"]).await;
    assert_eq!(second.code, 1, "{second}");
    assert!(second.stderr.contains("a rebuild is going on already"), "{second}");
    assert_eq!(timelines(&shop, &accepted).await, damaged, "what was there is not shown any more");
    // From here on it writes, until it is killed at whatever it is doing.
    drop(held);
    tokio::time::sleep(Duration::from_millis(fastrand::u64(0..30))).await;
    installation.process("order").kill().await;

    let nobody = installation.millrace(&["replay", "timeline"]).await;
    assert_eq!(nobody.code, 1, "{nobody}");
    assert!(nobody.stderr.contains("millrace serve order"), "{nobody}");
    installation.process("order").start();
    installation.ready().await;
    let left = timelines(&shop, &accepted).await;
    for (id, shown) in &left {
        assert!(damaged[id].iter().all(|entry| shown.contains(entry)), "{id} has lost something: {shown:#?}");
        assert!(shown.iter().all(|entry| before[id].contains(entry)), "{id} shows what never was: {shown:#?}");
    }
    let count = |timelines: &BTreeMap<String, Timeline>| timelines.values().map(Vec::len).sum::<usize>() as u64;
    let found = replay(&installation, &[], 0).await;
    assert_eq!(changes(&found), [count(&before) - count(&left), 0, 0], "{found}");
    assert_eq!(timelines(&shop, &accepted).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_joins_late_hears_everything_from_the_first_event_and_acts_once() {
    let products = sample();
    let mut installation = Installation::new(None, &[]).await;
    installation.import(&products).await;
    for role in ["simulators", "order", "payment", "inventory"] {
        installation.serve(role);
    }
    installation.ready().await;
    let shop = installation.shop.clone();
    let accepted = place(&shop, 0..20).await;
    let ended = || async {
        let orders = shop.orders().await?;
        let settled = |order: &&Value| {
            let open = ["pending", "authorized"].map(Value::from);
            order["status"] != "processing" && !open.contains(&order["payment"]) && order["stock"] != "reserved"
        };
        let count = orders.iter().filter(settled).count();
        if count == accepted.len() { Ok(()) } else { Err(format!("{count} have ended")) }
    };
    eventually(PATIENCE, ended, "all orders to end without anybody being told").await;
    assert_eq!(shop.mails().await.unwrap().counts, BTreeMap::new());
    // The other services have declared its consumer along with their own; when these orders came there was none such.
    let js = jetstream::new(installation.nats.client().await);
    js.get_stream("ORDERS").await.unwrap().delete_consumer("notification-orders").await.unwrap();

    installation.serve("notification");
    installation.ready().await;
    Books::close(&installation, &accepted, &products).await;
    let mails = shop.mails().await.unwrap();
    assert_eq!(mails.counts.len(), 2 * accepted.len(), "{mails:?}");
    assert!(mails.counts.values().all(|times| *times == 1), "{mails:?}");
    installation.no_dead_letters().await;
}

/// Everything that must stay as it is.
#[derive(Debug, PartialEq)]
struct Snapshot {
    ledger: Ledger,
    gateway_requests: u64,
    mails: Counts,
    stock: BTreeMap<String, [i64; 3]>,
    orders: Vec<Value>,
    timelines: BTreeMap<String, Vec<Value>>,
    /// How many messages each stream holds.
    messages: BTreeMap<&'static str, u64>,
}

impl Snapshot {
    async fn take(installation: &Installation) -> Self {
        let shop = &installation.shop;
        let orders = shop.orders().await.unwrap();
        let mut timelines = BTreeMap::new();
        for order in &orders {
            let id = order["order_id"].as_str().unwrap();
            timelines.insert(id.to_owned(), shop.timeline(id).await);
        }
        let js = jetstream::new(installation.nats.client().await);
        let mut messages = BTreeMap::new();
        for stream in STREAMS {
            messages.insert(stream, js.get_stream(stream).await.unwrap().cached_info().state.messages);
        }
        Self {
            ledger: shop.ledger().await.unwrap(),
            gateway_requests: shop.gateway_requests().await,
            mails: shop.mails().await.unwrap(),
            stock: installation.stock().await.unwrap(),
            orders,
            timelines,
            messages,
        }
    }
}

async fn history_told_again_to_every_service_changes_nothing(backend: Backend) {
    let products = sample();
    let mut installation = Installation::on(backend, &products).await;
    let shop = installation.shop.clone();
    let accepted = place(&shop, 0..20).await;
    Books::close(&installation, &accepted, &products).await;
    let foreign = uuid::Uuid::now_v7();
    publish_foreign(&installation, &foreign.to_string()).await;
    let settled = || async {
        let orders = shop.orders().await?;
        let order = orders.iter().find(|order| order["order_id"] == json!(foreign)).ok_or("it is not known")?;
        let settled = order["payment"] == "captured" && order["stock"] == "committed";
        if settled { Ok(()) } else { Err(order.to_string()) }
    };
    eventually(PATIENCE, settled, "the foreign order to be confirmed").await;
    installation.quiet().await;
    let before = Snapshot::take(&installation).await;
    assert_eq!(before.orders.len(), 21);

    for marks in ["with their marks", "without their marks"] {
        for service in SERVICES {
            assert_eq!(installation.process(service).terminate(STOP_LIMIT).await, 0, "{service}");
            if marks == "without their marks" {
                Sql::new(installation.database_url(service)).run("delete from inbox").await;
            }
        }
        // What the services make anew starts at the beginning of its stream.
        let deleted = delete_consumers(&installation).await;
        assert!(deleted >= 7, "{deleted}");
        SERVICES.into_iter().for_each(|service| installation.process(service).start());
        installation.ready().await;
        eventually(PATIENCE, || told_everything(&installation), "all history to be told").await;
        installation.quiet().await;
        let after = Snapshot::take(&installation).await;
        assert_eq!(after, before, "history told again to services {marks}");
        installation.no_dead_letters().await;
        for service in SERVICES {
            let marks = Sql::new(installation.database_url(service)).column("select event_id from inbox").await;
            assert!(!marks.is_empty(), "{service} has marked nothing");
        }
    }
}

async fn publish_foreign(installation: &Installation, order_id: &str) {
    let order = json!({ "order_id": order_id, "customer_id": "elsewhere", "amount": 12.5, "currency": "EUR",
        "timestamp": "2026-01-01T00:00:00Z", "items": [{ "product_id": "mug", "quantity": 1 }], "version": "v1" });
    let client = installation.nats.client().await;
    client.publish("orders.created", order.to_string().into()).await.unwrap();
    client.flush().await.unwrap();
}

/// Deletes every durable consumer of the streams of events, as nobody should do; how many there were.
async fn delete_consumers(installation: &Installation) -> usize {
    let js = jetstream::new(installation.nats.client().await);
    let mut deleted = 0;
    for stream in STREAMS {
        let stream = js.get_stream(stream).await.unwrap();
        let names: Vec<String> = stream.consumer_names().try_collect().await.unwrap();
        for name in names {
            stream.delete_consumer(&name).await.unwrap();
            deleted += 1;
        }
    }
    deleted
}

/// Whether each durable consumer, made anew, has been through its whole stream.
async fn told_everything(installation: &Installation) -> Result<(), String> {
    let js = jetstream::new(installation.nats.client().await);
    let mut found = 0;
    for name in STREAMS {
        let stream = js.get_stream(name).await.map_err(|e| e.to_string())?;
        let mut consumers = stream.consumers();
        while let Some(consumer) = consumers.try_next().await.map_err(|e| e.to_string())? {
            if consumer.config.durable_name.is_none() {
                continue;
            }
            found += 1;
            if consumer.num_pending + consumer.num_ack_pending as u64 > 0 || consumer.delivered.consumer_sequence == 0 {
                return Err(format!("{} has messages left: {consumer:?}", consumer.name));
            }
        }
    }
    if found >= 7 { Ok(()) } else { Err(format!("{found} consumers")) }
}
