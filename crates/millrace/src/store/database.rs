use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, RecyclingMethod, Runtime};
use tokio::sync::Semaphore;
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{DatabaseUrl, Migration, StoreError, migrate, postgres, sqlite};
use crate::outbox::{Acknowledged, Backlog, Row, Run};

/// How a service talks to its database.
#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    /// Connections for reading. SQLite reads from memory-mapped pages, PostgreSQL over the network; a few serve many.
    pub readers: usize,
    /// How long to wait for a PostgreSQL connection. A statement may take five times as long; then the
    /// server is taken for dead.
    pub connect_timeout: Duration,
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        Self { readers: 4, connect_timeout: Duration::from_secs(3) }
    }
}

/// How many times `connect_timeout` a statement may take. Far longer than any of ours needs, short enough that a server
/// which died without a word does not hold up a service for the two hours that TCP allows it.
const STATEMENT_FACTOR: u32 = 5;
/// A silent connection is asked for a sign of life after this time, and this often, before it counts as dead.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(3);
const KEEPALIVES: u32 = 3;

/// A service's database: migrated, ready for a [`Writer`](super::Writer) and for reads.
#[derive(Clone)]
pub struct Database {
    service: String,
    pool: Pool,
    statement_limit: Duration,
}

/// The connections of one of the two backends.
#[derive(Clone)]
pub enum Pool {
    Sqlite(SqlitePool),
    Postgres(deadpool_postgres::Pool),
}

impl Database {
    /// Opens the database, creating and migrating it. Waits for a PostgreSQL server that is not there yet; fails on
    /// what waiting cannot mend, and when `shutdown` is cancelled.
    pub async fn open(
        url: &DatabaseUrl,
        service: &str,
        settings: &DatabaseSettings,
        migrations: &'static [Migration],
        shutdown: &CancellationToken,
    ) -> Result<Self, StoreError> {
        let pool = match url {
            DatabaseUrl::Sqlite(path) => {
                let (path, readers) = (path.clone(), settings.readers);
                let opened = tokio::task::spawn_blocking(move || {
                    migrate::sqlite(&mut sqlite::open_to_write(&path)?, migrations)?;
                    Ok::<_, StoreError>(SqlitePool::new(path, readers))
                });
                Pool::Sqlite(opened.await.map_err(|e| StoreError::Failed(e.to_string()))??)
            }
            DatabaseUrl::Postgres(url) => {
                let mut config: tokio_postgres::Config =
                    url.parse().map_err(|e| StoreError::Failed(format!("the database URL is not usable: {e}")))?;
                config.connect_timeout(settings.connect_timeout).application_name(format!("millrace-{service}"));
                notice_dead_servers(&mut config, settings);
                let mut pause = Duration::from_millis(100);
                loop {
                    let ready = tokio::select! {
                        ready = create_and_migrate(&config, migrations) => ready,
                        () = shutdown.cancelled() => return Err(StoreError::Stopped),
                    };
                    match ready {
                        Ok(()) => break,
                        Err(StoreError::Unavailable(reason)) => {
                            warn!(
                                service,
                                reason,
                                retry_ms = pause.as_millis() as u64,
                                "the database is away, trying again"
                            );
                            tokio::select! {
                                () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(5)),
                                () = shutdown.cancelled() => return Err(StoreError::Stopped),
                            }
                        }
                        Err(other) => return Err(other),
                    }
                }
                Pool::Postgres(postgres_pool(config, settings)?)
            }
        };
        info!(service, database = %url, "the database is open");
        let statement_limit = settings.connect_timeout * STATEMENT_FACTOR;
        Ok(Self { service: service.to_owned(), pool, statement_limit })
    }

    /// Whether a PostgreSQL server answers at a URL, without creating or changing anything. A database that does not exist
    /// yet is no error: the first start creates it. Always true for SQLite.
    pub async fn probe(url: &DatabaseUrl, patience: Duration) -> Result<(), StoreError> {
        let DatabaseUrl::Postgres(url) = url else { return Ok(()) };
        let mut config: tokio_postgres::Config =
            url.parse().map_err(|e| StoreError::Failed(format!("the database URL is not usable: {e}")))?;
        config.connect_timeout(patience);
        match connect(&config).await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some(&SqlState::INVALID_CATALOG_NAME) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub fn service(&self) -> &str {
        &self.service
    }

    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// How long a statement may take before the server is taken for dead.
    pub(super) fn statement_limit(&self) -> Duration {
        self.statement_limit
    }

    /// Unpublished outbox rows behind `after_id` that were committed no later than `created_before_ms`, in commit order.
    pub async fn unpublished(&self, after_id: i64, created_before_ms: i64, limit: u32) -> Result<Vec<Row>, StoreError> {
        match &self.pool {
            Pool::Sqlite(pool) => {
                pool.read(move |db| sqlite::unpublished(db, after_id, created_before_ms, limit)).await
            }
            Pool::Postgres(pool) => {
                postgres::unpublished(&pool.get().await?, after_id, created_before_ms, i64::from(limit)).await
            }
        }
    }

    /// Streams, and the runs of servers that acknowledged rows of them.
    pub(crate) async fn runs(&self) -> Result<Vec<Run>, StoreError> {
        match &self.pool {
            Pool::Sqlite(pool) => pool.read(sqlite::runs).await,
            Pool::Postgres(pool) => postgres::runs(&pool.get().await?).await,
        }
    }

    /// Rows of a stream that one run of a server acknowledged: the highest sequences first, behind `below`, which is a
    /// sequence and a row's id: within one run a stream that was made anew gives its places a second time.
    pub(crate) async fn acknowledged(
        &self,
        stream: &str,
        run: &str,
        below: (i64, i64),
        limit: i64,
    ) -> Result<Vec<Acknowledged>, StoreError> {
        match &self.pool {
            Pool::Sqlite(pool) => {
                let (stream, run) = (stream.to_owned(), run.to_owned());
                pool.read(move |db| sqlite::acknowledged(db, &stream, &run, below, limit)).await
            }
            Pool::Postgres(pool) => postgres::acknowledged(&pool.get().await?, stream, run, below, limit).await,
        }
    }

    /// What is waiting to be published.
    pub async fn backlog(&self) -> Result<Backlog, StoreError> {
        match &self.pool {
            Pool::Sqlite(pool) => pool.read(sqlite::backlog).await,
            Pool::Postgres(pool) => postgres::backlog(&pool.get().await?).await,
        }
    }

    /// Whether the database answers in time.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let asked = async {
            match &self.pool {
                Pool::Sqlite(pool) => pool.read(|db| Ok(db.query_row("select 1", [], |_| Ok(()))?)).await,
                Pool::Postgres(pool) => Ok(pool.get().await?.batch_execute("select 1").await?),
            }
        };
        let silent = StoreError::Unavailable(format!("no answer within {:?}", self.statement_limit));
        tokio::time::timeout(self.statement_limit, asked).await.unwrap_or(Err(silent))
    }
}

/// A server that loses its power says nothing; without these the connection would look alive for hours.
fn notice_dead_servers(config: &mut tokio_postgres::Config, settings: &DatabaseSettings) {
    config.keepalives_idle(KEEPALIVE_IDLE).keepalives_interval(KEEPALIVE_EVERY).keepalives_retries(KEEPALIVES);
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(settings.connect_timeout * STATEMENT_FACTOR);
    }
}

fn postgres_pool(
    config: tokio_postgres::Config,
    settings: &DatabaseSettings,
) -> Result<deadpool_postgres::Pool, StoreError> {
    let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
    let limit_ms = (settings.connect_timeout * STATEMENT_FACTOR).as_millis();
    // The server's side of the same limit: a statement nobody waits for any more must not go on, and the row locks of an
    // instance that died within a transaction must not hold up the others.
    let limits = format!("set statement_timeout = {limit_ms}; set idle_in_transaction_session_timeout = {limit_ms}");
    deadpool_postgres::Pool::builder(manager)
        .post_create(Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
            let limits = limits.clone();
            Box::pin(async move { client.batch_execute(&limits).await.map_err(HookError::Backend) })
        }))
        // One more for the writer.
        .max_size(settings.readers.max(1) + 1)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(settings.connect_timeout))
        .create_timeout(Some(settings.connect_timeout))
        .build()
        .map_err(|e| StoreError::Failed(e.to_string()))
}

async fn create_and_migrate(config: &tokio_postgres::Config, migrations: &[Migration]) -> Result<(), StoreError> {
    let mut client = match connect(config).await {
        Ok(client) => client,
        Err(error) if error.code() == Some(&SqlState::INVALID_CATALOG_NAME) => {
            create_database(config).await?;
            connect(config).await?
        }
        Err(error) => return Err(error.into()),
    };
    migrate::postgres(&mut client, migrations).await
}

async fn connect(config: &tokio_postgres::Config) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn create_database(config: &tokio_postgres::Config) -> Result<(), StoreError> {
    let name = config.get_dbname().unwrap_or_default().to_owned();
    let mut maintenance = config.clone();
    maintenance.dbname("postgres");
    let client = connect(&maintenance).await?;
    match client.batch_execute(&format!("create database \"{}\"", name.replace('"', "\"\""))).await {
        Ok(()) => Ok(()),
        // Another instance was faster.
        Err(e) if matches!(e.code(), Some(c) if *c == SqlState::DUPLICATE_DATABASE || *c == SqlState::UNIQUE_VIOLATION) => {
            Ok(())
        }
        Err(e) => Err(StoreError::Failed(format!(
            "the database {name} does not exist and could not be created ({}): create it, or allow the user to",
            postgres::full_text(&e)
        ))),
    }
}

/// Read connections to one SQLite file. Reads block, so they run on threads for blocking work.
#[derive(Clone)]
pub struct SqlitePool {
    path: Arc<PathBuf>,
    idle: Arc<Mutex<Vec<rusqlite::Connection>>>,
    permits: Arc<Semaphore>,
}

impl SqlitePool {
    fn new(path: PathBuf, readers: usize) -> Self {
        Self { path: Arc::new(path), idle: Arc::default(), permits: Arc::new(Semaphore::new(readers.max(1))) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `query` on a connection that cannot write.
    pub async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&rusqlite::Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| StoreError::Stopped)?;
        let pool = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let db = match idle {
                Some(db) => db,
                None => sqlite::open_to_read(&pool.path)?,
            };
            let result = query(&db);
            pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(db);
            result
        });
        done.await.map_err(|e| StoreError::Failed(format!("a query panicked: {e}")))?
    }
}
