//! What can be ordered, at what price: the key-value bucket as it is now, kept in memory and, as a copy, in the
//! database, so that orders can be priced when NATS does not answer at start.
//!
//! A power cut can take the last changes from the bucket, as from any stream. The copy remembers how far it has followed;
//! a bucket that does not come as far any more is not followed back to old prices. What is written to it from then on
//! counts, and once it says the same as the copy it is followed as before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_nats::jetstream::kv::{Entry, Operation, Store};
use contracts::ProductId;
use contracts::catalog::{BUCKET, Product};
use futures::StreamExt;
use millrace::connection::Connection;
use millrace::event::Cause;
use millrace::health::Component;
use millrace::store::Writer;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::model::{CatalogChange, CatalogPlace, Intent, OrderModel};

/// Products by id.
pub type Products = BTreeMap<ProductId, Product>;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Interruptions in a row after which it no longer looks like a start or a reconnection.
const WORTH_A_WARNING: u32 = 5;
/// Products that are named before the rest is counted.
const NAMED: usize = 10;
const EMPTY: &str =
    "the catalog bucket is empty, orders are priced by the copy in the database: import the catalog again";
const LOST: &str = "the catalog bucket has lost changes that were followed, orders are priced by the copy in the database: \
                    import the catalog again";

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
        let mut products = self.now().as_deref().cloned().unwrap_or_default();
        make(&mut products, change);
        self.set(products);
    }
}

fn make(products: &mut Products, change: &CatalogChange) {
    if change.replace {
        products.clear();
    }
    products.extend(change.put.iter().map(|product| (product.product_id.clone(), product.clone())));
    for id in &change.remove {
        products.remove(id);
    }
}

/// Follows the bucket.
pub(crate) struct Watcher {
    pub(crate) connection: Connection,
    pub(crate) catalog: Catalog,
    pub(crate) writer: Writer<OrderModel>,
    /// How far the copy has followed the bucket.
    pub(crate) place: Option<CatalogPlace>,
    /// Ready once there is something to price orders with.
    pub(crate) sellable: Component,
}

/// Why the bucket is not followed any longer.
enum Interrupted {
    /// It may be another server, or one that has lost something.
    Reconnected,
    Failed(String),
}

impl From<String> for Interrupted {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

fn failed(error: impl std::fmt::Display) -> Interrupted {
    Interrupted::Failed(error.to_string())
}

/// The bucket as it is now.
struct Bucket {
    products: Products,
    place: CatalogPlace,
}

impl Watcher {
    /// Follows the bucket until `shutdown`, starting over whenever something goes wrong.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        if self.catalog.now().is_some() {
            match self.place {
                Some(CatalogPlace { lost_behind: Some(_), .. }) => self.sellable.degraded(LOST),
                _ => self.sellable.ready(),
            }
        }
        let mut pause = FIRST_PAUSE;
        let mut interruptions = 0;
        let following = async {
            loop {
                let reason = match self.follow(&mut pause, &mut interruptions).await {
                    Err(Interrupted::Failed(reason)) => reason,
                    Err(Interrupted::Reconnected) => continue,
                };
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
    async fn follow(
        &mut self,
        pause: &mut Duration,
        interruptions: &mut u32,
    ) -> Result<std::convert::Infallible, Interrupted> {
        self.connection.connected().await.map_err(failed)?;
        let mut reconnects = self.connection.reconnects();
        reconnects.mark_unchanged();
        let store = self.connection.jetstream().get_key_value(BUCKET).await.map_err(failed)?;
        let mut entries = store.watch_with_history(">").await.map_err(failed)?;
        let (place, is_empty) = self.found(&store).await?;
        let mut bucket = Bucket { products: Products::new(), place };
        // Everything there is so far, and of it what came after a loss.
        let mut history = Some((CatalogChange { replace: true, ..CatalogChange::default() }, CatalogChange::default()));
        if is_empty {
            self.bucket_is_empty(place).await?;
            history = None;
        }
        loop {
            let entry = tokio::select! {
                entry = entries.next() => entry.ok_or_else(|| failed("the watch on the bucket ended"))?.map_err(failed)?,
                // The watch itself would go on behind the last entry it has seen, and pass over what a server writes in
                // the place of entries it has lost.
                Ok(()) = reconnects.changed() => return Err(Interrupted::Reconnected),
            };
            *pause = FIRST_PAUSE;
            *interruptions = 0;
            bucket.place.revision = bucket.place.revision.max(entry.revision);
            let Some((mut all, mut later)) = history.take() else {
                let mut change = CatalogChange::default();
                add(&mut change, &entry);
                make(&mut bucket.products, &change);
                self.apply(change, &mut bucket).await?;
                continue;
            };
            add(&mut all, &entry);
            if bucket.place.lost_behind.is_some_and(|behind| entry.revision > behind) {
                add(&mut later, &entry);
            }
            if !entry.seen_current {
                history = Some((all, later));
                continue;
            }
            make(&mut bucket.products, &all);
            if bucket.place.lost_behind.is_some() {
                self.apply(later, &mut bucket).await?;
            } else {
                info!(products = all.put.len(), "the catalog is here");
                self.apply(all, &mut bucket).await?;
            }
        }
    }

    /// How far the bucket is to be followed, and whether there is nothing in it.
    async fn found(&self, store: &Store) -> Result<(CatalogPlace, bool), Interrupted> {
        let status = store.status().await.map_err(failed)?;
        let bucket_created_ms = (status.info.created.unix_timestamp_nanos() / 1_000_000) as i64;
        let last = status.info.state.last_sequence;
        // One that was made anew has its own revisions, and was filled by somebody who meant it.
        let known = self.place.filter(|place| place.bucket_created_ms == bucket_created_ms);
        let lost_behind = known.and_then(|known| match known.lost_behind {
            Some(behind) => Some(behind.min(last)),
            None => (last < known.revision).then_some(last),
        });
        // Deletion markers count: a bucket with nothing but those was emptied on purpose.
        let is_empty = status.values() == 0;
        Ok((CatalogPlace { bucket_created_ms, revision: last, lost_behind }, is_empty))
    }

    /// Nobody ever wrote to the bucket: it is new, or NATS lost its data. Then a copy is better than nothing to sell;
    /// products are taken off by deleting them, which leaves traces in the bucket.
    async fn bucket_is_empty(&mut self, place: CatalogPlace) -> Result<(), Interrupted> {
        match self.catalog.now() {
            Some(products) if !products.is_empty() => {
                warn!(
                    products = products.len(),
                    "the catalog bucket is empty, orders are priced by the copy in the database"
                );
                self.sellable.degraded(EMPTY);
                Ok(())
            }
            _ => {
                let mut bucket = Bucket { products: Products::new(), place };
                self.apply(CatalogChange { replace: true, ..CatalogChange::default() }, &mut bucket).await
            }
        }
    }

    /// Changes what orders are priced by, and the copy in the database.
    async fn apply(&mut self, mut change: CatalogChange, bucket: &mut Bucket) -> Result<(), Interrupted> {
        self.catalog.change(&change);
        let copy = self.catalog.now().unwrap_or_default();
        if let Some(behind) = bucket.place.lost_behind {
            let differ = differing(&bucket.products, &copy);
            if differ.is_empty() {
                info!("the catalog bucket says the same as the copy in the database again");
                bucket.place.lost_behind = None;
            } else {
                if self.place.is_none_or(|place| place.lost_behind.is_none()) {
                    let (has, followed) = (behind, self.place.map_or(0, |place| place.revision));
                    warn!(has, followed, products = differ, "{LOST}");
                }
                self.sellable.degraded(format!("{LOST}; the two differ for {differ}"));
            }
        }
        if bucket.place.lost_behind.is_none() {
            self.sellable.ready();
        }
        self.place = Some(bucket.place);
        change.place = self.place;
        self.writer.submit_because(Cause::spontaneous(), Intent::SaveCatalog(change)).await.map_err(failed)?;
        Ok(())
    }
}

/// Ids of products that are not the same on both sides, the first few of them.
fn differing(one: &Products, other: &Products) -> String {
    let ids: BTreeSet<&ProductId> = one.keys().chain(other.keys()).collect();
    let mut differ = ids.into_iter().filter(|id| one.get(*id) != other.get(*id)).map(|id| id.as_str());
    let named = differ.by_ref().take(NAMED).collect::<Vec<_>>().join(", ");
    match differ.count() {
        0 => named,
        more => format!("{named} and {more} more"),
    }
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
