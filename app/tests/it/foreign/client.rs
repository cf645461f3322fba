use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::installed;
use crate::support::cli::Ran;
use crate::support::{Installation, PATIENCE};

/// The programs in `clients/` of one language, against one installation.
pub(super) struct Client {
    pub(super) name: &'static str,
    extension: &'static str,
    program: PathBuf,
    environment: Vec<(&'static str, PathBuf)>,
    folder: TempDir,
}

impl Client {
    /// `None` where there is no Python that fits, or no registry. Said loudly; with CI set it is an error.
    pub(super) async fn python() -> Option<Self> {
        let language = available("Python with pip, 3.10 or newer", installed::python().await)?;
        let folder = tempfile::tempdir().unwrap();
        copy(&installed::clients().join("python"), folder.path());
        let environment = vec![("PYTHONPATH", language.libraries)];
        Some(Self { name: "python", extension: "py", program: language.program, environment, folder })
    }

    /// As [`python`](Self::python), for Node with npm.
    pub(super) async fn node() -> Option<Self> {
        let language = available("Node with npm, 20 or newer", installed::node().await)?;
        let folder = tempfile::tempdir().unwrap();
        copy(&installed::clients().join("node"), folder.path());
        // Node looks for libraries beside the program and nowhere else.
        std::os::unix::fs::symlink(&language.libraries, folder.path().join("node_modules")).unwrap();
        Some(Self { name: "node", extension: "js", program: language.program, environment: Vec::new(), folder })
    }

    /// Has the client talk to this installation.
    pub(super) fn of(mut self, installation: &Installation) -> Self {
        self.environment.push(("NATS_URL", installation.nats.url().into()));
        self.environment.push(("MILLRACE_SCHEMAS", installed::clients().join("../schemas")));
        self
    }

    /// Runs one of its programs to its end: `ask` is `ask.py` or `ask.js`.
    pub(super) async fn run(&self, program: &str, args: &[&str], input: &str) -> Ran {
        // Python's names have underscores where Node's have dashes.
        let file = if self.extension == "py" { program.replace('-', "_") } else { program.to_owned() };
        let mut child = Command::new(&self.program)
            .arg(self.folder.path().join(format!("{file}.{}", self.extension)))
            .args(args)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let talking = async {
            // A program that does not read, or has ended, says why by its exit code.
            let _ = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
            child.wait_with_output().await.unwrap()
        };
        let ended = tokio::time::timeout(PATIENCE, talking).await;
        let output = ended.unwrap_or_else(|_| panic!("{} {program} {args:?} does not end", self.name));
        let code = output.status.code().unwrap_or(-1);
        Ran {
            code,
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// What a program that must end well printed, one value a line.
    pub(super) async fn lines(&self, program: &str, args: &[&str], input: &str) -> Vec<Value> {
        let ran = self.run(program, args, input).await;
        assert_eq!(ran.code, 0, "{} {program} {args:?}: {ran}", self.name);
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Publishes these orders, one a line.
    pub(super) async fn publish(&self, args: &[&str], orders: &[&Value]) -> Vec<Value> {
        let input: String = orders.iter().map(|order| format!("{order}\n")).collect();
        let stored = self.lines("publish-orders", args, &input).await;
        assert_eq!(stored.len(), orders.len(), "{stored:?}");
        stored
    }

    /// A question's answer, or its error.
    pub(super) async fn ask(&self, subject: &str, question: &str) -> Result<Value, Value> {
        let ran = self.run("ask", &[subject, question], "").await;
        let mut said = ran.json();
        match (ran.code, said["answer"].take(), said["error"].take()) {
            (0, answer, Value::Null) => Ok(answer),
            (1, Value::Null, error) => Err(error),
            _ => panic!("{ran}"),
        }
    }
}

#[expect(clippy::print_stderr, reason = "a test that tests nothing must say so")]
fn available<T>(what: &str, found: Result<T, String>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(reason) if std::env::var_os("CI").is_some() => panic!("{what} is needed, with its registry: {reason}"),
        Err(reason) => {
            eprintln!("\n*** NOT TESTED, for want of {what} or its package registry: {reason}\n");
            None
        }
    }
}

/// Copied, so that nothing is written into the project.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}
