//! What the streams hold and what consumers have left.

use std::collections::BTreeMap;

use async_nats::jetstream::{self, consumer::pull};
use contracts::orders::OrderCancelled;
use contracts::subjects;
use contracts::topology::{TopologySettings, durables, topology};
use futures::StreamExt;
use millrace::connection::Connection;
use millrace::dead_letter::{DeadLetter, STREAM};
use millrace::event::Event;
use serde_json::Value;

use crate::commands::verify::evidence::{Consumer, Letter, Message};

/// The streams with events.
pub const STREAMS: [&str; 4] = ["ORDERS", "PAYMENTS", "INVENTORY", "NOTIFICATIONS"];

/// The last sequence of each stream that something in an outbox is on: those of events, and that of dead letters.
pub async fn last_sequences(connection: &Connection) -> Result<BTreeMap<&'static str, i64>, String> {
    let mut last = BTreeMap::new();
    for stream in STREAMS.into_iter().chain([STREAM]) {
        let found = connection.jetstream().get_stream(stream).await.map_err(|e| format!("{stream}: {e}"))?;
        last.insert(stream, i64::try_from(found.cached_info().state.last_sequence).unwrap_or(i64::MAX));
    }
    Ok(last)
}

/// Everything on the streams of events, in their order.
pub async fn messages(connection: &Connection) -> Result<Vec<Message>, String> {
    let mut all = Vec::new();
    for stream in STREAMS {
        read(connection, stream, |seq, message| all.push(event(stream, seq, message))).await?;
    }
    Ok(all)
}

pub async fn dead_letters(connection: &Connection) -> Result<Vec<Letter>, String> {
    let mut all = Vec::new();
    read(connection, STREAM, |seq, message| {
        let body = String::from_utf8_lossy(&message.payload).into_owned();
        let message_id = message.headers.as_ref().and_then(|headers| headers.get("Nats-Msg-Id"));
        let message_id = message_id.map(|id| id.as_str().to_owned());
        all.push(match DeadLetter::from_headers(message.headers.as_ref()) {
            Some(letter) => Letter {
                consumer: letter.consumer,
                stream: letter.stream,
                seq: letter.stream_seq,
                subject: letter.subject,
                reason: letter.reason.as_str().to_owned(),
                error: letter.errors.join(": "),
                body,
                message_id,
            },
            None => Letter {
                seq,
                subject: message.subject.to_string(),
                reason: "unreadable".into(),
                body,
                message_id,
                ..Letter::default()
            },
        });
    })
    .await?;
    Ok(all)
}

/// Reads a stream from its beginning to its present end.
async fn read(
    connection: &Connection,
    stream: &str,
    mut take: impl FnMut(u64, &jetstream::Message),
) -> Result<(), String> {
    let failed = |what: &str, error: &dyn std::fmt::Display| format!("{stream}: {what}: {error}");
    let stream_handle = connection.jetstream().get_stream(stream).await.map_err(|e| failed("cannot be opened", &e))?;
    let state = &stream_handle.cached_info().state;
    if state.messages == 0 {
        return Ok(());
    }
    let last = state.last_sequence;
    let consumer = stream_handle
        .create_consumer(pull::OrderedConfig {
            metadata: millrace::usage::onlooker(),
            ..pull::OrderedConfig::default()
        })
        .await;
    let consumer = consumer.map_err(|e| failed("cannot be read", &e))?;
    let mut messages = consumer.messages().await.map_err(|e| failed("cannot be read", &e))?;
    while let Some(message) = messages.next().await {
        let message = message.map_err(|e| failed("cannot be read", &e))?;
        let seq = message.info().map_err(|e| failed("a message without a sequence", &e))?.stream_sequence;
        take(seq, &message);
        if seq >= last {
            break;
        }
    }
    Ok(())
}

/// What a message of a stream says, as far as the checks want to know it.
pub fn event(stream: &str, seq: u64, message: &async_nats::Message) -> Message {
    let header = |name: &str| {
        let value = message.headers.as_ref().and_then(|headers| headers.get(name));
        value.map(|value| value.as_str().to_owned())
    };
    // A foreign message has no headers, and may have no readable body.
    let body: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
    let field = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
    Message {
        stream: stream.to_owned(),
        seq,
        subject: message.subject.to_string(),
        message_id: header("Nats-Msg-Id"),
        event_id: header("ce-id"),
        event_type: header("ce-type").unwrap_or_default(),
        order: header("ce-subject").or_else(|| field("order_id")),
        reason: field("reason")
            .filter(|_| subjects::event_on(&message.subject).is_some_and(|on| on.event == OrderCancelled::TYPE)),
        at: header("ce-time").unwrap_or_default(),
    }
}

/// Every declared consumer, and how much it has left.
pub async fn consumers(connection: &Connection) -> Result<Vec<Consumer>, String> {
    let mut consumers = Vec::new();
    for declared in topology(&TopologySettings::default()).consumers {
        let (durable, stream) = (declared.durable.clone(), declared.stream.clone());
        let failed = |error: &dyn std::fmt::Display| format!("consumer {durable} of {stream}: {error}");
        let context = connection.jetstream();
        let found = context.get_consumer_from_stream::<pull::Config, _, _>(&durable, &stream).await;
        let mut found = found.map_err(|e| failed(&e))?;
        let info = found.info().await.map_err(|e| failed(&e))?;
        let open = info.num_pending + info.num_ack_pending as u64;
        // Taking a foreign order in twice changes nothing, so its consumer leaves no marks.
        let service = durable.split('-').next().filter(|_| durable != durables::ORDER_FOREIGN).map(str::to_owned);
        consumers.push(Consumer { service, stream, subjects: declared.filter_subjects.clone(), open, durable });
    }
    Ok(consumers)
}
