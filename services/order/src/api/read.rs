use axum::Json;
use axum::extract::State;
use millrace::problem::{PathParams, Problem};

use super::view::{OrderView, Timeline};
use super::{Api, OrderPath, no_such_order, storing};

/// Get an order
#[utoipa::path(
    get,
    path = "/orders/{order_id}",
    tag = "orders",
    params(("order_id" = uuid::Uuid, Path, description = "The order")),
    responses(
        (status = 200, description = "The order as it is now", body = OrderView),
        (status = 400, description = "The id is no UUID", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such order", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Try again later", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get_order(
    State(api): State<Api>,
    PathParams(OrderPath { order_id }): PathParams<OrderPath>,
) -> Result<Json<OrderView>, Problem> {
    let order = api.reads.order(order_id).await.map_err(|error| storing(&error))?;
    order.as_ref().and_then(OrderView::of).map(Json).ok_or_else(|| no_such_order(order_id))
}

/// Get an order's timeline
///
/// Every event about the order, by its own time.
#[utoipa::path(
    get,
    path = "/orders/{order_id}/timeline",
    tag = "orders",
    params(("order_id" = uuid::Uuid, Path, description = "The order")),
    responses(
        (status = 200, description = "What happened so far", body = Timeline),
        (status = 400, description = "The id is no UUID", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such order", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Try again later", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get_timeline(
    State(api): State<Api>,
    PathParams(OrderPath { order_id }): PathParams<OrderPath>,
) -> Result<Json<Timeline>, Problem> {
    if api.reads.order(order_id).await.map_err(|error| storing(&error))?.is_none() {
        return Err(no_such_order(order_id));
    }
    let entries = api.reads.timeline(order_id).await.map_err(|error| storing(&error))?;
    Ok(Json(Timeline { order_id, timeline: entries.into_iter().map(Into::into).collect() }))
}
