//! The audit: who did what about a dead letter, and what came of it. One stream, a subject for each letter.
//!
//! An operator's command writes down what it is about to do and then does it; the consumer writes down how a replay
//! ended. So the record is complete also when the operator's command was cut off.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tracing::warn;

use super::replays::ReplayOf;
use crate::connection::Connection;

/// The stream of all entries.
pub const STREAM: &str = "AUDIT";
/// What the stream keeps. Entries about dead letters are under `audit.dead_letters.<consumer>.<id>`.
pub const SUBJECT_PREFIX: &str = "audit";
/// A year. Longer than any dead letter is kept: one whose discarding was forgotten would wait again.
pub const MAX_AGE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Attempts of a consumer to write down how a replay ended.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// One line of the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// `user@host`, or `consumer NAME` for what a consumer has to say.
    pub who: String,
    /// The dead letter's id.
    pub letter: u64,
    #[serde(flatten)]
    pub what: What,
}

/// What was done, or what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum What {
    /// Sent to the failed consumer again.
    Replayed {
        replay_id: String,
        /// Tells the letter from one that had the number before, when a stream was made anew.
        #[serde(with = "time::serde::rfc3339")]
        letter_stored_at: OffsetDateTime,
        /// Body or headers were corrected first.
        corrected: bool,
    },
    /// The replay did not leave.
    NotSent { replay_id: String, error: String },
    /// The consumer has handled the replay.
    Handled { replay_id: String },
    /// The consumer failed again, which left another dead letter.
    FailedAgain { replay_id: String, dead_letter: u64 },
    /// Given up by somebody who knows why.
    Discarded {
        #[serde(with = "time::serde::rfc3339")]
        letter_stored_at: OffsetDateTime,
        reason: String,
    },
}

impl What {
    /// The replay an entry is about.
    pub fn replay_id(&self) -> Option<&str> {
        match self {
            Self::Replayed { replay_id, .. }
            | Self::NotSent { replay_id, .. }
            | Self::Handled { replay_id }
            | Self::FailedAgain { replay_id, .. } => Some(replay_id),
            Self::Discarded { .. } => None,
        }
    }

    /// As it stands in the stream.
    pub fn action(&self) -> &'static str {
        match self {
            Self::Replayed { .. } => "replayed",
            Self::NotSent { .. } => "not_sent",
            Self::Handled { .. } => "handled",
            Self::FailedAgain { .. } => "failed_again",
            Self::Discarded { .. } => "discarded",
        }
    }
}

/// Where entries about a letter of `consumer` are; `*` for either stands for all.
pub(crate) fn subject(consumer: &str, letter: &str) -> String {
    format!("{SUBJECT_PREFIX}.dead_letters.{consumer}.{letter}")
}

/// Writes an entry. With `after`, only if the last one about this letter has that sequence in the stream, 0 for none: of
/// two operators at the same letter one is refused.
pub(crate) async fn write(
    connection: &Connection,
    consumer: &str,
    entry: &Entry,
    message_id: Option<&str>,
    after: Option<u64>,
) -> Result<u64, PublishError> {
    let body = serde_json::to_vec(entry).map_err(|e| PublishError::with_source(PublishErrorKind::Other, e))?;
    let mut message = PublishMessage::build().payload(body.into()).headers(HeaderMap::new());
    if let Some(id) = message_id {
        message = message.message_id(id);
    }
    if let Some(sequence) = after {
        message = message.expected_last_subject_sequence(sequence);
    }
    let subject = subject(consumer, &entry.letter.to_string());
    Ok(connection.jetstream().send_publish(subject, message).await?.await?.sequence)
}

/// How a replay ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ending {
    Handled,
    /// The sequence of the new dead letter.
    FailedAgain(u64),
}

/// The consumer's part. An audit that cannot be written must not hold up what it is about for ever.
pub(crate) async fn ended(connection: &Connection, consumer: &str, replay: &ReplayOf, ending: Ending) {
    let replay_id = replay.replay_id.clone();
    let what = match ending {
        Ending::Handled => What::Handled { replay_id },
        Ending::FailedAgain(dead_letter) => What::FailedAgain { replay_id, dead_letter },
    };
    // The same for the same end, which a redelivery may bring about twice.
    let message_id = format!("{}-{}", replay.replay_id, what.action());
    let who = format!("consumer {consumer}");
    let entry = Entry { at: OffsetDateTime::now_utc(), who, letter: replay.letter, what };
    for attempt in 1..=ATTEMPTS {
        match write(connection, consumer, &entry, Some(&message_id), None).await {
            Ok(_) => return,
            Err(reason) => {
                warn!(consumer, letter = replay.letter, attempt, reason = %reason, "how a replay ended could not be written down")
            }
        }
        tokio::time::sleep(PAUSE * attempt).await;
    }
}

/// Who sits at the command line: `user@host`.
pub fn operator() -> String {
    let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok()).filter(|user| !user.is_empty());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{}@{host}", user.unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw())))
}
