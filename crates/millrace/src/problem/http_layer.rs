//! Around every route: correlation id, trace context, a span, metrics, a limit on requests in flight, and a problem document
//! where a handler panics or no route matches.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use tokio::sync::Semaphore;
use tracing::{Instrument as _, Span};

use super::Problem;
use crate::telemetry::metrics::{HTTP_DURATION, HTTP_REQUESTS};
use crate::telemetry::trace::{self, TraceContext};

/// Taken from a request or made for it, and sent with the answer.
pub const CORRELATION_HEADER: HeaderName = HeaderName::from_static("x-correlation-id");
/// Longer ones are replaced: the id is stored with every event.
const CORRELATION_MAX_CHARACTERS: usize = 128;
/// The route label where none matched; paths themselves would make a time series each.
const NO_ROUTE: &str = "unmatched";

/// What one server takes on at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpLimits {
    /// Requests being worked on at once; the rest are shed with 503, which is cheaper for both sides than a queue.
    pub max_in_flight: usize,
    /// Bytes of a body that are read.
    pub max_body_bytes: usize,
    /// How long a body may take to arrive; bounds what a slow sender occupies.
    pub body_timeout: Duration,
    /// When a shed caller may come back.
    pub retry_after: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            max_in_flight: 1024,
            max_body_bytes: 64 * 1024,
            body_timeout: Duration::from_secs(10),
            retry_after: Duration::from_secs(1),
        }
    }
}

/// The state of [`http_layer`].
#[derive(Debug, Clone)]
pub struct HttpLayer {
    service: Arc<str>,
    limits: HttpLimits,
    in_flight: Arc<Semaphore>,
}

impl HttpLayer {
    /// `service` is the label of the metrics and of log lines.
    pub fn new(service: &str, limits: HttpLimits) -> Self {
        let in_flight = Arc::new(Semaphore::new(limits.max_in_flight.min(Semaphore::MAX_PERMITS)));
        Self { service: service.into(), limits, in_flight }
    }
}

/// The correlation id of a request, as an extractor for handlers under [`http_layer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorrelationId(pub String);

impl CorrelationId {
    /// The header's value when it is 1 to 128 visible ASCII characters, else a new id.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let given = headers.get(CORRELATION_HEADER).and_then(|value| value.to_str().ok());
        let usable = |id: &&str| {
            (1..=CORRELATION_MAX_CHARACTERS).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
        };
        Self(given.filter(usable).map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned))
    }
}

impl<S: Sync> FromRequestParts<S> for CorrelationId {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let known = parts.extensions.get::<Self>().cloned();
        Ok(known.unwrap_or_else(|| Self::from_headers(&parts.headers)))
    }
}

/// Puts [`http_layer`] around all routes of `router`, and problem documents where no route or no method matches. To be
/// called last.
pub fn instrument<S: Clone + Send + Sync + 'static>(router: Router<S>, layer: HttpLayer) -> Router<S> {
    router.fallback(no_route).method_not_allowed_fallback(no_method).layer(from_fn_with_state(layer, http_layer))
}

async fn no_route(request: Request) -> Problem {
    Problem::not_found(format!("resource at {}", request.uri().path()))
}

async fn no_method(method: Method, request: Request) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The resource does not support this method")
        .detail(format!("{method} is not supported by {}; see the header Allow.", request.uri().path()))
}

/// The middleware itself, for `axum::middleware::from_fn_with_state(HttpLayer::new(..), http_layer)`.
pub async fn http_layer(State(layer): State<HttpLayer>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = known_method(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or(NO_ROUTE.to_owned(), |path| path.as_str().to_owned());
    let correlation = CorrelationId::from_headers(request.headers());
    let span = request_span(&layer, method, &route, &correlation, request.headers());
    request.extensions_mut().insert(correlation.clone());
    request.extensions_mut().insert(layer.limits);

    let answered = answer(&layer, request, next).instrument(span.clone()).await;
    let mut response = answered;
    let status = response.status();
    if let Ok(value) = HeaderValue::from_str(&correlation.0) {
        response.headers_mut().insert(CORRELATION_HEADER, value);
    }
    let took = started.elapsed();
    let service = layer.service.to_string();
    metrics::counter!(HTTP_REQUESTS, "service" => service.clone(), "method" => method, "route" => route.clone(),
        "status" => status.as_u16().to_string())
    .increment(1);
    metrics::histogram!(HTTP_DURATION, "service" => service, "method" => method, "route" => route)
        .record(took.as_secs_f64());
    span.record("http.response.status_code", status.as_u16());
    span.in_scope(|| report(status, took));
    response
}

fn request_span(
    layer: &HttpLayer,
    method: &str,
    route: &str,
    correlation: &CorrelationId,
    headers: &HeaderMap,
) -> Span {
    let span = tracing::info_span!(
        "http_request",
        otel.kind = "server",
        otel.name = format!("{method} {route}"),
        otel.status_code = tracing::field::Empty,
        service = &*layer.service,
        correlation_id = correlation.0,
        http.request.method = method,
        http.route = route,
        http.response.status_code = tracing::field::Empty,
    );
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(remote) = header("traceparent").and_then(|parent| TraceContext::parse(parent, header("tracestate"))) {
        trace::continue_from(&span, &remote);
    }
    span
}

async fn answer(layer: &HttpLayer, request: Request, next: Next) -> Response {
    // Held to the head of the answer: a long event stream is not a request being worked on.
    let Ok(_permit) = layer.in_flight.try_acquire() else {
        let detail =
            format!("More than {} requests are being worked on; this one was not started.", layer.limits.max_in_flight);
        return Problem::unavailable(detail, layer.limits.retry_after).into_response();
    };
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            tracing::error!(panic = text, "A request handler panicked.");
            Problem::internal().into_response()
        }
    }
}

fn report(status: StatusCode, took: Duration) {
    let (status_code, duration_ms) = (status.as_u16(), took.as_secs_f64() * 1_000.0);
    if status.is_server_error() {
        Span::current().record("otel.status_code", "error");
        tracing::warn!(http.response.status_code = status_code, duration_ms, "A request could not be served.");
    } else {
        tracing::debug!(http.response.status_code = status_code, duration_ms, "A request was answered.");
    }
}

/// As a metric label, so from a fixed set whatever a client sends.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}
