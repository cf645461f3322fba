//! What the tests of connection, topology and request/reply share.

use std::time::Duration;

use millrace::connection::{Connection, NatsSettings, State};
use testkit::TestNats;

/// Longer than anything here takes, so that only a defect runs into it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Gives every span a place in a trace. For the whole process, as a subscriber of one thread misses callsites that other
/// threads came by first.
pub(crate) fn traced() {
    use tracing_subscriber::layer::SubscriberExt as _;

    let subscriber = tracing_subscriber::registry().with(millrace::telemetry::layer::trace_layer());
    // The second caller finds it done.
    tracing::subscriber::set_global_default(subscriber).ok();
}

/// A server with more in its configuration.
pub(crate) async fn configured(config: &str) -> TestNats {
    testkit::nats_with(|server| server.extra_config(config)).await
}

/// A server that is not running yet, on a port that nobody else uses.
pub(crate) async fn stopped() -> TestNats {
    let mut server = testkit::nats().await;
    server.kill().await;
    server
}

/// For this server, with pauses short enough for a test.
pub(crate) fn settings(server: &TestNats) -> NatsSettings {
    NatsSettings { url: server.url(), reconnect_base_ms: 10, reconnect_max_ms: 100, ..NatsSettings::default() }
}

/// For this server, as a certain user.
pub(crate) fn login(server: &TestNats, user: &str, password: &str) -> NatsSettings {
    NatsSettings { user: Some(user.into()), password: Some(password.into()), ..settings(server) }
}

pub(crate) async fn open(settings: &NatsSettings) -> Connection {
    Connection::open(settings, "test", |_| {}).await.unwrap()
}

pub(crate) async fn connect(server: &TestNats) -> Connection {
    connect_with(&settings(server)).await
}

pub(crate) async fn connect_with(settings: &NatsSettings) -> Connection {
    let connection = open(settings).await;
    within(connection.connected()).await.unwrap();
    connection
}

/// The result of `work`, which must come in time.
#[track_caller]
pub(crate) fn within<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, work).await {
            Ok(value) => value,
            Err(_) => panic!("{caller}: still waiting after {PATIENCE:?}"),
        }
    }
}

/// Waits until the connection's state is as wanted, and returns it.
pub(crate) async fn state(connection: &Connection, wanted: impl FnMut(&State) -> bool) -> State {
    within(async { connection.state().wait_for(wanted).await.unwrap().clone() }).await
}
