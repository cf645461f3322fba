//! What every HTTP API shares: errors as RFC 9457 problem documents that name the field, extractors that produce them, and
//! the layer around all routes ([`http_layer`]).

mod body;
mod http_layer;
mod params;

pub use body::JsonBody;
pub use http_layer::{CORRELATION_HEADER, CorrelationId, HttpLayer, HttpLimits, http_layer, instrument};
pub use params::{PathParams, QueryParams};

use std::borrow::Cow;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::telemetry::trace;

/// The media type of RFC 9457.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// An error as RFC 9457 describes it ("Problem Details for HTTP APIs"). Becomes an answer with the right status, media type
/// and Retry-After. Read and changed through [`ProblemDetails`]; boxed, because every handler's `Result` carries its size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Problem(Box<ProblemDetails>);

/// The members of a [`Problem`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(title = "Problem")]
pub struct ProblemDetails {
    /// Names the kind of problem; the same for every occurrence.
    #[serde(rename = "type")]
    #[schema(example = "urn:millrace:problem:invalid-fields")]
    pub kind: String,
    /// The kind in words.
    #[schema(example = "Some fields are not valid")]
    pub title: String,
    /// The HTTP status.
    #[schema(value_type = u16, minimum = 400, maximum = 599, example = 422)]
    #[serde(with = "status_number")]
    pub status: StatusCode,
    /// This occurrence in words, with what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The resource it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// An operator's error code, such as `MR0004`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Every field that is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// To be quoted when asking about this occurrence; also in the header X-Correlation-ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// Sent as the header Retry-After, in whole seconds, at least 1.
    #[serde(skip)]
    #[schema(ignore)]
    pub retry_after: Option<Duration>,
}

/// One field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// A JSON pointer (RFC 6901) into the body, or the name of a parameter or header.
    #[schema(example = "/items/0/quantity")]
    pub field: String,
    /// What is wrong and what would be right.
    #[schema(example = "expected a whole number from 1 to 1000, got 0")]
    pub message: String,
}

impl FieldError {
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl Problem {
    /// `slug` names the kind: `order-not-found`.
    pub fn new(status: StatusCode, slug: &str, title: impl Into<String>) -> Self {
        Self(Box::new(ProblemDetails {
            kind: format!("urn:millrace:problem:{slug}"),
            title: title.into(),
            status,
            detail: None,
            instance: None,
            code: None,
            errors: Vec::new(),
            correlation_id: None,
            retry_after: None,
        }))
    }

    /// 422: the document was understood, its contents are wrong.
    pub fn invalid_fields(errors: Vec<FieldError>) -> Self {
        let detail = errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect::<Vec<_>>().join("; ");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-fields", "Some fields are not valid")
            .detail(detail)
            .errors(errors)
    }

    /// 422 for one field of the body.
    pub fn invalid_field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid_fields(vec![FieldError::new(field, message)])
    }

    /// 400: a parameter of the path or query, or a header, is wrong.
    pub fn invalid_parameter(name: impl Into<String>, message: impl Into<String>) -> Self {
        let error = FieldError::new(name, message);
        Self::new(StatusCode::BAD_REQUEST, "invalid-parameter", "A parameter is not valid")
            .detail(format!("{}: {}", error.field, error.message))
            .errors(vec![error])
    }

    /// 404. `what` is the resource: `order 0190…`.
    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is no such resource")
            .detail(format!("There is no {what}."))
    }

    /// 409: right in itself, but not in the present state.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "The resource's state does not allow this").detail(detail)
    }

    /// 429: this caller asks too much.
    pub fn too_many_requests(retry_after: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests")
            .detail("Try again after the time in the header Retry-After.")
            .retry_after(retry_after)
    }

    /// 503: nothing was done, and trying again later makes sense.
    pub fn unavailable(detail: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The service cannot do this at the moment")
            .detail(detail)
            .retry_after(retry_after)
    }

    /// 500: a defect. Says nothing of its cause; log that with the same correlation id.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The service failed")
            .detail("This is a defect of the service. Quote the correlation id when you report it.")
    }

    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub fn instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    /// One of [`crate::codes`].
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    #[must_use]
    pub fn errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}

impl Deref for Problem {
    type Target = ProblemDetails;

    fn deref(&self) -> &ProblemDetails {
        &self.0
    }
}

impl DerefMut for Problem {
    fn deref_mut(&mut self) -> &mut ProblemDetails {
        &mut self.0
    }
}

/// The schema of the members, under the name clients know.
impl PartialSchema for Problem {
    fn schema() -> RefOr<Schema> {
        ProblemDetails::schema()
    }
}

impl ToSchema for Problem {
    fn name() -> Cow<'static, str> {
        "Problem".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        ProblemDetails::schemas(schemas);
    }
}

impl IntoResponse for Problem {
    fn into_response(mut self) -> Response {
        if self.correlation_id.is_none() {
            self.correlation_id = trace::correlation_id();
        }
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (self.status, [(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response();
        if let Some(after) = self.retry_after {
            // Rounded up, so that nobody comes back too early.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status.as_u16(), self.title)?;
        self.detail.as_ref().map_or(Ok(()), |detail| write!(f, ": {detail}"))
    }
}

mod status_number {
    use axum::http::StatusCode;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(status.as_u16())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StatusCode, D::Error> {
        StatusCode::from_u16(u16::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
