use async_nats::jetstream::context::KeyValueErrorKind;
use async_nats::jetstream::kv::{Entry, Operation, Store};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::BUCKET;
use crate::connection::{Closed, Connection};

/// What was decided about a version of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    pub event: String,
    pub version: u32,
    pub state: State,
    /// `user@host`
    pub by: String,
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// In the words of whoever decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not published any more.
    Retired,
    /// Published beside the newest, as before there was any decision.
    Published,
}

/// Why a decision could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The topology was not applied.
    #[error("there is no bucket {BUCKET}; `millrace topology apply`, or any service's start, makes it")]
    NoBucket,
    #[error("{doing}: {reason}")]
    Broker { doing: &'static str, reason: String },
    #[error(transparent)]
    Closed(#[from] Closed),
}

impl Error {
    fn broker(doing: &'static str, reason: impl std::fmt::Display) -> Self {
        Self::Broker { doing, reason: reason.to_string() }
    }
}

pub(super) fn key(event: &str, version: u32) -> String {
    format!("{event}.v{version}")
}

/// What an entry says; `None` when it was taken away, or is none of ours.
pub(super) fn read(entry: &Entry) -> Option<Decision> {
    let decision: Decision = match entry.operation {
        Operation::Put => serde_json::from_slice(&entry.value).ok()?,
        Operation::Delete | Operation::Purge => return None,
    };
    (key(&decision.event, decision.version) == entry.key).then_some(decision)
}

pub(super) async fn open(connection: &Connection) -> Result<Store, Error> {
    connection.connected().await?;
    connection.jetstream().get_key_value(BUCKET).await.map_err(|error| match error.kind() {
        KeyValueErrorKind::GetBucket => Error::NoBucket,
        _ => Error::broker("the bucket cannot be looked at", error),
    })
}

/// Writes a decision down. Running services follow it from the next transaction they begin after they hear of it.
pub async fn decide(connection: &Connection, decision: &Decision) -> Result<(), Error> {
    let doing = "the decision could not be written";
    let store = open(connection).await?;
    let value = serde_json::to_vec(decision).map_err(|e| Error::broker(doing, e))?;
    store.put(key(&decision.event, decision.version), value.into()).await.map_err(|e| Error::broker(doing, e))?;
    Ok(())
}

/// The last decision about each version that there is one about.
pub async fn decisions(connection: &Connection) -> Result<Vec<Decision>, Error> {
    let doing = "decisions could not be read";
    let store = open(connection).await?;
    let keys: Vec<String> = store
        .keys()
        .await
        .map_err(|e| Error::broker(doing, e))?
        .try_collect()
        .await
        .map_err(|e| Error::broker(doing, e))?;
    let mut found = Vec::new();
    for key in keys {
        let entry = store.entry(key).await.map_err(|e| Error::broker(doing, e))?;
        found.extend(entry.as_ref().and_then(read));
    }
    found.sort_by(|a, b| (&a.event, a.version).cmp(&(&b.event, b.version)));
    Ok(found)
}

/// Every decision about one version that is still kept, oldest first.
pub async fn history(connection: &Connection, event: &str, version: u32) -> Result<Vec<Decision>, Error> {
    let doing = "decisions could not be read";
    let store = open(connection).await?;
    let entries = store.history(key(event, version)).await.map_err(|e| Error::broker(doing, e))?;
    let entries: Vec<Entry> = entries.try_collect().await.map_err(|e| Error::broker(doing, e))?;
    Ok(entries.iter().filter_map(read).collect())
}
