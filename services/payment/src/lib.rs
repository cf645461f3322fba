//! The payment service: authorizes when an order is created, captures when it is confirmed, voids or refunds when it is
//! cancelled. Charges exactly once or not at all.
//!
//! A step at the gateway is due because of what the table says (`domain.rs`), never because a message is at hand: the
//! handlers and the sweep both only see to what is due (`steps.rs`).

pub mod api;
pub mod domain;
pub mod gateway;
pub mod handlers;
pub mod model;
pub mod operator;
pub mod settings;
pub mod steps;
pub mod store;
pub mod sweep;
pub mod under_test;

pub use settings::Settings;

use std::future::Future;
use std::time::Duration;

use contracts::topology::durables;
use millrace::breaker::{Breaker, State};
use millrace::consumer::{Failure, Router};
use millrace::event::Received;
use millrace::http_client::http_client;
use millrace::kit::{self, Kit, KitParts};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::gateway::Gateway;
use crate::model::PaymentModel;
use crate::steps::Steps;
use crate::store::{MIGRATIONS, Reads};

/// The service's name: of its database, its metrics, the source of its events.
pub const SERVICE: &str = "payment";

/// Connecting takes milliseconds or does not happen.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// What the service is given.
pub struct Parts {
    pub kit: KitParts,
    pub settings: Settings,
}

/// Runs until shutdown.
///
/// # Errors
/// When a part cannot start or ends unexpectedly; see [`kit::Error`].
pub async fn run(parts: Parts) -> Result<(), kit::Error> {
    let Parts { kit: kit_parts, settings } = parts;
    let service = kit_parts.service;
    let gateway =
        connect(&settings).map_err(|reason| kit::Error::Task { service, task: "the gateway's client", reason })?;
    let breaker = Breaker::new("payment-gateway", (&settings.breaker).into());
    let mut kit = Kit::start(kit_parts, PaymentModel { grace: settings.grace.get() }, MIGRATIONS).await?;
    let steps = Steps { reads: Reads { database: kit.database() }, writer: kit.writer(), gateway, breaker, settings };

    let (open, gate) = watch::channel(true);
    let (states, shutdown) = (steps.breaker.subscribe(), kit.shutdown());
    kit.spawn("the breaker's gate", async move {
        follow(states, open, shutdown).await;
        Ok(())
    });
    let (breaker, component, shutdown) = (steps.breaker.clone(), kit.health().component("gateway"), kit.shutdown());
    kit.spawn("the breaker's health", async move {
        breaker.show_in(component, shutdown).await;
        Ok(())
    });
    let (sweeping, shutdown) = (steps.clone(), kit.shutdown());
    kit.spawn("the payment sweep", async move {
        sweep::run(sweeping, shutdown).await;
        Ok(())
    });
    let (answering, connection, shutdown) = (steps.clone(), kit.connection().clone(), kit.shutdown());
    kit.spawn(
        "the payment API",
        async move { Ok(api::serve(answering, &connection, shutdown).await?.stopped().await?) },
    );
    kit.consume(router(&steps), vec![gate])?;
    drop(steps);
    kit.run().await
}

fn connect(settings: &Settings) -> Result<Gateway, String> {
    let timeout = Duration::from_millis(settings.gateway.timeout_ms);
    let client = http_client(timeout, CONNECT_TIMEOUT).map_err(|error| error.to_string())?;
    Gateway::new(client, &settings.gateway).map_err(|error| error.to_string())
}

/// Events of orders, each to its handler. Orders of foreign publishers arrive in the newest version too: the order
/// service publishes them again.
fn router(steps: &Steps) -> Router {
    Router::new(durables::PAYMENT_ORDERS)
        .on(with(steps, handlers::order_created))
        .on(with(steps, handlers::order_confirmed))
        .on(with(steps, handlers::order_cancelled))
}

fn with<E, F>(
    steps: &Steps,
    handler: fn(Steps, Received<E>) -> F,
) -> impl Fn(Received<E>) -> F + Send + Sync + use<E, F>
where
    F: Future<Output = Result<(), Failure>>,
{
    let steps = steps.clone();
    move |event| handler(steps.clone(), event)
}

/// Keeps `open` true while the breaker lets calls through: an outage of the gateway costs no delivery attempts.
async fn follow(mut states: watch::Receiver<State>, open: watch::Sender<bool>, shutdown: CancellationToken) {
    loop {
        open.send_replace(*states.borrow_and_update() != State::Open);
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            () = shutdown.cancelled() => return,
        }
    }
}
