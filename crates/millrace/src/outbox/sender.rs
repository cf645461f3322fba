//! The writer's side of the relay.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, mpsc};

use super::Row;

/// Hands committed rows to the relay; never blocks the writer.
#[derive(Debug, Clone)]
pub struct RelaySender {
    pub(super) rows: mpsc::Sender<Vec<Row>>,
    pub(super) signals: Arc<Signals>,
}

/// What relay and writer tell each other.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// There may be rows in the table that the relay was not given.
    pub(super) missed: AtomicBool,
    /// Somebody else has found a stream missing.
    pub(super) stream_missing: AtomicBool,
    /// The broker may have lost what it acknowledged, and it has not been compared with the outbox since.
    pub(super) unsure_of_broker: AtomicBool,
    /// Wakes the relay for one of the first two.
    pub(super) woken: Notify,
}

impl RelaySender {
    pub(crate) fn committed(&self, rows: Vec<Row>) {
        if !rows.is_empty() && self.rows.try_send(rows).is_err() {
            self.unsure();
        }
    }

    /// There may be rows in the table that were not handed over. What is handed over after this call does not overtake
    /// them.
    pub(crate) fn unsure(&self) {
        self.signals.missed.store(true, Ordering::Release);
        self.signals.woken.notify_one();
    }

    /// Whether rows that the broker has acknowledged may be removed. Not while it is away or has not been compared since: it
    /// may come back without them, however long it takes.
    pub(crate) fn may_forget(&self) -> bool {
        !self.signals.unsure_of_broker.load(Ordering::Acquire)
    }

    /// A stream was gone, and what the broker had acknowledged on it with it.
    pub(crate) fn stream_was_missing(&self) {
        self.signals.stream_missing.store(true, Ordering::Release);
        self.signals.woken.notify_one();
    }
}
