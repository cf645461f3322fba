//! Children end with their parent, in whatever way it ends.

use std::path::Path;
use std::time::Duration;

use millrace::local::guard::{GuardedCommand, Signal};
use rustix::process::{getpgid, getpgrp};
use testkit::{Process, eventually};

use crate::{is_alive, pid};

const SOON: Duration = Duration::from_secs(10);
const PARENT: &str = "TESTKIT_PLAYS_THE_PARENT";

fn shell(script: &str, log: &Path) -> GuardedCommand {
    GuardedCommand::new("script", "/bin/sh", log).arg("-c").arg(script)
}

async fn says(log: &Path, text: &str) {
    let said = || async { std::fs::read_to_string(log).unwrap_or_default().contains(text) };
    eventually(SOON, said, &format!("the script to say {text:?}")).await;
}

/// One test in two processes: the first starts the second, which starts the server and is then killed.
#[tokio::test]
async fn a_server_and_its_folder_are_gone_after_kill_9_of_its_parent() {
    if std::env::var_os(PARENT).is_some() {
        let nats = testkit::nats().await;
        println!("started process {} in {}", nats.pid().expect("it runs"), nats.data_dir().display());
        std::future::pending::<()>().await;
    }
    let myself = std::env::current_exe().expect("own path");
    let mut parent = Process::builder("parent", myself)
        .args(["--exact", "guard::a_server_and_its_folder_are_gone_after_kill_9_of_its_parent", "--nocapture"])
        .env(PARENT, "1")
        .start();
    // The first run on a machine installs the server.
    let line = parent.wait_for_line("started process ", Duration::from_secs(300)).await;
    let (server, folder) =
        line.split_once("started process ").and_then(|(_, rest)| rest.split_once(" in ")).expect("both");
    let server = server.parse().expect("a process id");
    assert!(is_alive(server), "{line}");

    parent.kill().await;

    eventually(SOON, || async { !is_alive(server) }, "the server to end with its parent").await;
    eventually(SOON, || async { !Path::new(folder).exists() }, "its temporary folder to be removed").await;
}

#[tokio::test]
async fn a_child_ends_when_its_handle_is_dropped() {
    let folder = tempfile::tempdir().expect("a folder");
    let child = shell("exec sleep 600", &folder.path().join("log")).spawn().expect("a child");
    let number = child.pid();
    assert!(is_alive(number));
    drop(child);
    eventually(SOON, || async { !is_alive(number) }, "the child to end").await;
}

#[tokio::test]
async fn a_paused_child_that_ignores_the_request_to_end_is_killed_after_the_grace() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    let command = shell("trap '' TERM; echo ready; while :; do sleep 1; done", &log).grace(Duration::from_millis(300));
    let mut child = command.spawn().expect("a child");
    says(&log, "ready").await;
    child.pause().await.expect("it runs");
    let number = child.pid();
    drop(child);
    eventually(SOON, || async { !is_alive(number) }, "the child to be killed").await;
}

#[tokio::test]
async fn stopping_kills_a_child_that_does_not_end_within_the_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    let mut child = shell("trap '' TERM; echo ready; while :; do sleep 1; done", &log).spawn().expect("a child");
    says(&log, "ready").await;
    assert_eq!(child.stop(Duration::from_millis(200)).await, Some(128 + 9));
    assert!(!is_alive(child.pid()));
    child.signal(Signal::TERM).expect_err("it has ended");
}

#[tokio::test]
async fn a_child_that_ends_by_itself_is_noticed_with_its_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    let mut child = shell("echo to stdout; echo to stderr >&2; exit 7", &log).spawn().expect("a child");
    assert_eq!(child.wait(SOON).await, Some(7));
    assert!(!child.is_running());
    says(&log, "to stdout").await;
    says(&log, "to stderr").await;

    let mut missing = GuardedCommand::new("missing", "/nowhere/at/all", &log).spawn().expect("the guard starts");
    assert_eq!(missing.wait(SOON).await, Some(127));
    says(&log, "/nowhere/at/all").await;
}

#[tokio::test]
async fn ctrl_c_in_the_terminal_does_not_reach_children() {
    let folder = tempfile::tempdir().expect("a folder");
    let child = shell("exec sleep 600", &folder.path().join("log")).spawn().expect("a child");
    let group = getpgid(Some(pid(child.pid()))).expect("it runs");
    assert_ne!(group, getpgrp(), "a terminal sends SIGINT to the whole process group");
}
