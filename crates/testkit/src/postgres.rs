//! One PostgreSQL for all tests of a process, and an empty database for each.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};

use millrace::local::{Postgres, PostgresBuilder};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::logs;
use crate::nats::temporary_folder;
use crate::programs::{postgres_programs, with_sources};

/// The server all tests of this process share; started by the first one that asks, ended by its guard with the process.
///
/// # Panics
/// When it cannot be had or started.
pub async fn postgres() -> &'static Postgres {
    static SHARED: OnceCell<Postgres> = OnceCell::const_new();
    SHARED
        .get_or_init(|| async {
            let folder = temporary_folder("postgres");
            let builder = Postgres::builder(postgres_programs().await, folder.path()).temporary();
            let server = started(builder).await;
            // From here on its guard removes the folder: nothing of this process runs at its very end.
            let _path = folder.keep();
            server
        })
        .await
}

/// The URL of a new, empty database on the shared server.
///
/// # Panics
/// When the server cannot be had or refuses.
pub async fn fresh_database() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let server = postgres().await;
    let name = format!("test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    if let Err(error) = execute(&server.url(), &format!("CREATE DATABASE {name}")).await {
        panic!("the database {name} cannot be created: {}", with_sources(&error));
    }
    server.database_url(&name)
}

async fn execute(url: &str, sql: &str) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let session = tokio::spawn(connection);
    let outcome = client.batch_execute(sql).await;
    session.abort();
    outcome
}

/// A PostgreSQL of one test's own, for tests that stop or kill it. Dropping it ends it and removes its folder.
#[derive(Debug)]
pub struct TestPostgres {
    server: Postgres,
    _folder: TempDir,
}

/// Starts a PostgreSQL of this test's own.
///
/// # Panics
/// When it cannot be had or started.
pub async fn private_postgres() -> TestPostgres {
    let folder = temporary_folder("postgres");
    let builder = Postgres::builder(postgres_programs().await, folder.path()).temporary();
    TestPostgres { server: started(builder).await, _folder: folder }
}

/// fsync stays on, as users run it: a test that passes without it proves less. Only the empty folder is not forced to disk.
async fn started(builder: PostgresBuilder) -> Postgres {
    // Each test has pools of its own, and the tests of a process run side by side on one server.
    let builder = builder.sync_new_data(false).setting("max_connections", "300").setting("shared_buffers", "64MB");
    match builder.start().await {
        Ok(server) => server,
        Err(error) => panic!("PostgreSQL cannot be started: {}", with_sources(&error)),
    }
}

impl Deref for TestPostgres {
    type Target = Postgres;

    fn deref(&self) -> &Postgres {
        &self.server
    }
}

impl DerefMut for TestPostgres {
    fn deref_mut(&mut self) -> &mut Postgres {
        &mut self.server
    }
}

impl Drop for TestPostgres {
    fn drop(&mut self) {
        logs::show_if_failing("postgres", &self.server.log_path());
        // Not killed: the server's helpers would write on for a moment while the folder is removed. Its guard ends it in
        // order and then removes what is left.
    }
}
