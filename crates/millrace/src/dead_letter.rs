//! Dead letters: the whole message, and why it could not be handled. Nothing is ever dropped instead.
//!
//! The body travels as it is; everything else stands as JSON in one header, because the original's own headers
//! (`Nats-Msg-Id` above all) must not act on the copy.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tracing::warn;

use crate::connection::Connection;
use crate::event::HeaderPairs;

/// The stream of all dead letters.
pub const STREAM: &str = "DEAD_LETTERS";
/// A consumer's dead letters are under this and its name.
pub const SUBJECT_PREFIX: &str = "dead_letters";
/// The header with a [`DeadLetter`] as JSON.
pub const HEADER: &str = "Millrace-Dead-Letter";

/// Why a message was buried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The body or a header is not what the subject says.
    Undecodable,
    /// The handler said that trying again cannot help.
    Permanent,
    /// The last attempt failed too.
    AttemptsExhausted,
    /// The consumer took it that often and never answered.
    NeverAnswered,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::Permanent => "permanent",
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::NeverAnswered => "never_answered",
        }
    }
}

/// Everything about a dead message but its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub stream: String,
    pub stream_seq: u64,
    pub subject: String,
    pub consumer: String,
    pub reason: Reason,
    /// What went wrong, outermost first.
    pub errors: Vec<String>,
    pub attempts: u32,
    #[serde(with = "time::serde::rfc3339")]
    pub published_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub dead_at: OffsetDateTime,
    /// The original's headers.
    pub headers: HeaderPairs,
}

impl DeadLetter {
    /// The same for the same message and consumer: burying it twice leaves one letter.
    pub fn message_id(&self) -> String {
        format!("dlq-{}-{}-{}", self.stream, self.consumer, self.stream_seq)
    }

    pub fn subject_of_copy(&self) -> String {
        format!("{SUBJECT_PREFIX}.{}", self.consumer)
    }

    /// Reads the letter from a message of the dead-letter stream.
    pub fn from_headers(headers: Option<&HeaderMap>) -> Option<Self> {
        serde_json::from_str(headers?.get(HEADER)?.as_str()).ok()
    }
}

/// All headers of a message.
pub fn header_pairs(headers: Option<&HeaderMap>) -> HeaderPairs {
    let Some(headers) = headers else { return Vec::new() };
    headers
        .iter()
        .flat_map(|(name, values)| values.iter().map(move |value| (name.to_string(), value.as_str().to_owned())))
        .collect()
}

/// Tries until the broker has confirmed the copy. The caller keeps the original alive meanwhile.
pub async fn publish_until_confirmed(connection: &Connection, letter: &DeadLetter, body: Bytes) {
    let mut pause = Duration::from_millis(100);
    loop {
        match publish(connection, letter, body.clone()).await {
            Ok(()) => return,
            Err(reason) => {
                warn!(consumer = letter.consumer, stream_seq = letter.stream_seq, reason, "a dead letter could not be stored yet, trying again");
                tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
        }
    }
}

async fn publish(connection: &Connection, letter: &DeadLetter, body: Bytes) -> Result<(), String> {
    let mut headers = HeaderMap::new();
    headers.insert(HEADER, serde_json::to_string(letter).map_err(|e| e.to_string())?);
    let message = PublishMessage::build().message_id(letter.message_id()).payload(body).headers(headers);
    let sent = connection.jetstream().send_publish(letter.subject_of_copy(), message).await;
    sent.map_err(|e| e.to_string())?.await.map(|_| ()).map_err(|e| e.to_string())
}
