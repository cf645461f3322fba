//! The services of this process: their connections, listeners and settings put together, run, and stopped in order.

mod listeners;
mod local;
mod roles;

pub use listeners::{Listeners, SimulatorListeners};
pub use local::{LocalOptions, LocalStack};
pub use roles::Role;

use std::time::Duration;

use millrace::connection::{Connection, State};
use millrace::health::Health;
use millrace::kit::KitParts;
use millrace::store::DatabaseUrl;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, error};

use crate::failure::Failure;
use crate::settings::Settings;

/// Services that have a database.
pub const SERVICES: [&str; 4] = ["order", "payment", "inventory", "notification"];

/// How long a command waits for NATS before it says that it is not there.
const COMMAND_PATIENCE: Duration = Duration::from_secs(4);
/// How long the last acknowledgements may take to leave.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// A connection for a command that cannot do without NATS.
pub async fn connect(settings: &Settings, name: &str) -> Result<Connection, Failure> {
    let connection = open(settings, &format!("millrace-{name}"), |_| {}).await?;
    if tokio::time::timeout(COMMAND_PATIENCE, connection.connected()).await.is_ok_and(|c| c.is_ok()) {
        return Ok(connection);
    }
    let reason = match &*connection.state().borrow() {
        State::Disconnected { last_error: Some(error), .. } => format!(": {error}"),
        _ => String::new(),
    };
    let url = millrace::config::mask_url(&settings.nats.url);
    Err(Failure::new(format!("NATS does not answer at {url}{reason}"))
        .remedy("start it with `millrace up`, or set nats.url (NATS_URL)")
        .code(millrace::codes::NATS_UNREACHABLE))
}

async fn open(
    settings: &Settings,
    name: &str,
    on_state: impl Fn(&State) + Send + Sync + 'static,
) -> Result<Connection, Failure> {
    Connection::open(&settings.nats, name, on_state).await.map_err(|e| Failure::new(e.to_string()).usage())
}

/// Runs the given roles until `shutdown`, or until one of them fails, which stops the others.
pub async fn run(
    settings: &Settings,
    roles: &[Role],
    mut listeners: Listeners,
    health: Health,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    let mut running: JoinSet<(Role, Result<(), String>)> = JoinSet::new();
    let mut connections = Vec::new();
    for role in roles.iter().copied() {
        if role == Role::Simulators {
            if let Some(listeners) = listeners.simulators.take() {
                let shutdown = shutdown.clone();
                health.component("simulators").ready();
                let ledger_intents = settings.simulators.ledger_intents;
                running.spawn(async move { (role, simulate(listeners, ledger_intents, shutdown).await) });
            }
            continue;
        }
        // Alone in its process a service is named by the settings already.
        let span = if roles.len() > 1 { millrace::telemetry::service_span(role.name()) } else { Span::none() };
        let kit = kit_parts(settings, role.name(), &health, &shutdown).instrument(span.clone()).await?;
        connections.push(kit.connection.clone());
        let settings = settings.clone();
        let http = if role == Role::Order { listeners.http.take() } else { None };
        running.spawn(async move { (role, role.run(kit, settings, http).await) }.instrument(span));
    }
    let mut first_failure = None;
    while let Some(ended) = running.join_next().await {
        let failure = match ended {
            Ok((_, Ok(()))) if shutdown.is_cancelled() => continue,
            Ok((role, Ok(()))) => format!("{} ended without being asked to", role.name()),
            Ok((_, Err(reason))) => reason,
            Err(panic) => format!("a service panicked: {panic}"),
        };
        error!(reason = failure, "a service has failed, everything stops");
        first_failure.get_or_insert(failure);
        shutdown.cancel();
    }
    for connection in connections {
        let _ = connection.close(CLOSE_PATIENCE).await;
    }
    first_failure.map_or(Ok(()), |reason| Err(Failure::new(reason)))
}

/// What every service is given. Each has a connection of its own, so that one cannot slow down another.
async fn kit_parts(
    settings: &Settings,
    service: &'static str,
    health: &Health,
    shutdown: &CancellationToken,
) -> Result<KitParts, Failure> {
    let health = health.scope(service);
    let component = health.component("nats");
    let connection = open(settings, service, millrace::connection::readiness(component)).await?;
    let database_url =
        DatabaseUrl::for_service(&settings.database.url, service).map_err(|e| Failure::new(e.to_string()).usage())?;
    Ok(KitParts {
        service,
        connection,
        database_url,
        settings: settings.kit(),
        topology: settings.declared_topology(),
        health,
        shutdown: shutdown.clone(),
    })
}

async fn simulate(
    listeners: SimulatorListeners,
    ledger_intents: usize,
    shutdown: CancellationToken,
) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("simulators: {e}");
    let SimulatorListeners { gateway, smtp, mail, sms } = listeners;
    let at_gateway = simulators::gateway::Settings { ledger_intents, ..simulators::gateway::Settings::default() };
    tokio::try_join!(
        simulators::gateway::run(gateway, at_gateway, shutdown.clone()),
        simulators::mail::run(smtp, mail, simulators::mail::Settings::default(), shutdown.clone()),
        simulators::sms::run(sms, simulators::sms::Settings::default(), shutdown),
    )
    .map(|_| ())
    .map_err(failed)
}
