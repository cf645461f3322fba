//! Who publishes a version, by the headers of its last messages.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::stream;
use futures::{StreamExt, TryStreamExt};
use time::OffsetDateTime;

use super::readers::Counter;
use super::{Error, Published, Source};
use crate::connection::Connection;
use crate::consumer::OWN_SOURCE_PREFIX;
use crate::event::attribute;
use crate::topology::overlap;

/// Most messages looked at, the last ones.
const SAMPLE: u64 = 500;
/// No shorter time is looked at to find the last ones.
const SHORTEST: Duration = Duration::from_millis(100);
/// How long the sample may take to arrive.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn look(
    connection: &Connection,
    streams: &[stream::Info],
    subject: &str,
    lately: Duration,
) -> Result<Published, Error> {
    let mut published = Published::default();
    let mut sources = BTreeMap::new();
    // Mirrors have only copies.
    for info in streams.iter().filter(|info| info.config.subjects.iter().any(|own| overlap(own, subject))) {
        let doing = "a stream cannot be looked at";
        let failed = |e: &dyn std::fmt::Display| Error::broker(doing, format!("{}: {e}", info.config.name));
        let stream = connection.jetstream().get_stream_no_info(&info.config.name).await.map_err(|e| failed(&e))?;
        let counts: Vec<(String, usize)> = stream
            .info_with_subjects(subject)
            .await
            .map_err(|e| failed(&e))?
            .try_collect()
            .await
            .map_err(|e| failed(&e))?;
        let messages = counts.iter().map(|(_, count)| *count as u64).sum::<u64>();
        if messages == 0 {
            continue;
        }
        published.messages += messages;
        let last = stream.get_last_raw_message_by_subject(subject).await.map_err(|e| failed(&e))?;
        published.last_at = published.last_at.max(Some(last.time));
        if !sample(connection, &info.config.name, subject, lately, &mut sources).await? {
            note(&mut sources, Some(&last.headers), last.time);
        }
    }
    published.sources = sources.into_values().collect();
    published.sources.sort_by_key(|source| std::cmp::Reverse(source.last_at));
    Ok(published)
}

/// Looks at the last messages of the time that counts. Returns whether there were any.
async fn sample(
    connection: &Connection,
    stream: &str,
    subject: &str,
    lately: Duration,
    sources: &mut BTreeMap<Option<String>, Source>,
) -> Result<bool, Error> {
    let counter = Counter::new(connection, stream, subject).await?;
    let mut window = lately;
    let consumer = loop {
        let start_time = OffsetDateTime::now_utc() - window;
        let consumer = counter.consumer(DeliverPolicy::ByStartTime { start_time }).await?;
        let count = consumer.cached_info().num_pending;
        if count <= SAMPLE || window <= SHORTEST {
            break consumer;
        }
        counter.end(consumer).await;
        // As if they came evenly; a burst takes a round more.
        window = window.mul_f64(SAMPLE as f64 / (count as f64 * 1.25)).max(SHORTEST);
    };
    let count = consumer.cached_info().num_pending.min(SAMPLE);
    let failed = |e: &dyn std::fmt::Display| Error::broker("messages cannot be read", e);
    if count > 0 {
        let fetched = consumer.fetch().max_messages(count as usize).expires(PATIENCE).messages().await;
        let mut messages = fetched.map_err(|e| failed(&e))?;
        while let Some(message) = messages.next().await {
            let message = message.map_err(|e| failed(&e))?;
            let at = message.info().map_err(|e| failed(&e))?.published;
            note(sources, message.headers.as_ref(), at);
        }
    }
    counter.end(consumer).await;
    Ok(count > 0)
}

fn note(sources: &mut BTreeMap<Option<String>, Source>, headers: Option<&HeaderMap>, at: OffsetDateTime) {
    let source = headers.and_then(|headers| headers.get("ce-source"));
    let source = source.and_then(|source| attribute::decode(source.as_str())).map(Cow::into_owned);
    let foreign = !source.as_ref().is_some_and(|source| source.starts_with(OWN_SOURCE_PREFIX));
    let entry = sources.entry(source.clone()).or_insert_with(|| Source { source, foreign, messages: 0, last_at: at });
    entry.messages += 1;
    entry.last_at = entry.last_at.max(at);
}
