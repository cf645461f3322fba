use axum::Json;
use axum::extract::State;
use contracts::CustomerId;
use millrace::problem::{Problem, QueryParams};
use serde::Deserialize;
use utoipa::IntoParams;

use super::view::{self, OrderList, OrderView};
use super::{Api, cursor, storing};
use crate::domain::Status;
use crate::store::Page;

/// How to list.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Orders on the page, 20 unless given, at most 100 (settings `order.page_default`, `order.page_max`).
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(min_length = 32, max_length = 32, pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
    /// Only orders with this status.
    #[param(schema_with = view::status)]
    status: Option<String>,
    /// Only orders of this customer.
    #[param(value_type = Option<CustomerId>)]
    customer_id: Option<String>,
}

/// List orders
///
/// The newest first. Follow `next_cursor` to older ones; orders placed meanwhile do not move the pages.
#[utoipa::path(
    get,
    path = "/orders",
    tag = "orders",
    params(ListQuery),
    responses(
        (status = 200, description = "A page", body = OrderList),
        (status = 400, description = "A parameter is wrong, named in `errors`", body = Problem,
            content_type = "application/problem+json"),
        (status = 500, description = "A defect", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Try again later", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list_orders(
    State(api): State<Api>,
    QueryParams(query): QueryParams<ListQuery>,
) -> Result<Json<OrderList>, Problem> {
    let page = page(&api, &query)?;
    let listed = api.reads.list(&page).await.map_err(|error| storing(&error))?;
    Ok(Json(OrderList {
        orders: listed.orders.iter().filter_map(OrderView::of).collect(),
        next_cursor: listed.next.map(cursor::encode),
    }))
}

fn page(api: &Api, query: &ListQuery) -> Result<Page, Problem> {
    let most = api.settings.page_max;
    let limit = query.limit.unwrap_or(api.settings.page_default);
    if !(1..=most).contains(&limit) {
        return Err(Problem::invalid_parameter(
            "limit",
            format!("expected a whole number from 1 to {most}, got {limit}"),
        ));
    }
    let status = match query.status.as_deref().map(str::parse::<Status>) {
        Some(Err(unknown)) => return Err(Problem::invalid_parameter("status", unknown.to_string())),
        Some(Ok(status)) => Some(status),
        None => None,
    };
    let customer_id = match query.customer_id.as_deref().map(CustomerId::new) {
        Some(Err(invalid)) => {
            return Err(Problem::invalid_parameter("customer_id", format!("must be {}", invalid.rule)));
        }
        Some(Ok(id)) => Some(id),
        None => None,
    };
    let after = match query.cursor.as_deref().map(cursor::decode) {
        Some(None) => {
            let told =
                "is not a cursor of this API; take next_cursor of a page, or leave it out to begin at the newest";
            return Err(Problem::invalid_parameter("cursor", told));
        }
        Some(place) => place,
        None => None,
    };
    Ok(Page { status, customer_id, after, limit })
}
