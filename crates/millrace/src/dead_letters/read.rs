//! Reading the streams of dead letters and of the audit.

use std::collections::HashMap;

use async_nats::jetstream;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use async_nats::jetstream::stream::Stream;
use futures::StreamExt;

use super::Error;
use super::audit::{self, Entry};
use crate::connection::Connection;
use crate::topology::stream_is_missing;

/// All entries about one letter, and where the last stands in the stream; 0 when there is none.
#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    pub(super) entries: Vec<Entry>,
    pub(super) last_seq: u64,
}

pub(super) async fn open(connection: &Connection, name: &'static str) -> Result<Stream, Error> {
    connection.connected().await?;
    connection.jetstream().get_stream(name).await.map_err(|error| {
        if stream_is_missing(&error) {
            return Error::NoStream(name);
        }
        Error::broker("the stream could not be looked at", format!("{name}: {error}"))
    })
}

/// Every message of a stream that matches, oldest first. Gaps do not matter.
pub(super) async fn everything(
    connection: &Connection,
    name: &'static str,
    config: OrderedConfig,
) -> Result<Vec<jetstream::Message>, Error> {
    let stream = open(connection, name).await?;
    let failed = |reason: String| Error::broker("reading stopped", format!("{name}: {reason}"));
    let mut consumer = stream.create_consumer(config).await.map_err(|e| failed(e.to_string()))?;
    let mut left = consumer.info().await.map_err(|e| failed(e.to_string()))?.num_pending;
    let mut messages = consumer.messages().await.map_err(|e| failed(e.to_string()))?;
    let mut found = Vec::new();
    while left > 0 {
        let next = tokio::time::timeout(connection.request_timeout(), messages.next()).await;
        let message = match next {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(error))) => return Err(failed(error.to_string())),
            Ok(None) => return Err(failed("the consumer ended".into())),
            Err(_) => return Err(failed(format!("nothing came for {:?}", connection.request_timeout()))),
        };
        left = message.info().map_err(|e| failed(e.to_string()))?.pending;
        found.push(message);
    }
    Ok(found)
}

/// The audit of one letter, or of all, by id.
pub(super) async fn logs(connection: &Connection, letter: Option<u64>) -> Result<HashMap<u64, Log>, Error> {
    let wanted = letter.map_or("*".to_owned(), |id| id.to_string());
    let config = OrderedConfig { filter_subject: audit::subject("*", &wanted), ..OrderedConfig::default() };
    let mut logs: HashMap<u64, Log> = HashMap::new();
    for message in everything(connection, audit::STREAM, config).await? {
        let Ok(seq) = message.info().map(|info| info.stream_sequence) else { continue };
        // The id stands in the subject, so that an entry that cannot be read still counts as one.
        let Some(id) = message.subject.rsplit('.').next().and_then(|id| id.parse().ok()) else { continue };
        let log = logs.entry(id).or_default();
        log.last_seq = seq;
        log.entries.extend(serde_json::from_slice::<Entry>(&message.payload));
    }
    Ok(logs)
}

/// Entries that are written from now on.
pub(super) async fn coming(connection: &Connection) -> Result<Ordered, Error> {
    let failed = |reason: String| Error::broker("the audit cannot be followed", reason);
    let mut stream = open(connection, audit::STREAM).await?;
    let last = stream.info().await.map_err(|e| failed(e.to_string()))?.state.last_sequence;
    let config = OrderedConfig {
        filter_subject: audit::subject("*", "*"),
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: last + 1 },
        ..OrderedConfig::default()
    };
    let consumer = stream.create_consumer(config).await.map_err(|e| failed(e.to_string()))?;
    consumer.messages().await.map_err(|e| failed(e.to_string()))
}
