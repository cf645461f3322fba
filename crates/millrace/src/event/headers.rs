//! CloudEvents attributes as NATS headers, per the CloudEvents NATS protocol binding (binary content mode).

use async_nats::HeaderMap;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Cause, DecodeError, Encoded, EventId, Meta};
use crate::telemetry::trace::TraceContext;

/// Header names and values as they are kept in an outbox row and a dead letter.
pub type HeaderPairs = Vec<(String, String)>;

/// Schemas are named, not located: a reader finds them by name in the contract folder.
const SCHEMA_URN: &str = "urn:millrace:schema:";

/// `Nats-Msg-Id`. Two versions of an event share a stream, and the stream's deduplication looks at nothing else.
pub fn message_id(event_id: &EventId, version: u32) -> String {
    format!("{event_id}.v{version}")
}

/// Names a message by its place, for what its publisher left unnamed. The time is part of the name, since a stream that
/// was deleted and made anew, or lost its end in a power cut, gives a number twice.
pub(crate) fn message_name(stream: &str, stream_seq: u64, stored_at: OffsetDateTime) -> String {
    format!("{stream}/{stream_seq}/{}", stored_at.unix_timestamp_nanos())
}

/// All headers an event of ours carries.
pub fn encode_headers(event: &Encoded, source: &str, time: OffsetDateTime, cause: &Cause) -> HeaderPairs {
    let mut pairs: HeaderPairs = Vec::with_capacity(13);
    let mut push = |name: &str, value: String| pairs.push((name.to_owned(), on_one_line(value)));
    push("ce-specversion", "1.0".into());
    push("ce-id", event.event_id.to_string());
    push("ce-source", source.to_owned());
    push("ce-type", event.event_type.to_owned());
    push("ce-subject", event.key.clone());
    push("ce-time", time.format(&Rfc3339).unwrap_or_default());
    push("ce-datacontenttype", "application/json".into());
    push("ce-dataschema", format!("{SCHEMA_URN}{}:v{}", event.event_type, event.version));
    push("ce-correlationid", cause.correlation_id.clone());
    if let Some(causation) = &cause.causation_id {
        push("ce-causationid", causation.clone());
    }
    if let Some(trace) = &cause.trace {
        push("traceparent", trace.traceparent.clone());
        if let Some(state) = &trace.tracestate {
            push("tracestate", state.clone());
        }
    }
    push("Nats-Msg-Id", message_id(&event.event_id, event.version));
    pairs
}

/// A header ends with its line, so a value with a line break in it could never be sent. As in the CloudEvents HTTP
/// binding, control characters travel percent-encoded.
fn on_one_line(value: String) -> String {
    if !value.contains(char::is_control) {
        return value;
    }
    let mut encoded = String::with_capacity(value.len() + 8);
    for c in value.chars() {
        if c.is_control() {
            c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| encoded.push_str(&format!("%{byte:02X}")));
        } else {
            encoded.push(c);
        }
    }
    encoded
}

/// What is known of a message beside its headers and body.
#[derive(Debug, Clone)]
pub struct Origin<'a> {
    pub subject: &'a str,
    pub event_type: &'a str,
    pub version: u32,
    /// Stable over redeliveries: names the message when its publisher did not.
    pub message_name: &'a str,
    pub stored_at: OffsetDateTime,
    /// Sources that start with this are ours.
    pub own_source_prefix: &'a str,
}

/// The attributes of a message. One without CloudEvents headers gets an id made from its place in the stream, so that
/// a redelivery is recognised.
pub fn decode_headers(headers: Option<&HeaderMap>, origin: &Origin<'_>) -> Result<Meta, DecodeError> {
    let get = |name: &str| headers.and_then(|h| h.get(name)).map(|v| v.as_str().to_owned()).filter(|v| !v.is_empty());
    if let Some(version) = get("ce-specversion")
        && version != "1.0"
    {
        return Err(DecodeError::Header {
            name: "ce-specversion".into(),
            reason: format!("{version} is not supported, send 1.0"),
        });
    }
    if let Some(stated) = get("ce-type")
        && stated != origin.event_type
    {
        return Err(DecodeError::Header {
            name: "ce-type".into(),
            reason: format!("it says {stated}, but {} carries {}", origin.subject, origin.event_type),
        });
    }
    let time = match get("ce-time") {
        None => origin.stored_at,
        Some(text) => OffsetDateTime::parse(&text, &Rfc3339).map_err(|e| DecodeError::Header {
            name: "ce-time".into(),
            reason: format!("{text} is not RFC 3339: {e}"),
        })?,
    };
    let source = get("ce-source").unwrap_or_else(|| format!("/foreign/{}", origin.subject));
    let foreign = !source.starts_with(origin.own_source_prefix);
    let id = get("ce-id")
        .or_else(|| get("Nats-Msg-Id"))
        .map_or_else(|| EventId::derived(origin.message_name), EventId::from);
    let correlation_id = get("ce-correlationid").unwrap_or_else(|| id.to_string());
    Ok(Meta {
        source,
        event_type: origin.event_type.to_owned(),
        version: origin.version,
        subject: origin.subject.to_owned(),
        key: get("ce-subject").unwrap_or_default(),
        time,
        correlation_id,
        causation_id: get("ce-causationid"),
        trace: get("traceparent").and_then(|parent| TraceContext::parse(&parent, get("tracestate").as_deref())),
        foreign,
        id,
    })
}

#[cfg(test)]
mod tests {
    use super::on_one_line;

    #[test]
    fn no_header_value_can_break_out_of_its_line() {
        assert_eq!(on_one_line("a\r\nNats-Msg-Id: b".into()), "a%0D%0ANats-Msg-Id: b");
        assert_eq!(on_one_line("order 7 für %".into()), "order 7 für %");
    }
}
