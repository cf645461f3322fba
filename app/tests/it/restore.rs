//! A service's database restored from an older copy, as `docs/runbook.md` tells it: what happened since is learnt again
//! from the streams, and nothing is paid, reserved or sent out twice.

use std::path::PathBuf;
use std::time::Duration;

use millrace::store::DatabaseUrl;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::task::JoinSet;

use crate::support::{Accepted, Backend, Books, Installation, Shop, sample};

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
