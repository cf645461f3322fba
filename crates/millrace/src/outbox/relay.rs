//! Publishes outbox rows: from memory right after the commit, from the table where memory was not enough.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::amnesia::Compared;
use super::doubt::{Doubt, Extent};
use super::publish::{Refused, Stored as AtBroker, publish};
use super::queue::{PERSISTENT, Queue, RETRY_MOST};
use super::sender::{RelaySender, Signals};
use super::streams::Streams;
use super::{Backlog, Confirmation, Place, Row, amnesia, unix_ms};
use crate::connection::Connection;
use crate::dead_letter::{self, SUBJECT_PREFIX, is_letter};
use crate::store::{Database, Model, StoreError, Writer};
use crate::telemetry::metrics::PUBLISHED;
use crate::{crash, sabotage};

/// Limits of the relay.
#[derive(Debug, Clone)]
pub struct RelaySettings {
    /// Messages published and not yet acknowledged: 64 already fill the broker's pipeline.
    pub max_in_flight: usize,
    /// Rows kept in memory; beyond that they are read back from the table when their turn comes.
    pub max_pending: usize,
    /// Rows older than this and not in memory are somebody's leftovers and are published by whoever finds them.
    pub sweep_after: Duration,
    /// How often to look for leftovers.
    pub sweep_every: Duration,
    /// Confirmations are stored together with other commits; being late only means publishing a row again after a
    /// crash, which the broker recognises.
    pub confirm_every: Duration,
    /// How often to ask whether a stream was made anew: somebody else may have deleted and made it. Well below the time that
    /// published rows are kept.
    pub look_every: Duration,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            max_in_flight: 256,
            max_pending: 10_000,
            sweep_after: Duration::from_secs(10),
            sweep_every: Duration::from_secs(5),
            confirm_every: Duration::from_millis(200),
            look_every: Duration::from_secs(60),
        }
    }
}

/// Batches of committed rows that may wait for the relay. What does not fit is read back from the table.
const CHANNEL: usize = 1_024;
/// Rows read from the table at once.
const PAGE: u32 = 500;
/// Confirmations stored at once.
const CONFIRM_BATCH: usize = 256;

/// The publishing side of the outbox.
pub struct Relay {
    rows: mpsc::Receiver<Vec<Row>>,
    signals: Arc<Signals>,
    connection: Connection,
    database: Database,
    settings: RelaySettings,
    queue: Queue,
    confirmations: Vec<Confirmation>,
    /// Rows that the broker has while the table does not say so yet.
    unconfirmed: HashSet<i64>,
    scan: Option<Scan>,
    page: Option<BoxFuture<'static, Page>>,
    read_failed: bool,
    doubt: Doubt,
    streams: Streams,
    /// The highest sequence an event of a subject was given.
    highest: HashMap<String, u64>,
    /// Among the confirmations to be stored are rows to be published again; then the table has to be read.
    revive: bool,
    /// Runs of servers that there was a connection to.
    runs: HashSet<String>,
    /// The present connection's number and the server's run it leads to.
    server: (u64, String),
    /// Events confirmed by the broker, by subject.
    counters: HashMap<String, metrics::Counter>,
    /// Nothing is published until this is true.
    gate: Option<watch::Receiver<bool>>,
}

/// A walk through the table in commit order.
#[derive(Debug, Clone, Copy)]
struct Scan {
    after_id: i64,
    created_before_ms: i64,
    /// Reads everything there is, because memory has not seen it all; rows from memory are left to the scan meanwhile.
    catching_up: bool,
    highest_left: i64,
}

/// A batch of confirmations that was stored, or failed to be.
struct Stored {
    ids: Vec<i64>,
    revive: bool,
}

/// A row, how it left, what became of it.
type Published = (Row, Departure, Result<AtBroker, Refused>);

/// What was known when a row was sent.
#[derive(Debug, Clone, Copy)]
struct Departure {
    /// The connection over which it left.
    over: u64,
    /// The highest sequence that an event of its subject had been given: its own has to be higher.
    above: u64,
}

type Page = Result<Vec<Row>, StoreError>;

impl Relay {
    pub fn new(connection: Connection, database: Database, settings: RelaySettings) -> (Self, RelaySender) {
        let (sender, rows) = mpsc::channel(CHANNEL);
        let signals = Arc::<Signals>::default();
        let mut streams = Streams::default();
        // Letters are rows too, but others publish them first.
        streams.took_one(dead_letter::STREAM);
        let relay = Self {
            rows,
            signals: signals.clone(),
            connection,
            database,
            settings,
            queue: Queue::default(),
            confirmations: Vec::new(),
            unconfirmed: HashSet::new(),
            // Sabotage: there is nothing in the table that could be caught up with.
            scan: (!sabotage::OUTBOX.is_on()).then(Scan::catching_up),
            page: None,
            read_failed: false,
            doubt: Doubt::default(),
            streams,
            highest: HashMap::new(),
            runs: HashSet::new(),
            revive: false,
            server: (0, String::new()),
            counters: HashMap::new(),
            gate: None,
        };
        (relay, RelaySender { rows: sender, signals })
    }

    /// Publishes nothing until `gate` is true.
    pub(crate) fn publish_when(self, gate: watch::Receiver<bool>) -> Self {
        Self { gate: Some(gate), ..self }
    }

    fn may_publish(&self) -> bool {
        self.connection.is_connected() && self.gate.as_ref().is_none_or(|gate| *gate.borrow())
    }

    /// Publishes until `stop` is cancelled, then finishes what was committed as long as the broker takes it. What is left
    /// stays in the table and is published at the next start.
    pub async fn run<M: Model>(mut self, writer: Writer<M>, stop: CancellationToken) {
        let mut in_flight: FuturesUnordered<BoxFuture<'static, Published>> = FuturesUnordered::new();
        let mut storing: FuturesUnordered<BoxFuture<'static, Stored>> = FuturesUnordered::new();
        let mut measuring: Option<BoxFuture<'static, Result<Backlog, StoreError>>> = None;
        let mut reconnects = self.connection.reconnects();
        // A start is a connection too: the broker may have lost its power while this process was down.
        reconnects.mark_changed();
        self.signals.unsure_of_broker.store(true, Ordering::Release);
        let mut state = self.connection.state();
        let mut comparing: Option<BoxFuture<'static, Compared>> = None;
        let mut sweep = interval(self.settings.sweep_every);
        let mut confirm = interval(self.settings.confirm_every);
        let mut look = interval(self.settings.look_every);
        let mut looking: Option<BoxFuture<'static, Vec<(String, OffsetDateTime)>>> = None;
        let signals = self.signals.clone();
        loop {
            if self.signals.missed.swap(false, Ordering::AcqRel) {
                self.catch_up();
            }
            if self.signals.stream_missing.swap(false, Ordering::AcqRel) {
                self.doubt.raise(Extent::PresentRunToo);
            }
            if self.doubt.waits() {
                self.signals.unsure_of_broker.store(true, Ordering::Release);
            }
            if self.streams.take_unseen() {
                look.reset_immediately();
            }
            self.start_publishing(&mut in_flight);
            if stop.is_cancelled() && !self.is_catching_up() {
                self.page = None;
            } else if self.page.is_none() {
                self.page = self.next_page();
            }
            if stop.is_cancelled() && self.rows.is_empty() {
                let nothing_to_do = in_flight.is_empty() && self.queue.nothing_ready() && self.page.is_none();
                if nothing_to_do || !self.may_publish() {
                    break;
                }
            }
            // At rest nothing has to be looked at; from the first thing to be done on, it is done within one interval.
            let ticking =
                self.doubt.waits() || !self.confirmations.is_empty() || self.queue.len() > 0 || stop.is_cancelled();
            if !ticking {
                confirm.reset();
            }
            tokio::select! {
                Some(first) = in_flight.next(), if !in_flight.is_empty() => {
                    self.published(first);
                    // Acknowledgements come many at a time, and each turn of this loop looks at everything else too.
                    while let Some(Some(more)) = in_flight.next().now_or_never() {
                        self.published(more);
                    }
                }
                Some(rows) = self.rows.recv() => self.take(rows),
                () = signals.woken.notified() => {}
                read = when_there(&mut self.page) => {
                    self.page = None;
                    self.page_read(read);
                }
                Some(stored) = storing.next(), if !storing.is_empty() => {
                    stored.ids.iter().for_each(|id| {
                        self.unconfirmed.remove(id);
                    });
                    if stored.revive {
                        self.catch_up();
                    }
                }
                measured = when_there(&mut measuring) => {
                    measuring = None;
                    self.show(measured);
                }
                () = self.queue.next_retry(), if !stop.is_cancelled() => self.queue.unpark_due(),
                _ = sweep.tick(), if !stop.is_cancelled() => {
                    self.start_sweep();
                    // Beside the loop: counting the rows of a long outage takes a while, a hanging database for ever.
                    let database = self.database.clone();
                    measuring.get_or_insert_with(|| Box::pin(async move { database.backlog().await }));
                }
                _ = look.tick(), if !stop.is_cancelled() => {
                    looking.get_or_insert_with(|| self.streams.look(&self.connection));
                }
                found = when_there(&mut looking) => {
                    looking = None;
                    if let Some(extent) = self.streams.looked(found) {
                        self.doubt.raise(extent);
                    }
                }
                _ = confirm.tick(), if ticking => {
                    self.store_confirmations(&writer, &storing);
                    if comparing.is_none() && self.doubt.waits() {
                        comparing = self.compare(&writer, &storing);
                    }
                }
                Ok(()) = reconnects.changed() => {
                    self.queue.unpark_all();
                    // What was acknowledged before this run of the server began is compared anyway. A run that we come
                    // back to, within a cluster, counts as the present one and is not.
                    if self.runs.insert(self.connection.server_run()) {
                        self.highest.clear();
                    }
                    self.doubt.raise(Extent::EarlierRuns);
                }
                Ok(()) = state.changed() => if !self.connection.is_connected() {
                    self.signals.unsure_of_broker.store(true, Ordering::Release);
                },
                compared = when_there(&mut comparing) => {
                    comparing = None;
                    let Compared { lost, incomplete } = compared;
                    if let Some(reason) = &incomplete {
                        debug!(reason, "the streams could not all be compared with the outbox yet, trying again");
                    }
                    if !lost.is_empty() {
                        self.publish_again(&lost);
                    }
                    // Marking the rows may fail; they are looked for until none is missing.
                    self.doubt.ended(lost.is_empty() && incomplete.is_none());
                    let sure = self.doubt.is_none() && self.connection.is_connected();
                    self.signals.unsure_of_broker.store(!sure, Ordering::Release);
                }
                () = stop.cancelled(), if !stop.is_cancelled() => debug!("the relay finishes what was committed"),
            }
            if self.confirmations.len() >= CONFIRM_BATCH {
                self.store_confirmations(&writer, &storing);
            }
        }
        if !self.confirmations.is_empty() && writer.confirm_last(std::mem::take(&mut self.confirmations)).await.is_err()
        {
            debug!("the writer stopped first: the rows are published once more at the next start, and recognised");
        }
        let left = self.queue.len();
        if left > 0 {
            info!(service = self.database.service(), left, "unpublished events stay in the outbox for the next start");
        }
    }

    /// Reads the table from its beginning. What an earlier walk is reading at this moment no longer counts.
    fn catch_up(&mut self) {
        if sabotage::OUTBOX.is_on() {
            return;
        }
        self.queue.reopen();
        self.page = None;
        self.scan = Some(Scan::catching_up());
    }

    /// Whether rows of this process may stand in the table and nowhere else, and the table can be read.
    fn is_catching_up(&self) -> bool {
        !self.read_failed && self.scan.is_some_and(|scan| scan.catching_up)
    }

    /// Looks for rows that the broker acknowledged and has lost. What it acknowledged last must stand in the table first.
    fn compare<M: Model>(
        &mut self,
        writer: &Writer<M>,
        storing: &FuturesUnordered<BoxFuture<'static, Stored>>,
    ) -> Option<BoxFuture<'static, Compared>> {
        self.store_confirmations(writer, storing);
        if !self.confirmations.is_empty() {
            return None;
        }
        // The writer takes confirmations in order: when this empty batch is through, so are those before it.
        let stored = writer.confirm(Vec::new()).ok()?;
        let extent = self.doubt.look_into()?;
        let (connection, database) = (self.connection.clone(), self.database.clone());
        Some(Box::pin(async move {
            let _ = stored.await;
            amnesia::lost_rows(&connection, &database, extent).await
        }))
    }

    fn publish_again(&mut self, lost: &[i64]) {
        let service = self.database.service().to_owned();
        warn!(
            service,
            events = lost.len(),
            "the broker has lost events it had acknowledged, they are published again from the outbox"
        );
        metrics::counter!("millrace_broker_lost_total", "service" => service).increment(lost.len() as u64);
        self.confirmations.extend(lost.iter().map(|row_id| Confirmation { row_id: *row_id, place: None }));
        self.revive = true;
    }

    fn start_publishing(&mut self, in_flight: &mut FuturesUnordered<BoxFuture<'static, Published>>) {
        if !self.may_publish() {
            return;
        }
        while in_flight.len() < self.settings.max_in_flight.max(1) {
            let Some(row) = self.queue.next() else { return };
            let jetstream = self.connection.jetstream().clone();
            let above = self.highest.get(kind(&row.message.subject)).copied().unwrap_or(0);
            let departure = Departure { over: self.connection.number(), above };
            in_flight.push(Box::pin(async move {
                let result = publish(&jetstream, &row.message).await;
                (row, departure, result)
            }));
        }
    }

    fn published(&mut self, (row, departure, result): Published) {
        match result.and_then(|at| Ok((at, self.acknowledged_by(departure.over)?))) {
            Ok((at, broker)) => {
                crash::AFTER_PUBLISH.reach();
                self.doubt.a_stream_took(kind(&row.message.subject));
                self.place_given(&row.message.subject, &at, departure);
                self.count(&row.message.subject, &at.stream);
                self.queue.done(&row.message.lane);
                self.unconfirmed.insert(row.id);
                let place = Some(Place::given_now(at, broker));
                self.confirmations.push(Confirmation { row_id: row.id, place });
            }
            Err(error) => {
                if error.is_no_stream() {
                    self.doubt.no_stream_takes(kind(&row.message.subject));
                }
                let (subject, message_id) = (row.message.subject.clone(), row.message.message_id.clone());
                let (attempt, retry) = self.queue.park(row);
                // The first failures of an outage are news to nobody: the connection has said so already.
                if attempt > PERSISTENT && attempt.is_power_of_two() {
                    warn!(service = self.database.service(), subject, message_id,
                        attempt, retry_ms = retry.as_millis() as u64, error = %error, "an event could not be published, it stays in the outbox and is tried again");
                }
            }
        }
    }

    /// A stream gives no place twice. One that does has lost what was there, although the server is the one it was: a
    /// cluster whose majority lost its power, or somebody has deleted and made it between two events.
    fn place_given(&mut self, subject: &str, at: &AtBroker, departure: Departure) {
        let subject = kind(subject);
        // A repetition is told the place it had.
        let went_back = !at.before && at.stream_seq <= departure.above;
        if went_back {
            self.doubt.raise(Extent::PresentRunToo);
        }
        match self.highest.get_mut(subject) {
            Some(highest) if went_back => *highest = at.stream_seq,
            Some(highest) => *highest = at.stream_seq.max(*highest),
            None => {
                self.highest.insert(subject.to_owned(), at.stream_seq);
            }
        }
    }

    /// Looked up once for each subject: a service has few.
    fn count(&mut self, subject: &str, stream: &str) {
        let subject = kind(subject);
        if let Some(counter) = self.counters.get(subject) {
            return counter.increment(1);
        }
        let counter = metrics::counter!(PUBLISHED, "service" => self.database.service().to_owned(),
            "subject" => subject.to_owned());
        counter.increment(1);
        self.streams.took_one(stream);
        self.counters.insert(subject.to_owned(), counter);
    }

    /// Which run of a server has just acknowledged what left over a connection. An acknowledgement that cannot be
    /// told from one of an earlier run counts for nothing: the row is sent again, and the broker knows it if it has it.
    fn acknowledged_by(&mut self, over: u64) -> Result<String, Refused> {
        if self.connection.number() != over {
            return Err(Refused::Reconnected);
        }
        if self.server.0 != over {
            self.server = (over, self.connection.server_run());
        }
        Ok(self.server.1.clone())
    }

    /// Rows fresh from a commit.
    fn take(&mut self, rows: Vec<Row>) {
        // Asked again here: what is said to be missing was committed before these rows and must not be overtaken.
        if self.signals.missed.swap(false, Ordering::AcqRel) {
            self.catch_up();
        }
        if self.is_full(rows.len()) && !self.scan.is_some_and(|scan| scan.catching_up) {
            warn!(
                service = self.database.service(),
                pending = self.queue.len(),
                "more events wait than memory may hold, the rest is read from the outbox table"
            );
            self.catch_up();
        }
        match &mut self.scan {
            Some(scan) if scan.catching_up => {
                let highest = rows.iter().map(|row| row.id).max().unwrap_or(0);
                scan.highest_left = scan.highest_left.max(highest);
            }
            _ => rows.into_iter().for_each(|row| self.queue.add(row)),
        }
    }

    /// Whether memory has no room for `more` rows, even without the lanes that the broker keeps refusing.
    fn is_full(&mut self, more: usize) -> bool {
        if self.queue.len() + more > self.settings.max_pending {
            self.queue.set_failing_aside();
        }
        self.queue.len() + more > self.settings.max_pending
    }

    fn next_page(&mut self) -> Option<BoxFuture<'static, Page>> {
        let scan = self.scan?;
        if self.is_full(self.settings.max_pending / 2) {
            return None;
        }
        let database = self.database.clone();
        let pause = if self.read_failed { RETRY_MOST / 10 } else { Duration::ZERO };
        Some(Box::pin(async move {
            tokio::time::sleep(pause).await;
            database.unpublished(scan.after_id, scan.created_before_ms, PAGE).await
        }))
    }

    fn page_read(&mut self, read: Page) {
        let failed_before = std::mem::replace(&mut self.read_failed, read.is_err());
        let Some(scan) = &mut self.scan else { return };
        match read {
            Ok(rows) if rows.is_empty() => {
                if !scan.catching_up || scan.highest_left <= scan.after_id {
                    self.scan = None;
                }
            }
            Ok(rows) => {
                scan.after_id = rows.last().map_or(scan.after_id, |row| row.id);
                for row in rows {
                    if !self.unconfirmed.contains(&row.id) {
                        self.queue.add(row);
                    }
                }
            }
            Err(error) => {
                if !failed_before {
                    warn!(service = self.database.service(), error = %error, "the outbox could not be read, trying again");
                }
                if !scan.catching_up {
                    self.scan = None;
                }
            }
        }
    }

    fn start_sweep(&mut self) {
        if self.scan.is_some() {
            return;
        }
        if self.queue.has_aside() {
            self.catch_up();
            return;
        }
        let created_before_ms = unix_ms() - self.settings.sweep_after.as_millis() as i64;
        self.scan = Some(Scan { after_id: 0, created_before_ms, catching_up: false, highest_left: 0 });
    }

    fn show(&self, measured: Result<Backlog, StoreError>) {
        let Ok(backlog) = measured else { return };
        let service = self.database.service().to_owned();
        metrics::gauge!("millrace_outbox_depth_rows", "service" => service.clone()).set(backlog.rows as f64);
        let age_ms = backlog.oldest_created_ms.map_or(0, |created| (unix_ms() - created).max(0));
        metrics::gauge!("millrace_outbox_oldest_age_seconds", "service" => service).set(age_ms as f64 / 1_000.0);
    }

    fn store_confirmations<M: Model>(
        &mut self,
        writer: &Writer<M>,
        storing: &FuturesUnordered<BoxFuture<'static, Stored>>,
    ) {
        if self.confirmations.is_empty() {
            return;
        }
        let confirmations = std::mem::take(&mut self.confirmations);
        let ids = confirmations.iter().map(|one| one.row_id).collect();
        let revive = std::mem::take(&mut self.revive);
        match writer.confirm(confirmations) {
            Ok(stored) => storing.push(Box::pin(async move {
                // Stored or failed: if the table still says unpublished then the next sweep publishes it again.
                let _ = stored.await;
                Stored { ids, revive }
            })),
            Err(back) => {
                self.confirmations = back;
                self.revive = revive;
            }
        }
    }
}

/// Subjects that are told apart: each dead letter has one of its own.
fn kind(subject: &str) -> &str {
    if is_letter(subject) { SUBJECT_PREFIX } else { subject }
}

impl Scan {
    fn catching_up() -> Self {
        Self { after_id: 0, created_before_ms: i64::MAX, catching_up: true, highest_left: 0 }
    }
}

/// The result of a future that may not have been started.
async fn when_there<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

fn interval(every: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(every.max(Duration::from_millis(1)));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}
