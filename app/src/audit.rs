//! What operators did about orders, in the stream of the audit beside what they did about dead letters: one subject for
//! each order.

use std::time::Duration;

use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::message::PublishMessage;
use futures::StreamExt;
use millrace::connection::Connection;
use millrace::dead_letters::audit::{STREAM, SUBJECT_PREFIX};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

/// One line of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// `user@host`
    pub who: String,
    /// `retried`, `settled`, `released`, `reconciled`
    pub action: String,
    /// With what, and what came of it.
    pub detail: Value,
}

/// How long one entry may take to come.
const PATIENCE: Duration = Duration::from_secs(5);

impl Entry {
    pub fn new(who: String, action: &str, detail: Value) -> Self {
        Self { at: OffsetDateTime::now_utc(), who, action: action.to_owned(), detail }
    }
}

pub async fn write(connection: &Connection, order_id: &str, entry: &Entry) -> Result<(), String> {
    let body = serde_json::to_vec(entry).map_err(|e| e.to_string())?;
    let message = PublishMessage::build().payload(body.into());
    let sent = connection.jetstream().send_publish(subject(order_id), message).await.map_err(|e| e.to_string())?;
    sent.await.map(drop).map_err(|e| e.to_string())
}

/// Everything about one order, oldest first.
pub async fn of(connection: &Connection, order_id: &str) -> Result<Vec<Entry>, String> {
    let stream = connection.jetstream().get_stream(STREAM).await.map_err(|e| e.to_string())?;
    let config = OrderedConfig { filter_subject: subject(order_id), ..OrderedConfig::default() };
    let mut consumer = stream.create_consumer(config).await.map_err(|e| e.to_string())?;
    let mut left = consumer.info().await.map_err(|e| e.to_string())?.num_pending;
    let mut messages = consumer.messages().await.map_err(|e| e.to_string())?;
    let mut entries = Vec::new();
    while left > 0 {
        let next = tokio::time::timeout(PATIENCE, messages.next()).await.map_err(|_| "nothing comes".to_owned())?;
        let message = next.ok_or("the consumer ended")?.map_err(|e| e.to_string())?;
        left = message.info().map_err(|e| e.to_string())?.pending;
        entries.extend(serde_json::from_slice::<Entry>(&message.payload));
    }
    Ok(entries)
}

fn subject(order_id: &str) -> String {
    format!("{SUBJECT_PREFIX}.orders.{order_id}")
}
