//! Asking.

use std::time::Duration;

use async_nats::service::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE};
use async_nats::{HeaderMap, Message, RequestErrorKind};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::{
    CORRELATION_HEADER, DEADLINE_HEADER, RETRY_AFTER_HEADER, ReplyError, RequestError, TRACEPARENT, TRACESTATE,
};
use crate::connection::{Connection, Denied};
use crate::telemetry::trace::{self, TraceContext};

/// Asks with a JSON body and reads a JSON answer, within `patience` from now.
///
/// The current trace and correlation id travel along. While NATS is away the request waits for it instead of being
/// queued inside the client, where it would be sent long after its caller has gone.
///
/// # Errors
/// See [`RequestError`]; each tells whether another attempt is safe.
pub async fn request_json<Question, Answer>(
    connection: &Connection,
    subject: &str,
    question: &Question,
    patience: Duration,
) -> Result<Answer, RequestError>
where
    Question: Serialize + ?Sized,
    Answer: DeserializeOwned,
{
    let payload = serde_json::to_vec(question)
        .map_err(|error| RequestError::Encode { subject: subject.to_owned(), problem: error.to_string() })?;
    let answer = request(connection, subject, HeaderMap::new(), payload.into(), patience).await?;
    serde_json::from_slice(&answer.payload)
        .map_err(|error| RequestError::Decode { subject: subject.to_owned(), problem: error.to_string() })
}

/// Asks with any body and headers, within `patience` from now.
///
/// # Errors
/// As [`request_json`], without `Decode`.
pub async fn request(
    connection: &Connection,
    subject: &str,
    mut headers: HeaderMap,
    payload: Bytes,
    patience: Duration,
) -> Result<Message, RequestError> {
    let deadline = Instant::now() + patience;
    let too_late = || RequestError::DeadlineExceeded { subject: subject.to_owned(), waited: patience };
    timeout_at(deadline, connection.connected()).await.map_err(|_| too_late())??;

    let remaining = deadline.saturating_duration_since(Instant::now());
    headers.insert(DEADLINE_HEADER, u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX).to_string());
    if let Some(trace) = TraceContext::current() {
        headers.insert(TRACEPARENT, trace.traceparent);
        if let Some(state) = trace.tracestate {
            headers.insert(TRACESTATE, state);
        }
    }
    if let Some(id) = trace::correlation_id().filter(|_| headers.get(CORRELATION_HEADER).is_none()) {
        headers.insert(CORRELATION_HEADER, id);
    }

    let denial = connection.denial(subject);
    let message = async_nats::Request::new().headers(headers).payload(payload).timeout(None);
    let answer = tokio::select! {
        answer = timeout_at(deadline, connection.client().send_request(subject.to_owned(), message)) => answer,
        Denied { operation, subject: denied } = denial => {
            return Err(RequestError::Denied { subject: subject.to_owned(), operation, denied });
        }
    };
    let answer = answer.map_err(|_| too_late())?.map_err(|error| match error.kind() {
        RequestErrorKind::NoResponders => RequestError::NoResponders { subject: subject.to_owned() },
        RequestErrorKind::TimedOut => too_late(),
        // The client says "other" only when its own task has ended.
        RequestErrorKind::Other => crate::connection::Closed.into(),
        RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
            RequestError::Encode { subject: subject.to_owned(), problem: error.to_string() }
        }
    })?;
    match service_error(&answer) {
        None => Ok(answer),
        Some(error) if error.code == ReplyError::deadline_exceeded().code => Err(too_late()),
        Some(error) => Err(RequestError::Service { subject: subject.to_owned(), error }),
    }
}

fn service_error(answer: &Message) -> Option<ReplyError> {
    let headers = answer.headers.as_ref()?;
    let text = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
    let (code, description) = (text(NATS_SERVICE_ERROR_CODE), text(NATS_SERVICE_ERROR));
    if code.is_none() && description.is_none() {
        return None;
    }
    let retry_after = text(RETRY_AFTER_HEADER).and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
    Some(ReplyError {
        code: code.and_then(|code| code.parse().ok()).unwrap_or(500),
        description: description.unwrap_or_default(),
        retry_after,
    })
}
