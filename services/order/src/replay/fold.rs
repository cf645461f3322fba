use std::sync::{Arc, Mutex, PoisonError};

use contracts::orders::{OrderCancelled, OrderConfirmed, OrderCreated};
use contracts::topology::{TopologySettings, topology};
use contracts::{OrderId, Timestamp};
use millrace::consumer::{Failure, Router};
use millrace::dead_letters::replays;
use millrace::event::{Event, EventId, Received};
use millrace::history::{Recorded, Section};

use crate::handlers::facts;
use crate::model::{Intent, Observed};
use crate::timeline;

/// Holds this service's own events.
const ORDERS: &str = "ORDERS";

/// What a message says.
#[derive(Debug)]
pub(super) enum Told {
    Entry(OrderId, Observed),
    /// It is on no timeline.
    Nothing,
    Unreadable,
}

/// Turns messages into entries, by the very functions that live events go through.
pub(super) struct Fold {
    sources: Vec<(String, Router)>,
    told: Slot,
}

/// Where a handler leaves what it understood.
type Slot = Arc<Mutex<Option<(OrderId, Observed)>>>;

impl Fold {
    pub(super) fn new() -> Self {
        let told = Slot::default();
        let mut sources = vec![(ORDERS.to_owned(), own_events(&told))];
        let slot = told.clone();
        let routers = facts(move |submission| {
            if let Intent::Observe { order_id, observed, .. } = submission.intent {
                leave(&slot, order_id, observed);
            }
            std::future::ready(Ok(()))
        });
        let consumers = topology(&TopologySettings::default()).consumers;
        for router in routers {
            let declared = consumers.iter().find(|consumer| consumer.durable == router.durable());
            sources.extend(declared.map(|declared| (declared.stream.clone(), router)));
        }
        Self { sources, told }
    }

    /// Everything that is on timelines, behind these sequences.
    pub(super) fn events(&self, after: impl Fn(&str) -> u64) -> Vec<Section> {
        let section = |(stream, router): &(String, Router)| Section {
            stream: stream.clone(),
            subjects: router.subjects().map(str::to_owned).collect(),
            after: after(stream),
        };
        self.sources.iter().map(section).collect()
    }

    /// What operators have replayed to this service, as it came or corrected.
    pub(super) fn replays(&self) -> Vec<Section> {
        let section = |(stream, router): &(String, Router)| Section {
            stream: stream.clone(),
            subjects: vec![replays::subject(router.durable(), ">")],
            after: 0,
        };
        self.sources.iter().filter(|(stream, _)| stream != ORDERS).map(section).collect()
    }

    pub(super) async fn understand(&self, recorded: &Recorded) -> Told {
        let Some((_, router)) = self.sources.iter().find(|(stream, _)| *stream == *recorded.stream) else {
            return Told::Nothing;
        };
        let Ok(call) = router.recall(recorded) else { return Told::Unreadable };
        if call.handling.await.is_err() {
            return Told::Unreadable;
        }
        match self.told.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some((order_id, entry)) => Told::Entry(order_id, entry),
            None => Told::Nothing,
        }
    }
}

/// Live, these are put on the timeline where they are decided, and nobody consumes them here. What somebody else
/// publishes under their subjects is on no timeline.
fn own_events(told: &Slot) -> Router {
    macro_rules! to {
        ($entry:expr) => {{
            let told = told.clone();
            move |event: Received<_>| {
                if !event.meta.foreign {
                    // As precise as it was decided.
                    let at = Timestamp::from_unix_ms(Timestamp(event.meta.time).unix_ms());
                    leave(&told, event.data.order_id, $entry(&event, at));
                }
                std::future::ready(Ok::<(), Failure>(()))
            }
        }};
    }
    Router::new("timeline")
        .on::<OrderCreated, _, _>(to!(|event: &Received<OrderCreated>, at| {
            // Only another system's order has an event as its cause.
            timeline::created(id(event), at, &event.data, event.meta.causation_id.is_some())
        }))
        .on::<OrderConfirmed, _, _>(to!(|event: &Received<_>, at| timeline::confirmed(id(event), at, &event.data)))
        .on::<OrderCancelled, _, _>(to!(|event: &Received<_>, at| timeline::cancelled(id(event), at, &event.data)))
}

fn id<E: Event>(event: &Received<E>) -> &EventId {
    &event.meta.id
}

fn leave(slot: &Slot, order_id: OrderId, entry: Observed) {
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some((order_id, entry));
}
