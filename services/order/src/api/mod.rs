//! The HTTP API. One file per concern; errors are problem documents that name the field.

mod cancel;
mod catalog;
mod cursor;
mod idempotency;
mod list;
mod openapi;
mod page;
mod place;
mod read;
mod request;
mod stream;
pub mod view;

pub use openapi::{OPENAPI, openapi};
pub use request::PlaceOrder;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use contracts::OrderId;
use millrace::event::Cause;
use millrace::problem::{CorrelationId, HttpLayer, HttpLimits, Problem, instrument};
use millrace::store::{Committed, StoreError, Submission, Writer};
use millrace::telemetry::trace::TraceContext;
use serde::Deserialize;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::catalog::Catalog;
use crate::changes::Changes;
use crate::model::{Intent, OrderModel, Outcome, SERVICE};
use crate::settings::Settings;
use crate::store::Reads;

/// When a caller may come back that found the database or the catalog away: soon enough to go on quickly, late enough not
/// to be part of the problem.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// What the handlers need. Clones share it.
#[derive(Clone)]
pub struct Api {
    pub(crate) writer: Writer<OrderModel>,
    pub(crate) reads: Reads,
    pub(crate) catalog: Catalog,
    pub(crate) changes: Changes,
    pub(crate) settings: Arc<Settings>,
    /// One permit per live stream.
    pub(crate) streams: Arc<Semaphore>,
    /// Whether the database knows every end that was told before this start.
    pub(crate) caught_up: watch::Receiver<bool>,
    /// Ends live streams.
    pub(crate) shutdown: CancellationToken,
}

/// The whole API.
pub fn router(api: Api) -> Router {
    let limits = HttpLimits {
        max_in_flight: api.settings.max_in_flight,
        max_body_bytes: api.settings.max_body.as_usize(),
        body_timeout: api.settings.body_timeout.get(),
        ..HttpLimits::default()
    };
    let routes = Router::new()
        .route("/", get(page::page))
        .route("/orders", post(place::place_order).get(list::list_orders))
        .route("/orders/{order_id}", get(read::get_order))
        .route("/orders/{order_id}/timeline", get(read::get_timeline))
        .route("/orders/{order_id}/events", get(stream::stream_events))
        .route("/orders/{order_id}/cancel", post(cancel::cancel_order))
        .route("/catalog", get(catalog::get_catalog))
        .route("/openapi.json", get(openapi::document));
    instrument(routes.with_state(api), HttpLayer::new(SERVICE, limits))
}

/// The path parameter of everything about one order. Anything that is no UUID is a wrong parameter.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct OrderPath {
    order_id: OrderId,
}

impl Api {
    async fn submit(&self, correlation: CorrelationId, intent: Intent) -> Result<Outcome, Problem> {
        let cause = Cause { correlation_id: correlation.0, causation_id: None, trace: TraceContext::current() };
        let submission = Submission { intent, cause, mark: None };
        match self.writer.submit_within(self.settings.submit_patience.get(), submission).await {
            Ok(Committed::Now(outcome)) => Ok(outcome),
            // Only events carry marks.
            Ok(Committed::Before) => Err(Problem::internal()),
            // Its batch may have begun.
            Err(error @ (StoreError::Unavailable(_) | StoreError::Stopped)) => Err(in_doubt(&error)),
            Err(error) => Err(storing(&error)),
        }
    }
}

/// What the caller is told who was not answered in time by the database.
fn in_doubt(error: &StoreError) -> Problem {
    let problem = storing(error);
    let known = problem.detail.clone().unwrap_or_default();
    problem.detail(format!(
        "{known} It is not known whether this was done: repeat the request, with the same Idempotency-Key if it has one."
    ))
}

/// What the caller is told when the database did not do it.
fn storing(error: &StoreError) -> Problem {
    match error {
        StoreError::Unavailable(_) => {
            tracing::warn!(reason = %error, "A request found the database away.");
            Problem::unavailable("The database does not answer at the moment.", RETRY_AFTER)
                .code(millrace::codes::DATABASE_UNREACHABLE)
        }
        StoreError::Stopped => Problem::unavailable("This instance is stopping.", RETRY_AFTER),
        StoreError::Failed(_) => {
            tracing::error!(reason = %error, "A request was refused by the database.");
            Problem::internal()
        }
    }
}

fn no_such_order(id: OrderId) -> Problem {
    Problem::not_found(format!("order {id}"))
        .errors(vec![millrace::problem::FieldError::new("order_id", "names no order")])
}

fn no_catalog() -> Problem {
    Problem::unavailable("The catalog has not been read yet, so nothing can be priced.", RETRY_AFTER)
        .code(millrace::codes::CATALOG_MISSING)
}
