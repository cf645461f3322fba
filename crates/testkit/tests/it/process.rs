//! Programs under test as processes of their own.

use std::time::Duration;

use testkit::Process;

const SOON: Duration = Duration::from_secs(10);

fn script(text: &str) -> testkit::ProcessBuilder {
    Process::builder("script", "/bin/sh").arg("-c").arg(text)
}

#[tokio::test]
async fn lines_are_those_of_the_present_run() {
    let mut process = script("echo run of $$; echo $GREETING >&2; exec sleep 600").env("GREETING", "hello").start();
    process.wait_for_line("hello", SOON).await;
    let first = process.wait_for_line("run of", SOON).await;
    process.kill_and_restart().await;
    process.wait_for_line("hello", SOON).await;
    let second = process.wait_for_line("run of", SOON).await;
    assert_ne!(first, second);
    assert_eq!(process.lines().len(), 2);
    assert_eq!(process.all_output().lines().count(), 4);
}

#[tokio::test]
async fn sigterm_reaches_the_program_and_its_exit_code_comes_back() {
    let mut process = script("trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done").start();
    process.wait_for_line("ready", SOON).await;
    assert_eq!(process.terminate(SOON).await, 3);
    assert_eq!(process.lines(), ["ready", "bye"]);
    assert_eq!(process.exit_code(), Some(3));
}

#[tokio::test]
#[should_panic(expected = "it ended with exit code Some(4) instead")]
async fn waiting_for_a_line_ends_early_when_the_program_does() {
    script("exit 4").start().wait_for_line("never", SOON).await;
}

#[tokio::test]
async fn a_url_is_found_in_a_line_and_waited_for() {
    let nats = testkit::nats_with(|server| server.monitor_port(0)).await;
    let port = nats.monitor_port().expect("asked for");
    let mut process = script(&format!("echo 'look at http://127.0.0.1:{port}/, please'; exec sleep 600")).start();
    assert_eq!(process.wait_for_url("look at", "/healthz", SOON).await, format!("http://127.0.0.1:{port}"));
}

#[test]
#[should_panic(expected = "there is no program /nowhere/at/all")]
fn a_missing_program_is_named() {
    Process::builder("missing", "/nowhere/at/all");
}
