//! New products come from the catalog bucket, with their opening stock.
//!
//! A watch follows the bucket. Because an order may name a product a moment before the watch has seen it, the handler of
//! `orders.created` looks products up that are not known yet: a fresh product is never mistaken for one out of stock.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream::kv::{self, Operation};
use contracts::catalog::{BUCKET, Product};
use contracts::{ProductId, orders::PricedItem};
use futures::TryStreamExt;
use millrace::backoff::Backoff;
use millrace::connection::Connection;
use millrace::consumer::Failure;
use millrace::event::Cause;
use millrace::kit::SourceResult;
use millrace::store::{StoreError, Writer};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::model::{Intent, InventoryModel, Outcome};
use crate::under_test;

/// Products of a large catalog that are added side by side: they share commits.
const ADDING: usize = 128;
/// Interruptions in a row after which it no longer looks like a start or a reconnection.
const WORTH_A_WARNING: u32 = 5;
const REOPEN: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));

/// The way from the bucket to the stock table.
pub struct Catalog {
    connection: Connection,
    writer: Writer<InventoryModel>,
    /// Products that have a row. Only ever grows, as the table does.
    known: Mutex<HashSet<ProductId>>,
}

/// Why the bucket is not being followed at the moment.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error("the bucket {BUCKET} cannot be watched: {0}")]
    Bucket(Box<dyn std::error::Error + Send + Sync>),
    #[error("the watch of the bucket {BUCKET} ended")]
    Ended,
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn bucket(error: impl std::error::Error + Send + Sync + 'static) -> Interrupted {
    Interrupted::Bucket(Box::new(error))
}

impl Catalog {
    /// `known`: products that are stocked already.
    pub fn new(
        connection: Connection,
        writer: Writer<InventoryModel>,
        known: impl IntoIterator<Item = ProductId>,
    ) -> Self {
        Self { connection, writer, known: Mutex::new(known.into_iter().collect()) }
    }

    /// Follows the bucket from its first entry on, until `shutdown`; starts over whenever it is interrupted.
    pub async fn watch(&self, shutdown: CancellationToken) -> SourceResult {
        let mut interruptions = 0;
        loop {
            let followed = tokio::select! {
                followed = self.follow(&mut interruptions) => followed,
                () = shutdown.cancelled() => return Ok(()),
            };
            let Err(reason) = followed else { continue };
            if matches!(reason, Interrupted::Store(StoreError::Stopped)) {
                return Ok(());
            }
            interruptions += 1;
            let pause = REOPEN.delay(interruptions);
            let retry_ms = pause.as_millis() as u64;
            // At a first start the bucket is made while this runs; only what lasts is worth a warning.
            if interruptions < WORTH_A_WARNING {
                debug!(reason = %reason, retry_ms, "The catalog is not followed yet, trying again.");
            } else {
                warn!(reason = %reason, retry_ms, "The catalog is not followed, new products are not stocked; trying again.");
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
        }
    }

    /// Adds those products of an order that are in the catalog and not in stock yet.
    ///
    /// # Errors
    /// Transient, when the bucket or the database cannot be asked.
    pub async fn ensure_known(&self, items: &[PricedItem]) -> Result<(), Failure> {
        let unknown: HashSet<&ProductId> = {
            let known = self.known();
            items.iter().map(|item| &item.product_id).filter(|id| !known.contains(*id)).collect()
        };
        if unknown.is_empty() {
            return Ok(());
        }
        let store = self.open().await.map_err(Failure::transient)?;
        for id in unknown {
            let entry = store.entry(id.as_str()).await.map_err(Failure::transient)?;
            if let Some(entry) = entry {
                self.add(&entry).await?;
            }
        }
        Ok(())
    }

    async fn open(&self) -> Result<kv::Store, Interrupted> {
        self.connection.jetstream().get_key_value(BUCKET).await.map_err(bucket)
    }

    async fn follow(&self, interruptions: &mut u32) -> Result<(), Interrupted> {
        self.connection.connected().await.map_err(bucket)?;
        let entries = self.open().await?.watch_with_history(">").await.map_err(bucket)?;
        info!(bucket = BUCKET, "The catalog is being followed.");
        *interruptions = 0;
        entries
            .map_err(bucket)
            .try_for_each_concurrent(ADDING, |entry| async move { Ok(self.add(&entry).await?) })
            .await?;
        Err(Interrupted::Ended)
    }

    async fn add(&self, entry: &kv::Entry) -> Result<(), StoreError> {
        // A product that leaves the catalog keeps its stock: orders may still hold it.
        if entry.operation != Operation::Put {
            return Ok(());
        }
        let product: Product = match serde_json::from_slice(&entry.value) {
            Ok(product) => product,
            Err(reason) => {
                warn!(catalog.key = entry.key, %reason, "An entry of the catalog is not a product and is passed over; import it anew.");
                return Ok(());
            }
        };
        if product.product_id.as_str() != entry.key {
            warn!(catalog.key = entry.key, product.id = %product.product_id, "An entry of the catalog names another product than its key and is passed over; import it anew.");
            return Ok(());
        }
        if self.known().contains(&product.product_id) {
            return Ok(());
        }
        let added = self.writer.submit_because(Cause::spontaneous(), Intent::add(&product)).await?;
        if added == Outcome::Added(true) {
            under_test::AFTER_PRODUCT_STOCKED.reach();
            info!(product.id = %product.product_id, stock.units = product.opening_stock, "A new product is stocked.");
        }
        self.known().insert(product.product_id);
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, HashSet<ProductId>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
