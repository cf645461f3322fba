//! The services' databases, read directly over one connection each, and changing nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace::store::DatabaseUrl;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::failure::Failure;

/// A row: each column as text, as both databases can give it.
pub type Row = Vec<Option<String>>;

/// One service's database.
pub struct Database {
    service: &'static str,
    source: Source,
}

enum Source {
    Sqlite(Arc<Mutex<Connection>>),
    Postgres(Client),
}

/// How long a writer may keep a reader of SQLite waiting.
const BUSY: Duration = Duration::from_secs(5);

impl Database {
    /// `configured` is what services are given as `database.url`.
    pub async fn open(configured: &str, service: &'static str) -> Result<Self, Failure> {
        let url = DatabaseUrl::for_service(configured, service).map_err(|e| Failure::new(e.to_string()).usage())?;
        let shown = url.to_string();
        let failed = |reason: String| {
            Failure::new(format!("the database of {service} at {shown} cannot be read: {reason}"))
                .remedy("set database.url (DATABASE_URL) as the services have it; each must have been started once")
        };
        let source = match url {
            DatabaseUrl::Sqlite(path) => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let db = Connection::open_with_flags(path, flags).map_err(|e| failed(e.to_string()))?;
                db.busy_timeout(BUSY).map_err(|e| failed(e.to_string()))?;
                Source::Sqlite(Arc::new(Mutex::new(db)))
            }
            DatabaseUrl::Postgres(url) => {
                let (client, connection) = tokio_postgres::connect(&url, NoTls).await.map_err(|e| failed(full(&e)))?;
                // Ends with its client.
                tokio::spawn(connection);
                let read_only = client.batch_execute("set default_transaction_read_only = on").await;
                read_only.map_err(|e| failed(full(&e)))?;
                Source::Postgres(client)
            }
        };
        Ok(Self { service, source })
    }

    pub fn is_sqlite(&self) -> bool {
        matches!(self.source, Source::Sqlite(_))
    }

    /// Runs one query that reads the same in both dialects.
    pub async fn rows(&self, sql: String) -> Result<Vec<Row>, Failure> {
        let read = match &self.source {
            Source::Sqlite(db) => {
                let db = db.clone();
                tokio::task::spawn_blocking(move || {
                    sqlite(&db.lock().unwrap_or_else(PoisonError::into_inner), &sql).map_err(|e| e.to_string())
                })
                .await
                .unwrap_or_else(|panic| Err(panic.to_string()))
            }
            Source::Postgres(client) => postgres(client, &sql).await.map_err(|e| full(&e)),
        };
        read.map_err(|reason| {
            Failure::new(format!("the database of {} cannot be read: {reason}", self.service)).remedy("millrace doctor")
        })
    }
}

/// `'a','b'`, for a query. An empty list matches nothing.
pub fn list<'a>(values: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = values.into_iter().map(quoted).collect();
    if quoted.is_empty() { "null".to_owned() } else { quoted.join(",") }
}

/// A text literal of SQL. Line ends and the like are of no concern to either database; a NUL would end the text.
pub fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\0', "").replace('\'', "''"))
}

/// A column as text; empty for null.
pub fn text(row: &Row, at: usize) -> String {
    maybe(row, at).unwrap_or_default()
}

pub fn maybe(row: &Row, at: usize) -> Option<String> {
    row.get(at).cloned().flatten()
}

pub fn int(row: &Row, at: usize) -> Option<i64> {
    maybe(row, at)?.parse().ok()
}

/// SQLite says 1, PostgreSQL says t.
pub fn flag(row: &Row, at: usize) -> bool {
    matches!(maybe(row, at).as_deref(), Some("1" | "t"))
}

fn sqlite(db: &Connection, sql: &str) -> rusqlite::Result<Vec<Row>> {
    let mut select = db.prepare(sql)?;
    let columns = select.column_count();
    let rows = select.query_map([], |row| (0..columns).map(|at| Ok(shown(row.get_ref(at)?))).collect())?;
    rows.collect()
}

fn shown(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
    }
}

async fn postgres(client: &Client, sql: &str) -> Result<Vec<Row>, tokio_postgres::Error> {
    let rows = client.simple_query(sql).await?.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
        _ => None,
    });
    Ok(rows.collect())
}

fn full(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned())
}
