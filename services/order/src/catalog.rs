//! What can be ordered, at what price: the key-value bucket as it is now, kept in memory and, as a copy, in the
//! database, so that orders can be priced when NATS does not answer at start.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_nats::jetstream::kv::{Entry, Operation, Store};
use contracts::ProductId;
use contracts::catalog::{BUCKET, Product};
use futures::StreamExt;
use millrace::connection::Connection;
use millrace::event::Cause;
use millrace::store::Writer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::model::{CatalogChange, Intent, OrderModel};

/// Products by id.
pub type Products = BTreeMap<ProductId, Product>;

const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Interruptions in a row after which it no longer looks like a start or a reconnection.
const WORTH_A_WARNING: u32 = 5;

/// The catalog as it is now. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    products: Arc<RwLock<Option<Arc<Products>>>>,
}

impl Catalog {
    /// `None` while neither the bucket nor a copy of it has been read.
    pub fn now(&self) -> Option<Arc<Products>> {
        self.products.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces everything.
    pub fn set(&self, products: Products) {
        *self.products.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(products));
    }

    fn change(&self, change: &CatalogChange) {
        let mut products =
            if change.replace { Products::new() } else { self.now().as_deref().cloned().unwrap_or_default() };
        products.extend(change.put.iter().map(|product| (product.product_id.clone(), product.clone())));
        for id in &change.remove {
            products.remove(id);
        }
        self.set(products);
    }
}

/// Follows the bucket.
pub(crate) struct Watcher {
    pub(crate) connection: Connection,
    pub(crate) catalog: Catalog,
    pub(crate) writer: Writer<OrderModel>,
    /// Turns true when the bucket has been read once.
    pub(crate) current: watch::Sender<bool>,
}

impl Watcher {
    /// Follows the bucket until `shutdown`, starting over whenever something goes wrong.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut pause = Duration::from_millis(100);
        let mut interruptions = 0;
        let following = async {
            loop {
                let Err(reason) = self.follow(&mut pause, &mut interruptions).await;
                interruptions += 1;
                let retry_ms = pause.as_millis() as u64;
                if interruptions < WORTH_A_WARNING {
                    debug!(reason, retry_ms, "the catalog cannot be followed at the moment, trying again");
                } else {
                    warn!(reason, retry_ms, "the catalog cannot be followed, trying again");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        };
        tokio::select! {
            () = following => {}
            () = shutdown.cancelled() => {}
        }
    }

    /// Reads what the bucket has, then what changes. Ends only with the reason why it could not go on.
    async fn follow(&self, pause: &mut Duration, interruptions: &mut u32) -> Result<std::convert::Infallible, String> {
        self.connection.connected().await.map_err(|e| e.to_string())?;
        let store = self.connection.jetstream().get_key_value(BUCKET).await.map_err(|e| e.to_string())?;
        let mut entries = store.watch_with_history(">").await.map_err(|e| e.to_string())?;
        let mut history = Some(CatalogChange { replace: true, ..CatalogChange::default() });
        if is_empty(&store).await? {
            self.bucket_is_empty().await?;
            history = None;
        }
        while let Some(entry) = entries.next().await {
            let entry = entry.map_err(|e| e.to_string())?;
            *pause = Duration::from_millis(100);
            *interruptions = 0;
            match history.take() {
                Some(mut so_far) => {
                    add(&mut so_far, &entry);
                    if entry.seen_current {
                        info!(products = so_far.put.len(), "the catalog is here");
                        self.apply(so_far).await?;
                    } else {
                        history = Some(so_far);
                    }
                }
                None => {
                    let mut change = CatalogChange::default();
                    add(&mut change, &entry);
                    self.apply(change).await?;
                }
            }
        }
        Err("the watch on the bucket ended".into())
    }

    /// Nobody ever wrote to the bucket: it is new, or NATS lost its data. Then a copy is better than nothing to sell;
    /// products are taken off by deleting them, which leaves traces in the bucket.
    async fn bucket_is_empty(&self) -> Result<(), String> {
        match self.catalog.now() {
            Some(products) if !products.is_empty() => {
                warn!(
                    products = products.len(),
                    "the catalog bucket is empty, orders are priced by the copy in the database"
                );
                self.current.send_replace(true);
                Ok(())
            }
            _ => self.apply(CatalogChange { replace: true, ..CatalogChange::default() }).await,
        }
    }

    async fn apply(&self, change: CatalogChange) -> Result<(), String> {
        self.catalog.change(&change);
        self.current.send_replace(true);
        self.writer
            .submit_because(Cause::spontaneous(), Intent::SaveCatalog(change))
            .await
            .map_err(|e| e.to_string())?;
        Ok(())
    }
}

async fn is_empty(store: &Store) -> Result<bool, String> {
    // Deletion markers count: a bucket with nothing but those was emptied on purpose.
    Ok(store.status().await.map_err(|e| e.to_string())?.values() == 0)
}

/// Adds one entry of the bucket to a change. An entry that is no product takes the product off sale: a price that
/// cannot be read must not be charged.
fn add(change: &mut CatalogChange, entry: &Entry) {
    let Ok(id) = ProductId::new(entry.key.clone()) else {
        warn!(key = entry.key, "a key of the catalog bucket is no product id, it is ignored");
        return;
    };
    match entry.operation {
        Operation::Put => match serde_json::from_slice::<Product>(&entry.value) {
            Ok(product) if product.product_id == id => change.put.push(product),
            Ok(product) => {
                warn!(key = entry.key, product = %product.product_id, "a catalog entry names another product than its key, it is not sold");
                change.remove.push(id);
            }
            Err(reason) => {
                warn!(key = entry.key, reason = %reason, "a catalog entry cannot be read, the product is not sold");
                change.remove.push(id);
            }
        },
        Operation::Delete | Operation::Purge => change.remove.push(id),
    }
}
