//! Replays: an original message again, for one consumer alone, under a subject that only this consumer receives.

use std::str::FromStr;

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Error;
use crate::dead_letter::DeadLetter;
use crate::event::{EventId, HeaderPairs, attribute, message_name};

/// Followed by the durable consumer's name and the original subject.
pub const SUBJECT_PREFIX: &str = "replays";
/// Names the dead letter a message is the replay of.
pub const HEADER_OF: &str = "Millrace-Replay-Of";
/// Tells one replay of a letter from another.
pub const HEADER_ID: &str = "Millrace-Replay-Id";

/// Where a message that was published on `subject` is replayed to `durable`.
pub fn subject(durable: &str, subject: &str) -> String {
    format!("{SUBJECT_PREFIX}.{durable}.{subject}")
}

/// Whether a subject carries replays, of whomever.
pub fn is_replay(subject: &str) -> bool {
    subject.strip_prefix(SUBJECT_PREFIX).is_some_and(|rest| rest.starts_with('.'))
}

/// The original subject of a message that `durable` was delivered; `None` for a replay to somebody else.
pub(crate) fn original<'a>(durable: &str, subject: &'a str) -> Option<&'a str> {
    if !is_replay(subject) {
        return Some(subject);
    }
    subject[SUBJECT_PREFIX.len() + 1..].strip_prefix(durable)?.strip_prefix('.')
}

/// Which replay of which dead letter a message is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayOf {
    /// The dead letter's id.
    pub letter: u64,
    /// The replay's own.
    pub replay_id: String,
}

impl ReplayOf {
    /// Only for what was delivered under a replay's subject: on others, anybody may write such headers.
    pub(crate) fn read(subject: &str, headers: Option<&HeaderMap>) -> Option<Self> {
        if !is_replay(subject) {
            return None;
        }
        let get = |name: &str| headers?.get(name).map(|value| value.as_str());
        Some(Self { letter: get(HEADER_OF)?.parse().ok()?, replay_id: get(HEADER_ID)?.to_owned() })
    }
}

/// What is changed about a message before it is replayed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Correction {
    pub body: Option<Bytes>,
    /// Headers to set, or to take away where the value is empty.
    pub headers: Vec<(String, String)>,
}

impl Correction {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The headers of a replay: the original's, except those that are the broker's or ours. What the consumer made up for a
/// publisher who said little is said now, so that the inbox recognises the message.
pub(crate) fn headers(letter: &DeadLetter, of: &ReplayOf, correction: &Correction) -> Result<HeaderMap, Error> {
    let place = Place { stream: &letter.stream, seq: letter.stream_seq, published_at: letter.published_at };
    let mut pairs = recognisable(&letter.headers, &place);
    let ours = [(HEADER_OF.to_owned(), of.letter.to_string()), (HEADER_ID.to_owned(), of.replay_id.clone())];
    for (name, value) in &correction.headers {
        set(&mut pairs, name, value);
    }
    to_map(pairs.into_iter().chain(ours))
}

/// Where an original stands.
pub(crate) struct Place<'a> {
    pub(crate) stream: &'a str,
    pub(crate) seq: u64,
    pub(crate) published_at: OffsetDateTime,
}

/// An original's headers without the broker's and ours, and with what its consumer made up when the publisher said
/// little.
pub(crate) fn recognisable(original: &[(String, String)], place: &Place<'_>) -> HeaderPairs {
    let lower = |name: &str| name.to_ascii_lowercase();
    let mut pairs: HeaderPairs = original
        .iter()
        .filter(|(name, _)| !lower(name).starts_with("nats-") && !lower(name).starts_with("millrace-"))
        .cloned()
        .collect();
    let said = |name: &str| {
        let given = |(n, value): &&(String, String)| n.eq_ignore_ascii_case(name) && !value.is_empty();
        original.iter().find(given).map(|(_, value)| value.clone())
    };
    let derived = || EventId::derived(&message_name(place.stream, place.seq, place.published_at)).to_string();
    if said("ce-id").is_none() {
        set(&mut pairs, "ce-id", &said("Nats-Msg-Id").map_or_else(derived, attribute::encode));
    }
    if said("ce-time").is_none() {
        set(&mut pairs, "ce-time", &place.published_at.format(&Rfc3339).unwrap_or_default());
    }
    pairs
}

/// An empty value takes the header away.
fn set(pairs: &mut HeaderPairs, name: &str, value: &str) {
    pairs.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    if !value.is_empty() {
        pairs.push((name.to_owned(), value.to_owned()));
    }
}

pub(crate) fn to_map(pairs: impl IntoIterator<Item = (String, String)>) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let wrong = |problem: String| Error::Header { name: name.clone(), problem };
        let valid_name = HeaderName::from_str(&name).map_err(|e| wrong(e.to_string()))?;
        headers.append(valid_name, HeaderValue::from_str(&value).map_err(|e| wrong(e.to_string()))?);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letter::Reason;
    use crate::event::{Origin, decode_headers};

    const AT: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn letter(headers: &[(&str, &str)]) -> DeadLetter {
        DeadLetter {
            stream: "ORDERS".into(),
            stream_seq: 7,
            subject: "orders.created".into(),
            consumer: "payment-orders".into(),
            reason: Reason::Permanent,
            errors: vec!["no".into()],
            attempts: 1,
            published_at: AT + time::Duration::nanoseconds(1_234_567_891),
            first_failed_at: None,
            last_failed_at: AT,
            replay_of: None,
            headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        }
    }

    fn replayed(letter: &DeadLetter, correction: &Correction) -> HeaderMap {
        headers(letter, &ReplayOf { letter: 3, replay_id: "r".into() }, correction).unwrap()
    }

    #[test]
    fn the_inbox_recognises_a_replay_whoever_published_the_original() {
        for original in [
            &[][..],
            &[("Nats-Msg-Id", "m-1")],
            &[("Nats-Msg-Id", "100 %20")],
            &[("ce-id", "e-1"), ("ce-source", "/shop")],
            &[("CE-Id", "e%201"), ("Ce-Source", "/a%20shop")],
            &[("ce-id", "")],
        ] {
            let letter = letter(original);
            let name = message_name(&letter.stream, letter.stream_seq, letter.published_at);
            let decode = |headers: &HeaderMap, name: &str, stored_at| {
                let origin = Origin {
                    subject: "orders.created",
                    event_type: "orders.created",
                    version: 1,
                    message_name: &|| name.to_owned(),
                    stored_at,
                    own_source_prefix: "/millrace/",
                };
                decode_headers(Some(headers), &origin).unwrap()
            };
            let first: HeaderMap = original
                .iter()
                .map(|(n, v)| (HeaderName::from_str(n).unwrap(), HeaderValue::from_str(v).unwrap()))
                .collect();
            let first = decode(&first, &name, letter.published_at);
            let again = decode(&replayed(&letter, &Correction::default()), "ORDERS/99/1", AT);
            assert_eq!((again.inbox_id(), again.time), (first.inbox_id(), first.time), "{original:?}");
        }
    }

    #[test]
    fn headers_of_the_broker_stay_behind_and_corrections_win() {
        let letter =
            letter(&[("Nats-Msg-Id", "m"), ("Nats-TTL", "1s"), ("x-a", "1"), ("x-a", "2"), ("ce-time", "tomorrow")]);
        let correction = Correction {
            body: None,
            headers: vec![("CE-Time".into(), String::new()), ("ce-specversion".into(), "1.0".into())],
        };
        let headers = replayed(&letter, &correction);
        let mut pairs = crate::dead_letter::header_pairs(Some(&headers));
        pairs.sort();
        let expected = [
            ("Millrace-Replay-Id", "r"),
            ("Millrace-Replay-Of", "3"),
            ("ce-id", "m"),
            ("ce-specversion", "1.0"),
            ("x-a", "1"),
            ("x-a", "2"),
        ];
        assert_eq!(pairs, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn a_header_that_cannot_be_sent_is_named() {
        let correction = Correction { body: None, headers: vec![("x-a".into(), "1\r\nx-b: 2".into())] };
        let of = ReplayOf { letter: 3, replay_id: "r".into() };
        assert!(matches!(headers(&letter(&[]), &of, &correction), Err(Error::Header { name, .. }) if name == "x-a"));
    }

    #[test]
    fn a_replay_to_somebody_else_is_nobodys() {
        for (subject, expected) in [
            ("orders.created", Some("orders.created")),
            ("replays.payment-orders.orders.created", Some("orders.created")),
            ("replays.payment-orders-2.orders.created", None),
            ("replays.order.orders.created", None),
            ("replaysX.orders", Some("replaysX.orders")),
        ] {
            assert_eq!(original("payment-orders", subject), expected, "{subject}");
        }
    }
}
