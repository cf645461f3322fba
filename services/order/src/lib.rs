//! The order service: takes orders over HTTP, watches what payment and inventory say about them, and brings each to its
//! one end. The only publisher under `orders.>`.
//!
//! | where | what |
//! | --- | --- |
//! | [`domain`] | what an order is and how it ends, pure |
//! | [`model`] | what can happen, decided on rows |
//! | [`store`] | those rows in SQLite and PostgreSQL, and the questions asked of them |
//! | `handlers` | one function per consumed event |
//! | [`api`] | HTTP |
//! | `reply` | request/reply on NATS |
//! | `replay` | timelines rebuilt from the streams |
//! | [`catalog`] | prices, from the key-value bucket |
//! | `deadlines` | timers |
//! | `catch_up` | what was told before, learnt again by a database from an older copy |

pub mod api;
pub mod catalog;
mod catch_up;
mod changes;
mod deadlines;
pub mod domain;
mod handlers;
pub mod model;
mod replay;
mod reply;
mod settings;
pub mod store;
mod timeline;

pub use settings::Settings;

use std::future::IntoFuture as _;
use std::sync::Arc;

use millrace::kit::{Error, Kit, KitParts};
use millrace::shutdown::drain;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::api::Api;
use crate::catalog::{Catalog, Watcher};
use crate::catch_up::CatchUp;
use crate::changes::Changes;
use crate::deadlines::Deadlines;
use crate::handlers::Handlers;
use crate::model::OrderModel;
use crate::replay::{Desk, Rebuilder};
use crate::store::{MIGRATIONS, Reads};

/// What the service is given.
pub struct Parts {
    pub kit: KitParts,
    pub settings: Settings,
    /// Where the API is served.
    pub http: TcpListener,
}

/// Runs the service until its shutdown, or until a part of it fails.
pub async fn run(parts: Parts) -> Result<(), Error> {
    let Parts { kit, settings, http } = parts;
    let shutdown = kit.shutdown.clone();
    // Before anything else can be ready: without a catalog nothing can be sold.
    let sellable = kit.health.component("catalog");
    sellable.not_ready("it has not been read yet");
    let model = OrderModel { deadline: settings.deadline.get(), key_lifetime: settings.idempotency_key_lifetime.get() };
    let (caught_up_now, caught_up) = watch::channel(false);
    let mut kit = Kit::start_publishing_when(kit, model, MIGRATIONS, caught_up.clone()).await?;
    let reads = Reads::new(kit.database());
    // Before anything new is told, or it would say nothing about what was told before.
    let known = kit.read_first(|| reads.told_up_to(catch_up::ORDERS)).await?;
    let (catalog, changes) = (Catalog::default(), Changes::default());

    // The copy first: with it orders can be taken before NATS answers.
    let copy = kit.read_first(|| reads.catalog()).await?;
    if !copy.is_empty() {
        catalog.set(copy.into_iter().map(|product| (product.product_id.clone(), product)).collect());
    }
    let watcher = Watcher {
        connection: kit.connection().clone(),
        catalog: catalog.clone(),
        writer: kit.writer(),
        place: kit.read_first(|| reads.catalog_place()).await?,
        sellable,
    };
    let stop = shutdown.clone();
    kit.spawn("catalog", async move {
        watcher.run(stop).await;
        Ok(())
    });

    let catch_up = CatchUp {
        connection: kit.connection().clone(),
        writer: kit.writer(),
        changes: changes.clone(),
        known,
        done: caught_up_now,
    };
    let (stands, stop) = (kit.topology_stands(), shutdown.clone());
    kit.spawn("catching up with the stream", async move {
        tokio::select! {
            () = async { stands.await; catch_up.run().await } => {}
            () = stop.cancelled() => return Ok(()),
        }
        stop.cancelled().await;
        Ok(())
    });

    let handlers = Handlers { writer: kit.writer(), changes: changes.clone() };
    for router in handlers::routers(&handlers) {
        kit.consume(router, vec![caught_up.clone()])?;
    }
    drop(handlers);

    let deadlines =
        Deadlines { reads: reads.clone(), writer: kit.writer(), changes: changes.clone(), settings: settings.clone() };
    let (stop, may_end) = (shutdown.clone(), caught_up.clone());
    kit.spawn("deadlines", async move {
        deadlines.run(may_end, stop).await;
        Ok(())
    });

    let (desk, requests) = Desk::open();
    let rebuilder = Rebuilder {
        connection: kit.connection().clone(),
        reads: reads.clone(),
        writer: kit.writer(),
        changes: changes.clone(),
        desk: desk.clone(),
    };
    let stop = shutdown.clone();
    kit.spawn("replays", async move {
        rebuilder.run(requests, stop).await;
        Ok(())
    });

    let (connection, stop) = (kit.connection().clone(), shutdown.clone());
    kit.spawn("request/reply", {
        let reads = reads.clone();
        async move { Ok(reply::serve(connection, reads, desk, stop).await?) }
    });

    let streams = Arc::new(Semaphore::new(settings.max_streams.min(Semaphore::MAX_PERMITS)));
    let settings = Arc::new(settings);
    let api =
        Api { writer: kit.writer(), reads, catalog, changes, settings, streams, caught_up, shutdown: shutdown.clone() };
    // The longest a request at hand can still take.
    let patience = api.settings.body_timeout.get() + api.settings.submit_patience.get();
    kit.spawn("http", async move {
        let server = axum::serve(http, api::router(api)).with_graceful_shutdown(shutdown.clone().cancelled_owned());
        if let Ok(ended) = drain(&shutdown, patience, server.into_future()).await {
            ended?;
        }
        Ok(())
    });
    kit.run().await
}
