//! The history of one or more streams, oldest message first, up to where each stood when it was opened. For whoever
//! rebuilds something from events: it takes nothing from any durable consumer, and what it leaves at the broker for a while is no reader.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use futures::StreamExt;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::connection::Connection;
use crate::usage;

/// A stream that gives nothing for this long, although it has more, is taken for gone.
const SILENCE: Duration = Duration::from_secs(20);

/// What to read of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    pub stream: String,
    pub subjects: Vec<String>,
    /// Only what comes behind this sequence; 0 for everything.
    pub after: u64,
}

/// Why a history could not be read to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the history of {stream} cannot be read: {reason}")]
pub struct HistoryError {
    pub stream: String,
    pub reason: String,
}

/// The last sequence of a stream; 0 if it never held anything.
pub async fn last_sequence(connection: &Connection, stream: &str) -> Result<u64, HistoryError> {
    let found = connection.jetstream().get_stream(stream).await;
    let failed = |reason: String| HistoryError { stream: stream.to_owned(), reason };
    Ok(found.map_err(|e| failed(e.to_string()))?.cached_info().state.last_sequence)
}

/// The last sequence of a stream that was stored before `at`.
pub async fn last_before(connection: &Connection, stream: &str, at: OffsetDateTime) -> Result<u64, HistoryError> {
    let failed = |reason: String| HistoryError { stream: stream.to_owned(), reason };
    let at = at.format(&Rfc3339).map_err(|e| failed(e.to_string()))?;
    let next = crate::topology::sequence_at(connection, stream, &at).await.map_err(|e| failed(e.to_string()))?;
    Ok(next.saturating_sub(1))
}

/// A message as a stream holds it.
#[derive(Debug)]
pub struct Recorded {
    pub stream: Arc<str>,
    pub sequence: u64,
    pub stored_at: OffsetDateTime,
    pub message: async_nats::Message,
}

/// Where a stream stood when the history was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stood {
    pub stream: String,
    pub last_sequence: u64,
    /// Since when the stream holds everything: when it was made, or when its oldest message came if older ones are gone.
    pub complete_since: OffsetDateTime,
    /// Whether older messages are gone.
    pub trimmed: bool,
}

/// Messages of several streams in the order in which they were stored.
pub struct History {
    sources: Vec<Source>,
    stood: Vec<Stood>,
    total: u64,
}

struct Source {
    stream: Arc<str>,
    messages: Ordered,
    last: u64,
    left: bool,
    head: Option<Recorded>,
}

impl History {
    /// Fixes where the history ends: what is stored from now on is not part of it.
    pub async fn open(connection: &Connection, sections: &[Section]) -> Result<Self, HistoryError> {
        let (mut sources, mut stood, mut total) = (Vec::new(), Vec::new(), 0);
        for section in sections {
            let failed = |reason: String| HistoryError { stream: section.stream.clone(), reason };
            let stream = connection.jetstream().get_stream(&section.stream).await.map_err(|e| failed(e.to_string()))?;
            let info = stream.cached_info();
            let last = info.state.last_sequence;
            let trimmed = info.state.first_sequence > 1;
            let complete_since = match info.state.messages {
                _ if !trimmed => info.created,
                0 => OffsetDateTime::now_utc(),
                _ => info.state.first_timestamp,
            };
            stood.push(Stood { stream: section.stream.clone(), last_sequence: last, complete_since, trimmed });
            let config = OrderedConfig {
                filter_subjects: section.subjects.clone(),
                deliver_policy: match section.after {
                    0 => DeliverPolicy::All,
                    after => DeliverPolicy::ByStartSequence { start_sequence: after + 1 },
                },
                metadata: usage::onlooker(),
                ..OrderedConfig::default()
            };
            let mut consumer = stream.create_consumer(config).await.map_err(|e| failed(e.to_string()))?;
            let pending = consumer.info().await.map_err(|e| failed(e.to_string()))?.num_pending;
            total += pending;
            sources.push(Source {
                stream: section.stream.as_str().into(),
                messages: consumer.messages().await.map_err(|e| failed(e.to_string()))?,
                last,
                left: pending > 0 && last > section.after,
                head: None,
            });
        }
        Ok(Self { sources, stood, total })
    }

    /// How many messages there were to read.
    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn stood(&self) -> &[Stood] {
        &self.stood
    }

    /// The next message, oldest first; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Recorded>, HistoryError> {
        for source in &mut self.sources {
            source.fill().await?;
        }
        let oldest = self.sources.iter_mut().filter(|source| source.head.is_some());
        let oldest = oldest.min_by_key(|source| source.head.as_ref().map(|head| head.stored_at));
        Ok(oldest.and_then(|source| source.head.take()))
    }
}

impl Source {
    async fn fill(&mut self) -> Result<(), HistoryError> {
        if !self.left || self.head.is_some() {
            return Ok(());
        }
        let stream = self.stream.clone();
        let failed = |reason: String| HistoryError { stream: stream.to_string(), reason };
        let message = match tokio::time::timeout(SILENCE, self.messages.next()).await {
            Ok(Some(message)) => message.map_err(|e| failed(e.to_string()))?,
            Ok(None) => return Err(failed("its reader ended".into())),
            Err(_) => return Err(failed(format!("nothing came for {SILENCE:?}"))),
        };
        let info = message.info().map_err(|e| failed(e.to_string()))?;
        let (sequence, stored_at, pending) = (info.stream_sequence, info.published, info.pending);
        // The end may have been deleted, and what is newer than the end is no part of this history.
        self.left = pending > 0 && sequence < self.last;
        if sequence <= self.last {
            let jetstream::Message { message, .. } = message;
            self.head = Some(Recorded { stream: stream.clone(), sequence, stored_at, message });
        }
        Ok(())
    }
}
