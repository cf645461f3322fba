use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use super::PATIENCE;

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Standard output as one JSON document.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON: {error}: {self}"))
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {}\nstandard output: {}\nstandard error: {}", self.code, self.stdout, self.stderr)
    }
}

/// Runs the binary to its end.
pub(crate) async fn millrace(folder: &Path, environment: &[(String, String)], args: &[&str]) -> Ran {
    millrace_within(PATIENCE, folder, environment, args).await
}

/// As [`millrace`], for what takes longer.
pub(crate) async fn millrace_within(
    patience: Duration,
    folder: &Path,
    environment: &[(String, String)],
    args: &[&str],
) -> Ran {
    let running = Command::new(env!("CARGO_BIN_EXE_millrace"))
        .args(args)
        .current_dir(folder)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ran = tokio::time::timeout(patience, running).await;
    let output = ran.unwrap_or_else(|_| panic!("millrace {args:?} does not end")).unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap_or_else(|| panic!("millrace {args:?} was killed by a signal"));
    Ran { code, stdout: text(output.stdout), stderr: text(output.stderr) }
}
