//! The single writer of a service's database: gathers intents, commits them together, answers each.

use std::collections::{BTreeSet, HashSet};
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::future::FutureExt;
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::error::Elapsed;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::keeper::{self, Keeping};
use super::session::{Prune, Session, SessionError};
use super::writer::{Committed, Submission, WriterSettings};
use super::{Model, Outbound, StoreError};
use crate::event::RetiredNow;
use crate::inbox::Mark;
use crate::outbox::{Confirmation, RelaySender, Row};
use crate::{crash, sabotage};

/// Rows looked at in one go when old ones are removed.
const PRUNE_LIMIT: i64 = 2_000;
/// Pause between such steps while there is more: a service that handles thousands of events a second makes as many old
/// rows, and they have to go at least as fast.
const PRUNE_PAUSE: Duration = Duration::from_millis(100);
/// Intents in one commit from which on the next one waits for its time: where they come one by one there is nothing to share,
/// and whoever asked would only wait longer. Eight was tried: at 500 orders a second four times the latency.
const UNDER_LOAD: usize = 2;
/// Conflicts in a row after which an intent is given back to its caller.
const MAX_CONFLICTS: u32 = 20;
/// For so long after its commit a message has to be in the outbox, whatever server answers: shorter than rows are kept.
const STANDS_FOR: Duration = Duration::from_secs(60);
/// Pauses while the database is away.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

pub(super) struct Waiting<M: Model> {
    pub(super) submission: Submission<M::Intent>,
    pub(super) reply: oneshot::Sender<Result<Committed<M::Outcome>, StoreError>>,
}

/// What the broker has confirmed, and whom to tell when that is stored.
pub(super) struct Confirming {
    pub(super) confirmations: Vec<Confirmation>,
    pub(super) stored: oneshot::Sender<()>,
}

/// What comes in from the handles.
pub(super) struct Inbox<M: Model> {
    pub(super) submitted: mpsc::Receiver<Box<Waiting<M>>>,
    pub(super) confirmed: mpsc::Receiver<Confirming>,
    pub(super) keeping: mpsc::Receiver<Keeping>,
}

pub(super) struct Core<M> {
    pub(super) service: String,
    pub(super) model: M,
    pub(super) source: String,
    pub(super) retired: RetiredNow,
    pub(super) settings: WriterSettings,
    pub(super) relay: RelaySender,
    /// A transaction that takes longer hangs on a dead connection.
    pub(super) transaction_limit: Duration,
    /// Cancelled: a database that is away is not waited for any longer.
    pub(super) leaving: CancellationToken,
    /// Cancelled: nothing more is taken.
    pub(super) closing: CancellationToken,
}

/// Why a batch was not committed.
enum Refusal {
    /// The database does not take it. Tried one by one, the others may pass.
    Refused(String),
    /// The database is away and nobody may wait for it any more.
    Left(String),
}

/// Runs until every handle is gone or one asked for the end; what was submitted before is committed.
pub(super) async fn run<M: Model, S: Session<M>>(core: Core<M>, session: S, mut inbox: Inbox<M>) {
    let prune_every = core.settings.prune_every.max(PRUNE_PAUSE);
    let mut prune = tokio::time::interval_at(tokio::time::Instant::now() + prune_every, prune_every);
    prune.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut waiting = Vec::with_capacity(core.settings.max_batch);
    let mut closed = false;
    let mut committer =
        Committer { core, session, pruned_to: 0, in_doubt: false, gave_up: None, newest: None, went_back: false };
    let (mut next_commit, mut under_load) = (tokio::time::Instant::now(), false);
    loop {
        let mut confirming = Vec::new();
        // In no order of preference: each has its turn however busy the others are.
        tokio::select! {
            taken = inbox.submitted.recv_many(&mut waiting, committer.core.settings.max_batch) => if taken == 0 { break },
            Some(more) = inbox.confirmed.recv() => confirming.push(more),
            Some(one) = inbox.keeping.recv() => {
                committer.keep(one).await;
                continue;
            }
            _ = prune.tick() => {
                if committer.prune_step().await {
                    prune.reset_after(PRUNE_PAUSE);
                }
                continue;
            }
            () = committer.core.closing.cancelled(), if !closed => {
                inbox.submitted.close();
                closed = true;
                continue;
            }
        }
        if under_load && waiting.len() + inbox.submitted.len() < committer.core.settings.max_batch && !closed {
            tokio::time::sleep_until(next_commit).await;
        }
        next_commit = tokio::time::Instant::now() + committer.core.settings.commit_interval;
        while waiting.len() < committer.core.settings.max_batch
            && let Ok(one) = inbox.submitted.try_recv()
        {
            waiting.push(one);
        }
        if !waiting.is_empty() {
            under_load = waiting.len() >= UNDER_LOAD;
        }
        committer.commit_all(std::mem::take(&mut waiting), gather(confirming, &mut inbox)).await;
        if committer.went_back {
            // What is in memory here, the relay's rows above all, belongs to the database that was.
            return;
        }
    }
    let rest = gather(Vec::new(), &mut inbox);
    if !rest.is_empty() {
        committer.commit_all(Vec::new(), rest).await;
    }
    debug!(service = committer.core.service, "the writer has committed everything and stops");
}

fn gather<M: Model>(mut confirming: Vec<Confirming>, inbox: &mut Inbox<M>) -> Vec<Confirming> {
    while let Ok(more) = inbox.confirmed.try_recv() {
        confirming.push(more);
    }
    confirming
}

struct Committer<M, S> {
    core: Core<M>,
    session: S,
    pruned_to: i64,
    /// The connection broke during a commit, so there may be rows that nobody here knows of.
    in_doubt: bool,
    /// Set once the database was found to be away while nobody may wait for it.
    gave_up: Option<String>,
    /// The last message that was committed here, and when.
    newest: Option<(String, Instant)>,
    /// It is not in the database that answers now.
    went_back: bool,
}

impl<M: Model, S: Session<M>> Committer<M, S> {
    /// Commits together; what cannot be committed together is committed one by one, so that a bad intent fails alone.
    async fn commit_all(&mut self, mut waiting: Vec<Box<Waiting<M>>>, confirming: Vec<Confirming>) {
        let (confirmations, told): (Vec<_>, Vec<_>) =
            confirming.into_iter().map(|one| (one.confirmations, one.stored)).unzip();
        let confirmations = confirmations.concat();
        let started = Instant::now();
        if !waiting.is_empty() {
            metrics::histogram!("millrace_commit_batch_intents", "service" => self.core.service.clone())
                .record(waiting.len() as f64);
        }
        match self.commit_patiently(&mut waiting, &confirmations).await {
            Ok(outcomes) => answer(waiting, outcomes),
            Err(Refusal::Refused(reason)) if waiting.len() > 1 || !confirmations.is_empty() => {
                warn!(
                    service = self.core.service,
                    reason,
                    intents = waiting.len(),
                    "a batch failed, its intents are tried one by one"
                );
                if let Err(Refusal::Refused(reason) | Refusal::Left(reason)) =
                    self.commit_patiently(&mut Vec::new(), &confirmations).await
                {
                    error!(
                        service = self.core.service,
                        reason, "confirmations were not stored, the sweep will publish those rows again"
                    );
                }
                for one in waiting {
                    let mut one = vec![one];
                    match self.commit_patiently(&mut one, &[]).await {
                        Ok(outcomes) => answer(one, outcomes),
                        Err(refusal) => self.refuse(one, &refusal),
                    }
                }
            }
            Err(refusal) => self.refuse(waiting, &refusal),
        }
        drop(told);
        metrics::histogram!("millrace_commit_duration_seconds", "service" => self.core.service.clone())
            .record(started.elapsed().as_secs_f64());
    }

    fn refuse(&self, waiting: Vec<Box<Waiting<M>>>, refusal: &Refusal) {
        let error = match refusal {
            Refusal::Refused(reason) => {
                error!(service = self.core.service, reason, "an intent could not be stored");
                StoreError::Failed(reason.clone())
            }
            Refusal::Left(reason) => StoreError::Unavailable(format!("{reason}; the service is stopping")),
        };
        for one in waiting {
            let _ = one.reply.send(Err(error.clone()));
        }
    }

    /// Tries a batch until the database is there and nobody got in between.
    async fn commit_patiently(
        &mut self,
        waiting: &mut Vec<Box<Waiting<M>>>,
        confirmations: &[Confirmation],
    ) -> Result<Vec<Committed<M::Outcome>>, Refusal> {
        let mut conflicts = 0;
        let mut pause = FIRST_PAUSE;
        loop {
            // Callers that gave up are not kept waiting for: what they asked for must not happen behind their back.
            waiting.retain(|one| !one.reply.is_closed());
            if waiting.is_empty() && confirmations.is_empty() {
                return Ok(Vec::new());
            }
            if let Some(reason) = &self.gave_up {
                return Err(Refusal::Left(reason.clone()));
            }
            match self.commit_once(waiting, confirmations).await {
                Ok(outcomes) => return Ok(outcomes),
                Err(SessionError::Lost(reason)) => {
                    self.session.abandon();
                    if self.core.leaving.is_cancelled() {
                        warn!(
                            service = self.core.service,
                            reason, "the database is away and the service is stopping: what waits is refused"
                        );
                        self.gave_up = Some(reason);
                        continue;
                    }
                    warn!(
                        service = self.core.service,
                        reason,
                        retry_ms = pause.as_millis() as u64,
                        "the database is away, trying again"
                    );
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.core.leaving.cancelled() => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(SessionError::WentBack) => {
                    self.session.abandon();
                    self.went_back = true;
                    error!(
                        service = self.core.service,
                        "the database has gone back in time: what was committed a moment ago is not there. A standby that lagged has taken over, or a copy was put in its place. The service ends, to start from what is there; set its consumers back, see \"A database is restored from an older copy\" in the runbook"
                    );
                    return Err(Refusal::Left("the database has gone back in time".into()));
                }
                Err(SessionError::Conflict(reason)) if conflicts < MAX_CONFLICTS => {
                    self.session.rollback().await;
                    debug!(service = self.core.service, reason, "another instance got in between, deciding again");
                    conflicts += 1;
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(0..=u64::from(conflicts) * 4))).await;
                }
                Err(SessionError::Conflict(reason) | SessionError::Refused(reason)) => {
                    self.session.rollback().await;
                    return Err(Refusal::Refused(reason));
                }
            }
        }
    }

    /// One transaction, bounded in time, in which the model may panic.
    async fn commit_once(
        &mut self,
        waiting: &[Box<Waiting<M>>],
        confirmations: &[Confirmation],
    ) -> Result<Vec<Committed<M::Outcome>>, SessionError> {
        let limit = self.core.transaction_limit;
        let work = AssertUnwindSafe(self.transaction(waiting, confirmations)).catch_unwind();
        match tokio::time::timeout(limit, work).await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => Err(SessionError::Refused(format!("the model panicked: {}", panic_text(&panic)))),
            Err(_) => {
                self.in_doubt = true;
                Err(SessionError::Lost(format!("a transaction did not end within {limit:?}")))
            }
        }
    }

    async fn transaction<'a>(
        &mut self,
        waiting: &'a [Box<Waiting<M>>],
        confirmations: &[Confirmation],
    ) -> Result<Vec<Committed<M::Outcome>>, SessionError> {
        let (core, session) = (&self.core, &mut self.session);
        let now = OffsetDateTime::now_utc();
        let now_ms = unix_ms(now);
        session.begin().await?;
        if session.reconnected()
            && let Some((message_id, at)) = &self.newest
            && at.elapsed() < STANDS_FOR
            && !session.has_message(message_id).await?
        {
            return Err(SessionError::WentBack);
        }
        let mark_of = |one: &'a Waiting<M>| one.submission.mark.as_ref();
        let marks: BTreeSet<&Mark> = waiting.iter().filter_map(|one| mark_of(one)).collect();
        let mut seen = if marks.is_empty() { HashSet::new() } else { session.mark(&marks, now_ms).await? };
        if sabotage::INBOX.is_on() && !seen.is_empty() {
            // Sabotage: what was handled before is handled again, and written down once more.
            let seen = std::mem::take(&mut seen);
            let again: Vec<Mark> = seen.iter().map(|mark| sabotage::handled_again(mark, now)).collect();
            session.mark(&again.iter().collect(), now_ms).await?;
        }
        let fresh = |seen: &HashSet<Mark>, one: &'a Waiting<M>| mark_of(one).is_none_or(|mark| !seen.contains(mark));
        let intents: Vec<&M::Intent> =
            waiting.iter().filter(|one| fresh(&seen, one)).map(|one| &one.submission.intent).collect();

        let mut out = Outbound::new(&core.source, core.retired.get(), now);
        let mut outcomes = Vec::with_capacity(waiting.len());
        if intents.is_empty() {
            outcomes.extend(waiting.iter().map(|_| Committed::Before));
        } else {
            let mut rows = session.load(&core.model, &intents).await?;
            for one in waiting {
                if !fresh(&seen, one) {
                    outcomes.push(Committed::Before);
                    continue;
                }
                if let Some(mark) = mark_of(one) {
                    seen.insert(mark.clone());
                }
                out.because_of(&one.submission.cause);
                outcomes.push(Committed::Now(core.model.decide(&mut rows, &one.submission.intent, now, &mut out)));
            }
            session.save(&core.model, &rows).await?;
        }
        let messages = out.into_rows().map_err(SessionError::Refused)?;
        let ids = match messages.len() as i64 {
            0 => Vec::new(),
            // Sabotage: nothing is kept until the broker has it. What the relay takes for ids only has to ascend.
            count if sabotage::OUTBOX.is_on() => (0..count).map(|n| now.unix_timestamp_nanos() as i64 + n).collect(),
            _ => session.insert_outbox(&messages, now_ms).await?,
        };
        if !confirmations.is_empty() {
            session.confirm(confirmations).await?;
        }
        if !ids.is_empty() {
            crash::BEFORE_COMMIT.reach();
        }
        if let Err(error) = session.commit().await {
            self.in_doubt |= matches!(error, SessionError::Lost(_));
            return Err(error);
        }
        if !ids.is_empty() {
            crash::AFTER_COMMIT.reach();
        }
        if !confirmations.is_empty() {
            crash::AFTER_MARKED.reach();
        }
        if let Some(last) = messages.last().filter(|_| !sabotage::OUTBOX.is_on()) {
            self.newest = Some((last.message_id.clone(), Instant::now()));
        }
        if std::mem::take(&mut self.in_doubt) {
            // Before the rows of this batch, which must not overtake those of a commit that went through unnoticed.
            core.relay.unsure();
        }
        core.relay.committed(ids.into_iter().zip(messages).map(|(id, message)| Row { id, message }).collect());
        Ok(outcomes)
    }

    /// Apart from all others: it is rare, and whoever asked tries again.
    async fn keep(&mut self, Keeping { message, place, stream_was_missing, kept }: Keeping) {
        let now_ms = unix_ms(OffsetDateTime::now_utc());
        let keeping = keeper::keep(&mut self.session, &message, &place, now_ms);
        let ended = tokio::time::timeout(self.core.transaction_limit, keeping).await;
        let result = self.settle(ended).await;
        if stream_was_missing && result.is_ok() {
            self.core.relay.stream_was_missing();
        }
        let _ = kept.send(result);
    }

    /// What a transaction apart from the batches came to. One that failed is undone, and not tried again here.
    async fn settle<T>(&mut self, ended: Result<Result<T, SessionError>, Elapsed>) -> Result<T, StoreError> {
        match ended {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(SessionError::Lost(reason))) => {
                self.session.abandon();
                Err(StoreError::Unavailable(reason))
            }
            Ok(Err(SessionError::Conflict(reason))) => {
                self.session.rollback().await;
                Err(StoreError::Unavailable(reason))
            }
            Ok(Err(SessionError::Refused(reason))) => {
                self.session.rollback().await;
                Err(StoreError::Failed(reason))
            }
            // The next commit finds out by itself.
            Ok(Err(SessionError::WentBack)) | Err(_) => {
                self.session.abandon();
                Err(StoreError::Unavailable("it took too long".into()))
            }
        }
    }

    /// Removes some old rows. Returns whether there is more to do.
    async fn prune_step(&mut self) -> bool {
        let now_ms = unix_ms(OffsetDateTime::now_utc());
        let before = |age: Duration| now_ms - age.as_millis() as i64;
        let what = Prune {
            // While it is not known whether the broker still has what it acknowledged, all of it is kept.
            published_before_ms: match self.core.relay.may_forget() {
                true => before(self.core.settings.keep_published),
                false => i64::MIN,
            },
            handled_before_ms: before(self.core.settings.keep_handled),
            after_id: self.pruned_to,
            limit: PRUNE_LIMIT,
        };
        let session = &mut self.session;
        let step = async {
            session.begin().await?;
            let pruned = session.prune(what).await?;
            session.commit().await?;
            Ok::<_, SessionError>(pruned)
        };
        let ended = tokio::time::timeout(self.core.transaction_limit, step).await;
        let error = match self.settle(ended).await {
            Ok(pruned) => {
                self.pruned_to = pruned.outbox_at.unwrap_or(0);
                return pruned.outbox_at.is_some() || pruned.more_in_inbox;
            }
            Err(error) => error,
        };
        self.pruned_to = 0;
        warn!(
            service = self.core.service,
            reason = %error,
            "old outbox and inbox rows could not be removed, trying again later"
        );
        false
    }
}

fn answer<M: Model>(waiting: Vec<Box<Waiting<M>>>, outcomes: Vec<Committed<M::Outcome>>) {
    for (one, outcome) in waiting.into_iter().zip(outcomes) {
        // The caller may have given up meanwhile; what it asked for is committed all the same.
        let _ = one.reply.send(Ok(outcome));
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
