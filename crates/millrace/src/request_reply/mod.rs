//! Questions with an answer, over the NATS services framework (ADR-32), so that `nats micro list` and `nats micro info`
//! see every endpoint with its schema and statistics.
//!
//! The rules on the wire:
//! - A request carries the time its caller will wait, in [`DEADLINE_HEADER`]. It is relative, so clocks need not agree.
//!   Work past it is abandoned: nobody would read the answer. A plain `nats request` without it gets the endpoint's own.
//! - An error is the framework's: `Nats-Service-Error-Code` (numbers of HTTP) and `Nats-Service-Error`, with an empty
//!   body. [`RETRY_AFTER_HEADER`] says when another attempt makes sense.
//! - Instances share an endpoint through a queue group: each request reaches one of them.
//!
//! Nothing is queued: an endpoint that is full answers 503 at once, so a caller learns it while it can still act.
//! Subscriptions outlive reconnections; the client restores them.

mod client;
mod endpoint;
mod error;
mod service;

pub use client::{request, request_json};
pub use endpoint::{Endpoint, Request};
pub use error::{ReplyError, RequestError, ServiceError};
pub use service::{Builder, Running, Service};

/// Milliseconds the caller still waits when it sends the request.
pub const DEADLINE_HEADER: &str = "Millrace-Deadline-Ms";
/// Milliseconds after which another attempt makes sense.
pub const RETRY_AFTER_HEADER: &str = "Millrace-Retry-After-Ms";
/// The correlation id, under the name events carry it by.
pub const CORRELATION_HEADER: &str = "ce-correlationid";

/// Metric: requests answered. Labels `service`, `endpoint`, `code` (200 for success).
pub const REPLIES: &str = "millrace_replies_total";
/// Metric: seconds from a request's arrival to its answer. Labels `service`, `endpoint`.
pub const REPLY_DURATION: &str = "millrace_reply_duration_seconds";

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
