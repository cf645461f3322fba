//! A service's database restored from an older copy, as `docs/runbook.md` tells it: what happened since is learnt again
//! from the streams, and nothing is paid, reserved or sent out twice.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use millrace::store::DatabaseUrl;
use serde_json::json;
use testkit::eventually;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::task::JoinSet;

use crate::support::{Accepted, Backend, Books, Installation, PATIENCE, Shop, good_order, sample};

const RESTORED: [&str; 2] = ["payment", "inventory"];
/// Longer than a service takes to drain.
const STOP_LIMIT: Duration = Duration::from_secs(25);
/// Further back than any message can have waited that was not yet handled when the copy was made.
const MARGIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn services_restored_from_an_older_copy_catch_up_from_the_streams_on_sqlite() {
    catch_up_from_the_streams(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_restored_from_an_older_copy_catch_up_from_the_streams_on_postgresql() {
    catch_up_from_the_streams(Backend::Postgres).await;
}

async fn catch_up_from_the_streams(backend: Backend) {
    let products = sample();
    let mut installation = Installation::on(backend, &products).await;
    let shop = installation.shop.clone();
    let taken_at = OffsetDateTime::now_utc();
    let copying = async {
        // In mid-flow: some orders have ended, some are under way, most are yet to come.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let mut copies = Vec::new();
        for service in RESTORED {
            copies.push(Copy::of(&mut installation, service).await);
        }
        copies
    };
    let (mut accepted, copies) = tokio::join!(orders(&shop, 0, 60), copying);
    Books::close(&installation, &accepted, &products).await;

    for copy in copies {
        copy.restore(&mut installation).await;
    }
    accepted.extend(orders(&shop, 60, 10).await);
    let since = (taken_at - MARGIN).format(&Rfc3339).unwrap();
    let rewind = ["topology", "rewind", "payment-orders", "inventory-orders", "--to", &since, "--json"];
    let rewound = installation.millrace(&rewind).await;
    assert_eq!(rewound.code, 0, "{rewound}");
    for consumer in rewound.json()["rewound"].as_array().unwrap() {
        assert!(consumer["next_seq"].as_u64() < consumer["was_at_seq"].as_u64(), "{consumer}");
        assert!(consumer["messages"].as_u64() >= Some(100), "{consumer}");
    }
    for service in RESTORED {
        installation.process(service).start();
    }
    installation.ready().await;
    accepted.extend(orders(&shop, 70, 10).await);
    Books::close(&installation, &accepted, &products).await;
    installation.no_dead_letters().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_database_restored_from_an_older_copy_keeps_every_end_that_was_told_on_sqlite() {
    keep_every_end(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_database_restored_from_an_older_copy_keeps_every_end_that_was_told_on_postgresql() {
    keep_every_end(Backend::Postgres).await;
}

/// Two orders are under way when the copy is made; then one is confirmed and paid, the other cancelled, a third placed.
async fn keep_every_end(backend: Backend) {
    let products = sample();
    let deadline = [("MILLRACE_ORDER_DEADLINE", "15s")];
    let mut installation = Installation::running(backend.fresh().await, &deadline, &products).await;
    let shop = installation.shop.clone();
    installation.process("inventory").kill().await;
    let confirmed = shop.place(&good_order(1)).await;
    let cancelled = shop.place(&good_order(2)).await;
    let placed = Instant::now();
    for one in [&confirmed, &cancelled] {
        let authorized = || async { is(&shop, one, "payment", "authorized").await };
        eventually(PATIENCE, authorized, "the money to be held").await;
    }
    let copy = Copy::of(&mut installation, "order").await;
    installation.ready_but(&["inventory"]).await;
    // A service that was started again says 503 until it has looked at the stream.
    let cancels = || async { shop.try_cancel(&cancelled.order_id).await == Some(202) };
    eventually(PATIENCE, cancels, "the order to be cancelled").await;
    installation.process("inventory").start();
    let mut accepted = vec![confirmed.clone(), cancelled.clone(), shop.place(&good_order(3)).await];
    Books::close(&installation, &accepted, &products).await;
    is(&shop, &confirmed, "status", "confirmed").await.unwrap();
    is(&shop, &cancelled, "status", "cancelled").await.unwrap();
    tokio::time::sleep_until((placed + Duration::from_secs(16)).into()).await;

    // Without NATS nobody can know, so nothing is decided.
    copy.restore(&mut installation).await;
    installation.nats.stop().await;
    installation.process("order").start();
    accepted.push(shop.place(&good_order(4)).await);
    tokio::time::sleep(Duration::from_secs(3)).await;
    is(&shop, &confirmed, "status", "processing").await.unwrap();
    assert_eq!(shop.try_cancel(&confirmed.order_id).await, Some(503));
    is(&shop, &confirmed, "status", "processing").await.unwrap();

    installation.nats.start().await.unwrap();
    installation.ready().await;
    let known = || async {
        is(&shop, &confirmed, "status", "confirmed").await?;
        is(&shop, &accepted[2], "status", "confirmed").await?;
        is(&shop, &cancelled, "status", "cancelled").await
    };
    eventually(PATIENCE, known, "the orders to have the ends they had").await;
    // What the order heard since the copy comes from the streams.
    let consumers = ["order-payments", "order-inventory", "order-notifications", "order-foreign"];
    let rewind = [&["topology", "rewind"], &consumers[..], &["--to", "start"]].concat();
    let rewound = installation.millrace(&rewind).await;
    assert_eq!(rewound.code, 0, "{rewound}");
    installation.quiet().await;
    Books::close(&installation, &accepted, &products).await;
    known().await.unwrap();
    installation.no_dead_letters().await;
}

/// Some mails were sent since the copy was made, some were due when the database was lost.
#[tokio::test(flavor = "multi_thread")]
async fn notification_restored_from_an_older_copy_repeats_mails_if_it_is_set_back_and_misses_some_if_it_is_not() {
    let products = sample();
    let mut installation = Installation::new(None, &[]).await;
    let mut mail = installation.wire("MILLRACE_NOTIFICATION_EMAIL_URL").await;
    installation.start(&products).await;
    let shop = installation.shop.clone();
    let before = shop.place(&good_order(0)).await;
    Books::close(&installation, std::slice::from_ref(&before), &products).await;
    let copy = Copy::of(&mut installation, "notification").await;
    let sent = shop.place(&good_order(1)).await;
    Books::close(&installation, &[before.clone(), sent.clone()], &products).await;
    mail.refuse();
    let due = shop.place(&good_order(2)).await;
    let confirmed = || async { is(&shop, &due, "status", "confirmed").await };
    eventually(PATIENCE, confirmed, "the order to be confirmed").await;
    installation.quiet().await;

    // Not set back: only what is new is sent.
    copy.restore(&mut installation).await;
    mail.mend().await;
    installation.process("notification").start();
    installation.ready().await;
    let after = shop.place(&good_order(3)).await;
    eventually(PATIENCE, || mails_are(&shop, &after, 1), "the mails of a new order").await;
    installation.quiet().await;
    for (order, times) in [(&before, 1), (&sent, 1), (&due, 0)] {
        mails_are(&shop, order, times).await.unwrap();
    }

    // Set back: what the copy does not know is sent, also what had been, under the Message-ID it had.
    assert_eq!(installation.process("notification").terminate(STOP_LIMIT).await, 0);
    let rewound = installation.millrace(&["topology", "rewind", "notification-orders", "--to", "start"]).await;
    assert_eq!(rewound.code, 0, "{rewound}");
    installation.process("notification").start();
    installation.ready().await;
    eventually(PATIENCE, || mails_are(&shop, &due, 1), "the mails that were missing").await;
    eventually(PATIENCE, || mails_are(&shop, &sent, 2), "the mails that had been sent").await;
    Books::close(&installation, &[before.clone(), sent, due, after.clone()], &products).await;
    for order in [&before, &after] {
        mails_are(&shop, order, 1).await.unwrap();
    }
}

/// Whether each of an order's two mails came in so many times.
async fn mails_are(shop: &Shop, order: &Accepted, times: u64) -> Result<(), String> {
    let counts = shop.mails().await?.counts;
    let of_order: Vec<_> = counts.into_iter().filter(|(id, _)| id.starts_with(&order.order_id)).collect();
    let wanted = if times == 0 { 0 } else { 2 };
    let right = of_order.len() == wanted && of_order.iter().all(|(_, count)| *count == times);
    if right { Ok(()) } else { Err(format!("{of_order:?}")) }
}

/// The mistake that the runbook warns of: inventory is started before its consumer is set back.
#[tokio::test(flavor = "multi_thread")]
async fn last_units_that_a_restored_inventory_gave_to_somebody_else_are_named_by_reconcile() {
    let products = sample();
    let mut installation = Installation::on(Backend::Sqlite, &products).await;
    let shop = installation.shop.clone();
    let all_there_are = json!({ "customer_id": "somebody", "email": "someone@example.org",
        "payment_method": "pm_card_visa", "items": [{ "product_id": "rare", "quantity": 3 }] });
    let usual = shop.place(&good_order(0)).await;
    Books::close(&installation, std::slice::from_ref(&usual), &products).await;
    let copy = Copy::of(&mut installation, "inventory").await;
    let first = shop.place(&all_there_are).await;
    Books::close(&installation, &[usual.clone(), first.clone()], &products).await;

    copy.restore(&mut installation).await;
    installation.process("inventory").start();
    installation.ready().await;
    let second = shop.place(&all_there_are).await;
    let confirmed = || async { is(&shop, &second, "stock", "committed").await };
    eventually(PATIENCE, confirmed, "the units to be sold a second time").await;
    let rewound = installation.millrace(&["topology", "rewind", "inventory-orders", "--to", "start"]).await;
    assert_eq!(rewound.code, 0, "{rewound}");
    installation.quiet().await;

    is(&shop, &first, "status", "confirmed").await.unwrap();
    assert_eq!(installation.stock().await.unwrap()["rare"], [0, 0, 3], "available, reserved, committed");
    let named = || async {
        let report = installation.millrace(&["reconcile", "--older-than", "1s", "--json"]).await.json();
        let found = report["disagreements"].as_array().ok_or("no report")?.clone();
        match found.as_slice() {
            [one] if one["kind"] == "stock_not_committed" && one["order_id"] == first.order_id.as_str() => Ok(()),
            _ => Err(report.to_string()),
        }
    };
    eventually(PATIENCE, named, "reconcile to name the order that has no units").await;
    installation.no_dead_letters().await;
}

async fn is(shop: &Shop, order: &Accepted, field: &str, wanted: &str) -> Result<(), String> {
    let (_, text) = shop.fetch(&shop.order_url(&order.order_id)).await?;
    let order: serde_json::Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    if order[field] == wanted { Ok(()) } else { Err(text) }
}

/// Orders of the mix, one every 60 ms, some declined, some cancelled. None competes for the last units of a product: who
/// gets those may come out otherwise when it is decided again.
async fn orders(shop: &Shop, first: usize, count: usize) -> Vec<Accepted> {
    let mut placing = JoinSet::new();
    for n in (first..first + count).filter(|n| n % 10 != 4) {
        let shop = shop.clone();
        placing.spawn(async move { shop.place_number(n).await });
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    placing.join_all().await
}

/// A backup of one service's database.
enum Copy {
    Sqlite { service: &'static str, database: PathBuf, copy: PathBuf },
    Postgres { service: &'static str, database: String },
}

impl Copy {
    async fn of(installation: &mut Installation, service: &'static str) -> Self {
        match DatabaseUrl::for_service(installation.variable("DATABASE_URL"), service).unwrap() {
            DatabaseUrl::Sqlite(database) => {
                let copy = database.with_extension("copy");
                let connection = rusqlite::Connection::open(&database).unwrap();
                connection.execute("vacuum into ?", [copy.to_str().unwrap()]).unwrap();
                Self::Sqlite { service, database, copy }
            }
            DatabaseUrl::Postgres(url) => {
                let database = url.rsplit('/').next().unwrap().to_owned();
                // Copied by the server, which wants nobody connected meanwhile: pg_dump is not on every machine.
                assert_eq!(installation.process(service).terminate(STOP_LIMIT).await, 0);
                execute(&format!("create database {database}_copy template {database}")).await;
                installation.process(service).start();
                Self::Postgres { service, database }
            }
        }
    }

    /// Stops the service and puts the copy where its database was.
    async fn restore(self, installation: &mut Installation) {
        let (Self::Sqlite { service, .. } | Self::Postgres { service, .. }) = self;
        assert_eq!(installation.process(service).terminate(STOP_LIMIT).await, 0);
        match self {
            Self::Sqlite { database, copy, .. } => {
                for file in ["db-wal", "db-shm"] {
                    // Gone already when the last connection was closed in order.
                    let _ = std::fs::remove_file(database.with_extension(file));
                }
                std::fs::rename(copy, database).unwrap();
            }
            Self::Postgres { database, .. } => {
                execute(&format!("drop database {database}")).await;
                execute(&format!("alter database {database}_copy rename to {database}")).await;
            }
        }
    }
}

async fn execute(sql: &str) {
    let url = testkit::postgres().await.url();
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    let session = tokio::spawn(connection);
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    session.abort();
}
