//! Consumers, and what they have acknowledged of a version.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream;
use futures::TryStreamExt;
use time::OffsetDateTime;

use super::{Error, Kind, Question, Reader, Version, Whose};
use crate::connection::Connection;
use crate::topology::overlap;

/// Consumers that only count begin with this, so that one who looks does not see another who looks.
const COUNTER: &str = "millrace-usage-";
/// A counter that is not deleted, because whoever counts was cut off, ends by itself.
const COUNTER_ENDS: Duration = Duration::from_secs(10);

/// What a consumer says of itself that only looks: a tool that reads history and acts on nothing. The broker keeps it for
/// minutes after the tool has ended.
const ONLOOKER: &str = "millrace-onlooker";

/// Metadata of a consumer that does not count as a reader of what it reads.
pub fn onlooker() -> HashMap<String, String> {
    HashMap::from([(ONLOOKER.to_owned(), "true".to_owned())])
}

fn is_onlooker(consumer: &consumer::Info) -> bool {
    consumer.name.starts_with(COUNTER) || consumer.config.metadata.contains_key(ONLOOKER)
}

/// Every consumer of the account, by stream.
pub(super) struct Readers {
    streams: Vec<stream::Info>,
    consumers: Vec<Vec<consumer::Info>>,
}

impl Readers {
    pub(super) async fn list(connection: &Connection, streams: Vec<stream::Info>) -> Result<Self, Error> {
        let mut consumers = Vec::new();
        for info in &streams {
            let failed = |e: &dyn std::fmt::Display| {
                Error::broker("consumers cannot be listed", format!("{}: {e}", info.config.name))
            };
            let stream = connection.jetstream().get_stream_no_info(&info.config.name).await.map_err(|e| failed(&e))?;
            let all: Vec<consumer::Info> = stream.consumers().try_collect().await.map_err(|e| failed(&e))?;
            consumers.push(all.into_iter().filter(|consumer| !is_onlooker(consumer)).collect());
        }
        Ok(Self { streams, consumers })
    }

    pub(super) fn streams(&self) -> &[stream::Info] {
        &self.streams
    }

    pub(super) async fn of(
        &self,
        connection: &Connection,
        version: &Version,
        question: &Question<'_>,
    ) -> Result<Vec<Reader>, Error> {
        let mut found = Vec::new();
        for (stream, consumers) in self.streams.iter().zip(&self.consumers) {
            if !carries(&self.streams, &stream.config, &version.subject, 0) {
                continue;
            }
            let reading: Vec<_> = consumers.iter().filter(|consumer| reads(consumer, &version.subject)).collect();
            if reading.is_empty() {
                continue;
            }
            let count = Counter::new(connection, &stream.config.name, &version.subject).await?;
            let since = OffsetDateTime::now_utc() - question.lately;
            let all = count.from(DeliverPolicy::All).await?;
            let lately = count.from(DeliverPolicy::ByStartTime { start_time: since }).await?;
            for consumer in reading {
                let floor = floor(consumer);
                let left = count.from(DeliverPolicy::ByStartSequence { start_sequence: floor + 1 }).await?;
                let numbers = (all.saturating_sub(left), lately.saturating_sub(left), left);
                found.push(reader(&stream.config.name, consumer, numbers, question));
            }
        }
        Ok(found)
    }
}

/// Whether messages of this subject can be in a stream, by what it takes in itself and what it copies from others.
fn carries(streams: &[stream::Info], config: &stream::Config, subject: &str, depth: usize) -> bool {
    /// A longer chain of copies is taken to carry anything.
    const CHAIN: usize = 8;
    let copied = |source: &stream::Source| {
        // What is copied from another account, or under another subject, is not known.
        let known = source.external.is_none() && source.subject_transforms.is_empty() && depth < CHAIN;
        let origin = streams.iter().find(|info| info.config.name == source.name).filter(|_| known);
        source.filter_subject.as_deref().is_none_or(|filter| filter.is_empty() || overlap(filter, subject))
            && origin.is_none_or(|origin| carries(streams, &origin.config, subject, depth + 1))
    };
    config.subject_transform.is_some()
        || config.subjects.iter().any(|own| overlap(own, subject))
        || config.mirror.iter().chain(config.sources.iter().flatten()).any(copied)
}

fn filter(consumer: &consumer::Info) -> Vec<String> {
    let config = &consumer.config;
    let mut filter = config.filter_subjects.clone();
    if !config.filter_subject.is_empty() {
        filter.push(config.filter_subject.clone());
    }
    filter
}

fn reads(consumer: &consumer::Info, subject: &str) -> bool {
    let filter = filter(consumer);
    filter.is_empty() || filter.iter().any(|wanted| overlap(wanted, subject))
}

/// Up to here everything is acknowledged; what needs no acknowledgement is so once it is delivered.
fn floor(consumer: &consumer::Info) -> u64 {
    match consumer.config.ack_policy {
        AckPolicy::None => consumer.delivered.stream_sequence,
        _ => consumer.ack_floor.stream_sequence,
    }
}

fn reader(stream: &str, info: &consumer::Info, numbers: (u64, u64, u64), question: &Question<'_>) -> Reader {
    let declared = question.declared.consumers.iter().any(|c| c.stream == stream && c.durable == info.name);
    let whose = match declared {
        true if question.intakes.contains(&info.name.as_str()) => Whose::Intake,
        true => Whose::Ours,
        false => Whose::Others,
    };
    let last_active = info.ack_floor.last_active.max(info.delivered.last_active);
    let connected = info.num_waiting > 0 || info.push_bound;
    let heard_of = last_active.unwrap_or(info.created);
    let (acknowledged, acknowledged_lately, left) = numbers;
    Reader {
        kind: if info.config.durable_name.is_some() { Kind::Durable } else { Kind::Ephemeral },
        whose,
        name: info.name.clone(),
        stream: Some(stream.to_owned()),
        description: info.config.description.clone().filter(|text| !text.is_empty()),
        filter: filter(info),
        acknowledged,
        acknowledged_lately,
        left,
        last_active,
        connected,
        idle: !connected && heard_of + question.idle_after < OffsetDateTime::now_utc(),
    }
}

/// Counts messages of one subject without reading them: a new consumer knows how many it has before it.
pub(super) struct Counter {
    stream: stream::Stream<()>,
    subject: String,
}

impl Counter {
    pub(super) async fn new(connection: &Connection, stream: &str, subject: &str) -> Result<Self, Error> {
        let opened = connection.jetstream().get_stream_no_info(stream).await;
        let stream = opened.map_err(|e| Error::broker("a stream cannot be looked at", format!("{stream}: {e}")))?;
        Ok(Self { stream, subject: subject.to_owned() })
    }

    pub(super) async fn from(&self, start: DeliverPolicy) -> Result<u64, Error> {
        let consumer = self.consumer(start).await?;
        let count = consumer.cached_info().num_pending;
        self.end(consumer).await;
        Ok(count)
    }

    /// Headers only, in the stream's order.
    pub(super) async fn consumer(&self, start: DeliverPolicy) -> Result<consumer::Consumer<pull::Config>, Error> {
        let config = pull::Config {
            name: Some(format!("{COUNTER}{}", uuid::Uuid::now_v7().simple())),
            filter_subject: self.subject.clone(),
            deliver_policy: start,
            ack_policy: AckPolicy::None,
            headers_only: true,
            inactive_threshold: COUNTER_ENDS,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        self.stream.create_consumer(config).await.map_err(|e| Error::broker("messages cannot be counted", e))
    }

    pub(super) async fn end(&self, consumer: consumer::Consumer<pull::Config>) {
        // If that fails it ends by itself.
        let _ = self.stream.delete_consumer(&consumer.cached_info().name).await;
    }
}
