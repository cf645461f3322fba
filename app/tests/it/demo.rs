//! `millrace demo` is the story of the whole system; that it holds is the promise of this repository.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::Mutex;

/// Servers may have to be installed first.
const LIMIT: Duration = Duration::from_secs(180);
/// Two demos at once on a small machine would only slow each other down.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

const STORY: [&str; 9] = [
    "confirmed",
    "out-of-stock",
    "card-declined",
    "customer-cancels",
    "same-key-twice",
    "foreign-order",
    "undecodable",
    "gateway-down",
    "nats-down",
];

struct Run {
    code: Option<i32>,
    report: Value,
    stderr: String,
}

/// Runs the demo in an empty folder, with another one for what it writes.
async fn demo(temporary: &Path, arguments: &[&str]) -> Run {
    let _one = ONE_AT_A_TIME.lock().await;
    let here = tempfile::tempdir().unwrap();
    let running = Command::new(env!("CARGO_BIN_EXE_millrace"))
        .args(["--json", "demo"])
        .args(arguments)
        .current_dir(here.path())
        .env("TMPDIR", temporary)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LIMIT, running).await.expect("the demo takes too long").unwrap();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(entries(here.path()), Vec::<String>::new(), "the demo must not write where it is started");
    let report = serde_json::from_str(&stdout)
        .unwrap_or_else(|error| panic!("not one JSON object ({error}): {stdout}\nstandard error: {stderr}"));
    Run { code: output.status.code(), report, stderr }
}

/// Where the demo makes its folder. Open to the account that PostgreSQL runs as.
fn temporary() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
    folder
}

fn entries(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.to_string_lossy().into_owned()).collect()
}

async fn whole_story_holds(backend: &str) {
    let temporary = temporary();
    let Run { code, report, stderr } = demo(temporary.path(), &["--backend", backend, "--verbose"]).await;
    assert_eq!(report["passed"], true, "{report:#}\n{stderr}");
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(report["backend"], backend);
    let orders = report["orders"].as_array().unwrap();
    let told: BTreeSet<_> = orders.iter().map(|order| order["scenario"].as_str().unwrap()).collect();
    assert_eq!(told, BTreeSet::from(STORY));
    for order in orders {
        assert_eq!(order["outcome"], order["expected"], "{order:#}");
        assert_eq!(order["passed"], true, "{order:#}");
        assert!(order["order_id"].is_string(), "{order:#}");
        let timeline = order["timeline"].as_array().unwrap();
        assert_eq!(timeline[0]["event"], "orders.created", "{order:#}");
        assert!(timeline.len() >= 5, "{order:#}");
        assert!(timeline.iter().all(|moment| moment["at_ms"].is_u64() && moment["service"].is_string()), "{order:#}");
    }
    assert_eq!(entries(temporary.path()), Vec::<String>::new(), "nothing is left behind");
    // All services in one process, and yet each line says whose it is.
    for (said, by) in [
        ("An order was accepted.", "order"),
        ("An order is confirmed.", "order"),
        ("the message is a dead letter now", "order"),
        ("The catalog is being followed.", "inventory"),
        ("component=notification.email", "notification"),
    ] {
        let lines: Vec<_> = stderr.lines().filter(|line| line.contains(said)).collect();
        let whose = format!(" {by}: ");
        assert!(!lines.is_empty() && lines.iter().all(|line| line.contains(&whose)), "{said}: {lines:#?}\n{stderr}");
    }
}

#[tokio::test]
async fn every_scenario_holds_on_sqlite() {
    whole_story_holds("sqlite").await;
}

#[tokio::test]
async fn every_scenario_holds_on_postgresql() {
    whole_story_holds("postgres").await;
}

#[tokio::test]
async fn a_story_that_does_not_hold_is_told_by_exit_code_report_and_log() {
    let temporary = temporary();
    let Run { code, report, .. } = demo(temporary.path(), &["--patience", "0s"]).await;
    assert_eq!(code, Some(1));
    assert_eq!(report["passed"], false);
    let scenarios = report["scenarios"].as_array().unwrap();
    assert_eq!(scenarios.len(), STORY.len());
    for scenario in scenarios {
        assert_eq!(scenario["passed"], false, "{scenario:#}");
        assert!(scenario["detail"].as_str().unwrap().contains("expected"), "{scenario:#}");
    }
    let folder = Path::new(report["folder"].as_str().unwrap());
    assert!(folder.join("millrace.log").is_file(), "the log is kept for whoever has to find out why");
}
