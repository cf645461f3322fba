//! The services' databases, read directly and changing nothing.

use std::path::PathBuf;

use millrace::store::DatabaseUrl;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// A row: each column as text, as both databases can give it.
pub type Row = Vec<Option<String>>;

/// One service's database.
#[derive(Debug, Clone)]
pub enum Source {
    Sqlite(PathBuf),
    Postgres(String),
}

impl Source {
    /// `configured` is what services are given as `database.url`.
    pub fn of(configured: &str, service: &str) -> Result<Self, String> {
        match DatabaseUrl::for_service(configured, service).map_err(|e| e.to_string())? {
            DatabaseUrl::Sqlite(path) => Ok(Self::Sqlite(path)),
            DatabaseUrl::Postgres(url) => Ok(Self::Postgres(url)),
        }
    }

    /// Runs one query that reads the same in both dialects.
    pub async fn rows(&self, sql: &str) -> Result<Vec<Row>, String> {
        match self {
            Self::Sqlite(path) => {
                let (path, statement) = (path.clone(), sql.to_owned());
                let read = tokio::task::spawn_blocking(move || sqlite(&path, &statement));
                read.await.map_err(|panic| panic.to_string())?.map_err(|e| format!("{sql}: {e}"))
            }
            Self::Postgres(url) => postgres(url, sql).await.map_err(|e| format!("{sql}: {e}")),
        }
    }

    /// The number that a query comes to.
    pub async fn count(&self, sql: &'static str) -> Result<i64, String> {
        let rows = self.rows(sql).await?;
        rows.first().and_then(|row| int(row, 0)).ok_or_else(|| format!("{sql}: no number"))
    }
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

fn sqlite(path: &PathBuf, sql: &str) -> rusqlite::Result<Vec<Row>> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(std::time::Duration::from_secs(5))?;
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

async fn postgres(url: &str, sql: &str) -> Result<Vec<Row>, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let running = tokio::spawn(connection);
    client.batch_execute("set default_transaction_read_only = on").await?;
    let messages = client.simple_query(sql).await?;
    drop(client);
    // Its end has nothing to tell any more.
    let _ = running.await;
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
        _ => None,
    });
    Ok(rows.collect())
}
