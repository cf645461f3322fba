//! The temporary folder, the servers, the settings.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use millrace::config::{Effective, Loader, Origin, reference};
use millrace::local::provision::Provision;
use millrace::local::{NatsServer, Postgres, SyncInterval, free_port, run_account};
use millrace::telemetry::LogTarget;
use tempfile::TempDir;

use super::world::Broker;
use crate::failure::Failure;
use crate::settings::{self, Settings};

/// Servers of the cluster.
const CLUSTER: usize = 3;
/// Sections in which `--set` counts here: not addresses, which are this run's own, and not secrets.
const TUNABLE: [&str; 8] =
    ["consumer.", "database.", "inbox.", "notification.", "order.", "outbox.", "payment.", "telemetry.log_"];
const NOT_TUNABLE: [&str; 4] = ["database.url", "payment.gateway.", "notification.email.url", "notification.sms."];

/// Everything a run writes. Removed when dropped, unless kept.
pub struct Folder(Option<TempDir>);

impl Folder {
    pub fn create() -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("millrace-bench-").tempdir().map_err(|e| {
            Failure::new(format!("no folder can be made in {}: {e}", std::env::temp_dir().display()))
                .remedy("TMPDIR=FOLDER chooses another place")
        })?;
        if run_account().is_some() {
            // As root PostgreSQL runs as somebody else, who has to get through to its data.
            std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).map_err(|e| {
                Failure::new(format!("{} cannot be opened to PostgreSQL: {e}", folder.path().display()))
            })?;
        }
        Ok(Self(Some(folder)))
    }

    pub fn path(&self) -> &Path {
        self.0.as_ref().map_or(Path::new(""), TempDir::path)
    }

    pub fn keep(&mut self) -> PathBuf {
        self.0.take().map(TempDir::keep).unwrap_or_default()
    }
}

/// The built-in defaults with what was tuned. Nothing else the user has set counts: a real gateway's key or a production
/// database must never get into a benchmark.
pub fn settings(tuned: &[(String, String)]) -> Result<Settings, Failure> {
    let mut loader = Loader::new(settings::DEFAULTS);
    for (name, value) in tuned {
        loader = loader.set_by(&format!("--set {name}"), name, value);
    }
    let mut settings = loader.load::<Settings>().map_err(|e| Failure::new(e.to_string()).usage())?.settings;
    settings.telemetry.log_to = LogTarget::None;
    Ok(settings)
}

/// What was given with `--set` and may be tried out here.
pub fn tuned(effective: &Effective) -> Vec<(String, String)> {
    let dump = effective.dump();
    let known = reference(settings::DEFAULTS, "MILLRACE").unwrap_or_default();
    let given = |name: &str| matches!(effective.origin(name), Some(Origin::Flag(_)));
    let allowed = |name: &str| {
        TUNABLE.iter().any(|prefix| name.starts_with(prefix))
            && !NOT_TUNABLE.iter().any(|prefix| name.starts_with(prefix))
    };
    let values: toml::Table = toml::from_str(&dump).unwrap_or_default();
    let names = known.into_iter().map(|setting| setting.name).filter(|name| given(name) && allowed(name));
    names.filter_map(|name| value_of(&values, &name).map(|value| (name, value))).collect()
}

fn value_of(table: &toml::Table, name: &str) -> Option<String> {
    let mut parts = name.split('.');
    let first = table.get(parts.next()?)?;
    let value = parts.try_fold(first, |value, part| value.get(part))?;
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

pub async fn nats_program() -> Result<PathBuf, Failure> {
    let finding = tokio::task::spawn_blocking(|| Provision::from_env().nats_server(&mut |_| {})).await;
    let found = finding.map_err(|panic| Failure::new(panic.to_string()))?;
    found.map_err(|e| Failure::new(e.to_string()).code(millrace::codes::NATS_SERVER_NOT_FOUND))
}

/// One server, or three that are a cluster.
pub async fn start_nats(broker: Broker, folder: &Path) -> Result<Vec<NatsServer>, Failure> {
    let program = nats_program().await?;
    if broker == Broker::One {
        let server = NatsServer::builder(program, folder.join("nats")).server_name("bench").start().await;
        return Ok(vec![server.map_err(|e| Failure::new(e.to_string()))?]);
    }
    let ports: Result<Vec<u16>, _> = (0..CLUSTER).map(|_| free_port()).collect();
    let ports = ports.map_err(|e| Failure::new(e.to_string()))?;
    let routes: Vec<String> = ports.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
    let routes = routes.join(", ");
    let starting = ports.iter().enumerate().map(|(number, port)| {
        let cluster = format!("cluster {{\n  name: bench\n  listen: \"127.0.0.1:{port}\"\n  routes: [{routes}]\n}}\n");
        NatsServer::builder(&program, folder.join(format!("nats-{number}")))
            .server_name(format!("bench-{number}"))
            .sync_interval(SyncInterval::Always)
            .extra_config(cluster)
            .start()
    });
    let started = futures::future::try_join_all(starting).await;
    started.map_err(|e| Failure::new(e.to_string()))
}

pub async fn start_postgres(folder: &Path) -> Result<Postgres, Failure> {
    let finding = tokio::task::spawn_blocking(|| Provision::from_env().postgres(&mut |_| {})).await;
    let programs =
        finding.map_err(|panic| Failure::new(panic.to_string()))?.map_err(|error| Failure::new(error.to_string()))?;
    // A new folder holds nothing that could be lost; commits are forced to disk as always.
    let starting = Postgres::builder(programs, folder.join("postgres")).sync_new_data(false).start();
    starting.await.map_err(|error| Failure::new(error.to_string()))
}
