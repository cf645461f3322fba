//! One subject and how it is served.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{DEADLINE_HEADER, ReplyError, TRACEPARENT, TRACESTATE};
use crate::telemetry::trace::TraceContext;

/// A request as a handler sees it.
#[derive(Debug, Clone)]
pub struct Request {
    /// The subject it came on.
    pub subject: String,
    /// All its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub payload: Bytes,
    /// When the caller stops waiting. The handler is dropped at this moment.
    pub deadline: Instant,
    /// Where the caller's work belongs.
    pub trace: Option<TraceContext>,
}

impl Request {
    /// How long the caller still waits; zero when it no longer does.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    pub(super) fn read(message: &async_nats::Message, endpoint: &Endpoint, received: Instant) -> Self {
        let headers = message.headers.clone().unwrap_or_default();
        let header = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
        let asked = header(DEADLINE_HEADER).and_then(|text| text.trim().parse().ok()).map(Duration::from_millis);
        let patience = asked.unwrap_or(endpoint.default_deadline).min(endpoint.max_deadline);
        let trace = header(TRACEPARENT)
            .and_then(|traceparent| TraceContext::parse(&traceparent, header(TRACESTATE).as_deref()));
        Self {
            subject: message.subject.to_string(),
            payload: message.payload.clone(),
            deadline: received + patience,
            trace,
            headers,
        }
    }
}

/// What an endpoint is and how much it takes on.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub(super) subject: String,
    pub(super) metadata: HashMap<String, String>,
    pub(super) queue_group: Option<String>,
    pub(super) max_concurrent: usize,
    pub(super) default_deadline: Duration,
    pub(super) max_deadline: Duration,
    pub(super) retry_after: Duration,
}

impl Endpoint {
    /// An endpoint that works on 64 requests at once, gives each 5 s unless its caller asks for less or more, never
    /// more than 30 s, and tells callers to come back after 1 s when it is full.
    pub fn new(subject: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            metadata: HashMap::new(),
            queue_group: None,
            max_concurrent: 64,
            default_deadline: Duration::from_secs(5),
            max_deadline: Duration::from_secs(30),
            retry_after: Duration::from_secs(1),
        }
    }

    /// What it does, shown by `nats micro info`.
    #[must_use]
    pub fn description(self, description: impl Into<String>) -> Self {
        self.metadata("description", description)
    }

    /// JSON Schema of the request's body, shown by `nats micro info`.
    #[must_use]
    pub fn request_schema(self, schema: impl Into<String>) -> Self {
        self.metadata("request_schema", schema)
    }

    /// JSON Schema of the answer's body, shown by `nats micro info`.
    #[must_use]
    pub fn response_schema(self, schema: impl Into<String>) -> Self {
        self.metadata("response_schema", schema)
    }

    /// Anything else worth showing.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// The group whose members share the requests; the framework's `q` unless set.
    #[must_use]
    pub fn queue_group(mut self, group: impl Into<String>) -> Self {
        self.queue_group = Some(group.into());
        self
    }

    /// How many requests are worked on at once, at least 1. Choose what the resource behind it can take.
    #[must_use]
    pub fn max_concurrent(mut self, requests: usize) -> Self {
        self.max_concurrent = requests.max(1);
        self
    }

    /// How long a request without a deadline may take, and how long one with a deadline may take at most. The second
    /// also bounds how long a graceful stop takes.
    #[must_use]
    pub fn deadlines(mut self, default: Duration, max: Duration) -> Self {
        self.default_deadline = default.min(max);
        self.max_deadline = max;
        self
    }

    /// When callers should come back that were turned away because the endpoint was full.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = pause;
        self
    }
}

pub(super) type Handler = Arc<dyn Fn(Request) -> BoxFuture<'static, Result<Bytes, ReplyError>> + Send + Sync>;

pub(super) fn handler<F, Fut, Answer>(handle: F) -> Handler
where
    F: Fn(Request) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Answer, ReplyError>> + Send + 'static,
    Answer: Into<Bytes>,
{
    Arc::new(move |request| handle(request).map(|answer| answer.map(Into::into)).boxed())
}

pub(super) fn json_handler<F, Fut, Question, Answer>(handle: F) -> Handler
where
    F: Fn(Question, Request) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Answer, ReplyError>> + Send + 'static,
    Question: DeserializeOwned + Send + 'static,
    Answer: Serialize + Send + 'static,
{
    Arc::new(move |request| {
        // `nats request some.subject ''` is how a person asks a question without parameters.
        let body: &[u8] = if request.payload.is_empty() { b"null" } else { &request.payload };
        match decode::<Question>(body) {
            Ok(question) => handle(question, request).map(|answer| answer.and_then(|answer| encode(&answer))).boxed(),
            Err(error) => futures::future::ready(Err(error)).boxed(),
        }
    })
}

/// Names the field that is wrong, as in `items[0].quantity`; of a body that is no JSON at all, the place.
fn decode<Question: DeserializeOwned>(body: &[u8]) -> Result<Question, ReplyError> {
    let refused =
        |problem: String| ReplyError::bad_request(format!("the body is not the JSON this endpoint takes: {problem}"));
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let question = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        refused(if path == "." { error.inner().to_string() } else { format!("{path}: {}", error.inner()) })
    })?;
    deserializer.end().map_err(|error| refused(error.to_string()))?;
    Ok(question)
}

fn encode<Answer: Serialize>(answer: &Answer) -> Result<Bytes, ReplyError> {
    serde_json::to_vec(answer).map(Bytes::from).map_err(|error| {
        tracing::error!(error.message = %error, "An answer cannot be written as JSON.");
        ReplyError::internal("the answer cannot be written as JSON")
    })
}
