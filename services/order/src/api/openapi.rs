//! The API described by OpenAPI 3.1, made from the code it describes.

use axum::Json;
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

/// The document, as `GET /openapi.json` serves it.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// Get this document
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "catalog",
    responses((status = 200, description = "OpenAPI 3.1", body = Object))
)]
pub(crate) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(openapi())
}
