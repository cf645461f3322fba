//! Versions of an event before the newest, each with the pure conversions between the two.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::DecodeError;
use super::read::read;

/// A version of the event `E` that is not the newest any more, as a type of its own.
///
/// When a further version becomes the newest, the conversions of an old one may go through the one between:
/// `fn up(self) -> Result<V3, _> { Older::<V2>::up(self)?.up() }`.
pub trait Older<E>: Serialize + DeserializeOwned + JsonSchema + Sized {
    const VERSION: u32;
    /// Where this version is published. Version 1 uses the event's type itself, later ones add `.v2`.
    const SUBJECT: &'static str;
    /// Fields of the newest version that do not survive the way down to this one and up again, as JSON pointers with `*`
    /// for any index: `/items/*/unit_price`. [`faults_of_versions`](super::faults_of_versions) holds them to be exactly
    /// these.
    const LOSES: &'static [&'static str];

    /// To the newest version ("upcast"). What this version does not have is absent or a default, never invented.
    ///
    /// # Errors
    /// Names the field whose value has no counterpart. Such a message becomes a dead letter.
    fn up(self) -> Result<E, Unconvertible>;

    /// From the newest version ("downcast").
    fn down(newest: &E) -> Self;
}

/// A value that the other version cannot carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct Unconvertible {
    /// JSON pointer: `/amount`.
    pub path: &'static str,
    pub reason: String,
}

impl Unconvertible {
    pub fn new(path: &'static str, reason: impl fmt::Display) -> Self {
        Self { path, reason: reason.to_string() }
    }
}

/// An [`Older`] type as a value, for the list in [`Event::OLDER`](super::Event::OLDER).
pub struct OlderVersion<E> {
    pub version: u32,
    pub subject: &'static str,
    pub loses: &'static [&'static str],
    /// From the body as it travelled to the newest type.
    pub decode: fn(&[u8]) -> Result<E, DecodeError>,
    /// From the newest type to this version's body.
    pub encode: fn(&E) -> Result<Vec<u8>, serde_json::Error>,
    pub schema: fn() -> schemars::Schema,
}

impl<E: super::Event> OlderVersion<E> {
    pub const fn of<V: Older<E>>() -> Self {
        Self {
            version: V::VERSION,
            subject: V::SUBJECT,
            loses: V::LOSES,
            decode: decode::<E, V>,
            encode: encode::<E, V>,
            schema: schema::<E, V>,
        }
    }
}

fn decode<E: super::Event, V: Older<E>>(body: &[u8]) -> Result<E, DecodeError> {
    let name = format!("{} v{}", E::TYPE, V::VERSION);
    let older: V = read(&name, body)?;
    older.up().map_err(|Unconvertible { path, reason }| DecodeError::Schema { event: name, path: path.into(), reason })
}

fn encode<E: super::Event, V: Older<E>>(newest: &E) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&V::down(newest))
}

fn schema<E: super::Event, V: Older<E>>() -> schemars::Schema {
    schemars::schema_for!(V)
}
