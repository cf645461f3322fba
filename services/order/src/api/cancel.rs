use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use millrace::problem::{CorrelationId, PathParams, Problem};

use super::view::OrderView;
use super::{Api, OrderPath, RETRY_AFTER, no_such_order, storing};
use crate::domain::Cancellation;
use crate::model::{Intent, Outcome};

/// Cancel an order
///
/// Possible until it is confirmed. What was set aside on the card and in the stock is given back afterwards.
#[utoipa::path(
    post,
    path = "/orders/{order_id}/cancel",
    tag = "orders",
    params(("order_id" = uuid::Uuid, Path, description = "The order")),
    responses(
        (status = 200, description = "It was cancelled before", body = OrderView),
        (status = 202, description = "It is cancelled; money and goods are given back next", body = OrderView),
        (status = 400, description = "The id is no UUID", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such order", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is confirmed already", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Try again later", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn cancel_order(
    State(api): State<Api>,
    PathParams(OrderPath { order_id }): PathParams<OrderPath>,
    correlation: CorrelationId,
) -> Result<Response, Problem> {
    // A database from an older copy may not know yet that the order has ended.
    if !*api.caught_up.borrow() {
        return Err(Problem::unavailable(
            "After its start the service has to see first, with NATS, whether the order has ended; nothing was done.",
            RETRY_AFTER,
        ));
    }
    let Outcome::Cancellation(cancellation) = api.submit(correlation, Intent::Cancel { order_id }).await? else {
        return Err(Problem::internal());
    };
    let status = match cancellation {
        Cancellation::Now => StatusCode::ACCEPTED,
        Cancellation::Already => StatusCode::OK,
        Cancellation::UnknownOrder => return Err(no_such_order(order_id)),
        Cancellation::TooLate => {
            return Err(Problem::conflict(format!(
                "Order {order_id} is confirmed, which is final; it cannot be cancelled."
            )));
        }
    };
    api.changes.announce(order_id);
    let order = api.reads.order(order_id).await.map_err(|error| storing(&error))?;
    let view = order.as_ref().and_then(OrderView::of).ok_or_else(|| no_such_order(order_id))?;
    Ok((status, Json(view)).into_response())
}
