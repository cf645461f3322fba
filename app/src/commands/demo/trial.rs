//! One telling of a scenario.

use std::cell::{Ref, RefCell};
use std::time::{Duration, Instant};

use contracts::{OrderId, Timestamp};
use millrace::config::HumanDuration;
use order::api::view::TimelineEntry;
use time::OffsetDateTime;
use tokio::sync::mpsc::UnboundedSender;

use super::scenario::{Deviation, Scenario};

/// What a scenario has placed, seen and checked so far. Lives outside of the scenario, so that it can be told also when
/// the time is over.
pub struct Trial {
    pub scenario: &'static Scenario,
    began: Instant,
    began_ms: i64,
    /// Takes lines for the audience.
    voice: UnboundedSender<String>,
    record: RefCell<Record>,
}

#[derive(Default)]
struct Record {
    orders: Vec<OrderRecord>,
    awaited: Option<Deviation>,
}

/// An order of a scenario.
#[derive(Debug, Clone)]
pub struct OrderRecord {
    pub id: OrderId,
    /// How it stood when last looked at: `processing`, `confirmed`, `cancelled (REASON)`.
    pub outcome: String,
    /// Sorted by time.
    pub timeline: Vec<Moment>,
}

/// Something that happened to an order.
#[derive(Debug, Clone)]
pub struct Moment {
    seq: i64,
    /// Milliseconds since the scenario began.
    pub at_ms: i64,
    pub event: String,
    pub service: String,
}

/// What came of a scenario.
pub struct Told {
    pub scenario: &'static Scenario,
    pub took: Duration,
    pub orders: Vec<OrderRecord>,
    pub deviation: Option<Deviation>,
}

/// How soon a condition that does not hold yet is looked at again: often enough to show things as they happen.
const LOOK_AGAIN: Duration = Duration::from_millis(30);

impl Trial {
    pub fn new(scenario: &'static Scenario, voice: UnboundedSender<String>) -> Self {
        let began_ms = Timestamp(OffsetDateTime::now_utc()).unix_ms();
        Self { scenario, began: Instant::now(), began_ms, voice, record: RefCell::default() }
    }

    /// Tells the audience something.
    pub fn say(&self, text: impl AsRef<str>) {
        // An audience that has left does not matter.
        let _ = self.voice.send(text.as_ref().to_owned());
    }

    /// Tells that something was looked at and is as it should be.
    pub fn checked(&self, text: impl AsRef<str>) {
        self.say(format!("     ok  {}", text.as_ref()));
    }

    /// Looks until `look` finds what it wants; it says what it saw instead. The scenario's deadline bounds this.
    pub async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
        self.awaiting(what, "no answer");
        loop {
            match look().await {
                Ok(found) => {
                    self.record.borrow_mut().awaited = None;
                    return found;
                }
                Err(seen) => self.awaiting(what, &seen),
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits for an answer, so that its absence can be told.
    pub async fn asked<T>(&self, what: &str, answer: impl Future<Output = T>) -> T {
        self.awaiting(what, "no answer");
        let answer = answer.await;
        self.record.borrow_mut().awaited = None;
        answer
    }

    fn awaiting(&self, what: &str, seen: &str) {
        self.record.borrow_mut().awaited = Some(Deviation::new(what, seen));
    }

    /// What the scenario was waiting for when its time was over.
    pub fn out_of_time(&self, patience: HumanDuration) -> Deviation {
        let awaited = self.record.borrow().awaited.clone();
        let awaited = awaited.unwrap_or_else(|| Deviation::new("the end of the scenario", "that it still goes on"));
        Deviation { expected: format!("{} within {patience}", awaited.expected), ..awaited }
    }

    /// From now on this order is part of the story.
    pub fn follows(&self, id: OrderId) {
        let outcome = "unknown".to_owned();
        self.record.borrow_mut().orders.push(OrderRecord { id, outcome, timeline: Vec::new() });
    }

    pub fn orders(&self) -> Ref<'_, [OrderRecord]> {
        Ref::map(self.record.borrow(), |record| record.orders.as_slice())
    }

    /// Puts down what was seen of an order, and shows what is new.
    pub fn saw(&self, id: OrderId, entries: &[TimelineEntry]) {
        let mut record = self.record.borrow_mut();
        let several = record.orders.len() > 1;
        let Some((number, order)) = (1..).zip(&mut record.orders).find(|(_, order)| order.id == id) else { return };
        for entry in entries {
            if order.timeline.iter().any(|known| known.seq == entry.seq) {
                continue;
            }
            let at_ms = (entry.at.unix_ms() - self.began_ms).max(0);
            let which = if several { format!("order {number}  ") } else { String::new() };
            self.say(format!("     {at_ms:>6} ms  {which}{:<24} {}", entry.event, entry.service));
            let (event, service) = (entry.event.clone(), entry.service.clone());
            order.timeline.push(Moment { seq: entry.seq, at_ms, event, service });
        }
        order.timeline.sort_by_key(|moment| (moment.at_ms, moment.seq));
    }

    pub fn stands(&self, id: OrderId, outcome: String) {
        if let Some(order) = self.record.borrow_mut().orders.iter_mut().find(|order| order.id == id) {
            order.outcome = outcome;
        }
    }

    pub fn end(self, deviation: Option<Deviation>) -> Told {
        let orders = self.record.into_inner().orders;
        Told { scenario: self.scenario, took: self.began.elapsed(), orders, deviation }
    }
}

impl Told {
    /// Whether everything in it was as expected.
    pub fn holds(&self) -> bool {
        self.deviation.is_none()
    }
}
