//! The single writer of a service's database: gathers intents, commits them together, answers each.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::future::FutureExt;
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, warn};

use super::{Database, Model, Outbound, Pool, PostgresModel, SqliteModel, StoreError};
use crate::event::{Cause, Retired};
use crate::inbox::Mark;
use crate::outbox::{Confirmation, NewRow, RelaySender, Row};

/// Limits of the writer.
#[derive(Debug, Clone)]
pub struct WriterSettings {
    /// Most intents in one transaction: keeps the time a batch holds row locks, and what a failed batch repeats, small.
    pub max_batch: usize,
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

pub(super) struct Waiting<M: Model> {
    submission: Submission<M::Intent>,
    reply: oneshot::Sender<Result<Committed<M::Outcome>, StoreError>>,
}

enum Op<M: Model> {
    Submit(Box<Waiting<M>>),
    Confirmed(Vec<Confirmation>),
}

/// A handle to the writer. When the last one is dropped the writer commits what is waiting and stops.
pub struct Writer<M: Model> {
    ops: mpsc::Sender<Op<M>>,
}

impl<M: Model> Clone for Writer<M> {
    fn clone(&self) -> Self {
        Self { ops: self.ops.clone() }
    }
}

impl<M: Model> Writer<M> {
    /// Commits an intent, waiting as long as it takes: a handler whose database is away waits rather than fails, so that
    /// an outage costs no delivery attempts.
    pub async fn submit(&self, submission: Submission<M::Intent>) -> Result<Committed<M::Outcome>, StoreError> {
        let (reply, answer) = oneshot::channel();
        let waiting = Box::new(Waiting { submission, reply });
        self.ops.send(Op::Submit(waiting)).await.map_err(|_| StoreError::Stopped)?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }

    /// As [`submit`](Self::submit), but gives up after `patience`: an intent that was given up before its batch began
    /// is not committed.
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

    /// Remembers what the broker has confirmed. Joins the next transaction.
    pub(crate) async fn confirm(&self, confirmations: Vec<Confirmation>) -> Result<(), StoreError> {
        self.ops.send(Op::Confirmed(confirmations)).await.map_err(|_| StoreError::Stopped)
    }
}

impl<M: SqliteModel + PostgresModel> Writer<M> {
    /// Starts the writer on `database`. `source` is the CloudEvents source of everything it publishes. The returned
    /// handle ends when every `Writer` is dropped and the rest is committed.
    pub fn start(
        database: &Database,
        model: M,
        source: &str,
        retired: Retired,
        settings: WriterSettings,
        relay: RelaySender,
    ) -> Result<(Self, tokio::task::JoinHandle<()>), StoreError> {
        let (ops, inbox) = mpsc::channel(settings.queue);
        let core = Core { service: database.service().to_owned(), model, source: source.to_owned(), retired, settings, relay };
        let task = match database.pool() {
            Pool::Sqlite(pool) => {
                // A thread of its own, since every call blocks; the loop's timers need the runtime around it.
                let backend = super::sqlite::SqliteSession::open(pool.path())?;
                let runtime = tokio::runtime::Handle::current();
                tokio::task::spawn_blocking(move || runtime.block_on(run(core, backend, inbox)))
            }
            Pool::Postgres(pool) => {
                let backend = super::postgres::PostgresSession::new(pool.clone());
                tokio::spawn(run(core, backend, inbox))
            }
        };
        Ok((Self { ops }, task))
    }
}

struct Core<M> {
    service: String,
    model: M,
    source: String,
    retired: Retired,
    settings: WriterSettings,
    relay: RelaySender,
}

/// One transaction at a time against one backend. Every method but `begin` runs between `begin` and `commit`.
pub(super) trait Session<M: Model>: Send {
    /// Begins, says which marks exist already, and loads the rows of the intents that are not `seen`.
    fn begin(&mut self) -> impl Future<Output = Result<(), SessionError>> + Send;
    fn seen(&mut self, marks: &[&Mark]) -> impl Future<Output = Result<HashSet<Mark>, SessionError>> + Send;
    fn load(&mut self, model: &M, intents: &[&M::Intent]) -> impl Future<Output = Result<M::Rows, SessionError>> + Send;
    fn save(&mut self, model: &M, rows: &M::Rows) -> impl Future<Output = Result<(), SessionError>> + Send;
    fn insert_marks(&mut self, marks: &[&Mark], now_ms: i64) -> impl Future<Output = Result<(), SessionError>> + Send;
    /// Returns the ids, in the order of the rows.
    fn insert_outbox(
        &mut self,
        rows: &[NewRow],
        now_ms: i64,
    ) -> impl Future<Output = Result<Vec<i64>, SessionError>> + Send;
    fn confirm(
        &mut self,
        confirmations: &[Confirmation],
        now_ms: i64,
    ) -> impl Future<Output = Result<(), SessionError>> + Send;
    /// Removes at most `limit` rows from each table, the oldest first.
    fn prune(
        &mut self,
        published_before_ms: i64,
        handled_before_ms: i64,
        limit: i64,
    ) -> impl Future<Output = Result<(), SessionError>> + Send;
    fn commit(&mut self) -> impl Future<Output = Result<(), SessionError>> + Send;
    /// Never fails: a session that cannot roll back drops its connection.
    fn rollback(&mut self) -> impl Future<Output = ()> + Send;
}

/// What went wrong in a transaction, by what the writer does about it.
#[derive(Debug)]
pub(super) enum SessionError {
    /// The database is away: wait for it and try the same batch again.
    Lost(String),
    /// Another instance got in between: decide again on fresh rows.
    Conflict(String),
    /// Something in this batch cannot be stored.
    Refused(String),
}

/// Rows removed in one go, so that pruning never holds up a commit for long.
const PRUNE_LIMIT: i64 = 2_000;
/// Conflicts in a row after which an intent is given back to its caller.
const MAX_CONFLICTS: u32 = 20;

async fn run<M: Model, S: Session<M>>(core: Core<M>, mut session: S, mut ops: mpsc::Receiver<Op<M>>) {
    let mut prune = tokio::time::interval(core.settings.prune_every);
    prune.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut received = Vec::with_capacity(core.settings.max_batch);
    loop {
        tokio::select! {
            biased;
            taken = ops.recv_many(&mut received, core.settings.max_batch) => {
                if taken == 0 {
                    debug!(service = core.service, "the writer has committed everything and stops");
                    return;
                }
            }
            _ = prune.tick() => {
                prune_once(&core, &mut session).await;
                continue;
            }
        }
        let mut waiting = Vec::with_capacity(received.len());
        let mut confirmations = Vec::new();
        for op in received.drain(..) {
            match op {
                Op::Submit(one) => waiting.push(*one),
                Op::Confirmed(more) => confirmations.extend(more),
            }
        }
        // Callers that gave up are not kept waiting for: what they asked for must not happen behind their back.
        waiting.retain(|one| !one.reply.is_closed());
        let started = Instant::now();
        metrics::histogram!("millrace_commit_batch_intents", "service" => core.service.clone()).record(waiting.len() as f64);
        commit_all(&core, &mut session, waiting, &confirmations).await;
        metrics::histogram!("millrace_commit_duration_seconds", "service" => core.service.clone())
            .record(started.elapsed().as_secs_f64());
    }
}

/// Commits together; what cannot be committed together is committed one by one, so that a bad intent fails alone.
async fn commit_all<M: Model, S: Session<M>>(
    core: &Core<M>,
    session: &mut S,
    waiting: Vec<Waiting<M>>,
    confirmations: &[Confirmation],
) {
    match commit_patiently(core, session, &waiting, confirmations).await {
        Ok(outcomes) => answer(waiting, outcomes),
        Err(reason) if waiting.len() > 1 => {
            warn!(service = core.service, reason, intents = waiting.len(), "a batch failed, its intents are tried one by one");
            if let Err(reason) = commit_patiently::<M, S>(core, session, &[], confirmations).await {
                error!(service = core.service, reason, "confirmations were not stored, the sweep will publish those rows again");
            }
            for one in waiting {
                let one = vec![one];
                match commit_patiently(core, session, &one, &[]).await {
                    Ok(outcomes) => answer(one, outcomes),
                    Err(reason) => refuse(core, one, &reason),
                }
            }
        }
        Err(reason) => refuse(core, waiting, &reason),
    }
}

fn answer<M: Model>(waiting: Vec<Waiting<M>>, outcomes: Vec<Committed<M::Outcome>>) {
    for (one, outcome) in waiting.into_iter().zip(outcomes) {
        // The caller may have given up meanwhile; what it asked for is committed all the same.
        let _ = one.reply.send(Ok(outcome));
    }
}

fn refuse<M: Model>(core: &Core<M>, waiting: Vec<Waiting<M>>, reason: &str) {
    error!(service = core.service, reason, "an intent could not be stored");
    for one in waiting {
        let _ = one.reply.send(Err(StoreError::Failed(reason.to_owned())));
    }
}

/// Tries a batch until the database is there and nobody got in between. `Err` says what the database refused.
async fn commit_patiently<M: Model, S: Session<M>>(
    core: &Core<M>,
    session: &mut S,
    waiting: &[Waiting<M>],
    confirmations: &[Confirmation],
) -> Result<Vec<Committed<M::Outcome>>, String> {
    let mut conflicts = 0;
    let mut pause = Duration::from_millis(50);
    loop {
        let problem = match commit_once(core, session, waiting, confirmations).await {
            Ok(outcomes) => return Ok(outcomes),
            Err(problem) => problem,
        };
        session.rollback().await;
        match problem {
            SessionError::Lost(reason) => {
                // Whoever has given up by now is answered; the rest waits for the database.
                if !waiting.is_empty() && waiting.iter().all(|one| one.reply.is_closed()) {
                    return Err(reason);
                }
                warn!(service = core.service, reason, retry_ms = pause.as_millis() as u64, "the database is away, trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
            SessionError::Conflict(reason) if conflicts < MAX_CONFLICTS => {
                debug!(service = core.service, reason, "another instance got in between, deciding again");
                conflicts += 1;
                tokio::time::sleep(Duration::from_millis(fastrand::u64(0..=u64::from(conflicts) * 4))).await;
            }
            SessionError::Conflict(reason) | SessionError::Refused(reason) => return Err(reason),
        }
    }
}

async fn commit_once<M: Model, S: Session<M>>(
    core: &Core<M>,
    session: &mut S,
    waiting: &[Waiting<M>],
    confirmations: &[Confirmation],
) -> Result<Vec<Committed<M::Outcome>>, SessionError> {
    let now = OffsetDateTime::now_utc();
    let now_ms = unix_ms(now);
    session.begin().await?;
    let marks: Vec<&Mark> = waiting.iter().filter_map(|one| one.submission.mark.as_ref()).collect();
    let mut seen = if marks.is_empty() { HashSet::new() } else { session.seen(&marks).await? };
    let fresh = |seen: &HashSet<Mark>, one: &Waiting<M>| one.submission.mark.as_ref().is_none_or(|m| !seen.contains(m));
    let intents: Vec<&M::Intent> = waiting.iter().filter(|one| fresh(&seen, one)).map(|one| &one.submission.intent).collect();

    let mut out = Outbound::new(&core.source, &core.retired, now);
    let mut outcomes = Vec::with_capacity(waiting.len());
    let mut new_marks = Vec::new();
    if intents.is_empty() {
        outcomes.extend(waiting.iter().map(|_| Committed::Before));
    } else {
        let mut rows = session.load(&core.model, &intents).await?;
        for one in waiting {
            if !fresh(&seen, one) {
                outcomes.push(Committed::Before);
                continue;
            }
            if let Some(mark) = &one.submission.mark {
                seen.insert(mark.clone());
                new_marks.push(mark);
            }
            out.because_of(&one.submission.cause);
            let decided = std::panic::catch_unwind(AssertUnwindSafe(|| {
                core.model.decide(&mut rows, &one.submission.intent, now, &mut out)
            }));
            let outcome = decided.map_err(|panic| SessionError::Refused(format!("deciding panicked: {}", panic_text(&panic))))?;
            outcomes.push(Committed::Now(outcome));
        }
        session.save(&core.model, &rows).await?;
    }
    if !new_marks.is_empty() {
        session.insert_marks(&new_marks, now_ms).await?;
    }
    let messages = out.into_rows();
    let ids = if messages.is_empty() { Vec::new() } else { session.insert_outbox(&messages, now_ms).await? };
    if !confirmations.is_empty() {
        session.confirm(confirmations, now_ms).await?;
    }
    session.commit().await?;
    core.relay.committed(ids.into_iter().zip(messages).map(|(id, message)| Row { id, message }).collect());
    Ok(outcomes)
}

async fn prune_once<M: Model, S: Session<M>>(core: &Core<M>, session: &mut S) {
    let now_ms = unix_ms(OffsetDateTime::now_utc());
    let before = |age: Duration| now_ms - age.as_millis() as i64;
    let pruned = async {
        session.begin().await?;
        session.prune(before(core.settings.keep_published), before(core.settings.keep_handled), PRUNE_LIMIT).await?;
        session.commit().await
    };
    // A panic cannot happen here; `catch_unwind` is only for the models.
    if let Err(reason) = pruned.boxed().await {
        session.rollback().await;
        warn!(service = core.service, ?reason, "old outbox and inbox rows could not be removed, trying again later");
    }
}

fn unix_ms(at: OffsetDateTime) -> i64 {
    (at.unix_timestamp_nanos() / 1_000_000) as i64
}

fn panic_text(panic: &Box<dyn std::any::Any + Send>) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".into())
}
