//! Storage: one database per service, one writer per database.
//!
//! Whatever a service decides is an *intent*. The writer takes all intents that are waiting, loads the rows they need,
//! lets the [`Model`] decide each in memory, and commits state, inbox marks and outgoing events as one transaction
//! ("group commit": an fsync is shared by all that waited for it). An intent that fails is tried again alone, so it
//! cannot take others with it. Nothing is published that was not committed first.
//!
//! Both backends run the same loop (`commit.rs`); they differ only in [`SqliteModel`] and [`PostgresModel`].

mod commit;
mod database;
mod keeper;
mod migrate;
mod outbound;
mod postgres;
mod session;
pub mod several;
mod sqlite;
mod table;
mod url;
mod writer;

pub use database::{Database, DatabaseSettings, Pool, SqlitePool};
pub use keeper::Keeper;
pub use migrate::Migration;
pub use outbound::Outbound;
pub use table::Table;
pub use url::{DatabaseUrl, InvalidDatabaseUrl};
pub use writer::{Committed, Submission, Writer, WriterSettings};

use std::future::Future;

use time::OffsetDateTime;

/// What one service keeps and how it decides, without any I/O.
pub trait Model: Send + Sync + 'static {
    /// Something that should happen, with all it needs to be decided.
    type Intent: Send + Sync + 'static;
    /// What the one who asked is told after the commit.
    type Outcome: Send + 'static;
    /// The rows a batch of intents needs, changed in memory by `decide`; usually made of [`Table`]s.
    type Rows: Send + Sync;

    /// Decides one intent on rows that earlier intents of the batch may have changed. Must be idempotent: after a lost
    /// connection the same intent may come again though it was committed. An intent that is refused changes nothing.
    fn decide(
        &self,
        rows: &mut Self::Rows,
        intent: &Self::Intent,
        now: OffsetDateTime,
        out: &mut Outbound,
    ) -> Self::Outcome;
}

/// The rows of a model in SQLite. Runs inside the writer's transaction.
pub trait SqliteModel: Model {
    fn load(&self, db: &rusqlite::Connection, intents: &[&Self::Intent]) -> rusqlite::Result<Self::Rows>;
    fn save(&self, db: &rusqlite::Connection, rows: &Self::Rows) -> rusqlite::Result<()>;
}

/// The rows of a model in PostgreSQL. Runs inside the writer's transaction; several instances of a service may share
/// the database, so `load` locks what exists (`for update`, in key order) and `save` lets a unique constraint catch what
/// another instance created meanwhile: the batch is then decided again.
pub trait PostgresModel: Model {
    fn load(
        &self,
        db: &deadpool_postgres::Client,
        intents: &[&Self::Intent],
    ) -> impl Future<Output = Result<Self::Rows, tokio_postgres::Error>> + Send;
    fn save(
        &self,
        db: &deadpool_postgres::Client,
        rows: &Self::Rows,
    ) -> impl Future<Output = Result<(), tokio_postgres::Error>> + Send;
}

/// Why an intent was not committed, or rows were not read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Come back later: the database cannot be reached, or more is waiting than it can take.
    #[error("the database did not take it in time: {0}")]
    Unavailable(String),
    /// The database refused this very intent; repeating it is unlikely to help.
    #[error("the database refused it: {0}")]
    Failed(String),
    /// The service is stopping.
    #[error("the writer has stopped")]
    Stopped,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(
                rusqlite::ErrorCode::DatabaseBusy
                | rusqlite::ErrorCode::DatabaseLocked
                | rusqlite::ErrorCode::DiskFull
                | rusqlite::ErrorCode::SystemIoFailure
                | rusqlite::ErrorCode::CannotOpen
                // It refuses everybody alike: to give up message after message would not help.
                | rusqlite::ErrorCode::ReadOnly
                | rusqlite::ErrorCode::PermissionDenied
                | rusqlite::ErrorCode::DatabaseCorrupt
                | rusqlite::ErrorCode::NotADatabase,
            ) => Self::Unavailable(error.to_string()),
            // Has no code of its own.
            _ if error.to_string().starts_with("no such table") => Self::Unavailable(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let text = postgres::full_text(&error);
        if postgres::is_connection_loss(&error) { Self::Unavailable(text) } else { Self::Failed(text) }
    }
}

impl From<crate::outbox::header_text::Unreadable> for StoreError {
    fn from(error: crate::outbox::header_text::Unreadable) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<deadpool_postgres::PoolError> for StoreError {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        match error {
            deadpool_postgres::PoolError::Backend(error) => Self::Unavailable(postgres::full_text(&error)),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::StoreError;

    #[test]
    fn a_sqlite_file_that_refuses_everybody_counts_as_away_and_a_refused_row_does_not() {
        let of = |code| StoreError::from(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        for code in [ffi::SQLITE_READONLY, 1032, ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_FULL] {
            assert!(matches!(of(code), StoreError::Unavailable(_)), "{code}");
        }
        for code in [ffi::SQLITE_CONSTRAINT, ffi::SQLITE_MISMATCH, ffi::SQLITE_TOOBIG] {
            assert!(matches!(of(code), StoreError::Failed(_)), "{code}");
        }
    }
}
