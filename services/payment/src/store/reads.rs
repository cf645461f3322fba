use contracts::OrderId;
use millrace::store::{Database, Pool, StoreError};

use super::{postgres, sqlite};
use crate::model::Row;

/// Questions that change nothing.
#[derive(Clone)]
pub struct Reads {
    pub database: Database,
}

impl Reads {
    /// One order's payment.
    pub async fn get(&self, order_id: OrderId) -> Result<Option<Row>, StoreError> {
        match self.database.pool() {
            Pool::Sqlite(pool) => pool.read(move |db| Ok(sqlite::get(db, order_id)?)).await,
            Pool::Postgres(pool) => Ok(postgres::get(&pool.get().await?, order_id).await?),
        }
    }

    /// Up to `limit` payments with a step that somebody should have seen to by `at_ms` (Unix milliseconds), the most
    /// overdue first.
    pub async fn due(&self, at_ms: i64, limit: u32) -> Result<Vec<Row>, StoreError> {
        match self.database.pool() {
            Pool::Sqlite(pool) => pool.read(move |db| Ok(sqlite::due(db, at_ms, limit)?)).await,
            Pool::Postgres(pool) => Ok(postgres::due(&pool.get().await?, at_ms, limit).await?),
        }
    }

    /// As [`due`](Self::due), by order and correlation id alone, so that a row that cannot be read holds up no other.
    pub async fn due_ids(&self, at_ms: i64, limit: u32) -> Result<Vec<(OrderId, String)>, StoreError> {
        let found = match self.database.pool() {
            Pool::Sqlite(pool) => pool.read(move |db| Ok(sqlite::due_ids(db, at_ms, limit)?)).await?,
            Pool::Postgres(pool) => postgres::due_ids(&pool.get().await?, at_ms, limit).await?,
        };
        Ok(found.into_iter().filter_map(|(id, correlation_id)| Some((id.parse().ok()?, correlation_id))).collect())
    }

    /// How many payments only an operator can bring to an end.
    pub async fn count_needing_operator(&self) -> Result<i64, StoreError> {
        match self.database.pool() {
            Pool::Sqlite(pool) => pool.read(move |db| Ok(sqlite::count_needing_operator(db)?)).await,
            Pool::Postgres(pool) => Ok(postgres::count_needing_operator(&pool.get().await?).await?),
        }
    }

    /// Up to `limit` payments that only an operator can bring to an end, the longest waiting first.
    pub async fn needing_operator(&self, limit: u32) -> Result<Vec<Row>, StoreError> {
        match self.database.pool() {
            Pool::Sqlite(pool) => pool.read(move |db| Ok(sqlite::needing_operator(db, limit)?)).await,
            Pool::Postgres(pool) => Ok(postgres::needing_operator(&pool.get().await?, limit).await?),
        }
    }
}
