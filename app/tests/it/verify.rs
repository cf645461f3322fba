//! `millrace verify` breaks everything and checks that the promise holds; this is the run that every change has to pass.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

/// A busy machine, and a nats-server that may have to be installed first.
const LIMIT: Duration = Duration::from_secs(300);

struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs it with a folder of its own for what it writes.
async fn verify(temporary: &Path, arguments: &[&str]) -> Run {
    let here = tempfile::tempdir().unwrap();
    let running = Command::new(env!("CARGO_BIN_EXE_millrace"))
        .args(["--json", "verify"])
        .args(arguments)
        .current_dir(here.path())
        .env("TMPDIR", temporary)
        // What somebody has set for their own installation must not matter.
        .env("MILLRACE_NATS_URL", "nats://127.0.0.1:1")
        .env("MILLRACE_PAYMENT_GATEWAY_SECRET_KEY", "sk_live_never_to_be_used")
        .env("MILLRACE_ORDER_DEADLINE", "1ms")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LIMIT, running).await.expect("verify takes too long").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_while_everything_is_broken() {
    let temporary = tempfile::tempdir().unwrap();
    std::fs::set_permissions(temporary.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let Run { code, stdout, stderr } = verify(temporary.path(), &["--orders", "150", "--seed", "1"]).await;
    let report: Value = serde_json::from_str(&stdout)
        .unwrap_or_else(|error| panic!("not one JSON object ({error}): {stdout}\nstandard error: {stderr}"));
    assert_eq!(report["passed"], true, "{report:#}\n{stderr}");
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!((&report["seed"], &report["accepted"]), (&1.into(), &150.into()), "{report:#}");
    let invariants = report["invariants"].as_array().unwrap();
    assert_eq!(invariants.len(), 7);
    for invariant in invariants {
        assert_eq!(invariant["violations"], 0, "{invariant:#}");
        assert!(invariant["checked"].as_u64().unwrap() > 0, "{invariant:#}");
    }
    // A run that broke nothing would prove nothing.
    let faults = report["faults"].as_object().unwrap();
    for fault in ["SIGKILL order", "SIGKILL payment", "SIGKILL inventory", "SIGKILL nats-server", "SIGSTOP nats-server"]
    {
        assert!(faults.keys().any(|key| key.contains(fault)), "no {fault} among {faults:#?}");
    }
    assert!(report["requests"]["unanswered"].as_u64().unwrap() > 0, "{report:#}");
    assert_eq!(entries(temporary.path()), 0, "nothing is left behind");
}

#[tokio::test]
async fn a_command_line_that_makes_no_sense_is_refused_before_anything_is_started() {
    let temporary = tempfile::tempdir().unwrap();
    for (arguments, words) in [
        (&["--orders", "0"][..], "orders cannot be placed"),
        (&["--rate", "0"], "is not a rate"),
        (&["--faults", "kill,earthquake"], "kill-nats"),
        (&["--faults", "kill-postgres"], "--backend postgres"),
        (&["--orders", "5", "--duration", "5s"], "cannot be used with"),
    ] {
        let Run { code, stderr, .. } = verify(temporary.path(), arguments).await;
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(words), "{arguments:?}: {stderr}");
    }
    assert_eq!(entries(temporary.path()), 0);
}
