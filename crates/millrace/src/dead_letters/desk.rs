//! What an operator may ask for.

use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::stream::RawMessageErrorKind;
use time::OffsetDateTime;

use super::Error;
use super::audit::{self, Entry, What};
use super::letter::{Letter, State, history_of};
use super::read::{self, Log};
use super::replay::{Ended, Outcome};
use crate::connection::Connection;
use crate::dead_letter::{self, DeadLetter, Reason};
use crate::outbox::refused_as_second;

/// Dead letters as an operator deals with them.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    pub(super) connection: Connection,
    pub(super) who: String,
}

/// Which letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    pub consumer: Option<String>,
    pub reason: Option<Reason>,
    /// The original subject; `*` and `>` as in NATS.
    pub subject: Option<String>,
    /// Failed for the last time at or after this.
    pub since: Option<OffsetDateTime>,
    pub state: Wanted,
}

/// Which states.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wanted {
    #[default]
    Waiting,
    /// Whatever came of it, also nothing yet.
    Replayed,
    Discarded,
    All,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Oldest first, without bodies.
    pub letters: Vec<Letter>,
    /// Messages in the stream of dead letters that do not describe themselves as such.
    pub unreadable: Vec<u64>,
}

impl Filter {
    /// Whether a letter is meant.
    pub fn matches(&self, letter: &Letter) -> bool {
        let about = &letter.about;
        let state = match (self.state, &letter.state) {
            (Wanted::All, _) | (Wanted::Discarded, State::Discarded { .. }) => true,
            (Wanted::Waiting, state) => state.waits(),
            (Wanted::Replayed, state) => !matches!(state, State::Waiting | State::Discarded { .. }),
            _ => false,
        };
        state
            && self.consumer.as_ref().is_none_or(|consumer| *consumer == about.consumer)
            && self.reason.is_none_or(|reason| reason == about.reason)
            && self.subject.as_ref().is_none_or(|subject| crate::topology::covers(subject, &about.subject))
            && self.since.is_none_or(|since| about.last_failed_at >= since)
    }
}

impl DeadLetters {
    /// `who` stands in the audit for everything done through this; [`audit::operator`] knows who sits here.
    pub fn new(connection: Connection, who: impl Into<String>) -> Self {
        Self { connection, who: who.into() }
    }

    /// All letters that match.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(&self, filter: &Filter) -> Result<Listing, Error> {
        let logs = read::logs(&self.connection, None).await?;
        let config = OrderedConfig { headers_only: true, ..OrderedConfig::default() };
        let mut listing = Listing { letters: Vec::new(), unreadable: Vec::new() };
        for message in read::everything(&self.connection, dead_letter::STREAM, config).await? {
            let Ok(info) = message.info() else { continue };
            let id = info.stream_sequence;
            let headers = message.headers.as_ref();
            let Some(about) = DeadLetter::from_headers(headers) else {
                listing.unreadable.push(id);
                continue;
            };
            let size = headers.and_then(|h| h.get(SIZE)).and_then(|size| size.as_str().parse().ok()).unwrap_or(0);
            let letter = assemble(id, info.published, about, size, logs.get(&id));
            if filter.matches(&letter) {
                listing.letters.push(letter);
            }
        }
        Ok(listing)
    }

    /// One letter, with its body and its history.
    ///
    /// # Errors
    /// [`Error::NotFound`], or the broker's.
    pub async fn get(&self, id: u64) -> Result<Letter, Error> {
        let logs = read::logs(&self.connection, Some(id)).await?;
        self.fetch(id, logs.get(&id)).await
    }

    /// The audit of all letters, oldest first.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn audit(&self) -> Result<Vec<Entry>, Error> {
        let logs = read::logs(&self.connection, None).await?;
        let mut entries: Vec<Entry> = logs.into_values().flat_map(|log| log.entries).collect();
        entries.sort_by_key(|entry| entry.at);
        Ok(entries)
    }

    /// Gives letters up, with a reason. Those about which something else was decided already are refused.
    ///
    /// # Errors
    /// See [`Error`]; what is refused about a single letter stands in the result.
    pub async fn discard(&self, ids: &[u64], reason: &str) -> Result<Vec<Ended>, Error> {
        let logs = read::logs(&self.connection, None).await?;
        let mut all = Vec::with_capacity(ids.len());
        for &id in ids {
            let outcome = match self.fetch(id, logs.get(&id)).await {
                Ok(letter) => self.discard_one(&letter, logs.get(&id), reason).await,
                Err(Error::NotFound(_)) => Outcome::Refused { why: Error::NotFound(id).to_string() },
                Err(error) => return Err(error),
            };
            all.push(Ended { id, outcome });
        }
        Ok(all)
    }

    async fn discard_one(&self, letter: &Letter, log: Option<&Log>, reason: &str) -> Outcome {
        if !letter.state.waits() && letter.state != State::BeingReplayed {
            return Outcome::Refused { why: format!("it is {} already", letter.state.as_str()) };
        }
        let what = What::Discarded { letter_stored_at: letter.stored_at, reason: reason.to_owned() };
        match self.write(letter, what, log).await {
            Ok(()) => Outcome::Discarded,
            Err(why) => Outcome::Refused { why },
        }
    }

    pub(super) async fn fetch(&self, id: u64, log: Option<&Log>) -> Result<Letter, Error> {
        let stream = read::open(&self.connection, dead_letter::STREAM).await?;
        let message = stream.get_raw_message(id).await.map_err(|error| match error.kind() {
            RawMessageErrorKind::NoMessageFound => Error::NotFound(id),
            _ => Error::broker("the dead letter could not be fetched", error),
        })?;
        let about = DeadLetter::from_headers(Some(&message.headers)).ok_or(Error::Unreadable(id))?;
        let letter = assemble(id, message.time, about, message.payload.len(), log);
        Ok(Letter { body: message.payload, ..letter })
    }

    /// Writes down a decision, unless somebody else decided after `log` was read.
    pub(super) async fn write(&self, letter: &Letter, what: What, log: Option<&Log>) -> Result<(), String> {
        let entry = Entry { at: OffsetDateTime::now_utc(), who: self.who.clone(), letter: letter.id, what };
        let after = log.map_or(0, |log| log.last_seq);
        match audit::write(&self.connection, &letter.about.consumer, &entry, None, Some(after)).await {
            Ok(_) => Ok(()),
            Err(error) if refused_as_second(&error) => {
                Err("somebody else did something about it just now; look again".into())
            }
            Err(error) => Err(format!("the audit could not be written: {error}")),
        }
    }
}

/// Where the broker says how long a body is that it leaves away.
const SIZE: &str = "Nats-Msg-Size";

fn assemble(id: u64, stored_at: OffsetDateTime, about: DeadLetter, size: usize, log: Option<&Log>) -> Letter {
    let history = log.map_or_else(Vec::new, |log| history_of(stored_at, &log.entries));
    let state = State::of(&history, OffsetDateTime::now_utc());
    Letter { id, stored_at, about, size, body: bytes::Bytes::new(), history, state }
}
