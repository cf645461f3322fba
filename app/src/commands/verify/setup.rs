//! The settings of a run and the places it uses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use millrace::config::Loader;
use millrace::local::provision::Provision;
use millrace::local::{NatsServer, Postgres, run_account};
use millrace::telemetry::LogTarget;
use tempfile::TempDir;

use super::Backend;
use crate::failure::Failure;
use crate::settings::{self, Settings};
use crate::stack::Role;

/// What is shorter than in real life, so that what a fault has broken is mended within seconds.
pub const SHORTENED: &[(&str, &str)] = &[
    ("order.deadline", "60s"),
    ("order.submit_patience", "2s"),
    // Every kill costs what was in hand a delivery, so many are allowed: this run kills far more often than life does.
    ("topology.max_deliver", "50"),
    ("topology.ack_wait", "3s"),
    ("consumer.retry_first", "100ms"),
    ("consumer.retry_most", "1s"),
    ("outbox.sweep_every", "500ms"),
    ("outbox.sweep_after", "1s"),
    // All rows stay, to be compared with the streams.
    ("outbox.keep_published", "1d"),
    ("payment.gateway.timeout_ms", "2000"),
    ("payment.grace", "3s"),
    ("payment.retry_first", "200ms"),
    ("payment.retry_most", "1s"),
    ("payment.breaker.open_for", "1s"),
    ("notification.email.timeout_ms", "2000"),
    ("notification.sms.timeout_ms", "2000"),
    ("notification.claim", "4s"),
    ("notification.retry_first", "200ms"),
    ("notification.retry_most", "1s"),
    ("notification.breaker_open_for", "1s"),
    ("nats.connect_timeout_ms", "2000"),
    ("nats.request_timeout_ms", "2000"),
    ("nats.ping_interval_ms", "1000"),
    ("nats.reconnect_base_ms", "50"),
    ("nats.reconnect_max_ms", "500"),
    ("database.connect_timeout", "1s"),
    ("shutdown.drain", "5s"),
];

/// Everything a run writes. Removed when dropped, unless kept.
pub struct Folder(TempDir);

impl Folder {
    pub fn create() -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("millrace-verify-").tempdir().map_err(|e| {
            Failure::new(format!("no folder can be made in {}: {e}", std::env::temp_dir().display()))
                .remedy("TMPDIR=FOLDER chooses another place")
        })?;
        let folder = Self(folder);
        std::fs::create_dir(folder.logs()).map_err(|e| Failure::new(format!("{}: {e}", folder.logs().display())))?;
        Ok(folder)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// One file for each process.
    pub fn logs(&self) -> PathBuf {
        self.path().join("logs")
    }

    pub fn nats(&self) -> PathBuf {
        self.path().join("nats")
    }

    pub fn keep(self) -> PathBuf {
        self.0.keep()
    }
}

/// Where everything listens. Chosen once, so that what is killed comes back where it was.
pub struct Places {
    pub api: SocketAddr,
    pub gateway: SocketAddr,
    pub smtp: SocketAddr,
    pub mail: SocketAddr,
    pub sms: SocketAddr,
    pub nats: u16,
    pub postgres: u16,
    pub ops: BTreeMap<&'static str, SocketAddr>,
}

/// Where ports are drawn from: below what tests and other local servers draw theirs from, and what the system hands out,
/// because a port has to stay free while the process that listens on it is dead.
const PORTS: Range<u16> = 10_000..20_000;
const DRAWS: usize = 200;

impl Places {
    pub fn choose() -> Result<Self, Failure> {
        let mut taken = BTreeSet::new();
        let mut port = || {
            let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
            let mut draws = (0..DRAWS).map(|_| fastrand::u16(PORTS));
            let port = draws.find(|port| !taken.contains(port) && is_free(port));
            let port =
                port.ok_or_else(|| Failure::new(format!("no port is free from {} to {}", PORTS.start, PORTS.end)))?;
            taken.insert(port);
            Ok::<_, Failure>(port)
        };
        let (nats, postgres) = (port()?, port()?);
        let mut place = || Ok::<_, Failure>(SocketAddr::from((Ipv4Addr::LOCALHOST, port()?)));
        let mut ops = BTreeMap::new();
        for role in Role::ALL {
            ops.insert(role.name(), place()?);
        }
        let (api, gateway) = (place()?, place()?);
        Ok(Self { api, gateway, smtp: place()?, mail: place()?, sms: place()?, nats, postgres, ops })
    }
}

/// The built-in defaults, shortened. Nothing the user has set counts: a real gateway's key or a production database must
/// never get into a run that breaks things.
pub fn settings() -> Result<Settings, Failure> {
    let mut loader = Loader::new(settings::DEFAULTS);
    for (name, value) in SHORTENED {
        loader = loader.set_by("verify", name, value);
    }
    let mut settings = loader.load::<Settings>().map_err(|e| Failure::new(e.to_string()))?.settings;
    settings.telemetry.log_to = LogTarget::None;
    Ok(settings)
}

/// The name of a setting in the environment.
pub fn variable(setting: &str) -> String {
    format!("MILLRACE_{}", setting.replace('.', "_").to_ascii_uppercase())
}

/// Variables of the user that would change the settings of a child. An empty one counts as not set.
pub fn foreign_variables() -> impl Iterator<Item = String> {
    let changes = |name: &String| {
        (name.starts_with("MILLRACE_") && name != "MILLRACE_CONFIG") || name == "NATS_URL" || name == "DATABASE_URL"
    };
    std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).filter(changes)
}

pub async fn start_nats(
    folder: &Folder,
    port: u16,
    say: impl Fn(&str) + Copy + Send + 'static,
) -> Result<NatsServer, Failure> {
    let finding = tokio::task::spawn_blocking(move || Provision::from_env().nats_server(&mut |text| say(text)));
    let program = finding
        .await
        .map_err(|panic| Failure::new(panic.to_string()))?
        .map_err(|e| Failure::new(e.to_string()).code(millrace::codes::NATS_SERVER_NOT_FOUND))?;
    let starting = NatsServer::builder(program, folder.nats()).server_name("verify").client_port(port).start();
    starting.await.map_err(|e| Failure::new(e.to_string()))
}

pub async fn start_postgres(
    folder: &Folder,
    port: u16,
    say: impl Fn(&str) + Copy + Send + 'static,
) -> Result<Postgres, Failure> {
    let finding = tokio::task::spawn_blocking(move || Provision::from_env().postgres(&mut |text| say(text)));
    let programs = finding
        .await
        .map_err(|panic| Failure::new(panic.to_string()))?
        .map_err(|error| Failure::new(error.to_string()))?;
    if run_account().is_some() {
        // As root PostgreSQL runs as somebody else, who has to get through to its data.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711))
            .map_err(|e| Failure::new(format!("{} cannot be opened to PostgreSQL: {e}", folder.path().display())))?;
    }
    // A new folder holds nothing that could be lost; commits are forced to disk as always.
    let starting = Postgres::builder(programs, folder.path().join("postgres")).port(port).sync_new_data(false).start();
    starting.await.map_err(|error| Failure::new(error.to_string()))
}

/// Whose database is where, reached directly and not through a proxy.
pub fn database_url(backend: Backend, folder: &Folder, postgres: Option<&Postgres>) -> String {
    match (backend, postgres) {
        (Backend::Postgres, Some(server)) => server.database_url("millrace"),
        _ => format!("sqlite:{}/{{service}}.db", folder.path().display()),
    }
}
