use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use contracts::orders::OrderCreated;
use contracts::{OrderId, Timestamp};
use millrace::problem::{CorrelationId, JsonBody, Problem};
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::IntoParams;

use super::request::{self, Checked, PlaceOrder};
use super::view::Receipt;
use super::{Api, idempotency, no_catalog, storing};
use crate::model::{Intent, KeyUse, Outcome};

/// Headers of a new order, as the document shows them.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "headers are read one by one where they are needed")]
pub(crate) struct RequestHeaders {
    /// Visible ASCII characters that name this request.
    #[param(rename = "Idempotency-Key", nullable = false, min_length = 1, max_length = 255, pattern = "^[!-~]+$")]
    idempotency_key: Option<String>,
    /// Travels into every event and log line that follows. Replaced unless it is 1 to 128 visible ASCII characters.
    #[param(rename = "X-Correlation-ID", nullable = false)]
    correlation_id: Option<String>,
}

/// Place an order
///
/// The order is accepted, not decided: payment and stock are asked next. Follow it at the address in `Location` or on its
/// live stream. With an `Idempotency-Key` the request can be repeated safely, and gets the same answer for 24 hours.
#[utoipa::path(
    post,
    path = "/orders",
    tag = "orders",
    request_body = PlaceOrder,
    params(RequestHeaders),
    responses(
        (status = 202, description = "Accepted", body = Receipt, headers(
            ("Location" = String, description = "Where the order is"),
            ("Idempotent-Replayed" = bool, description = "`true` when this answer was given before for the same key"),
        )),
        (status = 400, description = "The body is not JSON, or the Idempotency-Key is not usable", body = Problem,
            content_type = "application/problem+json"),
        (status = 408, description = "The body did not arrive in time", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not declared as JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Fields are wrong, each named in `errors`; or the Idempotency-Key was used for another request",
            body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not taken in time, and it is not known whether it will be: repeat it with the same `Idempotency-Key` after the time in `Retry-After`", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(crate) async fn place_order(
    State(api): State<Api>,
    correlation: CorrelationId,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Value>,
) -> Result<Response, Problem> {
    let key = idempotency::key(&headers)?.map(|key| KeyUse { key, request_hash: request::hash(&body) });
    let checked = match check(&api, &body) {
        Ok(checked) => checked,
        // What was accepted once stays accepted, also when its product is off sale by now.
        Err(problem) => return accepted_before(&api, key.as_ref()).await?.ok_or(problem),
    };
    let order = new_order(checked);
    let receipt = Receipt::of(&order);
    match api.submit(correlation, Intent::Create { order: Box::new(order), key }).await? {
        Outcome::Created => {
            tracing::info!(order.id = %receipt.order_id, "An order was accepted.");
            Ok(accepted(&receipt, false))
        }
        Outcome::Replayed(order_id) => replay(&api, order_id).await,
        Outcome::KeyTaken => Err(key_taken()),
        _ => Err(Problem::internal()),
    }
}

fn check(api: &Api, body: &Value) -> Result<Checked, Problem> {
    let products = api.catalog.now().ok_or_else(no_catalog)?;
    request::check(body, &products, &api.settings).map_err(Problem::invalid_fields)
}

fn new_order(checked: Checked) -> OrderCreated {
    OrderCreated {
        order_id: OrderId::generate(),
        customer_id: checked.customer_id,
        total: checked.total,
        items: checked.items,
        payment_method: Some(checked.payment_method),
        contact: checked.contact,
        // As precise as the database keeps it, so that a repeated answer is the same to the letter.
        created_at: Timestamp::from_unix_ms(Timestamp(OffsetDateTime::now_utc()).unix_ms()),
    }
}

async fn accepted_before(api: &Api, key: Option<&KeyUse>) -> Result<Option<Response>, Problem> {
    let Some(asked) = key else { return Ok(None) };
    let used = api.reads.key(&asked.key).await.map_err(|error| storing(&error))?;
    match used.filter(|row| row.request_hash == asked.request_hash) {
        Some(row) => replay(api, row.order_id).await.map(Some),
        None => Ok(None),
    }
}

async fn replay(api: &Api, order_id: OrderId) -> Result<Response, Problem> {
    let order = api.reads.order(order_id).await.map_err(|error| storing(&error))?;
    // An order is never removed, and a key is stored together with it.
    let placed = order.and_then(|order| order.placed).ok_or_else(Problem::internal)?;
    Ok(accepted(&Receipt::of(&placed.order), true))
}

fn accepted(receipt: &Receipt, replayed: bool) -> Response {
    let mut response = (StatusCode::ACCEPTED, Json(receipt)).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("/orders/{}", receipt.order_id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    if replayed {
        response.headers_mut().insert(idempotency::REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

fn key_taken() -> Problem {
    Problem::invalid_field(idempotency::HEADER, "was used for another request; take a new key for a new request")
}
