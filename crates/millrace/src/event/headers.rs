//! CloudEvents attributes as NATS headers, per the CloudEvents NATS protocol binding (binary content mode).

use std::borrow::Cow;

use async_nats::{HeaderMap, HeaderName};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::attributes::Attributes;
use super::{Cause, DecodeError, Encoded, EventId, Meta, attribute};
use crate::telemetry::trace::TraceContext;

/// Header names and values as they are kept in an outbox row and a dead letter.
pub type HeaderPairs = Vec<(String, String)>;

/// Schemas are named, not located: a reader finds them by name in the contract folder.
const SCHEMA_URN: &str = "urn:millrace:schema:";

fn schema_urn(event_type: &str, version: u32) -> String {
    format!("{SCHEMA_URN}{event_type}:v{version}")
}

/// Whether it is what [`schema_urn`] makes of the two.
fn names_schema(urn: &str, event_type: &str, version: u32) -> bool {
    let rest = urn.strip_prefix(SCHEMA_URN).and_then(|rest| rest.strip_prefix(event_type)?.strip_prefix(":v"));
    // As long as we write it: neither +1 nor 01.
    let length = version.checked_ilog10().unwrap_or(0) as usize + 1;
    rest.is_some_and(|digits| digits.len() == length && digits.parse() == Ok(version))
}

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
    let mut push = |name: &str, value: String| pairs.push((name.to_owned(), attribute::encode(value)));
    push("ce-specversion", "1.0".into());
    push("ce-id", event.event_id.to_string());
    push("ce-source", source.to_owned());
    push("ce-type", event.event_type.to_owned());
    push("ce-subject", event.key.clone());
    push("ce-time", time.format(&Rfc3339).unwrap_or_default());
    push("ce-datacontenttype", "application/json".into());
    push("ce-dataschema", schema_urn(event.event_type, event.version));
    push("ce-correlationid", cause.correlation_id.clone());
    if let Some(causation) = &cause.causation_id {
        push("ce-causationid", causation.clone());
    }
    // These are no attributes, and never hold what a header cannot carry.
    let mut push = |name: &str, value: String| pairs.push((name.to_owned(), value));
    if let Some(trace) = &cause.trace {
        push("traceparent", trace.traceparent.clone());
        if let Some(state) = &trace.tracestate {
            push("tracestate", state.clone());
        }
    }
    push("Nats-Msg-Id", message_id(&event.event_id, event.version));
    pairs
}

/// The name of a header that our messages carry, which then needs no allocation of its own.
pub(crate) fn known_name(name: &str) -> Option<HeaderName> {
    const NAMES: [&str; 13] = [
        "ce-id",
        "ce-type",
        "ce-time",
        "ce-source",
        "ce-subject",
        "tracestate",
        "traceparent",
        "Nats-Msg-Id",
        "ce-specversion",
        "ce-dataschema",
        "ce-causationid",
        "ce-correlationid",
        "ce-datacontenttype",
    ];
    NAMES.iter().find(|known| **known == name).map(|known| HeaderName::from_static(known))
}

/// What is known of a message beside its headers and body.
#[derive(Clone)]
pub struct Origin<'a> {
    pub subject: &'a str,
    pub event_type: &'a str,
    pub version: u32,
    /// Stable over redeliveries: names the message when its publisher did not.
    pub message_name: &'a dyn Fn() -> String,
    pub stored_at: OffsetDateTime,
    /// Sources that start with this are ours.
    pub own_source_prefix: &'a str,
}

/// The attributes of a message. One without CloudEvents headers gets an id made from its place in the stream, so that
/// a redelivery is recognised.
pub fn decode_headers(headers: Option<&HeaderMap>, origin: &Origin<'_>) -> Result<Meta, DecodeError> {
    let given = headers.map(Attributes::of).unwrap_or_default();
    if let Some(version) = decoded("ce-specversion", given.specversion)?
        && version != "1.0"
    {
        return Err(unusable("ce-specversion", format!("{version} is not supported, send 1.0")));
    }
    if let Some(stated) = decoded("ce-type", given.event_type)?
        && stated != origin.event_type
    {
        let reason = format!("it says {stated}, but {} carries {}", origin.subject, origin.event_type);
        return Err(unusable("ce-type", reason));
    }
    // Schemas of others may be named; one of ours says which version the publisher believes to send.
    if let Some(stated) = decoded("ce-dataschema", given.dataschema)?
        && stated.starts_with(SCHEMA_URN)
        && !names_schema(&stated, origin.event_type, origin.version)
    {
        let carried = schema_urn(origin.event_type, origin.version);
        return Err(unusable("ce-dataschema", format!("it says {stated}, but {} carries {carried}", origin.subject)));
    }
    let time = match decoded("ce-time", given.time)? {
        None => origin.stored_at,
        Some(text) => OffsetDateTime::parse(&text, &Rfc3339)
            .map_err(|e| unusable("ce-time", format!("{text} is not RFC 3339: {e}")))?,
    };
    let source = decoded("ce-source", given.source)?;
    let source = source.map_or_else(|| format!("/foreign/{}", origin.subject), Cow::into_owned);
    let foreign = !source.starts_with(origin.own_source_prefix);
    let id = match decoded("ce-id", given.id)?.or(given.message_id.map(Cow::Borrowed)) {
        Some(id) => EventId::from(id.into_owned()),
        None => EventId::derived(&(origin.message_name)()),
    };
    let correlation_id = decoded("ce-correlationid", given.correlation_id)?;
    let correlation_id = correlation_id.map_or_else(|| id.to_string(), Cow::into_owned);
    Ok(Meta {
        source,
        event_type: origin.event_type.to_owned(),
        version: origin.version,
        subject: origin.subject.to_owned(),
        key: decoded("ce-subject", given.subject)?.map(Cow::into_owned).unwrap_or_default(),
        time,
        correlation_id,
        causation_id: decoded("ce-causationid", given.causation_id)?.map(Cow::into_owned),
        trace: given.traceparent.and_then(|parent| TraceContext::parse(parent, given.tracestate)),
        foreign,
        id,
    })
}

fn decoded<'a>(name: &'static str, value: Option<&'a str>) -> Result<Option<Cow<'a, str>>, DecodeError> {
    let Some(value) = value else { return Ok(None) };
    let reason = || "what it percent-encodes is not UTF-8".to_owned();
    attribute::decode(value).map(Some).ok_or_else(|| unusable(name, reason()))
}

fn unusable(name: &str, reason: String) -> DecodeError {
    DecodeError::Header { name: name.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin<'static> {
        Origin {
            subject: "orders.created",
            event_type: "orders.created",
            version: 1,
            message_name: &|| "ORDERS/1".to_owned(),
            stored_at: OffsetDateTime::UNIX_EPOCH,
            own_source_prefix: "/millrace/",
        }
    }

    fn decoded(pairs: &[(&'static str, &str)]) -> Result<Meta, DecodeError> {
        let mut headers = HeaderMap::new();
        pairs.iter().for_each(|(name, value)| headers.insert(*name, *value));
        decode_headers(Some(&headers), &origin())
    }

    #[test]
    fn attributes_of_a_foreign_publisher_are_read_as_the_binding_says() {
        let meta = decoded(&[("CE-ID", "a%20b"), ("Ce-Source", "/caf%C3%A9"), ("ce-correlationid", "100%25")]).unwrap();
        assert_eq!((meta.id.as_str(), meta.source.as_str(), meta.correlation_id.as_str()), ("a b", "/café", "100%"));
        assert_eq!(meta.inbox_id(), "/café#a b");
        let refused = decoded(&[("ce-id", "%C0%A0")]).unwrap_err();
        assert!(matches!(refused, DecodeError::Header { name, .. } if name == "ce-id"));
    }

    #[test]
    fn what_is_encoded_is_decoded_to_the_same() {
        let event = Encoded {
            event_id: EventId::generate(),
            event_type: "orders.created",
            version: 1,
            subject: "orders.created",
            key: "a key with \"spaces\"".into(),
            newest: true,
            body: Vec::new(),
        };
        let cause = Cause { correlation_id: "50% ü".into(), causation_id: Some("a\r\nb".into()), trace: None };
        let pairs = encode_headers(&event, "/millrace/order", OffsetDateTime::UNIX_EPOCH, &cause);
        assert!(pairs.iter().all(|(name, _)| known_name(name) == name.parse().ok()), "{pairs:?}");
        let mut headers = HeaderMap::new();
        for (name, value) in &pairs {
            assert!(value.bytes().all(|b| b.is_ascii_graphic()), "{name}: {value}");
            headers.insert(name.as_str(), value.as_str());
        }
        let meta = decode_headers(Some(&headers), &origin()).unwrap();
        assert_eq!((meta.id, meta.key), (event.event_id, event.key));
        assert_eq!((meta.correlation_id, meta.causation_id), (cause.correlation_id, cause.causation_id));
    }
}
