//! Messages in hand: running, or waiting for their turn.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderName;
use async_nats::jetstream::{self, AckKind};
use futures::future::FutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::delivery::Shared;

/// Delay of a message that is given back: another instance may have it soon, one that is stopping too gets no storm.
const GIVE_BACK: Duration = Duration::from_millis(200);

/// Runs at most as many messages as there are workers, and of one key one at a time. Whatever else was delivered waits
/// here, and the broker is told that it does.
pub(super) struct Work {
    shared: Arc<Shared>,
    stop: CancellationToken,
    running: JoinSet<Lane>,
    lanes: HashMap<Lane, Waiting>,
    /// Lanes that could start if there was a free worker.
    ready: VecDeque<Lane>,
    waiting: usize,
    keyless: u64,
}

/// What must not run side by side.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Lane {
    Key(Arc<str>),
    /// A foreign message without a key is in no order with any other.
    Alone(u64),
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<jetstream::Message>,
    running: bool,
}

impl Work {
    pub(super) fn new(shared: Arc<Shared>, stop: CancellationToken) -> Self {
        Self {
            shared,
            stop,
            running: JoinSet::new(),
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            waiting: 0,
            keyless: 0,
        }
    }

    /// Messages in hand.
    pub(super) fn held(&self) -> usize {
        self.running.len() + self.waiting
    }

    pub(super) fn running(&self) -> bool {
        !self.running.is_empty()
    }

    pub(super) fn add(&mut self, message: async_nats::Message) {
        let message = jetstream::Message { message, context: self.shared.connection.jetstream().clone() };
        let lane = match key_of(&message) {
            Some(key) => Lane::Key(key),
            None => {
                self.keyless += 1;
                Lane::Alone(self.keyless)
            }
        };
        let waiting = self.lanes.entry(lane.clone()).or_default();
        if !waiting.running && waiting.messages.is_empty() {
            self.ready.push_back(lane);
        }
        waiting.messages.push_back(message);
        self.waiting += 1;
    }

    /// Starts what may start.
    pub(super) fn start(&mut self) {
        while self.running.len() < self.shared.settings.workers.max(1)
            && let Some(lane) = self.ready.pop_front()
        {
            let Some(waiting) = self.lanes.get_mut(&lane) else { continue };
            let Some(message) = waiting.messages.pop_front() else { continue };
            waiting.running = true;
            self.waiting -= 1;
            let (shared, stop) = (self.shared.clone(), self.stop.clone());
            self.running.spawn(async move {
                let done = AssertUnwindSafe(shared.see_through(message, stop)).catch_unwind().await;
                if done.is_err() {
                    error!("a worker panicked outside its handler, the message comes back after ack-wait");
                }
                lane
            });
        }
    }

    /// Waits for one that is running, and takes what has finished with it: answers come for a whole commit at once.
    pub(super) async fn some_finished(&mut self) {
        let mut finished = self.running.join_next().await;
        while let Some(one) = finished {
            // An error means that the task was aborted, which only dropping all of them does.
            if let Ok(lane) = one {
                self.finished(lane);
            }
            finished = self.running.try_join_next();
        }
    }

    fn finished(&mut self, lane: Lane) {
        let Some(waiting) = self.lanes.get_mut(&lane) else { return };
        waiting.running = false;
        if waiting.messages.is_empty() {
            self.lanes.remove(&lane);
        } else {
            self.ready.push_back(lane);
        }
    }

    /// Tells the broker that messages which wait here for their turn are in good hands; otherwise it would deliver them
    /// again after ack-wait, and count an attempt for each.
    pub(super) async fn keep_waiting(&self) {
        if self.waiting == 0 || !self.shared.connection.is_connected() {
            return;
        }
        for message in self.lanes.values().flat_map(|lane| &lane.messages) {
            self.shared.answer(message, AckKind::Progress).await;
        }
    }

    /// Messages that were not begun go to another instance, or to this one after its restart, without waiting for
    /// ack-wait to pass.
    pub(super) async fn give_back_waiting(&mut self) {
        self.ready.clear();
        let waiting: Vec<_> = self.lanes.values_mut().flat_map(|lane| lane.messages.drain(..)).collect();
        self.waiting = 0;
        if waiting.is_empty() {
            return;
        }
        info!(
            consumer = self.shared.router.durable(),
            messages = waiting.len(),
            "messages that were not begun are given back"
        );
        for message in waiting {
            if !self.shared.connection.is_connected() {
                return;
            }
            self.shared.answer(&message, AckKind::Nak(Some(GIVE_BACK))).await;
        }
    }

    /// Waits for what is running.
    pub(super) async fn finish(&mut self) {
        while self.running() {
            self.some_finished().await;
        }
    }
}

/// CloudEvents `subject`.
fn key_of(message: &jetstream::Message) -> Option<Arc<str>> {
    let key = message.headers.as_ref()?.get(HeaderName::from_static("ce-subject"))?.as_str();
    (!key.is_empty()).then(|| key.into())
}
