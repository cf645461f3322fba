//! A tiny service that counts things, to try the toolkit with.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use deadpool_postgres::Client;
use millrace::connection::{Connection, NatsSettings};
use millrace::event::{Cause, Event, EventId, Retired};
use millrace::inbox::Mark;
use millrace::outbox::{Relay, RelaySender, RelaySettings};
use millrace::store::{
    Database, DatabaseSettings, Migration, Model, Outbound, Pool, PostgresModel, SqliteModel, StoreError, Submission,
    Table, Writer, WriterSettings,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Long enough for a loaded machine; nothing waits that long unless it fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ThingHappened {
    pub(crate) counter: String,
    pub(crate) value: i64,
}

impl Event for ThingHappened {
    const TYPE: &'static str = "things.happened";
    const VERSION: u32 = 1;
    const SUBJECT: &'static str = "things.happened";

    fn key(&self) -> String {
        self.counter.clone()
    }
}

/// Published where no stream listens.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct LostHappened {
    counter: String,
}

impl Event for LostHappened {
    const TYPE: &'static str = "lost.happened";
    const VERSION: u32 = 1;
    const SUBJECT: &'static str = "lost.happened";

    fn key(&self) -> String {
        self.counter.clone()
    }
}

/// An event that cannot be written as JSON.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("never"))
    }
}

impl Event for Unwritable {
    const TYPE: &'static str = "unwritable.happened";
    const VERSION: u32 = 1;
    const SUBJECT: &'static str = "unwritable.happened";

    fn key(&self) -> String {
        String::new()
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Intent {
    /// Adds one, once for this operation.
    Count {
        counter: String,
        operation: String,
    },
    /// Sets a value that the table's constraint forbids.
    BreakConstraint,
    /// Reads a column as what it is not.
    MisreadRow,
    PanicInLoad,
    PanicInDecide,
    PublishUnwritable,
    /// Publishes where no stream listens.
    PublishLost(String),
    /// Keeps the writer busy until the test lets it go on.
    Hold(Arc<Hold>),
}

impl Intent {
    /// Counts under an operation of its own.
    pub(crate) fn count(counter: &str) -> Self {
        Self::Count { counter: counter.into(), operation: EventId::generate().to_string() }
    }
}

/// The writer's end of [`Holding`].
#[derive(Debug)]
pub(crate) struct Hold {
    entered: mpsc::Sender<()>,
    release: Mutex<mpsc::Receiver<()>>,
}

/// A writer that is held within a batch until this is dropped: what is submitted meanwhile makes the next batch.
pub(crate) struct Holding {
    _release: mpsc::Sender<()>,
}

pub(crate) async fn hold(writer: &Writer<Counters>) -> Holding {
    let (entered, has_entered) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let hold = Arc::new(Hold { entered, release: Mutex::new(released) });
    let writer = writer.clone();
    tokio::spawn(async move { writer.submit(unmarked(Intent::Hold(hold))).await });
    tokio::task::spawn_blocking(move || has_entered.recv().unwrap()).await.unwrap();
    Holding { _release: release }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Counters {
    pub(crate) loads: Arc<AtomicUsize>,
}

#[derive(Default)]
pub(crate) struct Rows {
    counters: Table<String, i64>,
    operations: Table<String, i64>,
}

pub(crate) const MIGRATIONS: &[Migration] = &[Migration {
    name: "V1__counters",
    sqlite: "create table counters (name text primary key, value integer not null check (value >= 0));
             create table operations (operation text primary key, value integer not null);",
    postgres: "create table counters (name text primary key, value bigint not null check (value >= 0));
               create table operations (operation text primary key, value bigint not null);",
}];

impl Model for Counters {
    type Intent = Intent;
    type Outcome = i64;
    type Rows = Rows;

    fn decide(&self, rows: &mut Rows, intent: &Intent, _: OffsetDateTime, out: &mut Outbound) -> i64 {
        match intent {
            Intent::Count { counter, operation } => {
                if let Some(value) = rows.operations.get(operation) {
                    return *value;
                }
                let value = rows.counters.get(counter).copied().unwrap_or(0) + 1;
                rows.counters.put(counter.clone(), value);
                rows.operations.put(operation.clone(), value);
                out.publish(&ThingHappened { counter: counter.clone(), value });
                value
            }
            Intent::BreakConstraint => {
                rows.counters.put("broken".into(), -1);
                out.publish(&ThingHappened { counter: "broken".into(), value: -1 });
                -1
            }
            Intent::PanicInDecide => panic!("on purpose"),
            Intent::PublishUnwritable => {
                rows.counters.put("unwritable".into(), 1);
                out.publish(&Unwritable);
                0
            }
            Intent::PublishLost(counter) => {
                out.publish(&LostHappened { counter: counter.clone() });
                0
            }
            Intent::Hold(hold) => {
                hold.entered.send(()).unwrap();
                // An error is the release: the other end is gone.
                let _ = tokio::task::block_in_place(|| hold.release.lock().unwrap().recv());
                0
            }
            Intent::MisreadRow | Intent::PanicInLoad => 0,
        }
    }
}

fn keys(intents: &[&Intent]) -> (Vec<String>, Vec<String>) {
    let mut keys: (Vec<_>, Vec<_>) = intents
        .iter()
        .filter_map(|intent| match intent {
            Intent::Count { counter, operation } => Some((counter.clone(), operation.clone())),
            _ => None,
        })
        .unzip();
    keys.0.sort_unstable();
    keys.0.dedup();
    keys
}

impl Counters {
    fn loading(&self, intents: &[&Intent]) -> bool {
        self.loads.fetch_add(1, Ordering::SeqCst);
        assert!(!intents.iter().any(|intent| matches!(intent, Intent::PanicInLoad)), "on purpose");
        intents.iter().any(|intent| matches!(intent, Intent::MisreadRow))
    }
}

impl SqliteModel for Counters {
    fn load(&self, db: &rusqlite::Connection, intents: &[&Intent]) -> rusqlite::Result<Rows> {
        if self.loading(intents) {
            db.query_row("select 'text'", [], |row| row.get::<_, i64>(0))?;
        }
        let mut rows = Rows::default();
        let (counters, operations) = keys(intents);
        let find = |sql: &str, key: &str| {
            use rusqlite::OptionalExtension;
            db.prepare_cached(sql)?.query_row([key], |row| row.get::<_, i64>(0)).optional()
        };
        for name in counters {
            if let Some(value) = find("select value from counters where name = ?", &name)? {
                rows.counters.loaded(name, value);
            }
        }
        for operation in operations {
            if let Some(value) = find("select value from operations where operation = ?", &operation)? {
                rows.operations.loaded(operation, value);
            }
        }
        Ok(rows)
    }

    fn save(&self, db: &rusqlite::Connection, rows: &Rows) -> rusqlite::Result<()> {
        for (name, value) in rows.counters.inserted() {
            db.execute("insert into counters values (?, ?)", rusqlite::params![name, value])?;
        }
        for (name, value) in rows.counters.updated() {
            db.execute("update counters set value = ?2 where name = ?1", rusqlite::params![name, value])?;
        }
        for (operation, value) in rows.operations.inserted() {
            db.execute("insert into operations values (?, ?)", rusqlite::params![operation, value])?;
        }
        Ok(())
    }
}

impl PostgresModel for Counters {
    async fn load(&self, db: &Client, intents: &[&Intent]) -> Result<Rows, tokio_postgres::Error> {
        if self.loading(intents) {
            db.query_one("select 'text'", &[]).await?.try_get::<_, i64>(0)?;
        }
        let mut rows = Rows::default();
        let (counters, operations) = keys(intents);
        let sql = "select name, value from counters where name = any($1) order by name for update";
        for row in db.query(&db.prepare_cached(sql).await?, &[&counters]).await? {
            rows.counters.loaded(row.try_get(0)?, row.try_get(1)?);
        }
        let sql = "select operation, value from operations where operation = any($1)";
        for row in db.query(&db.prepare_cached(sql).await?, &[&operations]).await? {
            rows.operations.loaded(row.try_get(0)?, row.try_get(1)?);
        }
        Ok(rows)
    }

    async fn save(&self, db: &Client, rows: &Rows) -> Result<(), tokio_postgres::Error> {
        let mut inserted: Vec<_> = rows.counters.inserted().collect();
        inserted.sort_unstable();
        for (name, value) in inserted {
            db.execute("insert into counters values ($1, $2)", &[name, value]).await?;
        }
        for (name, value) in rows.counters.updated() {
            db.execute("update counters set value = $2 where name = $1", &[name, value]).await?;
        }
        let (operations, values): (Vec<&String>, Vec<&i64>) = rows.operations.inserted().unzip();
        let sql = "insert into operations select * from unnest($1::text[], $2::bigint[])";
        db.execute(sql, &[&operations, &values]).await?;
        Ok(())
    }
}

/// An intent that no event caused.
pub(crate) fn unmarked(intent: Intent) -> Submission<Intent> {
    unmarked_as(intent)
}

/// As [`unmarked`], of another service.
pub(crate) fn unmarked_as<I>(intent: I) -> Submission<I> {
    Submission { intent, cause: Cause::spontaneous(), mark: None }
}

/// An intent that is the effect of an event.
pub(crate) fn caused_by(event: &str, counter: &str) -> Submission<Intent> {
    let mark = Mark { consumer: "counters".into(), event_id: event.into() };
    Submission { intent: Intent::count(counter), cause: Cause::spontaneous(), mark: Some(mark) }
}

/// Where the counters are kept.
pub(crate) struct Home {
    pub(crate) url: String,
    _folder: Option<TempDir>,
}

impl Home {
    pub(crate) async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { url: format!("sqlite:{}", folder.path().join("counters.db").display()), _folder: Some(folder) }
    }

    pub(crate) async fn postgres() -> Self {
        Self::at(testkit::fresh_database().await)
    }

    pub(crate) fn at(url: String) -> Self {
        Self { url, _folder: None }
    }

    pub(crate) async fn open(&self) -> Database {
        self.open_with(&DatabaseSettings::default()).await
    }

    pub(crate) async fn open_with(&self, settings: &DatabaseSettings) -> Database {
        self.migrate(settings, MIGRATIONS).await.unwrap()
    }

    /// As [`open`](Self::open), with the tables of another release.
    pub(crate) async fn open_at(&self, steps: &'static [Migration]) -> Result<Database, StoreError> {
        self.migrate(&DatabaseSettings::default(), steps).await
    }

    async fn migrate(&self, settings: &DatabaseSettings, steps: &'static [Migration]) -> Result<Database, StoreError> {
        Database::open(&self.url.parse().unwrap(), "counters", settings, steps, &CancellationToken::new()).await
    }

    /// A writer whose events nobody publishes.
    pub(crate) async fn writer(&self) -> Writing {
        let database = self.open().await;
        Writing::start(&database, WriterSettings::default(), no_relay(&database).await)
    }
}

/// A running writer.
pub(crate) struct Writing {
    pub(crate) database: Database,
    pub(crate) writer: Writer<Counters>,
    pub(crate) task: JoinHandle<()>,
    pub(crate) loads: Arc<AtomicUsize>,
}

impl Writing {
    pub(crate) fn start(database: &Database, settings: WriterSettings, relay: RelaySender) -> Self {
        let model = Counters::default();
        let loads = model.loads.clone();
        let (writer, task) =
            Writer::start(database, model, "/millrace/counters", Retired::default(), settings, relay).unwrap();
        Self { database: database.clone(), writer, task, loads }
    }

    pub(crate) async fn number(&self, sql: &str) -> i64 {
        number(&self.database, sql).await
    }
}

/// The end of a relay that does not run.
pub(crate) async fn no_relay(database: &Database) -> RelaySender {
    let nowhere = NatsSettings { url: "nats://127.0.0.1:1".into(), ..NatsSettings::default() };
    let connection = Connection::open(&nowhere, "test", |_| {}).await.unwrap();
    Relay::new(connection, database.clone(), RelaySettings::default()).1
}

/// The single number that a query yields; 0 for null.
pub(crate) async fn number(database: &Database, sql: &str) -> i64 {
    match database.pool() {
        Pool::Sqlite(pool) => {
            let sql = sql.to_owned();
            let read = pool.read(move |db| Ok(db.query_row(&sql, [], |row| row.get::<_, Option<i64>>(0))?));
            read.await.unwrap().unwrap_or(0)
        }
        Pool::Postgres(pool) => {
            let row = pool.get().await.unwrap().query_one(sql, &[]).await.unwrap();
            row.get::<_, Option<i64>>(0).unwrap_or(0)
        }
    }
}

/// Runs statements beside the writer.
pub(crate) async fn execute(home: &Home, database: &Database, sql: &str) {
    match database.pool() {
        Pool::Sqlite(_) => {
            let db = rusqlite::Connection::open(home.url.strip_prefix("sqlite:").unwrap()).unwrap();
            db.busy_timeout(LIMIT).unwrap();
            db.execute_batch(sql).unwrap();
        }
        Pool::Postgres(pool) => pool.get().await.unwrap().batch_execute(sql).await.unwrap(),
    }
}

/// The result of `work`, which must come in time.
pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work).await.expect("it took too long")
}
