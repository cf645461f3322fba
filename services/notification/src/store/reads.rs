use contracts::OrderId;
use contracts::notifications::{Channel, Notice};
use millrace::store::{Database, Pool, StoreError};

use super::{postgres, sqlite};
use crate::domain::Delivery;

/// Queries beside the writer: they see what is committed and lock nothing.
#[derive(Clone)]
pub struct Reads {
    database: Database,
}

impl Reads {
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Orders with something to send over this channel by `now_ms` (Unix), from those `limit` deliveries that wait longest.
    pub async fn due(&self, channel: Channel, now_ms: i64, limit: u32) -> Result<Vec<OrderId>, StoreError> {
        match self.database.pool() {
            Pool::Sqlite(pool) => {
                let ids = pool.read(move |db| Ok(sqlite::due(db, channel, now_ms, limit)?)).await?;
                ids.iter().map(|id| id.parse().map_err(|e| StoreError::Failed(format!("{id:?}: {e}")))).collect()
            }
            Pool::Postgres(pool) => Ok(postgres::due(&pool.get().await?, channel, now_ms, i64::from(limit)).await?),
        }
    }

    /// Deliveries that are neither sent nor given up, now or later to be tried.
    pub async fn due_count(&self) -> Result<i64, StoreError> {
        match self.database.pool() {
            Pool::Sqlite(pool) => pool.read(|db| Ok(sqlite::due_count(db)?)).await,
            Pool::Postgres(pool) => Ok(postgres::due_count(&pool.get().await?).await?),
        }
    }

    /// Every delivery of an order, in the order in which they are sent.
    pub async fn deliveries(&self, order_id: OrderId) -> Result<Vec<((Notice, Channel), Delivery)>, StoreError> {
        let rows = match self.database.pool() {
            Pool::Sqlite(pool) => pool.read(move |db| Ok(sqlite::deliveries(db, order_id)?)).await?,
            Pool::Postgres(pool) => postgres::deliveries(&pool.get().await?, order_id).await?,
        };
        let mut all: Vec<_> = rows.into_iter().map(|((_, notice, channel), row)| ((notice, channel), row)).collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        Ok(all)
    }
}
