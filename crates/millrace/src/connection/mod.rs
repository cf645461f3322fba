//! The connection to NATS: opened at once, kept for ever, its state visible.
//!
//! [`Connection::open`] returns before the server answers, and the connection never gives up: attempts go on in rounds
//! over all servers, with a pause that grows exponentially and is drawn at random ("full jitter"), so that a thousand
//! clients do not return in the same millisecond. What is lost meanwhile is nobody's: publishing goes through the
//! outbox, consumers resume, and [`Connection::reconnects`] tells both that the moment has come.
//!
//! What a caller may rely on while NATS is away: commands queue up inside the client (about two thousand of them), and
//! JetStream requests and publish acknowledgements end with a time-out after `nats.request_timeout_ms`. Nothing here
//! waits for ever except [`Connection::connected`], whose purpose that is.

mod monitor;
mod settings;
mod state;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream::context::ContextBuilder;
use async_nats::{Client, ConnectOptions, jetstream};
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::Instrument as _;

pub use settings::{NatsSettings, SettingsError};
pub use state::{Denied, Operation, State};

use crate::health::Component;
use monitor::Monitor;

/// Metric: connections established, reconnections included. Label `service`.
pub const NATS_CONNECTIONS: &str = "millrace_nats_connections_total";
/// Metric: troubles NATS reported. Labels `service` and `kind`: `publish_denied` and `subscribe_denied` (alert on them),
/// `authorization`, `slow_consumer` (messages were dropped), `other`.
pub const NATS_ERRORS: &str = "millrace_nats_errors_total";

/// Several acknowledgements may be dropped unawaited; the client gives up on each after this time.
const DROPPED_ACK_TIMEOUT: Duration = Duration::from_secs(30);

/// Enough of a server's random id to tell two apart; it is kept with every row of the outbox.
const SERVER_RUN_LENGTH: usize = 16;

/// A shared handle to one connection to NATS. Clones are cheap and speak over the same socket.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    jetstream: jetstream::Context,
    monitor: Arc<Monitor>,
    watching: AbortHandle,
    request_timeout: Duration,
}

/// The connection was closed with [`Connection::close`]; it does not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection to NATS was closed")]
pub struct Closed;

/// Why what was queued may not have reached the server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlushError {
    /// There is no server to send to; what is queued goes out after the reconnection, or is lost with the process.
    #[error("NATS is not connected, so what is queued for it could not be sent")]
    Disconnected,
    /// The server took nothing for this long.
    #[error("NATS did not take what is queued for it within {0:?}")]
    TimedOut(Duration),
    /// The connection is closed already.
    #[error(transparent)]
    Closed(#[from] Closed),
}

impl Connection {
    /// Starts connecting in the background and returns at once, also when no server answers.
    ///
    /// `service` names the connection towards the server (`nats server report connections`) and labels its metrics.
    /// `on_state` is called with every change of state, the present one first; it must not block. Readiness hangs on it.
    ///
    /// # Errors
    /// Only settings that can never work: contradictory ones, or files that cannot be read. An unreachable server or a
    /// refused login is not an error here; it shows in [`Connection::state`] and attempts go on.
    pub async fn open(
        settings: &NatsSettings,
        service: &str,
        on_state: impl Fn(&State) + Send + Sync + 'static,
    ) -> Result<Self, SettingsError> {
        settings.validate()?;
        let servers = settings.servers()?;
        let monitor = Arc::new(Monitor::new(service, settings, servers.len()));
        let options = authenticate(settings, &servers, transport(settings, service, &monitor)?).await?;
        let client = options
            .connect(servers)
            .await
            .map_err(|error| SettingsError::new("nats.url", error.to_string(), "check the address of each server"))?;
        let jetstream = ContextBuilder::new()
            .timeout(settings.request_timeout())
            .ack_timeout(DROPPED_ACK_TIMEOUT)
            .max_ack_inflight(settings.publish_max_in_flight)
            .backpressure_on_inflight(true)
            .build(client.clone());
        let watching = tokio::spawn(monitor.clone().watch(client.clone(), on_state).in_current_span()).abort_handle();
        let request_timeout = settings.request_timeout();
        Ok(Self { inner: Arc::new(Inner { client, jetstream, monitor, watching, request_timeout }) })
    }

    /// The plain client, for what has no method here.
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// The JetStream context: requests and awaited acknowledgements end after `nats.request_timeout_ms`, and a publish
    /// waits while `nats.publish_max_in_flight` others are unacknowledged.
    pub fn jetstream(&self) -> &jetstream::Context {
        &self.inner.jetstream
    }

    /// How long a request to the JetStream API may take, `nats.request_timeout_ms`.
    pub fn request_timeout(&self) -> Duration {
        self.inner.request_timeout
    }

    /// The present state and every change of it.
    pub fn state(&self) -> watch::Receiver<State> {
        self.inner.monitor.state.subscribe()
    }

    /// Whether a server answers right now.
    pub fn is_connected(&self) -> bool {
        matches!(*self.inner.monitor.state.borrow(), State::Connected { .. })
    }

    /// The number of the present connection. Two equal numbers mean that the connection did not change in between.
    pub(crate) fn number(&self) -> u64 {
        self.inner.client.statistics().connects.load(Ordering::Relaxed)
    }

    /// Names the run of the server that this connection leads to: a server takes a new id at each of its starts. True of
    /// the connection over which the caller has just been answered.
    pub fn server_run(&self) -> String {
        let mut id = self.inner.client.server_info().server_id;
        id.truncate(SERVER_RUN_LENGTH);
        id
    }

    /// How many times a connection was established: 0 before the first, then one more with each reconnection.
    pub fn reconnects(&self) -> watch::Receiver<u64> {
        self.inner.monitor.connections.subscribe()
    }

    /// Subjects this connection was denied to publish or subscribe to, as they happen. The server reports a denial
    /// apart from the request that caused it, which itself only times out.
    pub fn denials(&self) -> broadcast::Receiver<Denied> {
        self.inner.monitor.denials.subscribe()
    }

    /// Ends when the server denies publishing on `subject`, or receiving on this connection's inbox, from this call on.
    /// Race it against a request, which would only time out.
    pub(crate) fn denial(&self, subject: &str) -> impl Future<Output = Denied> + Send + use<> {
        let mut denials = self.denials();
        let subject = subject.to_owned();
        let inbox = self.inner.client.new_inbox();
        async move {
            let prefix = inbox.rsplit_once('.').map_or("", |(prefix, _)| prefix);
            loop {
                match denials.recv().await {
                    Ok(denied) if denied.operation == Operation::Publish && denied.subject == subject => return denied,
                    Ok(denied) if denied.operation == Operation::Subscribe && denied.subject.starts_with(prefix) => {
                        return denied;
                    }
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        }
    }

    /// Waits until a server answers, for ever if need be.
    ///
    /// # Errors
    /// [`Closed`] once the connection was closed.
    pub async fn connected(&self) -> Result<(), Closed> {
        let mut state = self.state();
        let reached = state.wait_for(|state| !matches!(state, State::Disconnected { .. })).await;
        match reached.as_deref() {
            Ok(State::Connected { .. }) => Ok(()),
            _ => Err(Closed),
        }
    }

    /// Waits until everything queued so far is written to the server's socket, `patience` at most.
    ///
    /// # Errors
    /// See [`FlushError`].
    pub async fn flush(&self, patience: Duration) -> Result<(), FlushError> {
        match *self.inner.monitor.state.borrow() {
            State::Connected { .. } => {}
            State::Disconnected { .. } => return Err(FlushError::Disconnected),
            State::Closed => return Err(Closed.into()),
        }
        match timeout(patience, self.inner.client.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Closed.into()),
            Err(_) => Err(FlushError::TimedOut(patience)),
        }
    }

    /// Sends what is queued, ends all subscriptions and closes the connection, within `patience`. Call it last: after
    /// it every command fails.
    ///
    /// # Errors
    /// See [`FlushError`]; the connection is of no further use then either.
    pub async fn close(&self, patience: Duration) -> Result<(), FlushError> {
        let deadline = Instant::now() + patience;
        let flushed = self.flush(patience).await;
        if flushed == Err(FlushError::Disconnected) {
            self.inner.monitor.abandon();
            return flushed;
        }
        let mut state = self.state();
        let closing = async {
            // Both fail only when the connection is closed already.
            self.inner.client.drain().await.ok();
            state.wait_for(|state| *state == State::Closed).await.ok();
        };
        let closed = timeout_at(deadline, closing).await;
        self.inner.monitor.abandon();
        flushed.and(closed.map_err(|_| FlushError::TimedOut(patience)))
    }
}

/// Lets readiness follow the connection; to be given to [`Connection::open`].
pub fn readiness(component: Component) -> impl Fn(&State) + Send + Sync + 'static {
    move |state| match state {
        State::Connected { .. } => component.ready(),
        State::Disconnected { last_error: Some(error), .. } => {
            component.not_ready(format!("NATS cannot be reached: {error}"));
        }
        State::Disconnected { last_error: None, .. } => component.not_ready("NATS is not connected"),
        State::Closed => component.not_ready("the connection to NATS was closed"),
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("state", &*self.inner.monitor.state.borrow()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The watching task holds a client, and the socket closes when the last client is gone.
        self.watching.abort();
    }
}

fn transport(settings: &NatsSettings, service: &str, monitor: &Arc<Monitor>) -> Result<ConnectOptions, SettingsError> {
    let (events, delays, pool) = (monitor.clone(), monitor.clone(), monitor.clone());
    let mut options = ConnectOptions::new()
        .name(service)
        .retry_on_initial_connect()
        .max_reconnects(None)
        .connection_timeout(settings.connect_timeout())
        .request_timeout(Some(settings.request_timeout()))
        .ping_interval(Duration::from_millis(settings.ping_interval_ms))
        .custom_inbox_prefix(&settings.inbox_prefix)
        .require_tls(settings.tls_required)
        .reconnect_delay_callback(move |attempt| delays.delay(attempt))
        .reconnect_to_server_callback(move |servers, _| {
            // Used for what it shows, the error of each server; choosing a server is left to the client.
            pool.on_round(&servers);
            std::future::ready(None)
        })
        .event_callback(move |event| {
            events.on_event(event);
            std::future::ready(())
        });
    if let Some(ca) = &settings.tls_ca_file {
        readable("nats.tls_ca_file", ca)?;
        options = options.add_root_certificates(ca.clone());
    }
    if let (Some(cert), Some(key)) = (&settings.tls_cert_file, &settings.tls_key_file) {
        readable("nats.tls_cert_file", cert)?;
        readable("nats.tls_key_file", key)?;
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    Ok(options)
}

async fn authenticate(
    settings: &NatsSettings,
    servers: &[async_nats::ServerAddr],
    options: ConnectOptions,
) -> Result<ConnectOptions, SettingsError> {
    const SEED: &str = "nats.nkey_seed_file";
    const SEED_HINT: &str = "it must hold one line, the seed that begins with SU";
    if let (Some(user), Some(password)) = (&settings.user, &settings.password) {
        return Ok(options.user_and_password(user.clone(), password.clone()));
    }
    if let Some(token) = &settings.token {
        return Ok(options.token(token.clone()));
    }
    if let Some(path) = &settings.nkey_seed_file {
        let seed = readable(SEED, path)?;
        let seed = seed.trim();
        if !seed.starts_with("SU") || seed.contains(char::is_whitespace) {
            return Err(SettingsError::new(SEED, format!("{} holds no user seed", path.display()), SEED_HINT));
        }
        return Ok(options.nkey(seed.to_owned()));
    }
    if let Some(path) = &settings.credentials_file {
        return options.credentials(&readable("nats.credentials_file", path)?).map_err(|error| {
            let problem = format!("{}: {error}", path.display());
            SettingsError::new(
                "nats.credentials_file",
                problem,
                "it must be a .creds file with a user JWT and its seed",
            )
        });
    }
    // The client ignores a login written into the address, as `nats://user:password@host`; users expect it to count.
    for server in servers {
        match (server.username().map(percent_decoded), server.password().map(percent_decoded)) {
            (Some(user), Some(password)) => return Ok(options.user_and_password(user, password)),
            (Some(token), None) => return Ok(options.token(token)),
            _ => {}
        }
    }
    Ok(options)
}

fn readable(setting: &'static str, path: &std::path::Path) -> Result<String, SettingsError> {
    std::fs::read_to_string(path).map_err(|error| {
        let problem = format!("{} cannot be read: {error}", path.display());
        SettingsError::new(setting, problem, "name a file that this process may read")
    })
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match rest {
            [b'%', high, low, ..] => {
                let digits = [*high, *low];
                std::str::from_utf8(&digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok())
            }
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &rest[3..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::percent_decoded;

    #[test]
    fn a_login_in_the_address_is_decoded() {
        assert_eq!(percent_decoded("p%40ss%2Fw%C3%B6rd"), "p@ss/wörd");
        assert_eq!(percent_decoded("100%"), "100%");
        assert_eq!(percent_decoded("%zz"), "%zz");
    }
}
