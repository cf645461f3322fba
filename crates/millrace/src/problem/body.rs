use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_path_to_error::{Path, Segment};

use super::http_layer::HttpLimits;
use super::{FieldError, Problem};
use crate::config::{expectation, field_in_message};

/// How much of a body that is too large is read and thrown away: a client that is still writing when the connection closes
/// sees a broken pipe instead of the answer. Beyond this it has to live with that.
const DISCARD_MOST: usize = 1024 * 1024;

/// A JSON body. What is wrong with it becomes a [`Problem`]: 415 for another media type, 413 above the size limit, 408
/// when it does not arrive in time, 400 when it is not JSON, 422 with the field's JSON pointer when it is JSON of another
/// shape.
///
/// Limits come from the [`HttpLimits`] that [`super::instrument`] was given, or are the default ones.
#[derive(Debug, Clone, Copy, Default)]
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        check_media_type(&request)?;
        let limits = request.extensions().get::<HttpLimits>().copied().unwrap_or_default();
        let body = read(request, &limits).await?;
        parse(&body).map(Self)
    }
}

fn check_media_type(request: &Request) -> Result<(), Problem> {
    let given = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media_type == "application/json" || (media_type.starts_with("application/") && media_type.ends_with("+json")) {
        return Ok(());
    }
    let shown = if given.is_empty() { "it has none".to_owned() } else { format!("got {given:?}") };
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body must be JSON")
        .detail(format!("Send the header Content-Type: application/json; {shown}."))
        .errors(vec![FieldError::new("Content-Type", "expected application/json")]))
}

async fn read(request: Request, limits: &HttpLimits) -> Result<Bytes, Problem> {
    let max = limits.max_body_bytes;
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > max.saturating_add(DISCARD_MOST)) {
        return Err(too_large(max));
    }
    let reading = collect(request.into_body(), max);
    tokio::time::timeout(limits.body_timeout, reading).await.unwrap_or_else(|_| {
        let seconds = limits.body_timeout.as_secs_f64();
        Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body-timeout", "The body did not arrive in time")
            .detail(format!("It must be complete within {seconds} s.")))
    })
}

async fn collect(body: Body, max: usize) -> Result<Bytes, Problem> {
    let mut chunks = body.into_data_stream();
    let mut collected = BytesMut::new();
    let mut length: usize = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|e| malformed(format!("The body could not be read: {e}.")))?;
        length = length.saturating_add(chunk.len());
        if length > max.saturating_add(DISCARD_MOST) {
            break;
        }
        if length <= max {
            collected.extend_from_slice(&chunk);
        }
    }
    if length > max { Err(too_large(max)) } else { Ok(collected.freeze()) }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    if body.is_empty() {
        return Err(malformed("The body is empty.".into()));
    }
    // Where in the body something is wrong costs a note of every step, so it is asked only when something is.
    if let Ok(value) = serde_json::from_slice(body) {
        return Ok(value);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let failed = match serde_path_to_error::deserialize(&mut deserializer) {
        Ok(value) => return deserializer.end().map(|()| value).map_err(|e| not_json(&e)),
        Err(failed) => failed,
    };
    // A wrong field before a syntax error hides it; a document that is not JSON has no fields.
    if let Err(syntax) = serde_json::from_slice::<IgnoredAny>(body) {
        return Err(not_json(&syntax));
    }
    let message = failed.inner().to_string();
    Err(match field_in_message(&message) {
        Some((kind, name)) => {
            let told = match kind {
                "missing" => "it is required".to_owned(),
                "duplicate" => "it is given twice".to_owned(),
                _ => format!("there is no such field; known are {}", known_fields(&message)),
            };
            Problem::invalid_field(pointer(failed.path(), Some(name)), told)
        }
        None => Problem::invalid_field(pointer(failed.path(), None), told(&message)),
    })
}

/// "expected a whole number from 0 to 65535, got string "x"", or what a type of our own says.
fn told(message: &str) -> String {
    let message = message.rsplit_once(" at line ").map_or(message, |(text, _)| text);
    let expected = expectation(message);
    let given = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))
        .or_else(|| message.strip_prefix("unknown variant "))
        .and_then(|text| text.rsplit_once(", expected "))
        .map(|(given, _)| shorten(&given.replace('`', "\"")));
    match given {
        Some(given) => format!("expected {expected}, got {given}"),
        None if expected == "a UUID" => format!("expected {expected}"),
        // serde takes a list for a struct when its length fits.
        None if message.starts_with("invalid length") && expected == "an object" => {
            "expected an object, got a list".into()
        }
        None => shorten(message),
    }
}

/// Nobody's 64 KiB text is sent back to them.
fn shorten(text: &str) -> String {
    const CHARACTERS_MAX: usize = 200;
    let mut short: String = text.chars().take(CHARACTERS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn known_fields(message: &str) -> String {
    let known = message.split_once("expected ").map_or("none", |(_, known)| known);
    let known = known.rsplit_once(" at line ").map_or(known, |(known, _)| known);
    known.trim_start_matches("one of ").replace('`', "")
}

/// RFC 6901. Empty for the whole document.
fn pointer(path: &Path, field: Option<&str>) -> String {
    let mut pointer = String::new();
    let mut push = |token: &str| {
        pointer.push('/');
        pointer.push_str(&token.replace('~', "~0").replace('/', "~1"));
    };
    let mut last = None;
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => push(&index.to_string()),
            Segment::Map { key } => push(key),
            // Not part of the document.
            Segment::Enum { .. } | Segment::Unknown => {}
        }
        last = Some(segment);
    }
    // For an unknown field the path may already end in it.
    let ends_in_it = |name: &str| matches!(last, Some(Segment::Map { key }) if key == name);
    if let Some(name) = field.filter(|name| !ends_in_it(name)) {
        push(name);
    }
    pointer
}

fn not_json(error: &serde_json::Error) -> Problem {
    let text = error.to_string();
    let cause = text.rsplit_once(" at line ").map_or(text.as_str(), |(cause, _)| cause);
    malformed(format!("Line {}, column {}: {cause}.", error.line(), error.column()))
}

fn malformed(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "malformed-body", "The body is not valid JSON").detail(detail)
}

fn too_large(max: usize) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large")
        .detail(format!("At most {max} bytes are accepted."))
}
