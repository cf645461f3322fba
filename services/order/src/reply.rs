//! `api.orders.get` and `api.orders.replay` for callers on NATS.

use contracts::api::{OrderQuery, ReplayQuery, ReplayRequest, ReplayStarted, ReplayStatus, subjects};
use millrace::connection::Connection;
use millrace::request_reply::{Endpoint, ReplyError, Service, ServiceError};
use millrace::store::StoreError;
use tokio_util::sync::CancellationToken;

use crate::api::view::OrderView;
use crate::replay::{Desk, Refused};
use crate::store::Reads;

/// When a caller may come back that found the database away.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(2);

/// Answers until `shutdown`.
pub(crate) async fn serve(
    connection: Connection,
    reads: Reads,
    desk: Desk,
    shutdown: CancellationToken,
) -> Result<(), ServiceError> {
    let endpoint = Endpoint::new(subjects::ORDERS_GET)
        .description("An order as it is now. Request: {\"order_id\": UUID}. Answer: as GET /orders/{order_id}.")
        .queue_group("order");
    let replay = Endpoint::new(subjects::ORDERS_REPLAY)
        .description("Rebuilds timelines from the streams. Request: {\"view\": \"timeline\", \"order_id\": UUID or null, \"dry_run\": false}.")
        .queue_group("order");
    // Only the instance that does it knows how it is going.
    let status_subject = format!("{}.{}", subjects::ORDERS_REPLAY, uuid::Uuid::now_v7().simple());
    let status = Endpoint::new(&status_subject).description("How a rebuild is going. Request: {\"replay_id\": UUID}.");
    let service = Service::builder("order", env!("CARGO_PKG_VERSION"), "Orders and what became of them");
    let running = service
        .json_endpoint(endpoint, move |query: OrderQuery, _| {
            let reads = reads.clone();
            async move { answer(&reads, query).await }
        })
        .json_endpoint(replay, {
            let desk = desk.clone();
            move |request: ReplayRequest, _| std::future::ready(begin(&desk, request, &status_subject))
        })
        .json_endpoint(status, move |query: ReplayQuery, _| std::future::ready(tell(&desk, &query)))
        .start(&connection, shutdown)
        .await?;
    running.stopped().await
}

async fn answer(reads: &Reads, query: OrderQuery) -> Result<OrderView, ReplyError> {
    let order = reads.order(query.order_id).await.map_err(|error| match error {
        StoreError::Failed(_) => {
            tracing::error!(reason = %error, "An order could not be read.");
            ReplyError::internal("the order could not be read")
        }
        _ => ReplyError::unavailable("the database does not answer", RETRY_AFTER),
    })?;
    order
        .as_ref()
        .and_then(OrderView::of)
        .ok_or_else(|| ReplyError::not_found(format!("there is no order {}", query.order_id)))
}

fn begin(desk: &Desk, request: ReplayRequest, status_subject: &str) -> Result<ReplayStarted, ReplyError> {
    match desk.begin(request) {
        Ok(replay_id) => Ok(ReplayStarted { replay_id, status_subject: status_subject.to_owned() }),
        Err(refused @ Refused::UnknownView(_)) => Err(ReplyError::bad_request(refused.to_string())),
        Err(refused @ Refused::Busy { .. }) => Err(ReplyError::conflict(refused.to_string())),
        Err(refused @ Refused::Stopping) => Err(ReplyError::unavailable(refused.to_string(), RETRY_AFTER)),
    }
}

fn tell(desk: &Desk, query: &ReplayQuery) -> Result<ReplayStatus, ReplyError> {
    desk.status(query.replay_id).ok_or_else(|| ReplyError::not_found("this instance knows of no such rebuild"))
}
