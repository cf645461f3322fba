//! Who reads and who publishes each version of an event now: the evidence for retiring one.
//!
//! Durable and ephemeral consumers of every stream are seen, ours and others', with what they have acknowledged. Whoever
//! subscribes without JetStream leaves no trace in the account; the monitoring port of each nats-server shows those of its
//! own connections.

mod monitor;
mod publishers;
mod readers;

use std::time::Duration;

use async_nats::jetstream::stream;
use futures::TryStreamExt;
use serde::Serialize;
use time::OffsetDateTime;

pub use readers::onlooker;

use crate::connection::{Closed, Connection};
use crate::topology::Topology;

/// A version of an event and where it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    pub event: String,
    pub version: u32,
    pub subject: String,
    pub newest: bool,
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// What is declared is ours.
    pub declared: &'a Topology,
    /// Durables of ours that read only to take in what others publish.
    pub intakes: &'a [&'a str],
    /// What counts as lately.
    pub lately: Duration,
    /// A reader without a sign of life for longer is idle.
    pub idle_after: Duration,
    /// nats-server's monitoring: `http://127.0.0.1:8222`; of a cluster that of every server, separated by commas.
    pub monitor: Option<&'a str>,
}

/// The readers and publishers of one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Usage {
    #[serde(flatten)]
    pub version: Version,
    pub readers: Vec<Reader>,
    pub published: Published,
}

/// What was found, and whether subscribers without JetStream are among it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    pub versions: Vec<Usage>,
    pub core_subscribers: Visibility,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "visibility", rename_all = "snake_case")]
pub enum Visibility {
    Visible {
        at: String,
        /// Why there may be more than these, if so.
        #[serde(skip_serializing_if = "Option::is_none")]
        partly: Option<String>,
    },
    NotVisible {
        why: String,
    },
}

impl Visibility {
    /// Why there may be subscribers that are not seen, if so.
    pub fn unseen(&self) -> Option<String> {
        match self {
            Self::Visible { partly, .. } => partly.clone(),
            Self::NotVisible { why } => Some(why.clone()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Durable,
    /// Ends with its reader.
    Ephemeral,
    /// A subscription without JetStream.
    Core,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    Ours,
    /// Ours, and only there to take in what others publish.
    Intake,
    Others,
}

/// Somebody whose filter matches the version's subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reader {
    pub kind: Kind,
    pub whose: Whose,
    pub name: String,
    pub stream: Option<String>,
    pub description: Option<String>,
    /// Subjects it asked for; none for all of the stream.
    pub filter: Vec<String>,
    /// Messages of this version up to its acknowledgement floor, of those the stream still has.
    pub acknowledged: u64,
    /// Of these, those published lately.
    pub acknowledged_lately: u64,
    /// Messages of this version behind the floor.
    pub left: u64,
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_active: Option<OffsetDateTime>,
    /// Somebody asks for messages at this moment.
    pub connected: bool,
    pub idle: bool,
}

/// What is published of a version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Published {
    /// In the streams now.
    pub messages: u64,
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_at: Option<OffsetDateTime>,
    /// Who published the last of them.
    pub sources: Vec<Source>,
}

/// One publisher among the last messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// CloudEvents `source`; absent in the messages of whoever does not say.
    pub source: Option<String>,
    pub foreign: bool,
    pub messages: u64,
    #[serde(with = "time::serde::rfc3339")]
    pub last_at: OffsetDateTime,
}

/// Why the question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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

/// Looks at every stream of the account. Changes nothing that lasts: it counts with consumers that end with it.
pub async fn look(connection: &Connection, versions: &[Version], question: &Question<'_>) -> Result<Evidence, Error> {
    connection.connected().await?;
    let streams: Vec<stream::Info> = connection
        .jetstream()
        .streams()
        .try_collect()
        .await
        .map_err(|e| Error::broker("streams cannot be listed", e))?;
    let subscribers = monitor::subscribers(question.monitor).await;
    let readers = readers::Readers::list(connection, streams).await?;
    let mut found = Vec::new();
    for version in versions {
        let mut who = readers.of(connection, version, question).await?;
        if let Ok(subscribers) = &subscribers {
            who.extend(subscribers.of(&version.subject));
        }
        let published = publishers::look(connection, readers.streams(), &version.subject, question.lately).await?;
        found.push(Usage { version: version.clone(), readers: who, published });
    }
    let core_subscribers = match (subscribers, question.monitor) {
        (Ok(seen), at) => Visibility::Visible { at: at.unwrap_or_default().to_owned(), partly: seen.partly() },
        (Err(why), _) => Visibility::NotVisible { why },
    };
    Ok(Evidence { versions: found, core_subscribers })
}
