//! Turns the client's events into a state, log lines and metrics.
//!
//! The client's own event channel is bounded and drops what does not fit, so events only wake this monitor; what it
//! publishes is read from the client's state and its counter of connections, and read again at intervals.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{Client, ClientError, Event, Server, ServerError};
use time::OffsetDateTime;
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::Instant;

use super::{Denied, NATS_CONNECTIONS, NATS_ERRORS, NatsSettings, Operation, State};
use crate::telemetry::metrics::NATS_CONNECTED;

/// How often the client is asked, for the rare event that got lost.
const INTERVAL: Duration = Duration::from_millis(500);
/// The same trouble is logged again only after this time; metrics count every occurrence.
const QUIET: Duration = Duration::from_secs(60);
/// Different troubles remembered for that, so that a hostile or broken server cannot fill memory.
const REMEMBERED: usize = 256;

pub(super) struct Monitor {
    service: String,
    base: Duration,
    max: Duration,
    pub(super) state: watch::Sender<State>,
    pub(super) connections: watch::Sender<u64>,
    pub(super) denials: broadcast::Sender<Denied>,
    changed: Notify,
    closed: AtomicBool,
    servers: AtomicUsize,
    last_error: Mutex<Option<String>>,
    logged: Mutex<HashMap<String, Instant>>,
}

impl Monitor {
    pub(super) fn new(service: &str, settings: &NatsSettings, servers: usize) -> Self {
        let since = OffsetDateTime::now_utc();
        Self {
            service: service.to_owned(),
            base: Duration::from_millis(settings.reconnect_base_ms),
            max: Duration::from_millis(settings.reconnect_max_ms),
            state: watch::Sender::new(State::Disconnected { since, last_error: None }),
            connections: watch::Sender::new(0),
            denials: broadcast::Sender::new(64),
            changed: Notify::new(),
            closed: AtomicBool::new(false),
            servers: AtomicUsize::new(servers.max(1)),
            last_error: Mutex::new(None),
            logged: Mutex::new(HashMap::new()),
        }
    }

    /// Follows the client until it is closed. `on_state` hears of every change, the present state first.
    pub(super) async fn watch(self: std::sync::Arc<Self>, client: Client, on_state: impl Fn(&State) + Send + Sync) {
        on_state(&self.state.borrow().clone());
        self.record_connected();
        loop {
            if self.refresh(&client) {
                self.record_connected();
                on_state(&self.state.borrow().clone());
            }
            if self.closed.load(Ordering::Acquire) {
                return;
            }
            // A time-out is no failure: it is the interval.
            tokio::time::timeout(INTERVAL, self.changed.notified()).await.ok();
        }
    }

    /// The pause before an attempt, counted from 1: random, between nothing and a bound that doubles with each round
    /// over the servers ("full jitter", from the AWS article "Exponential Backoff And Jitter").
    pub(super) fn delay(&self, attempt: usize) -> Duration {
        let round = attempt.saturating_sub(1) / self.servers.load(Ordering::Relaxed).max(1);
        if round == 0 && *self.connections.borrow() == 0 {
            return Duration::ZERO;
        }
        let factor = 1_u32.checked_shl(u32::try_from(round).unwrap_or(u32::MAX)).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.max).mul_f64(fastrand::f64())
    }

    /// Called before each round of attempts with what is known of every server.
    pub(super) fn on_round(&self, servers: &[Server]) {
        self.servers.store(servers.len().max(1), Ordering::Relaxed);
        let errors: Vec<String> = servers
            .iter()
            .filter_map(|server| {
                let error = server.last_error.as_ref()?;
                Some(format!("{}:{}: {error}", server.addr.host(), server.addr.port()))
            })
            .collect();
        if !errors.is_empty() {
            self.failed(errors.join("; "));
        }
    }

    pub(super) fn on_event(&self, event: Event) {
        match event {
            Event::ServerError(error) => self.on_server_error(&error),
            Event::ClientError(ClientError::Other(error)) => {
                if is_refused_login(&error) {
                    self.count("authorization");
                }
                // The error of a round without its details, which follow when the next round begins.
                if lock(&self.last_error).is_none() {
                    self.failed(error);
                }
            }
            Event::ClientError(error) => self.failed(error.to_string()),
            Event::SlowConsumer(subscription) => {
                self.count("slow_consumer");
                if self.may_log("slow consumer") {
                    tracing::error!(
                        nats.subscription = subscription,
                        "Messages from NATS were dropped because a subscription is read too slowly."
                    );
                }
            }
            Event::LameDuckMode => tracing::info!("The NATS server is about to stop; moving to another one."),
            Event::Closed => self.closed.store(true, Ordering::Release),
            Event::Connected | Event::Disconnected | Event::Draining => {}
        }
        self.changed.notify_one();
    }

    /// Gives the connection up; the state says closed from now on.
    pub(super) fn abandon(&self) {
        self.closed.store(true, Ordering::Release);
        self.state.send_replace(State::Closed);
        self.changed.notify_one();
    }

    fn on_server_error(&self, error: &ServerError) {
        let text = match error {
            ServerError::Other(text) => text.trim_matches('\'').to_owned(),
            other => other.to_string(),
        };
        let Some(denied) = Denied::parse(&text) else {
            self.count(if *error == ServerError::AuthorizationViolation { "authorization" } else { "other" });
            if self.may_log(&text) {
                tracing::error!(error.message = text, "The NATS server reported an error.");
            }
            *lock(&self.last_error) = Some(text);
            return;
        };
        match denied.operation {
            Operation::Publish => {
                self.count("publish_denied");
                if self.may_log(&text) {
                    tracing::error!(
                        nats.subject = denied.subject,
                        "NATS denies this service to publish on a subject; whatever belongs there waits until the \
                         permissions of its user allow it."
                    );
                }
            }
            Operation::Subscribe => {
                self.count("subscribe_denied");
                if self.may_log(&text) {
                    tracing::error!(
                        nats.subject = denied.subject,
                        "NATS denies this service to subscribe to a subject; what is sent there does not arrive until \
                         the permissions of its user allow it. For replies, nats.inbox_prefix must be a permitted one."
                    );
                }
            }
        }
        // Nobody may be listening.
        self.denials.send(denied).ok();
    }

    fn failed(&self, error: String) {
        if self.may_log(&error) {
            if is_refused_login(&error) {
                tracing::error!(
                    error.message = error,
                    "NATS refuses the login; check nats.user, nats.token, nats.nkey_seed_file or nats.credentials_file."
                );
            } else {
                tracing::warn!(error.message = error, "NATS cannot be reached; trying again until it can.");
            }
        }
        *lock(&self.last_error) = Some(error);
        self.changed.notify_one();
    }

    /// Brings the published state up to date; true when it changed.
    fn refresh(&self, client: &Client) -> bool {
        let connections = client.statistics().connects.load(Ordering::Relaxed);
        let fresh = connections > *self.connections.borrow();
        let now = OffsetDateTime::now_utc();
        let connected = client.connection_state() == async_nats::connection::State::Connected;
        let info = client.try_server_info().filter(|_| connected);
        let closed = self.closed.load(Ordering::Acquire);
        let changed = self.state.send_if_modified(|state| {
            let next = match (&info, &*state) {
                _ if closed => State::Closed,
                (Some(info), State::Connected { since, .. }) if !fresh => connected_to(info, *since),
                (Some(info), _) => connected_to(info, now),
                (None, State::Disconnected { since, .. }) => {
                    State::Disconnected { since: *since, last_error: lock(&self.last_error).clone() }
                }
                (None, _) => State::Disconnected { since: now, last_error: lock(&self.last_error).clone() },
            };
            log_transition(state, &next);
            let changed = *state != next;
            *state = next;
            changed
        });
        if info.is_some() && !closed {
            *lock(&self.last_error) = None;
            if fresh {
                metrics::counter!(NATS_CONNECTIONS, "service" => self.service.clone())
                    .increment(connections.saturating_sub(*self.connections.borrow()));
                // After the state, so that whoever wakes up finds it connected.
                self.connections.send_replace(connections);
                lock(&self.logged).clear();
            }
        }
        changed
    }

    fn record_connected(&self) {
        let connected = matches!(*self.state.borrow(), State::Connected { .. });
        let value = f64::from(u8::from(connected));
        metrics::gauge!(NATS_CONNECTED, "service" => self.service.clone()).set(value);
    }

    fn count(&self, kind: &'static str) {
        metrics::counter!(NATS_ERRORS, "service" => self.service.clone(), "kind" => kind).increment(1);
    }

    fn may_log(&self, what: &str) -> bool {
        let mut logged = lock(&self.logged);
        let now = Instant::now();
        if logged.get(what).is_some_and(|last| now.duration_since(*last) < QUIET) {
            return false;
        }
        if logged.len() >= REMEMBERED {
            logged.clear();
        }
        logged.insert(what.to_owned(), now);
        true
    }
}

fn connected_to(info: &async_nats::ServerInfo, since: OffsetDateTime) -> State {
    State::Connected { server: info.server_name.clone(), version: info.version.clone(), since }
}

fn log_transition(from: &State, to: &State) {
    match (from, to) {
        (State::Disconnected { .. }, State::Connected { server, version, .. }) => {
            tracing::info!(nats.server = server, nats.server_version = version, "Connected to NATS.");
        }
        (State::Connected { .. }, State::Disconnected { .. }) => {
            tracing::warn!("The connection to NATS was lost; trying again until it is back.");
        }
        (State::Connected { .. } | State::Disconnected { .. }, State::Closed) => {
            tracing::info!("The connection to NATS was closed.");
        }
        _ => {}
    }
}

/// What servers say to a login they do not accept.
fn is_refused_login(error: &str) -> bool {
    error.to_ascii_lowercase().contains("authorization") || error.to_ascii_lowercase().contains("authentication")
}

/// The data behind these locks is whole after any single statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_each_round_over_the_servers_and_never_exceed_the_maximum() {
        let settings = NatsSettings { reconnect_base_ms: 100, reconnect_max_ms: 5_000, ..NatsSettings::default() };
        let monitor = Monitor::new("test", &settings, 3);
        assert_eq!(monitor.delay(1), Duration::ZERO, "the very first attempt does not wait");
        monitor.connections.send_replace(1);
        for (attempt, bound_ms) in [(1, 100), (3, 100), (4, 200), (9, 400), (1_000, 5_000), (usize::MAX, 5_000)] {
            let longest = (0..200).map(|_| monitor.delay(attempt)).max().unwrap();
            assert!(longest <= Duration::from_millis(bound_ms), "attempt {attempt}: {longest:?}");
            assert!(longest > Duration::from_millis(bound_ms / 2), "attempt {attempt}: {longest:?} is not spread");
        }
    }
}
