//! The servers' programs: found or installed once per machine, looked up once per test process.

use std::path::PathBuf;

use millrace::local::provision::{Provision, ProvisionError};
use tokio::sync::OnceCell;

/// The nats-server tests run.
///
/// # Panics
/// When there is none and it cannot be installed; the message lists the alternatives.
pub async fn nats_server_program() -> PathBuf {
    static PROGRAM: OnceCell<PathBuf> = OnceCell::const_new();
    PROGRAM.get_or_init(|| provisioned(|provision, progress| provision.nats_server(progress))).await.clone()
}

/// The folder with PostgreSQL's programs tests run.
///
/// # Panics
/// When there is none and it cannot be installed; the message lists the alternatives.
pub async fn postgres_programs() -> PathBuf {
    static PROGRAMS: OnceCell<PathBuf> = OnceCell::const_new();
    PROGRAMS.get_or_init(|| provisioned(|provision, progress| provision.postgres(progress))).await.clone()
}

type Find = fn(&Provision, &mut dyn FnMut(&str)) -> Result<PathBuf, ProvisionError>;

#[expect(clippy::print_stderr, reason = "a developer waiting for a first run should see what it does")]
async fn provisioned(find: Find) -> PathBuf {
    let found = tokio::task::spawn_blocking(move || {
        find(&Provision::from_env(), &mut |progress| eprintln!("testkit: {progress}"))
    });
    match found.await {
        Ok(Ok(path)) => path,
        Ok(Err(error)) => panic!("a server this test needs cannot be had: {}", with_sources(&error)),
        Err(error) => panic!("looking for a server this test needs failed: {error}"),
    }
}

/// What only fails where no test could run.
pub(crate) fn done<T, E: std::fmt::Display>(result: Result<T, E>, what: &str) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error}"))
}

pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
