use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use futures::future::{BoxFuture, FutureExt, select_all};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Span, debug, warn};

use super::Router;
use super::delivery::Shared;
use super::first_failures::FirstFailures;
use super::meters::Meters;
use super::pull::{Pulls, Reply};
use super::work::Work;
use crate::connection::{Connection, State};
use crate::store::Keeper;

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
}

/// Pause before asking again when the consumer was missing, or the broker refused to serve it.
const REST: Duration = Duration::from_secs(1);
/// Longest time to hand a subscription or a request to the client, which takes nothing while it is disconnected for long.
const HANDOVER: Duration = Duration::from_secs(1);
/// How often the backlog is measured.
const LAG_EVERY: Duration = Duration::from_secs(5);

impl Consumer {
    /// Pulls only while every gate is open. Dead letters are kept by `keeper` too; without one they stand at the broker
    /// alone, which can lose them in a power cut. What is logged is logged in the span that is current now.
    pub fn new(
        connection: Connection,
        stream: &str,
        router: Router,
        settings: ConsumerSettings,
        gates: Vec<watch::Receiver<bool>>,
        restore: Restore,
        keeper: Option<Keeper>,
    ) -> Self {
        let (first_failures, meters) = (FirstFailures::default(), Meters::of(router.durable()));
        let stream = stream.to_owned();
        let shared = Arc::new(Shared {
            connection,
            stream,
            router,
            settings,
            first_failures,
            meters,
            keeper,
            restore,
            around: Span::current(),
        });
        Self { shared, gates }
    }

    /// Consumes until `stop` is cancelled, then sees what has begun through to its end and gives back the rest.
    pub async fn run(self, stop: CancellationToken) {
        let durable = self.shared.router.durable().to_owned();
        let _lag = AbortOnDropHandle::new(tokio::spawn(measure_lag(self.shared.clone(), stop.clone())));
        let mut work = Work::new(self.shared.clone(), stop.clone());
        self.pull(&mut work, &stop).await;
        work.give_back_waiting().await;
        work.finish().await;
        debug!(consumer = durable, "the consumer has finished what it began");
    }

    async fn pull(&self, work: &mut Work, stop: &CancellationToken) {
        let mut pulls: Option<Pulls> = None;
        let mut reconnects = self.shared.connection.reconnects();
        let mut state = self.shared.connection.state();
        let mut restoring: Option<BoxFuture<'static, ()>> = None;
        let mut rest_until: Option<Instant> = None;
        let mut keep_waiting = tokio::time::interval(self.shared.progress_every());
        keep_waiting.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // What a busy consumer waits for in vain, turn after turn, is not set up anew for each.
        let mut stopped = pin!(stop.cancelled());
        let mut closed = pin!(async { drop(state.wait_for(|state| *state == State::Closed).await) });
        let mut turning = (self.gates_open(), self.gates_turned(self.gates_open()));
        let mut silence = Alarm::default();
        loop {
            let open = self.gates_open();
            if open != turning.0 {
                turning = (open, self.gates_turned(open));
            }
            if open {
                work.start();
            } else if pulls.as_ref().is_some_and(|pulls| pulls.outstanding() > 0) {
                // What was asked for must not be delivered to a closed gate: it would cost an attempt.
                self.leave(&mut pulls, work).await;
            }
            if open && restoring.is_none() && rest_until.is_none() && self.shared.connection.is_connected() {
                rest_until = self.ask(&mut pulls, work).await;
            }
            let silent_at = pulls.as_ref().and_then(Pulls::silent_at);
            let mut came = None;
            tokio::select! {
                biased;
                () = &mut stopped => break,
                _ = keep_waiting.tick() => work.keep_waiting().await,
                changed = reconnects.changed() => match changed {
                    // Requests of the old connection are void, and those that queued up meanwhile too.
                    Ok(()) => self.leave(&mut pulls, work).await,
                    Err(_) => return,
                },
                () = work.some_finished(), if work.running() => {}
                reply = next_reply(&mut pulls) => came = Some(reply),
                () = silence.at(silent_at) => self.leave(&mut pulls, work).await,
                () = &mut turning.1 => turning = (open, self.gates_turned(open)),
                () = when_there(&mut restoring) => {
                    restoring = None;
                    rest_until = Some(Instant::now() + REST);
                }
                () = sleep_until(rest_until) => rest_until = None,
                () = &mut closed => return,
            }
            // Messages come many at a time.
            while let Some(reply) = came {
                came = None;
                match reply {
                    Some(Reply::Delivered(message)) => {
                        work.add(message);
                        came = next_reply(&mut pulls).now_or_never();
                    }
                    Some(Reply::Status) => {}
                    Some(Reply::Refused(reason)) => {
                        debug!(
                            consumer = self.shared.router.durable(),
                            reason, "the broker does not serve the consumer now"
                        );
                        rest_until = Some(Instant::now() + REST.mul_f64(0.25 + fastrand::f64() / 2.0));
                    }
                    Some(Reply::Missing(reason)) => {
                        if restoring.is_none() {
                            warn!(
                                consumer = self.shared.router.durable(),
                                stream = self.shared.stream,
                                reason,
                                "the consumer is missing at the broker, putting it back"
                            );
                            restoring = Some((self.shared.restore)());
                        }
                    }
                    None => pulls = None,
                }
            }
        }
        self.leave(&mut pulls, work).await;
    }

    /// Asks for as many messages as there are free workers. Returns until when to rest if that was not possible.
    async fn ask(&self, pulls: &mut Option<Pulls>, work: &Work) -> Option<Instant> {
        let workers = self.shared.settings.workers.max(1);
        let outstanding = pulls.as_ref().map_or(0, Pulls::outstanding);
        let free = workers.saturating_sub(work.held() + outstanding);
        // Asking for one message at a time would cost a request each; waiting for all slots would leave some idle.
        let worthwhile = (workers / 4).max(1);
        if free == 0 || (free < worthwhile && outstanding > 0) {
            return None;
        }
        let durable = self.shared.router.durable();
        let asked = async {
            let pulls = match pulls {
                Some(pulls) => pulls,
                None => pulls.insert(Pulls::start(self.shared.connection.clone(), &self.shared.stream, durable).await?),
            };
            pulls.request(free).await;
            Ok::<_, async_nats::SubscribeError>(())
        };
        match tokio::time::timeout(HANDOVER, asked).await {
            Ok(Ok(())) => return None,
            Ok(Err(error)) => warn!(consumer = durable, error = %error, "subscribing failed, trying again"),
            Err(_) => debug!(consumer = durable, "the client takes no request, trying again"),
        }
        Some(Instant::now() + REST)
    }

    /// Gives up what was asked for; messages that came all the same are kept.
    async fn leave(&self, pulls: &mut Option<Pulls>, work: &mut Work) {
        if let Some(pulls) = pulls.take() {
            pulls.stop().await.into_iter().for_each(|message| work.add(message));
        }
    }

    fn gates_open(&self) -> bool {
        self.gates.iter().all(|gate| *gate.borrow())
    }

    /// Ends when it may have changed whether every gate is open.
    fn gates_turned(&self, open: bool) -> BoxFuture<'static, ()> {
        let turning: Vec<_> = self
            .gates
            .iter()
            .filter(|gate| open || !*gate.borrow())
            .map(|gate| {
                let mut gate = gate.clone();
                Box::pin(async move {
                    // Whoever dropped the other end will not turn it any more.
                    if gate.wait_for(|now| *now != open).await.is_err() {
                        std::future::pending::<()>().await;
                    }
                })
            })
            .collect();
        match turning.is_empty() {
            // Has opened this very moment.
            true if !open => std::future::ready(()).boxed(),
            true => std::future::pending().boxed(),
            false => select_all(turning).map(drop).boxed(),
        }
    }
}

/// Rings at a moment that mostly moves on before it has come: the timer is set anew only when it has run out.
#[derive(Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    async fn at(&mut self, due: Option<Instant>) {
        let Some(due) = due else { return std::future::pending().await };
        let timer = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        loop {
            timer.as_mut().await;
            if Instant::now() >= due {
                return;
            }
            timer.as_mut().reset(due);
        }
    }
}

async fn next_reply(pulls: &mut Option<Pulls>) -> Option<Reply> {
    match pulls {
        Some(pulls) => pulls.next().await,
        None => std::future::pending().await,
    }
}

async fn when_there(future: &mut Option<BoxFuture<'static, ()>>) {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn measure_lag(shared: Arc<Shared>, stop: CancellationToken) {
    let durable = shared.router.durable().to_owned();
    while !stop.is_cancelled() {
        let info = shared
            .connection
            .jetstream()
            .get_consumer_from_stream::<jetstream::consumer::pull::Config, _, _>(&durable, &shared.stream);
        if let Ok(consumer) = info.await {
            let info = consumer.cached_info();
            let lag = info.num_pending + info.num_ack_pending as u64;
            metrics::gauge!("millrace_consumer_lag_messages", "consumer" => durable.clone()).set(lag as f64);
        }
        tokio::select! {
            () = tokio::time::sleep(LAG_EVERY) => {}
            () = stop.cancelled() => {}
        }
    }
}
