//! `api.orders.get` for callers on NATS.

use contracts::api::{OrderQuery, subjects};
use millrace::connection::Connection;
use millrace::request_reply::{Endpoint, ReplyError, Service, ServiceError};
use millrace::store::StoreError;
use tokio_util::sync::CancellationToken;

use crate::api::view::OrderView;
use crate::store::Reads;

/// When a caller may come back that found the database away.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(2);

/// Answers until `shutdown`.
pub(crate) async fn serve(
    connection: Connection,
    reads: Reads,
    shutdown: CancellationToken,
) -> Result<(), ServiceError> {
    let endpoint = Endpoint::new(subjects::ORDERS_GET)
        .description("An order as it is now. Request: {\"order_id\": UUID}. Answer: as GET /orders/{order_id}.")
        .queue_group("order");
    let service = Service::builder("order", env!("CARGO_PKG_VERSION"), "Orders and what became of them");
    let running = service
        .json_endpoint(endpoint, move |query: OrderQuery, _| {
            let reads = reads.clone();
            async move { answer(&reads, query).await }
        })
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
