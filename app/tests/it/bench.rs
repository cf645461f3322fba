//! `millrace bench` measures every part and loses no order over it. Not a timed test: how fast a busy machine with a debug
//! build is means nothing.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

/// A busy machine, and servers that may have to be installed first.
const LIMIT: Duration = Duration::from_secs(600);

/// What has to be among the figures of each part, with its unit.
const FIGURES: [(&str, &[(&str, &str)]); 7] = [
    (
        "accept",
        &[
            ("closed loop, 64 connections", "orders/s"),
            ("closed loop, 64 connections, p99", "ms"),
            ("open loop, a third of that, p99", "ms"),
            ("open loop, two thirds of that, max", "ms"),
        ],
    ),
    (
        "pipeline",
        &[
            ("confirmed and captured", "orders/s"),
            ("the same, held against bare clients", "orders/s"),
            ("publishes for an order", "messages"),
            ("deliveries for an order", "messages"),
            ("20 orders/s, 202 to confirmed, p50", "ms"),
            ("20 orders/s, intended start to confirmed, p99", "ms"),
            ("processor time at 4 times the load", "times"),
            ("outside world answered in process", "orders/s"),
        ],
    ),
    ("drain", &[("confirmed and captured", "orders/s"), ("memory of the services, at most", "MB")]),
    ("hot", &[("confirmed and captured", "orders/s")]),
    ("big", &[("confirmed and captured", "orders/s"), ("order, from its start to ready", "ms")]),
    ("idle", &[("processor time of the services", "% of a core"), ("memory of the services", "MB")]),
    (
        "cluster",
        &[("accept, closed loop, 64 connections", "orders/s"), ("pipeline, confirmed and captured", "orders/s")],
    ),
];

struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs it with a folder of its own for what it writes.
async fn bench(temporary: &Path, arguments: &[&str]) -> Run {
    let here = tempfile::tempdir().unwrap();
    let running = Command::new(env!("CARGO_BIN_EXE_millrace"))
        .args(arguments)
        .current_dir(here.path())
        .env("TMPDIR", temporary)
        // What somebody has set for their own installation must not matter.
        .env("MILLRACE_NATS_URL", "nats://127.0.0.1:1")
        .env("MILLRACE_PAYMENT_GATEWAY_SECRET_KEY", "sk_live_never_to_be_used")
        .env("MILLRACE_OPS_LISTEN", "127.0.0.1:1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LIMIT, running).await.expect("the bench takes too long").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Open to the account that PostgreSQL runs as.
fn temporary() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    folder
}

async fn report(arguments: &[&str]) -> Value {
    let temporary = temporary();
    let Run { code, stdout, stderr } = bench(temporary.path(), arguments).await;
    let report: Value = serde_json::from_str(&stdout)
        .unwrap_or_else(|error| panic!("not one JSON object ({error}): {stdout}\nstandard error: {stderr}"));
    assert_eq!(code, Some(0), "{report:#}\n{stderr}");
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "nothing is left behind");
    report
}

fn array<'a>(value: &'a Value, name: &str) -> &'a Vec<Value> {
    value[name].as_array().unwrap_or_else(|| panic!("no {name}: {value:#}"))
}

/// Every order that was accepted is confirmed at the order API and captured at the gateway; how many there were.
fn adds_up(part: &Value) -> Vec<u64> {
    let counted = array(part, "counted");
    assert!(!counted.is_empty(), "{part:#}");
    for world in counted {
        let accepted = world["accepted"].as_u64().unwrap();
        assert!(accepted > 0, "{world:#}");
        assert_eq!(world["at_order_api"], accepted, "{world:#}");
        for (side, times) in [("captured_at_gateway", 1), ("mails", 2)] {
            assert!(world[side].is_null() || world[side] == times * accepted, "{world:#}");
        }
        assert_eq!(world["consistent"], true);
    }
    counted.iter().map(|world| world["accepted"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn every_part_has_its_figures_with_their_units_and_loses_no_order() {
    let report = report(&["--json", "--set", "consumer.workers=32", "bench", "--tiny"]).await;
    assert_eq!(report["debug_build"], cfg!(debug_assertions));
    assert_eq!(report["consistent"], true);
    assert_eq!(report["settings"], json!({ "consumer.workers": "32" }), "what was tuned is said, and nothing else is");
    for (block, fields) in [
        ("machine", &["cores", "processor", "kernel", "file system"][..]),
        ("versions", &["millrace", "build", "nats-server", "SQLite"]),
        ("durability", &["SQLite", "nats-server", "nats-server in cluster"]),
    ] {
        for field in fields {
            assert!(report[block][field].as_str().is_some_and(|text| !text.is_empty()), "{block}.{field}");
        }
    }
    assert!(report["durability"]["SQLite"].as_str().unwrap().contains("synchronous=FULL"));
    let parts = array(&report, "parts");
    assert_eq!(parts.len(), FIGURES.len());
    for (part, (name, expected)) in parts.iter().zip(FIGURES) {
        assert_eq!(part["part"], name);
        let figures = array(part, "figures");
        for figure in figures {
            assert!(figure["unit"].as_str().is_some_and(|unit| !unit.is_empty()), "{name}: {figure:#}");
            let [median, least, most] = ["median", "min", "max"].map(|field| figure[field].as_f64().unwrap());
            assert!((0.0..).contains(&least) && least <= median && median <= most, "{name}: {figure:#}");
            assert!(!array(figure, "rounds").is_empty(), "{name}: {figure:#}");
            // What a debug build takes says nothing about what was aimed at.
            assert_eq!(figure["met"].is_null(), cfg!(debug_assertions) || figure["target"].is_null(), "{figure:#}");
        }
        for (wanted, unit) in expected {
            let found = figures.iter().find(|figure| figure["name"] == *wanted);
            let found = found.unwrap_or_else(|| panic!("{name} has no figure {wanted:?}: {part:#}"));
            assert_eq!(found["unit"], *unit, "{found:#}");
        }
        for load in array(part, "spent") {
            let processes: Vec<&str> =
                array(load, "processes").iter().map(|process| process["process"].as_str().unwrap()).collect();
            for process in ["load generator", "order", "nats-server"] {
                assert!(processes.contains(&process), "{name}: {processes:?}");
            }
        }
        adds_up(part);
    }
    let rate =
        array(&parts[0], "figures").iter().find(|figure| figure["name"] == "closed loop, 64 connections").unwrap();
    assert!(rate["median"].as_f64().unwrap() > 0.0 && rate["ratio_to_limit"].as_f64().unwrap() > 0.0, "{rate:#}");
    // 5 to warm up, 30 in the round, 4 + 8 + 16 at fixed rates; 5 and 30 where nobody is asked outside.
    assert_eq!(adds_up(&parts[1]), [63, 35]);
    assert!(!array(&parts[1], "counted")[0]["captured_at_gateway"].is_null());
}

#[tokio::test]
async fn the_pipeline_is_measured_on_postgresql_too() {
    let report = report(&["--json", "bench", "--tiny", "--backend", "postgres", "--only", "pipeline,big,scale"]).await;
    assert!(report["versions"]["PostgreSQL"].as_str().unwrap().contains('.'), "{report:#}");
    assert!(report["durability"]["PostgreSQL"].as_str().unwrap().contains("fsync=on"));
    let [pipeline, big, scale] = &array(&report, "parts")[..] else { panic!("{report:#}") };
    assert_eq!((adds_up(pipeline), adds_up(big), adds_up(scale)), (vec![63, 35], vec![40], vec![65]));
    assert_eq!(array(scale, "figures")[0]["limit"]["what"], "one inventory");
    let with_two = array(&array(scale, "spent")[0], "processes");
    assert!(with_two.iter().any(|process| process["process"] == "inventory-2"), "{with_two:#?}");
    let processes = array(&array(pipeline, "spent")[0], "processes");
    assert!(processes.iter().any(|process| process["process"] == "postgres"), "{processes:#?}");
}

#[tokio::test]
async fn figures_of_a_debug_build_are_not_passed_off_as_results() {
    let temporary = temporary();
    let arguments = ["bench", "--tiny", "--only", "idle", "--layout", "together"];
    let Run { code, stdout, stderr } = bench(temporary.path(), &arguments).await;
    assert_eq!(code, Some(0), "{stdout}\n{stderr}");
    for wanted in ["IDLE", "% of a core", "synchronous=FULL", "order+payment+inventory+notification"] {
        assert!(stdout.contains(wanted), "no {wanted}: {stdout}");
    }
    assert_eq!(stdout.matches("FIGURES MEAN NOTHING").count(), if cfg!(debug_assertions) { 2 } else { 0 }, "{stdout}");
}

#[tokio::test]
async fn a_command_line_that_makes_no_sense_is_refused_before_anything_is_started() {
    let temporary = temporary();
    for (arguments, words) in [
        (&["bench", "--only", "luck"][..], "pipeline"),
        (&["bench", "--rounds", "0"], "--rounds"),
        (&["bench", "--only", "scale"], "--backend postgres"),
        (&["--set", "consumer.workers=0", "bench"], "consumer.workers"),
    ] {
        let Run { code, stderr, .. } = bench(temporary.path(), arguments).await;
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(words), "{arguments:?}: {stderr}");
    }
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}
