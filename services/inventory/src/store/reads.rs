use contracts::api::StockLevel;
use contracts::{OrderId, ProductId};
use millrace::store::{Database, Pool, StoreError};

use super::{postgres, sqlite};
use crate::domain::Reservation;

/// Queries beside the writer: they see what is committed and lock nothing.
#[derive(Clone)]
pub struct Reads {
    database: Database,
}

impl Reads {
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Stock of one product; `None` when it is not stocked.
    pub async fn level(&self, product_id: &ProductId) -> Result<Option<StockLevel>, StoreError> {
        Ok(self.select(Some(product_id.as_str().to_owned()), 1).await?.pop())
    }

    /// Stock of the first `limit` products by id.
    pub async fn levels(&self, limit: u32) -> Result<Vec<StockLevel>, StoreError> {
        self.select(None, limit).await
    }

    /// Every product that is stocked.
    pub async fn products(&self) -> Result<Vec<ProductId>, StoreError> {
        let levels = self.levels(u32::MAX).await?;
        Ok(levels.into_iter().map(|level| level.product_id).collect())
    }

    /// Where an order stands; `None` when nothing was heard of it.
    pub async fn reservation(&self, order_id: OrderId) -> Result<Option<Reservation>, StoreError> {
        let row = match self.database.pool() {
            Pool::Sqlite(pool) => pool.read(move |db| Ok(sqlite::reservation(db, order_id)?)).await?,
            Pool::Postgres(pool) => postgres::reservation(&pool.get().await?, order_id).await?,
        };
        Ok(row.map(|row| row.reservation))
    }

    async fn select(&self, only: Option<String>, limit: u32) -> Result<Vec<StockLevel>, StoreError> {
        match self.database.pool() {
            Pool::Sqlite(pool) => pool.read(move |db| Ok(sqlite::levels(db, only.as_deref(), limit)?)).await,
            Pool::Postgres(pool) => Ok(postgres::levels(&pool.get().await?, only.as_deref(), i64::from(limit)).await?),
        }
    }
}
