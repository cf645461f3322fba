//! Logs of servers and processes, shown when the test that used them fails.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use millrace::local;

const LINES_SHOWN: usize = 40;

/// To be called where a server is dropped: prints the end of its log if the test is failing, and keeps the whole log.
#[expect(clippy::print_stderr, reason = "the test harness shows this with the failed test")]
pub(crate) fn show_if_failing(name: &str, log: &Path) {
    if !std::thread::panicking() {
        return;
    }
    let kept = keep(name, log).map_or_else(|error| format!("not kept: {error}"), |path| path.display().to_string());
    eprintln!("--- end of the log of {name} (whole log: {kept})\n{}\n---", local::tail(log, LINES_SHOWN));
}

/// Copies a log to the folder named in TESTKIT_LOGS, by default `millrace-test-logs` in the temporary folder.
fn keep(name: &str, log: &Path) -> std::io::Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let folder =
        std::env::var_os("TESTKIT_LOGS").map_or_else(|| std::env::temp_dir().join("millrace-test-logs"), PathBuf::from);
    std::fs::create_dir_all(&folder)?;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let kept = folder.join(format!("{name}-{}-{count}.log", std::process::id()));
    std::fs::copy(log, &kept)?;
    Ok(kept)
}
