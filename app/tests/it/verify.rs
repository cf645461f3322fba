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
    let broken = [
        "SIGKILL order",
        "SIGKILL payment",
        "SIGKILL inventory",
        "SIGKILL notification",
        "SIGKILL nats-server",
        "SIGSTOP order",
        "SIGSTOP payment",
        "SIGSTOP inventory",
        "SIGSTOP notification",
        "SIGSTOP nats-server",
        "network cut",
        "network delays",
        "network loses answers",
        "network swallows",
        "gateway: lose_answers",
        "mail server: down",
        "power loss of NATS",
    ];
    for fault in broken {
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
        (&["--sabotage", "inbox", "--faults", "kill"], "cannot be used with"),
        (&["--sabotage", "brakes"], "ack-before-commit"),
    ] {
        let Run { code, stderr, .. } = verify(temporary.path(), arguments).await;
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(words), "{arguments:?}: {stderr}");
    }
    assert_eq!(entries(temporary.path()), 0);
}

/// Runs without this safety: the checker has to notice, in one of these ways (an invariant, and words about an order),
/// and to show that order with its timeline.
async fn is_noticed(sabotage: &str, ways: &[(&str, &str)]) {
    let temporary = tempfile::tempdir().unwrap();
    let arguments = ["--orders", "200", "--sabotage", sabotage];
    let Run { code, stdout, stderr } = verify(temporary.path(), &arguments).await;
    let report: Value = serde_json::from_str(&stdout)
        .unwrap_or_else(|error| panic!("not one JSON object ({error}): {stdout}\nstandard error: {stderr}"));
    assert_eq!(code, Some(1), "{report:#}\n{stderr}");
    assert_eq!((&report["passed"], &report["sabotage"]), (&false.into(), &sabotage.into()), "{report:#}");
    let list = |value: &Value| value.as_array().unwrap().clone();
    let noticed = |(id, words): &&(&str, &str)| {
        let finding = list(&report["invariants"]).into_iter().find(|finding| finding["id"] == *id).unwrap();
        list(&finding["first"]).iter().any(|one| one["what"].as_str().unwrap().contains(words))
    };
    let Some((noticed, _)) = ways.iter().find(noticed) else { panic!("nobody says {ways:?}: {report:#}") };
    let example = list(&report["examples"]).into_iter().find(|example| example["invariant"] == *noticed);
    let example = example.unwrap_or_else(|| panic!("no order is shown for {noticed}: {report:#}"));
    assert!(example["order_id"].as_str().is_some_and(|id| id.len() == 36), "{example:#}");
    let timeline = list(&example["timeline"]);
    assert!(timeline.iter().any(|line| line.as_str().unwrap().contains("orders.created")), "{example:#}");
}

#[tokio::test]
async fn without_the_inbox_it_is_noticed_that_nobody_remembers_what_was_handled() {
    is_noticed("inbox", &[("I7", " 2 times"), ("I7", " 3 times")]).await;
}

#[tokio::test]
async fn without_the_outbox_it_is_noticed_that_a_crash_loses_what_was_decided() {
    is_noticed("outbox", &[("I6", "is on the timeline and on no stream")]).await;
}

#[tokio::test]
async fn without_the_tombstone_it_is_noticed_that_a_cancelled_order_holds_money_or_goods() {
    let goods = ("I3", "its reservation is held and the order cancelled");
    is_noticed("tombstone", &[("I2", "is cancelled (customer) and money is still on hold"), goods]).await;
}

#[tokio::test]
async fn without_the_idempotency_key_it_is_noticed_that_money_is_held_twice() {
    is_noticed("idempotency-key", &[("I2", " payments at the gateway")]).await;
}

#[tokio::test]
async fn with_acknowledgements_on_receipt_it_is_noticed_that_a_crash_loses_messages() {
    is_noticed("ack-before-commit", &[("I7", " 0 times")]).await;
}
