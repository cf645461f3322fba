use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Problem;
use crate::config::{Loose, expectation, field_in_message};

/// The query string as a struct. A wrong, unknown (with `deny_unknown_fields`) or repeated parameter is a 400 that names
/// it. An empty parameter (`?cursor=`) is given, with nothing as its value.
#[derive(Debug, Clone, Copy, Default)]
pub struct QueryParams<T>(pub T);

/// The path's parameters, as [`axum::extract::Path`] takes them. A wrong one is a 400 that names it.
#[derive(Debug, Clone, Copy, Default)]
pub struct PathParams<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryParams<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        query(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

fn query<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let mut given = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(name).ok_or_else(|| Problem::invalid_parameter("query", "it is not valid UTF-8"))?;
        let value = decode(value).ok_or_else(|| Problem::invalid_parameter(&*name, "it is not valid UTF-8"))?;
        if given.insert(name.clone(), Value::String(value)).is_some() {
            return Err(Problem::invalid_parameter(name, "it is given twice"));
        }
    }
    serde_path_to_error::deserialize(Loose(Value::Object(given.clone()))).map_err(|failed| {
        let message = failed.inner().to_string();
        match field_in_message(&message) {
            Some(("missing", name)) => Problem::invalid_parameter(name, "it is required"),
            Some((_, name)) => {
                let known = message.split_once("expected ").map_or("none", |(_, known)| known);
                let known = known.trim_start_matches("one of ").replace('`', "");
                Problem::invalid_parameter(name, format!("there is no such parameter; known are {known}"))
            }
            None => {
                let name = failed.path().to_string();
                let value = given.get(&name).and_then(Value::as_str).unwrap_or_default();
                let told = format!("expected {}, got {:?}", expectation(&message), shorten(value));
                Problem::invalid_parameter(name, told)
            }
        }
    })
}

/// Percent-decoding with `+` as a space (the URL standard's form encoding). `None` when the result is not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten().and_then(|hex| {
            let hex = std::str::from_utf8(hex).ok().filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
            u8::from_str_radix(hex, 16).ok()
        });
        match (escaped, first) {
            (Some(byte), _) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
                continue;
            }
            (None, b'+') => bytes.push(b' '),
            (None, other) => bytes.push(*other),
        }
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathParams<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(PathRejection::FailedToDeserializePathParams(failed)) => Err(path_problem(failed.into_kind())),
            Err(_) => Err(Problem::internal()),
        }
    }
}

fn path_problem(kind: ErrorKind) -> Problem {
    match kind {
        ErrorKind::ParseErrorAtKey { key, value, expected_type } => {
            Problem::invalid_parameter(key, expected(expected_type, &value))
        }
        ErrorKind::ParseError { value, expected_type } => {
            Problem::invalid_parameter("path", expected(expected_type, &value))
        }
        ErrorKind::ParseErrorAtIndex { index, value, expected_type } => {
            Problem::invalid_parameter(format!("path parameter {}", index + 1), expected(expected_type, &value))
        }
        ErrorKind::InvalidUtf8InPathParam { key } => Problem::invalid_parameter(key, "it is not valid UTF-8"),
        ErrorKind::DeserializeError { key, value, message } => {
            let expected = expectation(&message);
            let told = if expected == message { shorten(&message) } else { format!("expected {expected}") };
            Problem::invalid_parameter(key, format!("{told}, got {:?}", shorten(&value)))
        }
        ErrorKind::Message(message) => Problem::invalid_parameter("path", shorten(&message)),
        // The route and the type disagree: a defect.
        _ => Problem::internal(),
    }
}

fn expected(type_name: &str, value: &str) -> String {
    format!("expected {}, got {:?}", expectation(&format!("expected {type_name}")), shorten(value))
}

fn shorten(text: &str) -> String {
    text.chars().take(100).collect()
}
