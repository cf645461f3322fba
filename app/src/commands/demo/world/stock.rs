//! The inventory, asked over request/reply.

use contracts::api::{StockLevel, StockLevels, StockQuery, subjects};
use contracts::catalog::Product;
use millrace::request_reply::request_json;

use super::{ANSWER_LIMIT, World};
use crate::commands::demo::scenario::{Deviation, Ware};
use crate::commands::demo::trial::Trial;

impl World {
    /// Checks where the units of a product are that only this scenario sells: so many went out with orders, none is held,
    /// and all others are available.
    pub async fn check_stock(&self, trial: &Trial, ware: &Ware, sold: i64) -> Result<(), Deviation> {
        let product_id = ware.product_id()?;
        let now = self.stock(StockQuery { product_id: Some(product_id.clone()) }).await?;
        let opening = i64::from(ware.stock);
        let expected = StockLevel { product_id, available: opening - sold, reserved: 0, committed: sold };
        Deviation::unless_equal("stock", &now.levels, &vec![expected])?;
        let left = opening - sold;
        trial.checked(format!("stock of {}: {opening} before, {left} now, {sold} sold, none held", ware.id));
        Ok(())
    }

    /// Whether a product can be ordered and has its stock.
    pub(super) async fn sells(&self, product: &Product) -> bool {
        let query = StockQuery { product_id: Some(product.product_id.clone()) };
        let stocked = self.stock(query).await.is_ok_and(|stock| !stock.levels.is_empty());
        let catalog = self.api.get("/catalog").await.map(|answer| answer.body).unwrap_or_default();
        let products = catalog.get("products").and_then(|products| products.as_array()).cloned().unwrap_or_default();
        stocked && products.iter().any(|one| one.get("product_id").is_some_and(|id| id == product.product_id.as_str()))
    }

    async fn stock(&self, query: StockQuery) -> Result<StockLevels, Deviation> {
        let asked = request_json(&self.connection, subjects::INVENTORY_STOCK, &query, ANSWER_LIMIT).await;
        asked.map_err(|e| Deviation::new("an answer of the inventory", e.to_string()))
    }
}
