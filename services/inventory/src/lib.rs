//! The inventory service: stock per product, and a reservation per order that is all or nothing.
//!
//! | event in | what happens | events out |
//! | --- | --- | --- |
//! | `orders.created` | all items are held, or none | `inventory.reserved` or `inventory.rejected` |
//! | `orders.confirmed` | held items leave with the order | `inventory.committed` |
//! | `orders.cancelled` | held items become available again | `inventory.released` |

pub mod api;
pub mod catalog;
pub mod domain;
pub mod handlers;
pub mod model;
mod settings;
pub mod store;
pub mod under_test;

pub use settings::Settings;

use std::sync::Arc;

use millrace::kit::{Error, Kit, KitParts};

use crate::api::Api;
use crate::catalog::Catalog;
use crate::handlers::State;
use crate::model::InventoryModel;
use crate::store::Reads;

/// What the service is given.
pub struct Parts {
    pub kit: KitParts,
    pub settings: Settings,
}

/// Runs the service until its shutdown is asked for, or until a part of it fails.
pub async fn run(parts: Parts) -> Result<(), Error> {
    let mut kit = Kit::start(parts.kit, InventoryModel, store::MIGRATIONS).await?;
    let reads = Reads::new(kit.database());
    let known = kit.read_first(|| reads.products()).await?;
    let catalog = Arc::new(Catalog::new(kit.connection().clone(), kit.writer(), known));

    let (connection, shutdown) = (kit.connection().clone(), kit.shutdown());
    let service = api::service(Api { reads, writer: kit.writer(), list_max: parts.settings.list_max });
    kit.spawn("api", async move { Ok(service.start(&connection, shutdown).await?.stopped().await?) });

    let (watched, shutdown) = (catalog.clone(), kit.shutdown());
    kit.spawn("catalog", async move { watched.watch(shutdown).await });

    kit.consume(handlers::router(&Arc::new(State { writer: kit.writer(), catalog })), Vec::new())?;
    kit.run().await
}
