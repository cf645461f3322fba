//! What the gateway answers, and its errors in Stripe's shape.

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};

/// Marks an answer that was given before under the same idempotency key.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// An answer that can be kept and given again.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) replayed: bool,
    body: Bytes,
}

impl Answer {
    pub(super) fn ok(body: &Value) -> Self {
        Self::new(StatusCode::OK, body)
    }

    pub(super) fn again(mut self) -> Self {
        self.replayed = true;
        self
    }

    fn new(status: StatusCode, body: &Value) -> Self {
        Self { status, replayed: false, body: Bytes::from(body.to_string()) }
    }
}

impl From<Answer> for Response<Body> {
    fn from(answer: Answer) -> Self {
        let mut response = Response::new(Body::from(answer.body));
        *response.status_mut() = answer.status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if answer.replayed {
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

/// An error as Stripe words it: a type and a message, and where they help a code, the parameter at fault and the
/// intent.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    error: Map<String, Value>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, error: Map::new() }.with("type", kind.into()).with("message", message.into().into())
    }

    /// 400: the request cannot be carried out as it is.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    pub(super) fn missing_param(param: &'static str) -> Self {
        Self::invalid(format!("Missing required param: {param}.")).code("parameter_missing").param(param)
    }

    pub(super) fn no_such(what: &str, id: &str, param: &'static str) -> Self {
        let refusal = Self::invalid(format!("No such {what}: '{id}'")).code("resource_missing").param(param);
        refusal.status(StatusCode::NOT_FOUND)
    }

    /// 402: the card's bank said no.
    pub(super) fn card(code: &'static str, decline_code: Option<&'static str>, message: &str) -> Self {
        let refusal = Self::new(StatusCode::PAYMENT_REQUIRED, "card_error", message).code(code);
        match decline_code {
            Some(decline_code) => refusal.with("decline_code", decline_code.into()),
            None => refusal,
        }
    }

    pub(super) fn code(self, code: &'static str) -> Self {
        self.with("code", code.into())
    }

    pub(super) fn param(self, param: &'static str) -> Self {
        self.with("param", param.into())
    }

    pub(super) fn about(self, intent: Value) -> Self {
        self.with("payment_intent", intent)
    }

    pub(super) fn status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    fn with(mut self, name: &str, value: Value) -> Self {
        self.error.insert(name.to_owned(), value);
        self
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.status, &json!({ "error": refusal.error }))
    }
}
