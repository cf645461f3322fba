//! Follows orders from their 202 to the end, by a plain subscription to what is published about them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use contracts::orders::{OrderCancelled, OrderConfirmed};
use contracts::payments::PaymentCaptured;
use futures::StreamExt;
use millrace::event::Event;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::latency::Latency;
use crate::failure::Failure;

/// Orders that may be accepted and not captured: enough to keep every commit full, and a backlog that never grows.
pub const MOST_OPEN: usize = 1_000;
/// Events waiting to be looked at; the subscriber must never be the one who loses any.
const CAPACITY: usize = 1 << 20;

pub struct Tracker {
    /// One permit for each order that may be placed now.
    room: Semaphore,
    accepted: AtomicU64,
    ended: AtomicU64,
    cancelled: AtomicU64,
    changed: Notify,
    closed: CancellationToken,
    marks: Mutex<Marks>,
}

#[derive(Default)]
struct Marks {
    /// Accepted and not confirmed yet: when it was meant to be sent, and when it was answered.
    waiting: HashMap<Uuid, (Instant, Instant)>,
    /// Confirmed before the answer came in.
    early: HashMap<Uuid, Instant>,
    times: Times,
}

/// How long orders took until they were confirmed.
#[derive(Debug, Clone)]
pub struct Times {
    /// Since the 202.
    pub from_answer: Latency,
    /// Since the moment they were meant to be placed.
    pub from_intent: Latency,
}

impl Default for Times {
    fn default() -> Self {
        Self { from_answer: Latency::new(), from_intent: Latency::new() }
    }
}

type Seen = fn(&Tracker, Uuid, Instant);

impl Tracker {
    /// Subscribes; what is published from now on is seen.
    pub async fn start(nats_url: &str) -> Result<Arc<Self>, Failure> {
        let failed = |e: &dyn std::fmt::Display| Failure::new(format!("the bench's own NATS client: {e}"));
        let options = async_nats::ConnectOptions::new().subscription_capacity(CAPACITY).name("bench-tracker");
        let servers: Vec<&str> = nats_url.split(',').collect();
        let client = options.connect(servers).await.map_err(|e| failed(&e))?;
        let tracker = Arc::new(Self {
            room: Semaphore::new(MOST_OPEN),
            accepted: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            changed: Notify::new(),
            closed: CancellationToken::new(),
            marks: Mutex::default(),
        });
        let subjects: [(&str, Seen); 3] = [
            (OrderConfirmed::SUBJECT, |tracker, order, at| tracker.confirmed(order, at)),
            (PaymentCaptured::SUBJECT, |tracker, _, _| tracker.ended()),
            (OrderCancelled::SUBJECT, |tracker, _, _| {
                tracker.cancelled.fetch_add(1, Ordering::Relaxed);
                tracker.ended();
            }),
        ];
        for (subject, seen) in subjects {
            let mut events = client.subscribe(subject).await.map_err(|e| failed(&e))?;
            let tracker = tracker.clone();
            tokio::spawn(async move {
                while let Some(Some(event)) = tracker.closed.run_until_cancelled(events.next()).await {
                    let at = Instant::now();
                    let order = event.headers.as_ref().and_then(|headers| headers.get("ce-subject"));
                    if let Some(order) = order.and_then(|order| Uuid::parse_str(order.as_str()).ok()) {
                        seen(&tracker, order, at);
                    }
                }
            });
        }
        client.flush().await.map_err(|e| failed(&e))?;
        Ok(tracker)
    }

    /// Looks no longer.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// To be called while no order is open: from now on so many may be.
    pub fn open(&self) {
        self.room.forget_permits(Semaphore::MAX_PERMITS);
        self.room.add_permits(MOST_OPEN);
    }

    /// Waits until one more order may be open.
    pub async fn admit(&self) {
        if let Ok(permit) = self.room.acquire().await {
            permit.forget();
        }
    }

    /// The order that was admitted was not placed.
    pub fn withdraw(&self) {
        self.room.add_permits(1);
    }

    pub fn accepted(&self, order: Uuid, intended: Instant, answered: Instant) {
        let mut marks = self.marks();
        match marks.early.remove(&order) {
            Some(confirmed) => marks.times.note(intended, answered, confirmed),
            None => drop(marks.waiting.insert(order, (intended, answered))),
        }
        drop(marks);
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// All orders of this world so far.
    pub fn placed(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Those that have ended.
    pub fn done(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    pub fn unfortunate(&self) -> u64 {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// How long orders took since this was asked last.
    pub fn take_times(&self) -> Times {
        std::mem::take(&mut self.marks().times)
    }

    /// Waits until every order that was accepted has ended, or nothing has for `patience`.
    pub async fn all_ended(&self, patience: Duration) -> Result<(), Failure> {
        loop {
            let changed = self.changed.notified();
            let (ended, accepted) = (self.ended.load(Ordering::Relaxed), self.placed());
            if ended >= accepted {
                return Ok(());
            }
            if tokio::time::timeout(patience, changed).await.is_err() {
                let told = format!("{} of {accepted} orders have not ended", accepted - ended);
                return Err(Failure::new(format!("{told}, and none has for {patience:?}")));
            }
        }
    }

    fn confirmed(&self, order: Uuid, at: Instant) {
        let mut marks = self.marks();
        match marks.waiting.remove(&order) {
            Some((intended, answered)) => marks.times.note(intended, answered, at),
            None => drop(marks.early.insert(order, at)),
        }
    }

    fn ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.room.add_permits(1);
        self.changed.notify_waiters();
    }

    fn marks(&self) -> std::sync::MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Times {
    fn note(&mut self, intended: Instant, answered: Instant, confirmed: Instant) {
        self.from_answer.record(confirmed.saturating_duration_since(answered));
        self.from_intent.record(confirmed.saturating_duration_since(intended));
    }
}
