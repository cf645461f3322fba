//! A program under test as a process of its own, to be killed, restarted and listened to.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use millrace::local::guard::{Guarded, GuardedCommand, Signal};
use tempfile::TempDir;

use crate::nats::temporary_folder;
use crate::programs::with_sources;
use crate::{eventually, logs, wait_for_http};

/// What to run. Made by [`Process::builder`].
#[derive(Debug)]
pub struct ProcessBuilder {
    name: String,
    command: GuardedCommand,
    output: PathBuf,
    folder: TempDir,
}

impl ProcessBuilder {
    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command = self.command.arg(arg);
        self
    }

    /// Adds several arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command = self.command.args(args);
        self
    }

    /// Sets one environment variable on top of those of the test.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command = self.command.env(name, value);
        self
    }

    /// Sets the working directory.
    pub fn current_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.command = self.command.current_dir(folder);
        self
    }

    /// Starts the program.
    ///
    /// # Panics
    /// When it does not exist or cannot be started.
    pub fn start(self) -> Process {
        let ProcessBuilder { name, command, output, folder } = self;
        let mut process = Process { name, command, output, _folder: folder, child: None, heard_from: 0 };
        process.start();
        process
    }
}

/// A running (or ended) program. Dropping it kills it; when the test is failing its output is shown first.
#[derive(Debug)]
pub struct Process {
    name: String,
    command: GuardedCommand,
    output: PathBuf,
    _folder: TempDir,
    child: Option<Guarded>,
    /// Where in the output the present run begins, in bytes.
    heard_from: usize,
}

impl Process {
    /// A run of `program`, called `name` in messages.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn builder(name: &str, program: impl AsRef<Path>) -> ProcessBuilder {
        let program = program.as_ref();
        assert!(program.is_file(), "{name}: there is no program {}", program.display());
        let folder = temporary_folder(name);
        let output = folder.path().join("output.log");
        ProcessBuilder { name: name.to_owned(), command: GuardedCommand::new(name, program, &output), output, folder }
    }

    /// Starts the program again with the same arguments after it has ended. Does nothing when it runs.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(&mut self) {
        if self.is_running() {
            return;
        }
        self.heard_from = self.all_output().len();
        match self.command.spawn() {
            Ok(child) => self.child = Some(child),
            Err(error) => panic!("{} cannot be started: {}", self.name, with_sources(&error)),
        }
    }

    /// Process id of the present or last run.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Guarded::pid)
    }

    /// Whether the program runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(Guarded::is_running)
    }

    /// The exit code once the program has ended; 128 + n after signal n.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.as_mut().and_then(Guarded::exit_code)
    }

    /// Everything this and earlier runs wrote, both streams as they came.
    pub fn all_output(&self) -> String {
        std::fs::read(&self.output).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The complete lines the present run has written.
    pub fn lines(&self) -> Vec<String> {
        let output = self.all_output();
        let run = output.get(self.heard_from..).unwrap_or_default();
        let complete = run.rfind('\n').map_or("", |end| &run[..end]);
        complete.lines().map(str::to_owned).collect()
    }

    /// Waits for a line of the present run that contains `text` and returns it.
    ///
    /// # Panics
    /// When there is none within `limit`, or the program ends without it.
    pub async fn wait_for_line(&mut self, text: &str, limit: Duration) -> String {
        let what = format!("{} to write a line with {text:?}", self.name);
        let mut look = || {
            // Asked before reading: what a program writes last is there once it has ended.
            let ended = self.exit_code();
            let found = self.lines().into_iter().find(|line| line.contains(text));
            assert!(
                found.is_some() || ended.is_none(),
                "waiting for {what}: it ended with exit code {ended:?} instead"
            );
            found
        };
        eventually(limit, || std::future::ready(look()), &what).await
    }

    /// Waits for a line of the present run that contains `text` and an http:// URL, and until that URL, followed by
    /// `path` ("/livez"), answers; returns the URL without `path`.
    ///
    /// # Panics
    /// When it does not within `limit` for each of the two.
    pub async fn wait_for_url(&mut self, text: &str, path: &str, limit: Duration) -> String {
        let line = self.wait_for_line(text, limit).await;
        let url = line.find("http://").map(|start| {
            let rest = &line[start..];
            let end = rest.find(|c: char| c.is_whitespace() || "\"'`,;)>]}\u{1b}".contains(c)).unwrap_or(rest.len());
            rest[..end].trim_end_matches(['/', '.']).to_owned()
        });
        let Some(url) = url else { panic!("{}: no http:// URL in the line {line:?}", self.name) };
        wait_for_http(&format!("{url}{path}"), limit).await;
        url
    }

    /// Waits until the program ends by itself; its exit code.
    ///
    /// # Panics
    /// When it still runs after `limit`.
    pub async fn wait_for_exit(&mut self, limit: Duration) -> i32 {
        let code = match &mut self.child {
            Some(child) => child.wait(limit).await,
            None => panic!("{} was never started", self.name),
        };
        code.unwrap_or_else(|| panic!("{} still runs after {limit:?}", self.name))
    }

    /// Sends a signal, SIGINT say.
    ///
    /// # Panics
    /// When the program has ended.
    pub fn signal(&mut self, signal: Signal) {
        match self.child.as_mut().map(|child| child.signal(signal)) {
            Some(Ok(())) => {}
            _ => panic!("{} cannot be signalled: it is not running", self.name),
        }
    }

    /// Freezes the program (SIGSTOP), as a machine that hangs would.
    ///
    /// # Panics
    /// When the program has ended.
    pub async fn pause(&mut self) {
        let paused = match &mut self.child {
            Some(child) => child.pause().await.is_ok(),
            None => false,
        };
        assert!(paused, "{} cannot be paused: it is not running", self.name);
    }

    /// Lets a paused program go on.
    ///
    /// # Panics
    /// When the program has ended.
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Sends SIGTERM and waits for the end; the exit code.
    ///
    /// # Panics
    /// When the program has ended before, or still runs after `limit`.
    pub async fn terminate(&mut self, limit: Duration) -> i32 {
        self.signal(Signal::TERM);
        self.wait_for_exit(limit).await
    }

    /// Kills the program (SIGKILL) and waits until it is gone. Harmless on one that has ended.
    pub async fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().await;
        }
    }

    /// Kills the program (SIGKILL) and starts it again with the same arguments.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn kill_and_restart(&mut self) {
        self.kill().await;
        self.start();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        logs::show_if_failing(&self.name, &self.output);
        if let Some(child) = &mut self.child {
            child.kill_now();
        }
    }
}
