//! A child process that cannot outlive this one.
//!
//! Linux could tie a child to its parent with `PR_SET_PDEATHSIG`, but only with unsafe code and on Linux alone. Instead a
//! tiny shell script stands between: it starts the program and reads from a pipe whose other end only this process
//! holds. When this process ends, by whatever means, the kernel closes the pipe, and the script ends the program.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, kill_process};

pub use rustix::process::Signal;

use super::{LocalError, logfile};

const SCRIPT: &str = include_str!("guard.sh");

/// How often a waiting caller looks whether the program has ended. Polling keeps a child usable from any runtime, and
/// from none: tokio's own children belong to the runtime that started them.
const POLL: Duration = Duration::from_millis(10);
/// A stop signal takes effect within microseconds on an idle machine; one that needs longer than this is out of order.
const PAUSE_LIMIT: Duration = Duration::from_secs(5);

/// An account to run as, given by its numbers. Only root may become another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// What to run and how to end it.
#[derive(Debug, Clone)]
pub struct GuardedCommand {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    current_dir: Option<PathBuf>,
    log: PathBuf,
    stop_signal: Signal,
    grace: Duration,
    account: Option<Account>,
    leftover: Option<PathBuf>,
}

impl GuardedCommand {
    /// `program` under the display name `name`; both its output streams are appended to the file `log`.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        GuardedCommand {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            envs: Vec::new(),
            current_dir: None,
            log: log.into(),
            stop_signal: Signal::TERM,
            grace: Duration::from_secs(5),
            account: None,
            leftover: None,
        }
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds several arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets one environment variable on top of those of this process.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The program's working directory; this process's own by default.
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.current_dir = Some(dir.into());
        self
    }

    /// The signal that asks the program to end in order; SIGTERM by default.
    pub fn stop_signal(mut self, signal: Signal) -> Self {
        self.stop_signal = signal;
        self
    }

    /// How long the program may take to end in order when this process is gone, before it is killed; 5 s by default.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Runs the program as another account; only root can.
    pub fn account(mut self, account: Option<Account>) -> Self {
        self.account = account;
        self
    }

    /// A temporary folder the guard removes once the program has ended, if this process is gone and cannot do it.
    pub fn remove_when_orphaned(mut self, folder: impl Into<PathBuf>) -> Self {
        self.leftover = Some(folder.into());
        self
    }

    /// Starts the program.
    ///
    /// # Errors
    /// [`LocalError::Io`] when the log or the guard cannot be opened. A program that does not exist shows as exit code 127.
    pub fn spawn(&self) -> Result<Guarded, LocalError> {
        logfile::prepare(&self.log).map_err(LocalError::io("open the log file", &self.log))?;
        if let Some(Account { uid, gid }) = self.account {
            std::os::unix::fs::chown(&self.log, Some(uid), Some(gid))
                .map_err(LocalError::io("hand over the log file", &self.log))?;
        }
        let failed = || LocalError::io("start", &self.program);
        let mut guard = self.shell().spawn().map_err(failed())?;
        let pid = report_of(&mut guard).map_err(failed())?;
        tracing::debug!(process.name = self.name, process.pid = pid.as_raw_nonzero().get(), "started a child process");
        Ok(Guarded { name: self.name.clone(), guard, pid, stop_signal: self.stop_signal, ended: None })
    }

    fn shell(&self) -> Command {
        let tenths = self.grace.as_millis().div_ceil(100).to_string();
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "guard"]).arg(&self.log).arg(signal_name(self.stop_signal)).arg(tenths);
        shell.arg(self.leftover.as_deref().unwrap_or(Path::new(""))).arg(&self.program).args(&self.args);
        shell.envs(self.envs.iter().map(|(name, value)| (name, value)));
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        if let Some(dir) = &self.current_dir {
            shell.current_dir(dir);
        }
        if let Some(Account { uid, gid }) = self.account {
            shell.uid(uid).gid(gid);
        }
        shell
    }
}

/// The guard's first line is the program's process id.
fn report_of(guard: &mut Child) -> std::io::Result<Pid> {
    let mut line = String::new();
    if let Some(stdout) = guard.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    line.trim().parse().ok().and_then(Pid::from_raw).ok_or_else(|| {
        std::io::Error::other(format!("the guarding shell reported {line:?} where a process id was expected"))
    })
}

fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::INT => "INT",
        Signal::QUIT => "QUIT",
        Signal::HUP => "HUP",
        Signal::KILL => "KILL",
        _ => "TERM",
    }
}

/// A running (or ended) guarded program. Dropping it asks the program to end, without waiting.
#[derive(Debug)]
pub struct Guarded {
    name: String,
    guard: Child,
    pid: Pid,
    stop_signal: Signal,
    ended: Option<ExitStatus>,
}

impl Guarded {
    /// The program's own process id, not the guard's.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// The exit code once the program has ended: its own, 127 when it could not be started, 128 + n after signal n.
    pub fn exit_code(&mut self) -> Option<i32> {
        if self.ended.is_none() {
            self.ended = self.guard.try_wait().ok().flatten();
        }
        self.ended.map(|status| status.code().unwrap_or(-1))
    }

    /// Whether the program still runs (a paused one does).
    pub fn is_running(&mut self) -> bool {
        self.exit_code().is_none()
    }

    /// Sends a signal to the program.
    ///
    /// # Errors
    /// [`LocalError::NotRunning`] when it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<(), LocalError> {
        // Asked first, because the id of an ended process may already belong to another one.
        if !self.is_running() {
            return Err(self.not_running());
        }
        kill_process(self.pid, signal).map_err(|_| self.not_running())
    }

    /// Freezes the program (SIGSTOP) and waits until every thread of it stands still, which a busy machine can delay.
    ///
    /// # Errors
    /// [`LocalError::NotRunning`] when it has ended.
    pub async fn pause(&mut self) -> Result<(), LocalError> {
        self.signal(Signal::STOP)?;
        let deadline = Instant::now() + PAUSE_LIMIT;
        while !stands_still(self.pid()) && self.is_running() && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Lets a paused program go on.
    ///
    /// # Errors
    /// [`LocalError::NotRunning`] when it has ended.
    pub fn resume(&mut self) -> Result<(), LocalError> {
        self.signal(Signal::CONT)
    }

    fn not_running(&self) -> LocalError {
        LocalError::NotRunning { server: self.name.clone() }
    }

    /// Waits until the program has ended, `limit` at most; its exit code, or `None` when it still runs.
    pub async fn wait(&mut self, limit: Duration) -> Option<i32> {
        let deadline = Instant::now() + limit;
        loop {
            match self.exit_code() {
                Some(code) => return Some(code),
                None if Instant::now() >= deadline => return None,
                None => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Asks the program to end, and kills it if it has not within `limit`; returns its exit code. Harmless on one that has ended.
    pub async fn stop(&mut self, limit: Duration) -> Option<i32> {
        if self.signal(self.stop_signal).is_ok() {
            // A paused program cannot act on the request.
            let _ended_meanwhile = self.signal(Signal::CONT);
        }
        match self.wait(limit).await {
            Some(code) => Some(code),
            None => {
                tracing::warn!(process.name = self.name, "{} did not stop within {limit:?} and is killed", self.name);
                self.kill().await
            }
        }
    }

    /// Kills the program (SIGKILL) and waits until it is gone; returns its exit code.
    pub async fn kill(&mut self) -> Option<i32> {
        self.kill_now();
        // The kernel ends a killed process at once unless it hangs in a disk operation.
        self.wait(Duration::from_secs(10)).await
    }

    /// Sends SIGKILL without waiting, for use where nothing can be awaited.
    pub fn kill_now(&mut self) {
        let _ended_already = self.signal(Signal::KILL);
    }
}

/// Whether all threads of a process are stopped. Where the system does not show it (it does on Linux), the answer is yes:
/// the signal has been sent, and that is all there is to know.
fn stands_still(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The state follows the name, which is in parentheses and may contain anything.
        stat.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with(['T', 't']) || rest.is_empty())
    })
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Closing the pipe is what makes the guard act; the guard itself is left to the system to collect.
        drop(self.guard.stdin.take());
        let _collected_if_ended = self.guard.try_wait();
    }
}
