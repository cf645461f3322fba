//! The handle to the single writer of a service's database. What the writer does is in `commit.rs`.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::commit::{self, Confirming, Core, Inbox, Waiting};
use super::keeper::{KEEPING, Keeper};
use super::{Database, Model, Pool, PostgresModel, SqliteModel, StoreError};
use crate::event::{Cause, RetiredNow};
use crate::inbox::Mark;
use crate::outbox::{Confirmation, RelaySender};

/// Limits of the writer.
#[derive(Debug, Clone)]
pub struct WriterSettings {
    /// Most intents in one transaction: keeps the time a batch holds row locks, and what a failed batch repeats, small.
    pub max_batch: usize,
    /// At least so long between the beginnings of two transactions under load, which is when the first of them holds
    /// two intents or more: then more intents share one, and with it one fsync and one burst of messages.
    pub commit_interval: Duration,
    /// Most intents waiting; then callers wait, and HTTP sheds load.
    pub queue: usize,
    /// How often old rows are removed from outbox and inbox.
    pub prune_every: Duration,
    /// How long confirmed outbox rows are kept: longer than a broker may take to flush to disk (two minutes by default),
    /// because until then a power cut can take the message back.
    pub keep_published: Duration,
    /// How long the inbox remembers: longer than the streams keep messages, so that a replay changes nothing.
    pub keep_handled: Duration,
}

impl Default for WriterSettings {
    fn default() -> Self {
        Self {
            max_batch: 256,
            commit_interval: Duration::from_millis(2),
            queue: 4_096,
            prune_every: Duration::from_secs(30),
            keep_published: Duration::from_secs(15 * 60),
            keep_handled: Duration::from_secs(8 * 24 * 3600),
        }
    }
}

/// One intent and why it happens.
#[derive(Debug, Clone)]
pub struct Submission<I> {
    pub intent: I,
    pub cause: Cause,
    /// Set when an event is being handled: it then takes effect once per consumer.
    pub mark: Option<Mark>,
}

/// What became of an intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed<T> {
    Now(T),
    /// Its event was handled before: nothing was done.
    Before,
}

/// Batches of confirmations that may wait for the writer; further ones are gathered into larger batches meanwhile.
const CONFIRMS: usize = 16;

/// A handle to the writer. When the last one is dropped the writer commits what is waiting and stops.
pub struct Writer<M: Model> {
    ops: mpsc::Sender<Box<Waiting<M>>>,
    confirms: mpsc::Sender<Confirming>,
    keeper: Keeper,
    leaving: CancellationToken,
    closing: CancellationToken,
}

impl<M: Model> Clone for Writer<M> {
    fn clone(&self) -> Self {
        Self {
            ops: self.ops.clone(),
            confirms: self.confirms.clone(),
            keeper: self.keeper.clone(),
            leaving: self.leaving.clone(),
            closing: self.closing.clone(),
        }
    }
}

impl<M: Model> Writer<M> {
    /// Commits an intent, waiting as long as it takes: a handler whose database is away waits rather than fails, so that
    /// an outage costs no delivery attempts.
    pub async fn submit(&self, submission: Submission<M::Intent>) -> Result<Committed<M::Outcome>, StoreError> {
        let (reply, answer) = oneshot::channel();
        let waiting = Box::new(Waiting { submission, reply });
        self.ops.send(waiting).await.map_err(|_| StoreError::Stopped)?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }

    /// As [`submit`](Self::submit), but gives up after `patience`. What was given up before its batch began, or while
    /// the writer waits for a database that is away, is not committed.
    pub async fn submit_within(
        &self,
        patience: Duration,
        submission: Submission<M::Intent>,
    ) -> Result<Committed<M::Outcome>, StoreError> {
        tokio::time::timeout(patience, self.submit(submission))
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable(format!("no answer within {patience:?}"))))
    }

    /// For what is not caused by an event.
    pub async fn submit_because(&self, cause: Cause, intent: M::Intent) -> Result<M::Outcome, StoreError> {
        match self.submit(Submission { intent, cause, mark: None }).await? {
            Committed::Now(outcome) => Ok(outcome),
            Committed::Before => Err(StoreError::Failed("an intent without a mark was taken for a repetition".into())),
        }
    }

    /// From now on a database that is away is not waited for: its callers are told that it is unavailable. For the time
    /// between the order to stop and the end of the last source of work, which would otherwise wait for an outage to end.
    pub fn stop_waiting(&self) {
        self.leaving.cancel();
    }

    /// Commits what is waiting, takes nothing more and stops, also while other handles exist.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// For messages that go to the broker first.
    pub fn keeper(&self) -> Keeper {
        self.keeper.clone()
    }

    /// Remembers what the broker has confirmed; joins the next transaction. The receiver ends once that is committed or
    /// has failed. Gives the confirmations back when the writer is busy: they can wait, the relay cannot.
    pub(crate) fn confirm(&self, confirmations: Vec<Confirmation>) -> Result<oneshot::Receiver<()>, Vec<Confirmation>> {
        let (stored, waiter) = oneshot::channel();
        self.confirms.try_send(Confirming { confirmations, stored }).map(|()| waiter).map_err(|refused| {
            let (mpsc::error::TrySendError::Full(back) | mpsc::error::TrySendError::Closed(back)) = refused;
            back.confirmations
        })
    }

    /// As [`confirm`](Self::confirm), for the last confirmations before the end.
    pub(crate) async fn confirm_last(&self, confirmations: Vec<Confirmation>) -> Result<(), StoreError> {
        let (stored, _) = oneshot::channel();
        self.confirms.send(Confirming { confirmations, stored }).await.map_err(|_| StoreError::Stopped)
    }
}

impl<M: SqliteModel + PostgresModel> Writer<M> {
    /// Starts the writer on `database`. `source` is the CloudEvents source of everything it publishes. Each transaction
    /// publishes the versions that are not `retired` when it begins. The returned
    /// handle ends when every `Writer` is dropped, or one is [closed](Self::close), and the rest is committed.
    pub fn start(
        database: &Database,
        model: M,
        source: &str,
        retired: impl Into<RetiredNow>,
        settings: WriterSettings,
        relay: RelaySender,
    ) -> Result<(Self, tokio::task::JoinHandle<()>), StoreError> {
        // Neither channel nor batch can be without any room.
        let settings =
            WriterSettings { max_batch: settings.max_batch.max(1), queue: settings.queue.max(1), ..settings };
        let (ops, submitted) = mpsc::channel(settings.queue);
        let (confirms, confirmed) = mpsc::channel(CONFIRMS);
        let (keeper, keeping) = mpsc::channel(KEEPING);
        let (leaving, closing) = (CancellationToken::new(), CancellationToken::new());
        let core = Core {
            service: database.service().to_owned(),
            model,
            source: source.to_owned(),
            retired: retired.into(),
            settings,
            relay,
            transaction_limit: database.statement_limit() * 2,
            leaving: leaving.clone(),
            closing: closing.clone(),
        };
        let inbox = Inbox { submitted, confirmed, keeping };
        let task = match database.pool() {
            Pool::Sqlite(pool) => {
                // A thread of its own, since every call blocks; the loop's timers need the runtime around it.
                let backend = super::sqlite::SqliteSession::open(pool.path())?;
                let runtime = tokio::runtime::Handle::current();
                tokio::task::spawn_blocking(move || runtime.block_on(commit::run(core, backend, inbox)))
            }
            Pool::Postgres(pool) => {
                let backend = super::postgres::PostgresSession::new(pool.clone());
                tokio::spawn(commit::run(core, backend, inbox))
            }
        };
        Ok((Self { ops, confirms, keeper: Keeper(keeper), leaving, closing }, task))
    }
}
