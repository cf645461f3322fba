//! Events: typed, versioned, and carried as CloudEvents 1.0 in binary mode on NATS.
//!
//! An [`Event`] type is the newest version of a contract. Older versions are declared beside it as pure conversions
//! ([`Older`]), so a handler only ever sees the newest, whatever travelled.

pub(crate) mod attribute;
mod attributes;
mod faults;
mod headers;
mod meta;
mod older;
mod read;
mod retired;
mod validate;

pub use faults::faults_of_versions;
pub use headers::{HeaderPairs, Origin, decode_headers, encode_headers, message_id};
pub(crate) use headers::{known_name, message_name};
pub use meta::{Cause, EventId, Meta};
pub use older::{Older, OlderVersion, Unconvertible};
pub(crate) use read::read;
pub use retired::{Retired, RetiredNow};
pub use validate::{Schema, Validator, validator_for};

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::inbox::Mark;
use crate::store::Submission;

/// The newest version of an event contract.
pub trait Event: Serialize + DeserializeOwned + JsonSchema + Clone + fmt::Debug + Send + Sync + 'static {
    /// `noun.past_participle`, the same in every version: `orders.created`.
    const TYPE: &'static str;
    /// The version this type is, counted from 1.
    const VERSION: u32;
    /// Where this version is published. Version 1 uses the type itself, later ones add `.v2`.
    const SUBJECT: &'static str;
    /// Versions that are still published beside this one, or still accepted.
    const OLDER: &'static [OlderVersion<Self>] = &[];

    /// What this event is about (CloudEvents `subject`). Events with the same key leave in commit order and are handled
    /// one after the other.
    fn key(&self) -> String;
}

/// Why a message is not the event its subject says. Trying again cannot help: such a message becomes a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the body is not valid JSON for {event}: {reason}")]
    Body { event: String, reason: String },
    #[error("the body breaks the schema of {event} at {path}: {reason}")]
    Schema { event: String, path: String, reason: String },
    #[error("header {name} is not usable: {reason}")]
    Header { name: String, reason: String },
    #[error("no handler knows the subject {subject}")]
    UnknownSubject { subject: String },
    /// As during a rolling upgrade: another instance may know it.
    #[error("{event} v{version} is a version this release does not know; it knows {}", list(.known))]
    UnknownVersion { event: String, version: u32, known: Vec<u32> },
}

fn list(versions: &[u32]) -> String {
    versions.iter().map(|version| format!("v{version}")).collect::<Vec<_>>().join(", ")
}

impl DecodeError {
    /// For a conversion that finds a value it cannot carry over.
    pub fn body(event: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self::Body { event: event.into(), reason: reason.to_string() }
    }
}

/// An event as a handler gets it.
#[derive(Debug, Clone)]
pub struct Received<E> {
    pub meta: Meta,
    pub data: E,
    /// The durable consumer that got it.
    pub consumer: Arc<str>,
}

impl<E> Received<E> {
    /// An intent that takes effect once for this event and consumer.
    pub fn submission<I>(&self, intent: I) -> Submission<I> {
        Submission { intent, cause: self.meta.cause(), mark: Some(Mark::new(&self.consumer, &self.meta)) }
    }
}

/// One version of an event ready to be stored in the outbox and published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    pub event_id: EventId,
    pub event_type: &'static str,
    pub version: u32,
    pub subject: &'static str,
    pub key: String,
    pub newest: bool,
    pub body: Vec<u8>,
}

/// Every version of `event` that is to be published, newest first, all under one business event id.
pub fn encode<E: Event>(event: &E, id: &EventId, retired: &Retired) -> Result<Vec<Encoded>, serde_json::Error> {
    let one = |version, subject, newest, body| Encoded {
        event_id: id.clone(),
        event_type: E::TYPE,
        version,
        subject,
        key: event.key(),
        newest,
        body,
    };
    let mut all = vec![one(E::VERSION, E::SUBJECT, true, serde_json::to_vec(event)?)];
    for older in E::OLDER {
        if !retired.contains(E::TYPE, older.version) {
            all.push(one(older.version, older.subject, false, (older.encode)(event)?));
        }
    }
    Ok(all)
}
