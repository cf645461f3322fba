//! Replaying: write down what is about to happen, send, and wait for what the consumer says.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::Ordered;
use async_nats::jetstream::message::PublishMessage;
use futures::{FutureExt, StreamExt};
use serde::Serialize;
use time::OffsetDateTime;
use tokio::time::{Instant, MissedTickBehavior};
use uuid::Uuid;

use super::Error;
use super::audit::{Entry, What};
use super::desk::DeadLetters;
use super::letter::{Letter, State};
use super::read::{self, Log};
use super::replays::{self, Correction, ReplayOf};
use crate::crash;

/// How to replay.
#[derive(Debug, Clone)]
pub struct Options {
    /// Replay so many first, and the others only if all of these were handled.
    pub canary: Option<usize>,
    /// Most replays sent in a second.
    pub per_second: u32,
    /// Also letters that were replayed or discarded before, and those that are too old.
    pub again: bool,
    /// How long the consumers' inboxes remember what they handled; `None` for ever. An older message may have had its
    /// effect before it failed without anybody knowing, and is refused.
    pub remembered: Option<Duration>,
    /// What to change first; for one letter only.
    pub correction: Correction,
    /// How long to wait for results, from the last replay sent. Retries of a consumer take their time.
    pub wait: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            canary: None,
            per_second: 50,
            again: false,
            remembered: None,
            correction: Correction::default(),
            wait: Duration::from_secs(60),
        }
    }
}

/// What came of one letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    Handled,
    FailedAgain {
        dead_letter: u64,
    },
    /// Sent, and nothing was heard of it in time. The audit will say.
    StillBeingHandled,
    NotSent {
        why: String,
    },
    /// Nothing was done.
    Refused {
        why: String,
    },
    /// The canary did not come through.
    NotTried,
    Discarded,
}

/// A letter and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ended {
    pub id: u64,
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    pub sent: usize,
    pub handled: usize,
    pub failed_again: usize,
}

/// What came of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In the order they were asked for.
    pub letters: Vec<Ended>,
    /// The canary stopped the rest.
    pub stopped_by_canary: bool,
}

impl Report {
    pub fn count(&self, wanted: impl Fn(&Outcome) -> bool) -> usize {
        self.letters.iter().filter(|ended| wanted(&ended.outcome)).count()
    }

    /// Whether every letter was handled.
    pub fn all_handled(&self) -> bool {
        self.letters.iter().all(|ended| ended.outcome == Outcome::Handled)
    }
}

impl DeadLetters {
    /// Replays letters in the given order, each to the consumer that failed.
    ///
    /// # Errors
    /// See [`Error`]; what goes wrong about a single letter stands in the report.
    pub async fn replay(
        &self,
        ids: &[u64],
        options: &Options,
        progress: impl FnMut(Progress) + Send,
    ) -> Result<Report, Error> {
        if !options.correction.is_empty() && ids.len() > 1 {
            return Err(Error::OneAtATime(ids.len()));
        }
        let logs = read::logs(&self.connection, None).await?;
        let results = read::coming(&self.connection).await?;
        let mut batch = Campaign {
            desk: self,
            options,
            logs,
            results,
            under_way: HashMap::new(),
            outcomes: HashMap::new(),
            shown: Progress::default(),
            progress,
        };
        let first = options.canary.unwrap_or(ids.len()).min(ids.len());
        let (canary, rest) = ids.split_at(first);
        batch.run(canary).await?;
        let came_through = canary.iter().all(|id| batch.outcomes.get(id) == Some(&Outcome::Handled));
        let stopped_by_canary = !rest.is_empty() && !came_through;
        if !stopped_by_canary {
            batch.run(rest).await?;
        }
        let mut outcomes = batch.outcomes;
        let ended = |id: &u64| Ended { id: *id, outcome: outcomes.remove(id).unwrap_or(Outcome::NotTried) };
        Ok(Report { letters: ids.iter().map(ended).collect(), stopped_by_canary })
    }
}

struct Campaign<'a, P> {
    desk: &'a DeadLetters,
    options: &'a Options,
    logs: HashMap<u64, Log>,
    results: Ordered,
    /// Letters by their replay.
    under_way: HashMap<String, u64>,
    outcomes: HashMap<u64, Outcome>,
    shown: Progress,
    progress: P,
}

impl<P: FnMut(Progress) + Send> Campaign<'_, P> {
    /// Sends these and waits for what comes of them.
    async fn run(&mut self, ids: &[u64]) -> Result<(), Error> {
        let mut pace = tokio::time::interval(Duration::from_secs(1) / self.options.per_second.max(1));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for &id in ids {
            pace.tick().await;
            if let Some(outcome) = self.send(id).await? {
                self.outcomes.insert(id, outcome);
            } else {
                self.shown.sent += 1;
                self.outcomes.insert(id, Outcome::StillBeingHandled);
            }
            while let Some(Some(result)) = self.results.next().now_or_never() {
                self.take(result.ok());
            }
            (self.progress)(self.shown);
        }
        let deadline = Instant::now() + self.options.wait;
        while !self.under_way.is_empty() {
            match tokio::time::timeout_at(deadline, self.results.next()).await {
                Ok(Some(result)) => self.take(result.ok()),
                // The deadline, or results cannot be followed any more.
                Err(_) | Ok(None) => break,
            }
            (self.progress)(self.shown);
        }
        if !self.under_way.is_empty() {
            self.look_again().await?;
            (self.progress)(self.shown);
        }
        Ok(())
    }

    /// An outcome when nothing was sent.
    async fn send(&mut self, id: u64) -> Result<Option<Outcome>, Error> {
        let refused = |why: String| Ok(Some(Outcome::Refused { why }));
        if self.outcomes.contains_key(&id) {
            return Ok(self.outcomes.get(&id).cloned());
        }
        let log = self.logs.get(&id);
        let letter = match self.desk.fetch(id, log).await {
            Ok(letter) => letter,
            Err(error @ (Error::NotFound(_) | Error::Unreadable(_))) => return refused(error.to_string()),
            Err(error) => return Err(error),
        };
        if !letter.state.waits() && !self.options.again {
            return refused(match &letter.state {
                State::FailedAgain { dead_letter } => {
                    format!("it was replayed and failed again; dead letter {dead_letter} waits in its place")
                }
                state => format!("it is {} already", state.as_str()),
            });
        }
        if let Some(remembered) = self.options.remembered.filter(|_| !self.options.again)
            && letter.about.may_be_forgotten(remembered, OffsetDateTime::now_utc())
        {
            let days = remembered.as_secs() / 86_400;
            return refused(format!(
                "it is older than the inbox remembers ({days} days), so an effect it had before it failed would come twice"
            ));
        }
        let replay = ReplayOf { letter: id, replay_id: Uuid::now_v7().to_string() };
        let headers = replays::headers(&letter.about, &replay, &self.options.correction)?;
        let what = What::Replayed {
            replay_id: replay.replay_id.clone(),
            letter_stored_at: letter.stored_at,
            corrected: !self.options.correction.is_empty(),
        };
        if let Err(why) = self.desk.write(&letter, what, log).await {
            return refused(why);
        }
        crash::AFTER_REPLAY_WRITTEN_DOWN.reach();
        self.under_way.insert(replay.replay_id.clone(), id);
        match self.publish(&letter, &replay, headers).await {
            Ok(()) => Ok(None),
            Err(error) => {
                self.under_way.remove(&replay.replay_id);
                self.not_sent(&letter, &replay, &error).await;
                Ok(Some(Outcome::NotSent { why: error }))
            }
        }
    }

    async fn publish(&self, letter: &Letter, replay: &ReplayOf, headers: async_nats::HeaderMap) -> Result<(), String> {
        let about = &letter.about;
        let message = PublishMessage::build()
            .payload(self.options.correction.body.clone().unwrap_or_else(|| letter.body.clone()))
            .headers(headers)
            .message_id(format!("replay-{}", replay.replay_id))
            // Elsewhere the consumer would never see it.
            .expected_stream(&about.stream);
        let subject = replays::subject(&about.consumer, &about.subject);
        let sent = async { self.desk.connection.jetstream().send_publish(subject, message).await?.await };
        sent.await.map(|_| ()).map_err(|error| {
            format!(
                "{} does not take it: {error}; `millrace topology plan` shows whether it takes replays",
                about.stream
            )
        })
    }

    async fn not_sent(&self, letter: &Letter, replay: &ReplayOf, error: &str) {
        let what = What::NotSent { replay_id: replay.replay_id.clone(), error: error.to_owned() };
        let entry = Entry { at: OffsetDateTime::now_utc(), who: self.desk.who.clone(), letter: letter.id, what };
        let written = super::audit::write(&self.desk.connection, &letter.about.consumer, &entry, None, None).await;
        if let Err(reason) = written {
            tracing::warn!(letter = letter.id, %reason, "that a replay was not sent could not be written down");
        }
    }

    fn take(&mut self, message: Option<async_nats::jetstream::Message>) {
        let entry = message.and_then(|message| serde_json::from_slice::<Entry>(&message.payload).ok());
        if let Some(entry) = entry {
            self.learn(&entry);
        }
    }

    fn learn(&mut self, entry: &Entry) {
        let (replay_id, outcome) = match &entry.what {
            What::Handled { replay_id } => (replay_id, Outcome::Handled),
            What::FailedAgain { replay_id, dead_letter } => {
                (replay_id, Outcome::FailedAgain { dead_letter: *dead_letter })
            }
            _ => return,
        };
        let Some(id) = self.under_way.remove(replay_id) else { return };
        match outcome {
            Outcome::Handled => self.shown.handled += 1,
            _ => self.shown.failed_again += 1,
        }
        self.outcomes.insert(id, outcome);
    }

    /// Reads what was written while results could not be followed.
    async fn look_again(&mut self) -> Result<(), Error> {
        let logs = read::logs(&self.desk.connection, None).await?;
        for entry in logs.values().flat_map(|log| &log.entries) {
            self.learn(entry);
        }
        Ok(())
    }
}
