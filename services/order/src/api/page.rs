use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};

/// Only what is in the page itself may run, and it may only talk to this API.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What a newcomer opens in a browser: recent orders, live.
pub(crate) async fn page() -> Response {
    let mut response = Html(include_str!("page.html")).into_response();
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}
