//! Dead letters: the whole message, and why it could not be handled. Nothing is ever dropped instead.
//!
//! The body travels as it is; everything else stands as JSON in one header, because the original's own headers
//! (`Nats-Msg-Id` above all) must not act on the copy.

mod bury;

use std::time::Duration;

use async_nats::HeaderMap;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub(crate) use bury::{Graveyard, bury};

use crate::dead_letters::replays::{self, ReplayOf};
use crate::event::HeaderPairs;

/// The stream of all dead letters.
pub const STREAM: &str = "DEAD_LETTERS";
/// A consumer's dead letters are under this and its name.
pub const SUBJECT_PREFIX: &str = "dead_letters";
/// The header with a [`DeadLetter`] as JSON.
pub const HEADER: &str = "Millrace-Dead-Letter";

/// Longest error text, in bytes, and most errors of a chain: a letter has to fit into one message with its original.
const ERROR_BYTES: usize = 4_096;
const ERRORS: usize = 16;

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
    pub const ALL: [Self; 4] = [Self::Undecodable, Self::Permanent, Self::AttemptsExhausted, Self::NeverAnswered];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::Permanent => "permanent",
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::NeverAnswered => "never_answered",
        }
    }
}

impl std::str::FromStr for Reason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| format!("there is no such reason; it is one of {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

/// Everything about a dead message but its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub stream: String,
    pub stream_seq: u64,
    /// What the message was published on first, also when it is a replay that failed again.
    pub subject: String,
    pub consumer: String,
    pub reason: Reason,
    /// What went wrong, outermost first.
    pub errors: Vec<String>,
    pub attempts: u32,
    #[serde(with = "time::serde::rfc3339")]
    pub published_at: OffsetDateTime,
    /// The first failure that is known of. `None` when no process can tell: the consumer never answered.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub first_failed_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339", alias = "dead_at")]
    pub last_failed_at: OffsetDateTime,
    /// The message was the replay of another dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_of: Option<ReplayOf>,
    /// The original's headers.
    pub headers: HeaderPairs,
}

/// A message as the broker has it.
pub(crate) struct Original<'a> {
    pub(crate) stream: &'a str,
    pub(crate) stream_seq: u64,
    pub(crate) subject: &'a str,
    pub(crate) headers: Option<&'a HeaderMap>,
    pub(crate) published_at: OffsetDateTime,
}

/// How it failed.
pub(crate) struct Death {
    pub(crate) reason: Reason,
    pub(crate) errors: Vec<String>,
    pub(crate) attempts: u32,
    pub(crate) first_failed_at: Option<OffsetDateTime>,
    pub(crate) last_failed_at: OffsetDateTime,
}

impl DeadLetter {
    pub(crate) fn new(consumer: &str, original: &Original<'_>, death: Death) -> Self {
        let mut errors = death.errors;
        errors.truncate(ERRORS);
        errors.iter_mut().for_each(|error| shorten(error, ERROR_BYTES));
        Self {
            stream: original.stream.to_owned(),
            stream_seq: original.stream_seq,
            subject: replays::original(consumer, original.subject).unwrap_or(original.subject).to_owned(),
            consumer: consumer.to_owned(),
            reason: death.reason,
            errors,
            attempts: death.attempts,
            published_at: original.published_at,
            first_failed_at: death.first_failed_at,
            last_failed_at: death.last_failed_at,
            replay_of: ReplayOf::read(original.subject, original.headers),
            headers: header_pairs(original.headers),
        }
    }

    /// The same for the same message and consumer: burying it twice leaves one letter. The time is part of it, since a
    /// stream that lost its end in a power cut gives a number twice.
    pub fn message_id(&self) -> String {
        format!(
            "dlq-{}-{}-{}-{}",
            self.stream,
            self.consumer,
            self.stream_seq,
            self.published_at.unix_timestamp_nanos()
        )
    }

    /// A subject of its own for each letter, so that the broker can refuse a second one however late it comes.
    pub fn subject_of_copy(&self) -> String {
        format!(
            "{SUBJECT_PREFIX}.{}.{}-{}-{}",
            self.consumer,
            self.stream,
            self.stream_seq,
            self.published_at.unix_timestamp_nanos()
        )
    }

    /// Whether the message is so old that an inbox may have forgotten an effect it had before it failed. One that could
    /// not be read had none.
    pub(crate) fn may_be_forgotten(&self, remembered: Duration, now: OffsetDateTime) -> bool {
        // A replay says in this header when its original happened.
        let said = self.headers.iter().find(|(name, _)| name == "ce-time").map(|(_, time)| time);
        let happened_at = said.and_then(|time| OffsetDateTime::parse(time, &Rfc3339).ok());
        let first = happened_at.map_or(self.published_at, |time| time.min(self.published_at));
        self.reason != Reason::Undecodable && first + remembered < now
    }

    /// Reads the letter from a message of the dead-letter stream.
    pub fn from_headers(headers: Option<&HeaderMap>) -> Option<Self> {
        serde_json::from_str(headers?.get(HEADER)?.as_str()).ok()
    }
}

fn shorten(text: &mut String, most: usize) {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push_str(" ...");
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

/// Whether what is published there is a dead letter.
pub fn is_letter(subject: &str) -> bool {
    subject.strip_prefix(SUBJECT_PREFIX).is_some_and(|rest| rest.starts_with('.'))
}
