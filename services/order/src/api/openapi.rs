//! The API described by OpenAPI 3.1, made from the code it describes.

use axum::http::header;
use axum::response::IntoResponse;
use contracts::orders::{CancelReason, Item};
use contracts::{CustomerId, Money, OrderId, ProductId};
use millrace::problem::{FieldError, Problem};
use utoipa::OpenApi;

use super::request::PlaceOrder;
use super::view::{CatalogView, ItemView, OrderList, OrderView, ProductView, Receipt, Timeline, TimelineEntry};
use super::{cancel, catalog, list, place, read, stream};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Millrace orders",
        description = "Place orders and follow them. Every order that is answered with 202 comes to exactly one end: \
                       `confirmed` or `cancelled`. Errors are problem documents (RFC 9457) that name each wrong field.",
        version = "1.0.0",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "orders", description = "Orders and what happens to them"),
        (name = "catalog", description = "What can be ordered"),
    ),
    paths(
        place::place_order,
        list::list_orders,
        read::get_order,
        read::get_timeline,
        stream::stream_events,
        cancel::cancel_order,
        catalog::get_catalog,
        document,
    ),
    components(schemas(
        PlaceOrder, Receipt, OrderView, OrderList, ItemView, Timeline, TimelineEntry, CatalogView, ProductView, Problem,
        FieldError, CancelReason, Item, CustomerId, OrderId, ProductId, Money, contracts::Currency,
    ))
)]
struct Document;

/// The document, made from the code. What is served is its committed copy, which a test holds equal to this: so the
/// machinery that makes it is not part of a running service.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// The committed copy.
const COMMITTED: &str = include_str!("../../../../docs/openapi.json");

/// Get this document
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "catalog",
    responses((status = 200, description = "OpenAPI 3.1", body = Object))
)]
pub(crate) async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], COMMITTED)
}
