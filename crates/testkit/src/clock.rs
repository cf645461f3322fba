//! A program under test whose clock is wrong.

use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::nats::temporary_folder;
use crate::programs::done;

const SOURCE: &str = include_str!("clock.c");

/// Environment variables that set the wall clock of a program ahead, or back when `shift_s` is negative. What it measures
/// time with stays right.
///
/// # Panics
/// When there is no C compiler; but without one nothing of this would have been built.
pub async fn clock_ahead_by(shift_s: i64) -> [(&'static str, String); 2] {
    static LIBRARY: OnceCell<PathBuf> = OnceCell::const_new();
    let library = LIBRARY.get_or_init(compile).await;
    [("LD_PRELOAD", library.display().to_string()), ("TESTKIT_CLOCK_SHIFT_S", shift_s.to_string())]
}

async fn compile() -> PathBuf {
    // Like the programs that use it, it stays for the rest of the process.
    let folder = temporary_folder("clock").keep();
    let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
    done(std::fs::write(&source, SOURCE), "the clock's source cannot be written");
    let compiling = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).output();
    let compiled = tokio::time::timeout(Duration::from_secs(60), compiling).await;
    let compiled = done(done(compiled, "cc does not end"), "there is no C compiler, cc");
    assert!(compiled.status.success(), "cc: {}", String::from_utf8_lossy(&compiled.stderr));
    library
}
