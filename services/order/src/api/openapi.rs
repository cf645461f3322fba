//! The API described by OpenAPI 3.1, made from the code it describes.

use axum::http::header;
use axum::response::IntoResponse;
use contracts::orders::{CancelReason, Item};
use contracts::{CustomerId, Money, OrderId, ProductId};
use millrace::problem::{FieldError, Problem};
use utoipa::openapi::content::Content;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Ref, Type};
use utoipa::openapi::{RefOr, Response};
use utoipa::{Modify, OpenApi};

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
    servers((url = "/", description = "The order service: the setting http.listen says where")),
    // Whoever reaches the port may order: who that is, is decided in front of this.
    security(()),
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
    modifiers(&EveryAnswer),
    components(schemas(
        PlaceOrder, Receipt, OrderView, OrderList, ItemView, Timeline, TimelineEntry, stream::StreamMessage, CatalogView, ProductView, Problem,
        FieldError, CancelReason, Item, CustomerId, OrderId, ProductId, Money, contracts::Currency,
    ))
)]
struct Document;

/// What the layer around all routes does to every operation.
struct EveryAnswer;

impl Modify for EveryAnswer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for operation in document.paths.paths.values_mut().flat_map(operations) {
            let responses = &mut operation.responses.responses;
            let mut otherwise = |status: &str, description: &str| {
                responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(problem(description)));
            };
            otherwise("500", "A defect");
            otherwise("503", "Too much is asked at once; try again later");
            for (status, response) in responses {
                let RefOr::T(response) = response else { continue };
                let mut carries = |name: &str| {
                    let shared = Ref::new(format!("#/components/headers/{name}"));
                    response.headers.insert(name.to_owned(), RefOr::Ref(shared));
                };
                carries(CORRELATION_ID);
                if status == "503" {
                    carries(RETRY_AFTER);
                }
            }
        }
        let components = document.components.get_or_insert_default();
        let mut shared = |name: &str, kind: Type, description: &str| {
            let header = HeaderBuilder::new().schema(Some(ObjectBuilder::new().schema_type(kind)));
            components.headers.insert(name.to_owned(), RefOr::T(header.description(Some(description)).build()));
        };
        shared(CORRELATION_ID, Type::String, "The request's, or a new one");
        shared(RETRY_AFTER, Type::Integer, "Seconds, at least 1");
    }
}

const CORRELATION_ID: &str = "X-Correlation-ID";
const RETRY_AFTER: &str = "Retry-After";

fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [path.get.as_mut(), path.post.as_mut()].into_iter().flatten()
}

fn problem(description: &str) -> Response {
    let content = Content::new(Some(Ref::from_schema_name("Problem")));
    ResponseBuilder::new().description(description).content("application/problem+json", content).build()
}

/// The document, made from the code. What is served is its committed copy, which a test holds equal to this: so the
/// machinery that makes it is not part of a running service.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// The committed copy.
pub const OPENAPI: &str = include_str!("../../../../docs/openapi.json");

/// Get this document
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "catalog",
    responses((status = 200, description = "OpenAPI 3.1", body = Object))
)]
pub(crate) async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}
