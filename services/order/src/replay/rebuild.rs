use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use contracts::api::{ReplayFindings, ReplayPhase, ReplayRequest};
use contracts::orders::OrderCreated;
use contracts::topology::durables;
use contracts::{OrderId, Timestamp};
use millrace::connection::State;
use millrace::event::{Cause, Event};
use millrace::history::{History, Stood};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::Instant;

use super::fold::{Fold, Told};
use super::{Error, Rebuilder};
use crate::model::{Entry, Intent, Mending, Observed, Outcome};

/// Events that are remembered at the same time, some 50 MB. A longer history is read several times, each time for another
/// part of the orders.
const MOST_EVENTS: u64 = 4_000_000;
/// Entries compared in one go; also the most that one intent writes, so that live ones are not held up.
const CHUNK: usize = 256;
/// How long live events that were stored before the beginning are waited for. Without it they would count as missing.
const CATCH_UP: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A stream may have lost what an order began with and still hold what it began with anew, published again from the
/// outbox after a power cut: for so long after its beginning nothing is taken for whole.
const MARGIN: time::Duration = time::Duration::minutes(20);
const EXAMPLES: usize = 5;

/// One rebuild.
pub(super) struct Rebuild<'a> {
    pub(super) parts: &'a Rebuilder,
    pub(super) request: ReplayRequest,
    pub(super) fold: Fold,
    pub(super) found: ReplayFindings,
    /// Changes when NATS has been away.
    pub(super) nats: watch::Receiver<State>,
    read: u64,
}

/// What the history says of a part of the orders.
pub(super) struct Seen {
    /// Hashes of event ids. Two alike would only spare an entry that has no event.
    events: HashSet<u64>,
    orders: HashSet<OrderId>,
    /// Orders whose every event the streams hold.
    pub(super) whole: HashSet<OrderId>,
    pub(super) complete_since: OffsetDateTime,
    pub(super) stood: Vec<Stood>,
    slice: Slice,
}

/// A part of the orders.
#[derive(Debug, Clone, Copy)]
struct Slice {
    only: Option<OrderId>,
    part: u64,
    parts: u64,
}

impl<'a> Rebuild<'a> {
    pub(super) fn new(parts: &'a Rebuilder, request: ReplayRequest) -> Self {
        let nats = parts.connection.state();
        Self { parts, request, fold: Fold::new(), found: ReplayFindings::default(), nats, read: 0 }
    }

    pub(super) async fn run(mut self) -> Result<ReplayFindings, Error> {
        let replayed = self.replayed().await?;
        let (mut part, mut parts) = (0, 1);
        while part < parts {
            let history = History::open(&self.parts.connection, &self.fold.events(|_| 0)).await?;
            if part == 0 {
                parts = history.total() / MOST_EVENTS + 1;
            }
            self.parts.desk.update(|status| status.total = history.total() * parts);
            self.catch_up(history.stood()).await;
            let slice = Slice { only: self.request.order_id, part, parts };
            let seen = self.compare(history, slice, &replayed).await?;
            self.tell(ReplayPhase::Checking);
            self.strays(&seen).await?;
            self.found.orders += seen.orders.len() as u64;
            part += 1;
        }
        Ok(self.found)
    }

    /// What operators have replayed, by event id: it says what became of the event, whatever its original says.
    async fn replayed(&mut self) -> Result<HashMap<String, (OrderId, Observed)>, Error> {
        let mut history = History::open(&self.parts.connection, &self.fold.replays()).await?;
        let mut replayed = HashMap::new();
        while let Some(message) = history.next().await? {
            if let Told::Entry(order_id, entry) = self.fold.understand(&message).await {
                replayed.insert(entry.event_id.clone(), (order_id, entry));
            }
        }
        Ok(replayed)
    }

    /// Waits, within limits, until live events of the history have been handled.
    async fn catch_up(&self, stood: &[Stood]) {
        let limit = Instant::now() + CATCH_UP;
        for durable in [durables::ORDER_PAYMENTS, durables::ORDER_INVENTORY, durables::ORDER_NOTIFICATIONS] {
            for stood in stood {
                while Instant::now() < limit && !self.has_handled(durable, stood).await {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        }
    }

    /// Whether a consumer is through with what a stream held. True of a consumer that is not there.
    async fn has_handled(&self, durable: &str, stood: &Stood) -> bool {
        let context = self.parts.connection.jetstream();
        let consumer = context.get_consumer_from_stream::<async_nats::jetstream::consumer::pull::Config, _, _>(
            durable,
            stood.stream.as_str(),
        );
        let Ok(consumer) = consumer.await else { return true };
        let info = consumer.cached_info();
        let nothing_left = info.num_pending == 0 && info.num_ack_pending == 0;
        nothing_left || info.ack_floor.stream_sequence >= stood.last_sequence
    }

    /// Reads the history, and puts on the timelines what is not there as it was.
    async fn compare(
        &mut self,
        mut history: History,
        slice: Slice,
        replayed: &HashMap<String, (OrderId, Observed)>,
    ) -> Result<Seen, Error> {
        let complete_since = complete_since(history.stood());
        self.found.complete_since = Some(Timestamp(complete_since));
        let mut seen = Seen {
            events: HashSet::new(),
            orders: HashSet::new(),
            whole: HashSet::new(),
            complete_since,
            stood: history.stood().to_vec(),
            slice,
        };
        let mut chunk = Vec::new();
        while let Some(message) = history.next().await? {
            self.read += 1;
            match self.fold.understand(&message).await {
                Told::Entry(_, entry) if replayed.contains_key(&entry.event_id) => {}
                Told::Entry(order_id, entry) if slice.has(order_id) => {
                    if entry.event_type == OrderCreated::TYPE && message.stored_at >= complete_since {
                        seen.whole.insert(order_id);
                    }
                    if seen.insert(order_id, &entry) {
                        chunk.push((order_id, entry));
                    }
                }
                Told::Entry(..) | Told::Nothing => {}
                Told::Unreadable if slice.part == 0 => self.found.unreadable += 1,
                Told::Unreadable => {}
            }
            if chunk.len() >= CHUNK {
                self.mend_chunk(std::mem::take(&mut chunk)).await?;
            }
        }
        for (order_id, entry) in replayed.values().filter(|(order_id, _)| slice.has(*order_id)) {
            if seen.insert(*order_id, entry) {
                chunk.push((*order_id, entry.clone()));
            }
        }
        for rest in chunk.chunks(CHUNK) {
            self.mend_chunk(rest.to_vec()).await?;
        }
        Ok(seen)
    }

    /// Compares what the history says with what is there, and has the differences written.
    async fn mend_chunk(&mut self, chunk: Vec<(OrderId, Observed)>) -> Result<(), Error> {
        let orders: BTreeSet<OrderId> = chunk.iter().map(|(order_id, _)| *order_id).collect();
        let orders: Vec<OrderId> = orders.into_iter().collect();
        let there = self.parts.reads.timelines(&orders).await?;
        let there: HashMap<(OrderId, &str), &Entry> =
            there.iter().map(|entry| ((entry.order_id, entry.what.event_id.as_str()), entry)).collect();
        self.found.events += chunk.len() as u64;
        let mut mending = Mending::default();
        for (order_id, entry) in chunk {
            match there.get(&(order_id, entry.event_id.as_str())) {
                None => mending.missing.push((order_id, entry)),
                Some(shown) if !is_same(&shown.what, &entry) => mending.altered.push((order_id, entry)),
                Some(_) => {}
            }
        }
        self.mend(mending).await?;
        self.tell(ReplayPhase::Reading);
        Ok(())
    }

    /// Has differences written, or only counts them.
    pub(super) async fn mend(&mut self, mending: Mending) -> Result<(), Error> {
        if mending == Mending::default() {
            return Ok(());
        }
        let of_events = mending.missing.iter().chain(&mending.altered).map(|(order_id, _)| *order_id);
        let orders: BTreeSet<OrderId> = of_events.chain(mending.stray.iter().map(|(order_id, _)| *order_id)).collect();
        let orders: Vec<OrderId> = orders.into_iter().collect();
        let known: HashSet<OrderId> = self.parts.reads.known(&orders).await?.into_iter().collect();
        for order_id in orders.iter().filter(|order_id| known.contains(order_id)) {
            if self.found.examples.len() < EXAMPLES && !self.found.examples.contains(order_id) {
                self.found.examples.push(*order_id);
            }
        }
        if self.request.dry_run {
            let unknown = mending.missing.iter().filter(|(order_id, _)| !known.contains(order_id)).count() as u64;
            self.found.missing += mending.missing.len() as u64 - unknown;
            self.found.unknown_orders += unknown;
            self.found.altered += mending.altered.len() as u64;
            self.found.stray += mending.stray.len() as u64;
            return Ok(());
        }
        let outcome = self.parts.writer.submit_because(Cause::spontaneous(), Intent::Mend(mending)).await?;
        if let Outcome::Mended(mended) = outcome {
            self.found.missing += mended.added;
            self.found.altered += mended.corrected;
            self.found.stray += mended.removed;
            self.found.unknown_orders += mended.unknown;
        }
        orders.into_iter().for_each(|order_id| self.parts.changes.announce(order_id));
        Ok(())
    }

    fn tell(&self, phase: ReplayPhase) {
        self.parts.desk.update(|status| {
            status.phase = phase;
            status.read = self.read;
            status.found = self.found.clone();
        });
    }
}

impl Seen {
    /// Returns whether it is new.
    fn insert(&mut self, order_id: OrderId, entry: &Observed) -> bool {
        self.orders.insert(order_id);
        self.events.insert(hash(&entry.event_id))
    }

    /// Whether the history explains an entry, or says nothing about its order in this part.
    pub(super) fn explains(&self, entry: &Entry) -> bool {
        !self.slice.has(entry.order_id) || self.events.contains(&hash(&entry.what.event_id))
    }
}

impl Slice {
    fn has(&self, order_id: OrderId) -> bool {
        self.only.is_none_or(|only| only == order_id) && hash(&order_id) % self.parts == self.part
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn complete_since(stood: &[Stood]) -> OffsetDateTime {
    let since = |stood: &Stood| stood.complete_since + if stood.trimmed { MARGIN } else { time::Duration::ZERO };
    stood.iter().map(since).max().unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Whether an entry shows what its event says, as precisely as the database keeps it.
fn is_same(shown: &Observed, told: &Observed) -> bool {
    shown.event_type == told.event_type
        && shown.service == told.service
        && shown.at.unix_ms() == told.at.unix_ms()
        && shown.detail == told.detail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_is_in_one_part_of_a_long_history() {
        let orders: Vec<OrderId> = (0..200).map(|_| OrderId::generate()).collect();
        let slices: Vec<Slice> = (0..3).map(|part| Slice { only: None, part, parts: 3 }).collect();
        for order in &orders {
            assert_eq!(slices.iter().filter(|slice| slice.has(*order)).count(), 1);
        }
        assert!(slices.iter().all(|slice| orders.iter().any(|order| slice.has(*order))));
        let only = Slice { only: Some(orders[0]), part: 0, parts: 1 };
        assert!(only.has(orders[0]) && !only.has(orders[1]));
    }

    #[test]
    fn the_streams_hold_everything_since_the_latest_of_their_beginnings() {
        let stood = |complete_since, trimmed| Stood { stream: "S".into(), last_sequence: 9, complete_since, trimmed };
        let noon = OffsetDateTime::UNIX_EPOCH;
        let one = noon + time::Duration::hours(1);
        assert_eq!(complete_since(&[stood(one, false), stood(noon, false)]), one);
        assert_eq!(complete_since(&[stood(one, true), stood(noon, false)]), one + MARGIN);
    }
}
