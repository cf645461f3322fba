//! Publishes outbox rows: from memory right after the commit, from the table where memory was not enough.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::context::PublishError;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Confirmation, Row};
use crate::connection::Connection;
use crate::store::{Database, Model, StoreError, Writer};

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
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            max_in_flight: 256,
            max_pending: 10_000,
            sweep_after: Duration::from_secs(10),
            sweep_every: Duration::from_secs(5),
            confirm_every: Duration::from_millis(200),
        }
    }
}

/// Batches of committed rows that may wait for the relay. What does not fit is read back from the table.
const CHANNEL: usize = 1_024;
/// Rows read from the table at once.
const PAGE: u32 = 500;
/// Confirmations stored at once.
const CONFIRM_BATCH: usize = 256;
/// Pause before a row the broker refused is tried again, doubling up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(5);

/// Hands committed rows to the relay; never blocks the writer.
#[derive(Debug, Clone)]
pub struct RelaySender {
    rows: mpsc::Sender<Vec<Row>>,
    missed: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl RelaySender {
    pub(crate) fn committed(&self, rows: Vec<Row>) {
        if !rows.is_empty() && self.rows.try_send(rows).is_err() {
            self.missed.store(true, std::sync::atomic::Ordering::Release);
        }
    }
}

/// The publishing side of the outbox.
pub struct Relay {
    rows: mpsc::Receiver<Vec<Row>>,
    missed: std::sync::Arc<std::sync::atomic::AtomicBool>,
    connection: Connection,
    database: Database,
    settings: RelaySettings,
    queue: Queue,
    confirmations: Vec<Confirmation>,
    unconfirmed: HashSet<i64>,
    scan: Option<Scan>,
    read_failed: bool,
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

type Published = (Row, Result<PublishAck, PublishError>);
type Page = Result<Vec<Row>, StoreError>;

impl Relay {
    pub fn new(connection: Connection, database: Database, settings: RelaySettings) -> (Self, RelaySender) {
        let (sender, rows) = mpsc::channel(CHANNEL);
        let missed = std::sync::Arc::<std::sync::atomic::AtomicBool>::default();
        let relay = Self {
            rows,
            missed: missed.clone(),
            connection,
            database,
            settings,
            queue: Queue::default(),
            confirmations: Vec::new(),
            unconfirmed: HashSet::new(),
            scan: Some(Scan::catching_up()),
            read_failed: false,
        };
        (relay, RelaySender { rows: sender, missed })
    }

    /// Publishes until `stop` is cancelled, then finishes what is in memory as long as the broker is there. What is left
    /// stays in the table and is published at the next start.
    pub async fn run<M: Model>(mut self, writer: Writer<M>, stop: CancellationToken) {
        let mut in_flight: FuturesUnordered<BoxFuture<'static, Published>> = FuturesUnordered::new();
        let mut page: Option<BoxFuture<'static, Page>> = None;
        let mut reconnects = self.connection.reconnects();
        let mut sweep = interval(self.settings.sweep_every);
        let mut confirm = interval(self.settings.confirm_every);
        loop {
            if self.missed.swap(false, std::sync::atomic::Ordering::AcqRel) {
                self.scan = Some(Scan::catching_up());
            }
            self.start_publishing(&mut in_flight);
            if page.is_none() && !stop.is_cancelled() {
                page = self.next_page();
            }
            if stop.is_cancelled() && self.rows.is_empty() {
                let nothing_to_do = in_flight.is_empty() && self.queue.is_empty();
                if nothing_to_do || !self.connection.is_connected() {
                    break;
                }
            }
            tokio::select! {
                Some((row, result)) = in_flight.next(), if !in_flight.is_empty() => self.published(row, result),
                Some(rows) = self.rows.recv() => self.take(rows),
                read = async { match page.as_mut() { Some(page) => page.await, None => std::future::pending().await } } => {
                    page = None;
                    self.page_read(read);
                }
                () = self.queue.next_retry() => self.queue.unpark_due(),
                _ = sweep.tick() => self.start_sweep().await,
                _ = confirm.tick() => self.store_confirmations(&writer).await,
                Ok(()) = reconnects.changed() => self.queue.unpark_all(),
                () = stop.cancelled(), if !stop.is_cancelled() => debug!("the relay finishes what is in memory"),
            }
            if self.confirmations.len() >= CONFIRM_BATCH {
                self.store_confirmations(&writer).await;
            }
        }
        self.store_confirmations(&writer).await;
        let left = self.queue.len();
        if left > 0 {
            info!(service = self.database.service(), left, "NATS is away: unpublished events stay in the outbox for the next start");
        }
    }

    fn start_publishing(&mut self, in_flight: &mut FuturesUnordered<BoxFuture<'static, Published>>) {
        if !self.connection.is_connected() {
            return;
        }
        while in_flight.len() < self.settings.max_in_flight {
            let Some(row) = self.queue.next() else { return };
            let jetstream = self.connection.jetstream().clone();
            in_flight.push(Box::pin(async move {
                let result = publish(&jetstream, &row).await;
                (row, result)
            }));
        }
    }

    fn published(&mut self, row: Row, result: Result<PublishAck, PublishError>) {
        match result {
            Ok(ack) => {
                metrics::counter!("millrace_published_total", "service" => self.database.service().to_owned(),
                    "subject" => row.message.subject.clone())
                .increment(1);
                self.queue.done(&row.message.lane);
                self.unconfirmed.insert(row.id);
                self.confirmations.push(Confirmation { row_id: row.id, stream: ack.stream, stream_seq: ack.sequence });
            }
            Err(error) => {
                let (attempt, retry) = self.queue.park(row.clone());
                // The first failures of an outage are news to nobody: the connection has said so already.
                if attempt >= 3 {
                    warn!(service = self.database.service(), subject = row.message.subject, message_id = row.message.message_id,
                        attempt, retry_ms = retry.as_millis() as u64, error = %error, "an event could not be published, it stays in the outbox and is tried again");
                }
            }
        }
    }

    /// Rows fresh from a commit.
    fn take(&mut self, rows: Vec<Row>) {
        let too_many = self.queue.len() + rows.len() > self.settings.max_pending;
        if too_many && !self.scan.is_some_and(|scan| scan.catching_up) {
            warn!(service = self.database.service(), pending = self.queue.len(), "more events wait than memory may hold, the rest is read from the outbox table");
            self.scan = Some(Scan::catching_up());
        }
        match &mut self.scan {
            Some(scan) if scan.catching_up => {
                let highest = rows.iter().map(|row| row.id).max().unwrap_or(0);
                scan.highest_left = scan.highest_left.max(highest);
            }
            _ => rows.into_iter().for_each(|row| self.queue.add(row)),
        }
    }

    fn next_page(&self) -> Option<BoxFuture<'static, Page>> {
        let scan = self.scan?;
        if self.queue.len() > self.settings.max_pending / 2 {
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
        self.read_failed = read.is_err();
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
                warn!(service = self.database.service(), error = %error, "the outbox could not be read, the next sweep tries again");
                if !scan.catching_up {
                    self.scan = None;
                }
            }
        }
    }

    async fn start_sweep(&mut self) {
        let now_ms = unix_ms();
        if self.scan.is_none() {
            let created_before_ms = now_ms - self.settings.sweep_after.as_millis() as i64;
            self.scan = Some(Scan { after_id: 0, created_before_ms, catching_up: false, highest_left: 0 });
        }
        let Ok(backlog) = self.database.backlog().await else { return };
        let service = self.database.service().to_owned();
        metrics::gauge!("millrace_outbox_depth_rows", "service" => service.clone()).set(backlog.rows as f64);
        let age_ms = backlog.oldest_created_ms.map_or(0, |created| (now_ms - created).max(0));
        metrics::gauge!("millrace_outbox_oldest_age_seconds", "service" => service).set(age_ms as f64 / 1_000.0);
    }

    async fn store_confirmations<M: Model>(&mut self, writer: &Writer<M>) {
        if self.confirmations.is_empty() {
            return;
        }
        let confirmations = std::mem::take(&mut self.confirmations);
        if writer.confirm(confirmations).await.is_err() {
            debug!("the writer stopped first: the rows are published once more at the next start, and recognised");
        }
        self.unconfirmed.clear();
    }
}

impl Scan {
    fn catching_up() -> Self {
        Self { after_id: 0, created_before_ms: i64::MAX, catching_up: true, highest_left: 0 }
    }
}

async fn publish(jetstream: &async_nats::jetstream::Context, row: &Row) -> Result<PublishAck, PublishError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &row.message.headers {
        headers.insert(name.as_str(), value.as_str());
    }
    let message = PublishMessage::build().payload(row.message.body.clone()).headers(headers);
    jetstream.send_publish(row.message.subject.clone(), message).await?.await
}

/// Rows in memory, by lane: of each lane at most one is being published, so that a lane's rows keep their order even
/// when a publish has to be repeated.
#[derive(Default)]
struct Queue {
    lanes: HashMap<String, Lane>,
    ready: VecDeque<String>,
    parked: BTreeMap<(Instant, String), ()>,
    known: HashSet<i64>,
}

#[derive(Default)]
struct Lane {
    waiting: BTreeMap<i64, Row>,
    publishing: Option<i64>,
    failures: u32,
}

impl Queue {
    fn len(&self) -> usize {
        self.known.len()
    }

    fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn add(&mut self, row: Row) {
        if !self.known.insert(row.id) {
            return;
        }
        let name = row.message.lane.clone();
        let lane = self.lanes.entry(name.clone()).or_default();
        let idle = lane.waiting.is_empty() && lane.publishing.is_none();
        lane.waiting.insert(row.id, row);
        if idle {
            self.ready.push_back(name);
        }
    }

    fn next(&mut self) -> Option<Row> {
        while let Some(name) = self.ready.pop_front() {
            let Some(lane) = self.lanes.get_mut(&name) else { continue };
            if let Some((id, row)) = lane.waiting.pop_first() {
                lane.publishing = Some(id);
                return Some(row);
            }
        }
        None
    }

    fn done(&mut self, name: &str) {
        let Some(lane) = self.lanes.get_mut(name) else { return };
        if let Some(id) = lane.publishing.take() {
            self.known.remove(&id);
        }
        lane.failures = 0;
        if lane.waiting.is_empty() {
            self.lanes.remove(name);
        } else {
            self.ready.push_back(name.to_owned());
        }
    }

    /// Puts a row that failed back in front of its lane, and the lane aside for a while.
    fn park(&mut self, row: Row) -> (u32, Duration) {
        let name = row.message.lane.clone();
        let lane = self.lanes.entry(name.clone()).or_default();
        lane.publishing = None;
        lane.failures += 1;
        let most = RETRY_FIRST.saturating_mul(1 << lane.failures.min(10)).min(RETRY_MOST);
        let delay = most.mul_f64(0.5 + fastrand::f64() / 2.0);
        let until = Instant::now() + delay;
        lane.waiting.insert(row.id, row);
        self.parked.insert((until, name), ());
        (lane.failures, delay)
    }

    async fn next_retry(&self) {
        match self.parked.first_key_value() {
            Some(((until, _), ())) => tokio::time::sleep_until(*until).await,
            None => std::future::pending().await,
        }
    }

    fn unpark_due(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.parked.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let ((_, name), ()) = entry.remove_entry();
            self.ready.push_back(name);
        }
    }

    fn unpark_all(&mut self) {
        for ((_, name), ()) in std::mem::take(&mut self.parked) {
            self.ready.push_back(name);
        }
    }
}

fn interval(every: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(every);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}

fn unix_ms() -> i64 {
    (time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000) as i64
}
