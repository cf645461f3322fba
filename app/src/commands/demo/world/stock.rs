//! The inventory, asked over request/reply.

use contracts::api::{StockLevels, StockQuery, subjects};
use contracts::catalog::Product;
use millrace::request_reply::request_json;

use super::{ANSWER_LIMIT, World};
use crate::commands::demo::scenario::{Deviation, Ware};
use crate::commands::demo::trial::Trial;

impl World {
    /// Checks where the units of a product are that only this scenario sells: so many went out with orders, none is held,
    /// and all others are available.
    pub async fn check_stock(&self, trial: &Trial, ware: &Ware, sold: i64) -> Result<(), Deviation> {
        let stock = self.stock(StockQuery { product_id: Some(ware.product_id()?) }).await?;
        let [now] = stock.levels.as_slice() else {
            return Err(Deviation::new(format!("the stock of {}", ware.id), format!("{:?}", stock.levels)));
        };
        let opening = i64::from(ware.stock);
        let what = format!("available, held and sold of {}", ware.id);
        Deviation::unless_equal(&what, &(now.available, now.reserved, now.committed), &(opening - sold, 0, sold))?;
        let left = opening - sold;
        trial.checked(format!("stock of {}: {opening} before, {left} now, {sold} sold, none held", ware.id));
        Ok(())
    }

    /// Whether a product can be ordered and has its opening stock.
    pub(super) async fn sells(&self, product: &Product) -> bool {
        let query = StockQuery { product_id: Some(product.product_id.clone()) };
        let opening = i64::from(product.opening_stock);
        let stock = self.stock(query).await.map(|stock| stock.levels).unwrap_or_default();
        let stocked = stock.iter().any(|level| level.available == opening);
        let catalog = self.api.get("/catalog").await.map(|answer| answer.body).unwrap_or_default();
        let products = catalog.get("products").and_then(|products| products.as_array()).cloned().unwrap_or_default();
        stocked && products.iter().any(|one| one.get("product_id").is_some_and(|id| id == product.product_id.as_str()))
    }

    async fn stock(&self, query: StockQuery) -> Result<StockLevels, Deviation> {
        let asked = request_json(&self.connection, subjects::INVENTORY_STOCK, &query, ANSWER_LIMIT).await;
        asked.map_err(|e| Deviation::new("an answer of the inventory", e.to_string()))
    }
}
