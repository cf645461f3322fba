//! On what it was measured, and what a commit means there.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use millrace::local::provision::Provision;
use serde_json::{Value, json};
use tokio::process::Command;

use super::world::Layout;
use super::{Bench, setup};
use crate::commands::verify::Backend;
use crate::failure::Failure;

/// Pairs of a name and what there is to say, in an order to be read in.
pub struct Surroundings {
    pub machine: Vec<(&'static str, String)>,
    pub versions: Vec<(&'static str, String)>,
    pub durability: Vec<(&'static str, String)>,
    /// Settings that differ from their defaults, addresses apart.
    pub settings: Vec<(String, String)>,
    pub layout: String,
}

impl Surroundings {
    pub async fn look(bench: &Bench) -> Result<Self, Failure> {
        let mut versions = vec![
            ("millrace", env!("CARGO_PKG_VERSION").to_owned()),
            ("build", if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned()),
            ("nats-server", version_of(&setup::nats_program().await?, "--version").await),
        ];
        let sync =
            "JetStream acknowledges before it syncs, every 2 min (its default); the outbox keeps what it may forget";
        let mut durability = vec![
            ("nats-server", format!("1 server, file storage, 1 copy; {sync}")),
            (
                "nats-server in cluster",
                "3 servers, 3 copies, sync_interval always: on disk before the answer".to_owned(),
            ),
        ];
        match bench.backend {
            Backend::Sqlite => {
                versions.push(("SQLite", rusqlite::version().to_owned()));
                let commit =
                    "WAL, synchronous=FULL: every commit is synced before it counts; one file for each service";
                durability.insert(0, ("SQLite", commit.to_owned()));
            }
            Backend::Postgres => {
                let finding = tokio::task::spawn_blocking(|| Provision::from_env().postgres(&mut |_| {})).await;
                let programs = finding
                    .map_err(|panic| Failure::new(panic.to_string()))?
                    .map_err(|error| Failure::new(error.to_string()))?;
                versions.push(("PostgreSQL", version_of(&programs.join("postgres"), "--version").await));
                let commit = "fsync=on, synchronous_commit=on (defaults): every commit is synced before it counts";
                durability.insert(0, ("PostgreSQL", format!("{commit}; one database for each service")));
            }
        }
        let layout = match bench.layout {
            Layout::Apart => "order, payment, inventory, notification",
            Layout::Together => "order+payment+inventory+notification",
        };
        Ok(Self {
            machine: machine(bench.folder.path()),
            versions,
            durability,
            settings: bench.tuned.clone(),
            layout: format!(
                "processes: {layout}, simulators (gateway, SMTP, SMS), nats-server, the load generator; all share this machine"
            ),
        })
    }

    pub fn to_json(&self) -> Value {
        let object = |pairs: &[(&'static str, String)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str()))).collect::<Value>()
        };
        let settings: Value =
            self.settings.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
        json!({
            "machine": object(&self.machine), "versions": object(&self.versions),
            "durability": object(&self.durability), "settings": settings, "layout": self.layout,
        })
    }
}

fn machine(folder: &Path) -> Vec<(&'static str, String)> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    vec![
        ("cores", cores.to_string()),
        ("processor", field(&read("/proc/cpuinfo"), "model name")),
        ("memory", field(&read("/proc/meminfo"), "MemTotal")),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("file system", file_system(&read("/proc/mounts"), folder)),
        // More than a little at the start, and the figures are somebody else's too.
        ("load at the start", read("/proc/loadavg").split_whitespace().take(3).collect::<Vec<_>>().join(" ")),
    ]
}

/// The type of the file system that `folder` is on: on one in memory nothing that is said about disks is true.
fn file_system(mounts: &str, folder: &Path) -> String {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (_, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        folder.starts_with(place).then_some((place.len(), kind))
    });
    mounts.max_by_key(|(length, _)| *length).map_or_else(String::new, |(_, kind)| kind.to_owned())
}

async fn version_of(program: &Path, flag: &str) -> String {
    let asked = Command::new(program).arg(flag).stdin(Stdio::null()).output().await;
    let text = asked.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    text.rsplit(' ').find(|word| word.contains('.')).map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_is_the_one() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\nproc /proc proc rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/tmp/bench")), "tmpfs");
        assert_eq!(file_system(mounts, Path::new("/tmpfolder")), "ext4");
    }
}
