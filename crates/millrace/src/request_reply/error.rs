//! Three errors: what a handler answers with, what a caller gets, and why a service cannot run.

use std::time::Duration;

use crate::connection::{Closed, Operation};

/// What a handler says instead of an answer. Codes are those of HTTP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{description} (code {code})")]
pub struct ReplyError {
    /// 400 to 499: the caller is wrong. 500 to 599: this side is.
    pub code: u16,
    /// What is wrong and what would be right, for the caller's eyes: nothing internal, no personal data.
    pub description: String,
    /// When another attempt makes sense.
    pub retry_after: Option<Duration>,
}

impl ReplyError {
    /// An error with a code of one's own choice.
    pub fn new(code: u16, description: impl Into<String>) -> Self {
        Self { code, description: description.into(), retry_after: None }
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(description: impl Into<String>) -> Self {
        Self::new(400, description)
    }

    /// 404: what was asked for does not exist.
    pub fn not_found(description: impl Into<String>) -> Self {
        Self::new(404, description)
    }

    /// 409: the state of things does not allow it.
    pub fn conflict(description: impl Into<String>) -> Self {
        Self::new(409, description)
    }

    /// 500: something broke here.
    pub fn internal(description: impl Into<String>) -> Self {
        Self::new(500, description)
    }

    /// 503: not now, but after this time.
    pub fn unavailable(description: impl Into<String>, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(503, description) }
    }

    /// 504: the caller's time was up.
    pub fn deadline_exceeded() -> Self {
        Self::new(504, "the deadline passed before the answer was ready")
    }
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No instance of the service runs. Nothing was done; another attempt is safe.
    #[error("nobody answers on {subject}; the service behind it is not running")]
    NoResponders {
        /// The subject asked on.
        subject: String,
    },
    /// The time was up. Whether anything was done is not known, unless the service could not be reached at all.
    #[error("no answer on {subject} within {waited:?}")]
    DeadlineExceeded {
        /// The subject asked on.
        subject: String,
        /// How long the caller waited.
        waited: Duration,
    },
    /// The service answered with an error.
    #[error("{subject} answered: {error}")]
    Service {
        /// The subject asked on.
        subject: String,
        /// What the service said.
        error: ReplyError,
    },
    /// NATS does not permit the request.
    #[error("NATS denies {operation} on {denied}, so {subject} cannot be asked")]
    Denied {
        /// The subject asked on.
        subject: String,
        /// What was denied.
        operation: Operation,
        /// The denied subject: the one asked on, or the inbox for the answer.
        denied: String,
    },
    /// The request cannot be sent: not writable as JSON, too large, or not a subject.
    #[error("the request to {subject} cannot be sent: {problem}")]
    Encode {
        /// The subject asked on.
        subject: String,
        /// What is wrong.
        problem: String,
    },
    /// The answer is not what was expected; caller and service speak different versions.
    #[error("the answer on {subject} cannot be read: {problem}")]
    Decode {
        /// The subject asked on.
        subject: String,
        /// What is wrong.
        problem: String,
    },
    /// The connection was closed.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// Why a service does not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// The framework refused the service's name or version, or an endpoint's subject.
    #[error("the service {service} cannot be registered: {problem}")]
    Register {
        /// The service.
        service: String,
        /// What is wrong.
        problem: String,
    },
    /// The connection ended while the service ran.
    #[error(transparent)]
    Closed(#[from] Closed),
}
