//! Questions others may ask: `api.inventory.stock` and `api.inventory.adjust`, on the NATS services framework.

use std::sync::Arc;
use std::time::Duration;

use contracts::api::{StockAdjustment, StockLevel, StockLevels, StockQuery, subjects};
use millrace::event::Cause;
use millrace::request_reply::{Builder, Endpoint, ReplyError, Request, Service};
use millrace::store::{Committed, StoreError, Submission, Writer};

use crate::domain::AdjustmentRefused;
use crate::model::{Intent, InventoryModel, Outcome};
use crate::store::Reads;

/// When to come back while the database is away.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the endpoints share.
pub struct Api {
    pub reads: Reads,
    pub writer: Writer<InventoryModel>,
    /// Most products one answer lists.
    pub list_max: u32,
}

/// Both endpoints, ready to be started.
pub fn service(api: Api) -> Builder {
    let api = Arc::new(api);
    let (stock_api, adjust_api) = (api.clone(), api);
    Service::builder("inventory", env!("CARGO_PKG_VERSION"), "Stock levels and adjustments")
        .json_endpoint(
            Endpoint::new(subjects::INVENTORY_STOCK)
                .description("Stock of one product, {\"product_id\": \"...\"}, or of all of them, {}."),
            move |query: Option<StockQuery>, _| {
                let api = stock_api.clone();
                async move { api.stock(query.unwrap_or_default()).await }
            },
        )
        .json_endpoint(
            Endpoint::new(subjects::INVENTORY_ADJUST)
                .description("Adds to what is available, or takes from it. A repeated adjustment_id counts once."),
            move |asked: StockAdjustment, request: Request| {
                let api = adjust_api.clone();
                async move { api.adjust(asked, request.remaining()).await }
            },
        )
}

impl Api {
    async fn stock(&self, query: StockQuery) -> Result<StockLevels, ReplyError> {
        if let Some(product_id) = query.product_id {
            let level = self.reads.level(&product_id).await.map_err(unavailable)?;
            let unknown = || ReplyError::not_found(format!("product_id: {product_id} is not stocked"));
            return Ok(StockLevels { levels: vec![level.ok_or_else(unknown)?] });
        }
        // One more than may be listed, to tell "all" from "cut off".
        let levels = self.reads.levels(self.list_max.saturating_add(1)).await.map_err(unavailable)?;
        if levels.len() as u64 > u64::from(self.list_max) {
            return Err(ReplyError::bad_request(format!(
                "product_id: there are more than {} products (setting inventory.list_max), so name one",
                self.list_max
            )));
        }
        Ok(StockLevels { levels })
    }

    async fn adjust(&self, asked: StockAdjustment, patience: Duration) -> Result<StockLevel, ReplyError> {
        let submission = Submission { intent: Intent::Adjust(asked), cause: Cause::spontaneous(), mark: None };
        match self.writer.submit_within(patience, submission).await.map_err(unavailable)? {
            Committed::Now(Outcome::Adjusted(Ok(level))) => Ok(level),
            Committed::Now(Outcome::Adjusted(Err(refused))) => Err(refusal(&refused)),
            Committed::Now(_) | Committed::Before => {
                Err(ReplyError::internal("the adjustment was answered as something else"))
            }
        }
    }
}

fn refusal(refused: &AdjustmentRefused) -> ReplyError {
    let code = match refused {
        AdjustmentRefused::UnknownProduct(_) => 404,
        AdjustmentRefused::TooFew { .. } | AdjustmentRefused::IdTaken(_) => 409,
        AdjustmentRefused::TooMany { .. } | AdjustmentRefused::Nothing | AdjustmentRefused::Reason => 400,
    };
    ReplyError::new(code, refused.to_string())
}

fn unavailable(error: StoreError) -> ReplyError {
    match error {
        StoreError::Unavailable(_) | StoreError::Stopped => {
            ReplyError::unavailable("the database is away, come back later", RETRY_AFTER)
        }
        StoreError::Failed(reason) => {
            tracing::error!(reason, "A request about stock failed in the database.");
            ReplyError::internal("the database refused the request; the service's log says why")
        }
    }
}
