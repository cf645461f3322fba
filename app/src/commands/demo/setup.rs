//! The temporary world: its folder, its settings, its database.

use std::fmt;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use millrace::config::Loader;
use millrace::local::provision::Provision;
use millrace::local::{Postgres, run_account};
use millrace::telemetry::{self, LogTarget};
use tempfile::TempDir;

use crate::failure::Failure;
use crate::settings::{self, Settings};

/// Where the services keep their data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    Sqlite,
    /// A PostgreSQL of the demo's own, found or installed once
    Postgres,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        })
    }
}

impl Backend {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// Waits that only cost the audience's time. Deadlines, attempts and limits are those of real life.
pub const SHORTENED: &[(&str, &str)] = &[
    ("payment.breaker.failure_threshold", "3"),
    ("payment.breaker.open_for", "1s"),
    ("payment.retry_first", "200ms"),
    ("payment.retry_most", "1s"),
    ("payment.sweep_every", "200ms"),
    // Longer than the simulated gateway takes for a slow card, 3 s.
    ("payment.gateway.timeout_ms", "5000"),
    ("consumer.retry_first", "100ms"),
    ("consumer.retry_most", "1s"),
    ("outbox.sweep_every", "1s"),
    ("outbox.sweep_after", "1s"),
    ("nats.reconnect_base_ms", "50"),
    ("nats.reconnect_max_ms", "500"),
    ("nats.request_timeout_ms", "2000"),
    ("shutdown.drain", "5s"),
];

/// Every port is free, and none is taken from something that runs already.
const LISTENERS: [&str; 6] = [
    "http.listen",
    "ops.listen",
    "simulators.gateway_listen",
    "simulators.smtp_listen",
    "simulators.mail_listen",
    "simulators.sms_listen",
];

/// The built-in defaults, shortened. Nothing the user has set counts: a real gateway's key or a production database must
/// never get into a demonstration. Only logs and traces go where the user wants them.
pub fn settings(folder: &Path, theirs: telemetry::Settings, log: &Path, verbose: bool) -> Result<Settings, Failure> {
    let mut loader = Loader::new(settings::DEFAULTS);
    for (name, value) in SHORTENED {
        loader = loader.set_by("demo", name, value);
    }
    for name in LISTENERS {
        loader = loader.set_by("demo", name, "127.0.0.1:0");
    }
    loader = loader.set_by("demo", "database.url", format!("sqlite:{}/{{service}}.db", folder.display()));
    let mut settings = loader.load::<Settings>().map_err(|e| Failure::new(e.to_string()))?.settings;
    settings.telemetry = theirs;
    settings.telemetry.log_file = Some(log.to_owned());
    settings.telemetry.log_to = if verbose { LogTarget::Stderr } else { LogTarget::None };
    Ok(settings)
}

/// Everything the demo writes. Removed when dropped, unless kept.
pub struct Folder(TempDir);

impl Folder {
    pub fn create() -> Result<Self, Failure> {
        tempfile::Builder::new().prefix("millrace-demo-").tempdir().map(Self).map_err(|e| {
            Failure::new(format!("no folder can be made in {}: {e}", std::env::temp_dir().display()))
                .remedy("TMPDIR=FOLDER chooses another place")
        })
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn keep(self) -> PathBuf {
        self.0.keep()
    }
}

/// Starts the database server, if the backend needs one, and points the settings to it.
pub async fn database(
    backend: Backend,
    folder: &Folder,
    settings: &mut Settings,
    mut progress: impl FnMut(&str) + Copy + Send + 'static,
) -> Result<Option<Postgres>, Failure> {
    if backend == Backend::Sqlite {
        return Ok(None);
    }
    let found = tokio::task::spawn_blocking(move || Provision::from_env().postgres(&mut progress)).await;
    let programs =
        found.map_err(|panic| Failure::new(panic.to_string()))?.map_err(|error| Failure::new(error.to_string()))?;
    progress("Starting PostgreSQL.");
    if run_account().is_some() {
        // As root PostgreSQL runs as somebody else, who has to get through to its data.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711))
            .map_err(|e| Failure::new(format!("{} cannot be opened to PostgreSQL: {e}", folder.path().display())))?;
    }
    // A new folder holds nothing that could be lost; commits are forced to disk as always.
    let starting = Postgres::builder(programs, folder.path().join("postgres")).sync_new_data(false).start();
    let server = starting.await.map_err(|error| Failure::new(error.to_string()))?;
    settings.database.url = server.database_url("millrace");
    Ok(Some(server))
}
