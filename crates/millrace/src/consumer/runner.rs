use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use futures::future::{BoxFuture, FutureExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::Router;
use super::delivery::Shared;
use super::pull::{Pulls, Reply};
use crate::connection::Connection;

/// Limits of one consumer.
#[derive(Debug, Clone)]
pub struct ConsumerSettings {
    /// Messages handled at the same time. Handlers mostly wait for the group commit, so many share one.
    pub workers: usize,
    /// Attempts before a message becomes a dead letter.
    pub max_attempts: u32,
    /// The broker delivers elsewhere what it has heard nothing of for this long. Must equal the consumer's own.
    pub ack_wait: Duration,
    /// Ceiling of the first delay before a retry; it doubles with each attempt.
    pub retry_first: Duration,
    /// Ceiling of all delays.
    pub retry_most: Duration,
}

impl Default for ConsumerSettings {
    fn default() -> Self {
        Self {
            workers: 128,
            max_attempts: 5,
            ack_wait: Duration::from_secs(30),
            retry_first: Duration::from_millis(500),
            retry_most: Duration::from_secs(30),
        }
    }
}

/// Puts back what the consumer needs at the broker: asked for when consumer or stream are found missing.
pub type Restore = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// One durable pull consumer with its workers.
pub struct Consumer {
    shared: Arc<Shared>,
    gates: Vec<watch::Receiver<bool>>,
    restore: Restore,
}

/// Pause before asking again when the consumer was missing.
const MISSING_PAUSE: Duration = Duration::from_secs(1);
/// How often the backlog is measured.
const LAG_EVERY: Duration = Duration::from_secs(5);

impl Consumer {
    /// Pulls only while every gate is open.
    pub fn new(
        connection: Connection,
        stream: &str,
        router: Router,
        settings: ConsumerSettings,
        gates: Vec<watch::Receiver<bool>>,
        restore: Restore,
    ) -> Self {
        Self { shared: Arc::new(Shared { connection, stream: stream.to_owned(), router, settings }), gates, restore }
    }

    /// Consumes until `stop` is cancelled, then sees what has begun through to its end and gives back the rest.
    pub async fn run(self, stop: CancellationToken) {
        let durable = self.shared.router.durable().to_owned();
        let lag = tokio::spawn(measure_lag(self.shared.clone(), stop.clone()));
        let mut work = Work::new(self.shared.clone());
        let mut reconnects = self.shared.connection.reconnects();
        while !stop.is_cancelled() {
            let connected = tokio::select! {
                connected = self.shared.connection.connected() => connected,
                () = stop.cancelled() => break,
            };
            if connected.is_err() {
                break;
            }
            let pulls = Pulls::start(self.shared.connection.clone(), &self.shared.stream, &durable).await;
            match pulls {
                Ok(pulls) => self.pull(pulls, &mut work, &mut reconnects, &stop).await,
                Err(error) => {
                    warn!(consumer = durable, error = %error, "subscribing failed, trying again");
                    tokio::time::sleep(MISSING_PAUSE).await;
                }
            }
        }
        work.give_back_waiting().await;
        work.finish().await;
        lag.abort();
        debug!(consumer = durable, "the consumer has finished what it began");
    }

    async fn pull(
        &self,
        mut pulls: Pulls,
        work: &mut Work,
        reconnects: &mut watch::Receiver<u64>,
        stop: &CancellationToken,
    ) {
        let workers = self.shared.settings.workers;
        // Asking for one message at a time would cost a request each; waiting for all slots would leave some idle.
        let worthwhile = (workers / 4).max(1);
        let mut missing_until = None;
        loop {
            let free = workers.saturating_sub(work.held() + pulls.outstanding());
            if missing_until.is_none() && self.gates_open() && free > 0 && (free >= worthwhile || pulls.outstanding() == 0) {
                pulls.request(free).await;
            }
            let silence = pulls.silent_at();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = work.one_finished(), if work.running() => {}
                reply = pulls.next() => match reply {
                    Some(Reply::Delivered(message)) => work.add(message),
                    Some(Reply::Status) => {}
                    Some(Reply::Missing(reason)) => {
                        warn!(consumer = self.shared.router.durable(), stream = self.shared.stream, reason, "the consumer is missing at the broker, putting it back");
                        pulls.void();
                        (self.restore)().await;
                        missing_until = Some(tokio::time::Instant::now() + MISSING_PAUSE);
                    }
                    None => return,
                },
                () = sleep_until(silence) => pulls.void(),
                Ok(()) = reconnects.changed() => pulls.void(),
                () = self.gate_changed() => {}
                () = sleep_until(missing_until) => missing_until = None,
            }
        }
        for message in pulls.stop().await {
            work.add_waiting(message);
        }
    }

    fn gates_open(&self) -> bool {
        self.gates.iter().all(|gate| *gate.borrow())
    }

    /// Ends when a gate that is closed now may have opened.
    async fn gate_changed(&self) {
        for gate in &self.gates {
            if !*gate.borrow() {
                let mut gate = gate.clone();
                if gate.wait_for(|open| *open).await.is_err() {
                    std::future::pending::<()>().await;
                }
                return;
            }
        }
        std::future::pending().await
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Messages in hand: running, or waiting for one with the same key.
struct Work {
    shared: Arc<Shared>,
    running: JoinSet<Option<String>>,
    /// Keys being handled, with the messages that wait for their turn.
    lanes: HashMap<String, VecDeque<jetstream::Message>>,
    waiting: usize,
}

impl Work {
    fn new(shared: Arc<Shared>) -> Self {
        Self { shared, running: JoinSet::new(), lanes: HashMap::new(), waiting: 0 }
    }

    fn held(&self) -> usize {
        self.running.len() + self.waiting
    }

    fn running(&self) -> bool {
        !self.running.is_empty()
    }

    fn add(&mut self, message: async_nats::Message) {
        let message = jetstream::Message { message, context: self.shared.connection.jetstream().clone() };
        let key = key_of(&message);
        match key {
            Some(key) => match self.lanes.get_mut(&key) {
                Some(lane) => {
                    lane.push_back(message);
                    self.waiting += 1;
                }
                None => {
                    self.lanes.insert(key.clone(), VecDeque::new());
                    self.start(Some(key), message);
                }
            },
            None => self.start(None, message),
        }
    }

    /// Keeps a message that will not be started any more, to be given back.
    fn add_waiting(&mut self, message: async_nats::Message) {
        let message = jetstream::Message { message, context: self.shared.connection.jetstream().clone() };
        self.lanes.entry(String::new()).or_default().push_back(message);
        self.waiting += 1;
    }

    fn start(&mut self, key: Option<String>, message: jetstream::Message) {
        let shared = self.shared.clone();
        self.running.spawn(async move {
            let done = AssertUnwindSafe(shared.see_through(message)).catch_unwind().await;
            if done.is_err() {
                error!("a worker panicked outside its handler, the message comes back after ack-wait");
            }
            key
        });
    }

    async fn one_finished(&mut self) {
        let key = match self.running.join_next().await {
            Some(Ok(Some(key))) => key,
            _ => return,
        };
        match self.lanes.get_mut(&key).and_then(VecDeque::pop_front) {
            Some(next) => {
                self.waiting -= 1;
                self.start(Some(key), next);
            }
            None => {
                self.lanes.remove(&key);
            }
        }
    }

    /// Messages that were not begun go to another instance, or to this one after its restart, without waiting for
    /// ack-wait to pass.
    async fn give_back_waiting(&mut self) {
        let waiting: Vec<_> = self.lanes.values_mut().flat_map(|lane| lane.drain(..)).collect();
        self.waiting = 0;
        if !waiting.is_empty() {
            info!(consumer = self.shared.router.durable(), messages = waiting.len(), "messages that were not begun are given back");
        }
        for message in waiting {
            let _ = message.ack_with(jetstream::AckKind::Nak(Some(Duration::from_millis(200)))).await;
        }
    }

    async fn finish(&mut self) {
        while self.running() {
            self.one_finished().await;
        }
    }
}

/// CloudEvents `subject`; a foreign message without one is in no order with any other.
fn key_of(message: &jetstream::Message) -> Option<String> {
    message.headers.as_ref()?.get("ce-subject").map(|key| key.as_str().to_owned()).filter(|key| !key.is_empty())
}

async fn measure_lag(shared: Arc<Shared>, stop: CancellationToken) {
    let durable = shared.router.durable().to_owned();
    while !stop.is_cancelled() {
        let info = shared.connection.jetstream().get_consumer_from_stream::<jetstream::consumer::pull::Config, _, _>(&durable, &shared.stream);
        if let Ok(mut consumer) = info.await
            && let Ok(info) = consumer.info().await
        {
            let lag = info.num_pending + info.num_ack_pending as u64;
            metrics::gauge!("millrace_consumer_lag_messages", "consumer" => durable.clone()).set(lag as f64);
        }
        tokio::select! {
            () = tokio::time::sleep(LAG_EVERY) => {}
            () = stop.cancelled() => {}
        }
    }
}
