//! Log files of local servers: kept small, and quoted in errors.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// A log above this size is set aside (as `*.1`, replacing the one before) when its server is next started: local servers
/// log little, and a run of months must not fill the disk.
const ROTATE_BYTES: u64 = 16 * 1024 * 1024;
/// How much of a log's end is read to quote its last lines.
const TAIL_BYTES: u64 = 16 * 1024;
/// Lines quoted in an error: enough for the cause, few enough to read.
pub(crate) const TAIL_LINES: usize = 12;

/// Makes sure the log exists (a guard running as another user could not create it) and is not huge; its length in bytes.
pub(crate) fn prepare(log: &Path) -> io::Result<u64> {
    if fs::metadata(log).is_ok_and(|meta| meta.len() > ROTATE_BYTES) {
        fs::rename(log, log.with_added_extension("1"))?;
    }
    File::options().create(true).append(true).open(log)?.metadata().map(|meta| meta.len())
}

/// What the log gained since it was `start` bytes long.
pub(crate) fn since(log: &Path, start: u64) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(ROTATE_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    // Only used to find a better name for a failure that is reported anyway.
    read().unwrap_or_default()
}

/// The last `lines` lines of a log file; a note when there are none.
pub fn tail(log: &Path, lines: usize) -> String {
    match read_end(log) {
        Ok(text) if !text.trim().is_empty() => {
            let all: Vec<&str> = text.trim_end().lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Ok(_) => "(the log is empty)".to_owned(),
        Err(error) => format!("(the log cannot be read: {error})"),
    }
}

fn read_end(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
