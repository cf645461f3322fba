//! What the binary says to whoever operates it: wrong settings, taken ports, JSON, exit codes.

use std::net::TcpListener;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::eventually;

use crate::support::cli::{Ran, millrace};
use crate::support::{Backend, Books, Installation, PATIENCE, sample};

/// Runs the binary in an empty folder with these variables.
async fn run(variables: &[(&str, &str)], args: &[&str]) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    run_in(&folder, variables, args).await
}

async fn run_in(folder: &TempDir, variables: &[(&str, &str)], args: &[&str]) -> Ran {
    let variables: Vec<_> = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    millrace(folder.path(), &variables, args).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_setting_stops_the_start_with_its_name_its_value_and_what_would_be_right() {
    type Case = (&'static [(&'static str, &'static str)], &'static [&'static str]);
    let cases: [Case; 28] = [
        (
            &[("MILLRACE_ORDER_DEADLIN", "5m")],
            &["no setting for the environment variable MILLRACE_ORDER_DEADLIN", "mean MILLRACE_ORDER_DEADLINE?"],
        ),
        (&[("MILLRACE_ORDER_DEADLINE", "soon")], &["order.deadline is \"soon\"", "MILLRACE_ORDER_DEADLINE", "\"15m\""]),
        (&[("MILLRACE_ORDER_DEADLINE", "0s")], &["order.deadline is 0s", "more than zero"]),
        (&[("NATS_URL", "http://nats")], &["nats.url is http://nats", "variable NATS_URL", "nats://host:4222"]),
        (&[("DATABASE_URL", "mysql://h/d")], &["database.url is mysql://h/d", "DATABASE_URL", "postgres://USER"]),
        (&[("MILLRACE_NATS_USER", "shop")], &["nats.password is not set", "nats.user is set", "set both or neither"]),
        (
            &[("MILLRACE_NATS_TOKEN", "t"), ("MILLRACE_NATS_CREDENTIALS_FILE", "/shop.creds")],
            &["nats.credentials_file is /shop.creds", "together with nats.token", "choose one way"],
        ),
        (&[("MILLRACE_NATS_PING_INTERVAL_MS", "0")], &["nats.ping_interval_ms is 0", "greater than 0"]),
        (&[("MILLRACE_PAYMENT_GATEWAY_URL", "stripe.com")], &["payment.gateway.url", "\"stripe.com\"", "https://api."]),
        (&[("MILLRACE_NOTIFICATION_EMAIL_URL", "http://mail")], &["notification.email.url", "http://", "smtp://"]),
        (&[("MILLRACE_HTTP_LISTEN", "8080")], &["http.listen is \"8080\"", "\"127.0.0.1:8080\""]),
        (&[("MILLRACE_OUTBOX_MAX_IN_FLIGHT", "0")], &["outbox.max_in_flight is 0", "from 1 to 100000"]),
        (&[("MILLRACE_OUTBOX_SWEEP_EVERY", "0s")], &["outbox.sweep_every is 0s", "more than zero"]),
        (&[("MILLRACE_INBOX_KEEP_HANDLED", "1h")], &["inbox.keep_handled is 1h", "at least topology.max_age"]),
        (&[("MILLRACE_OUTBOX_KEEP_PUBLISHED", "8d")], &["outbox.keep_published is 8d", "at most topology.max_age"]),
        (&[("MILLRACE_OUTBOX_LOOK_EVERY", "1h")], &["outbox.look_every is 1h", "less than outbox.keep_published"]),
        (&[("MILLRACE_OUTBOX_KEEP_PUBLISHED", "0s")], &["outbox.keep_published is 0s", "at least \"3m\""]),
        (
            &[("MILLRACE_CONSUMER_OVERRIDES", "payment-order max_deliver=8")],
            &["consumer.overrides is payment-order max_deliver=8", "one of the consumers", "payment-orders"],
        ),
        (&[("MILLRACE_CONSUMER_OVERRIDES", "payment-orders max_deliver=0")], &["max_deliver to be a number from 1"]),
        (&[("MILLRACE_CONSUMER_OVERRIDES", "payment-orders workers=3")], &["workers to be one of max_deliver"]),
        (&[("MILLRACE_TOPOLOGY_MAX_EVENT", "big")], &["topology.max_event is \"big\"", "\"64KiB\""]),
        (&[("MILLRACE_CONTRACTS_RETIRED", "orders.created")], &["contracts.retired is orders.created", "created v1"]),
        // Neither a version that does not exist nor the newest can be meant.
        (&[("MILLRACE_CONTRACTS_RETIRED", "orders.creatd v1")], &["contracts.retired is orders.creatd v1"]),
        (&[("MILLRACE_CONTRACTS_RETIRED", "orders.created v2")], &["contracts.retired is orders.created v2", "older"]),
        (&[("MILLRACE_TELEMETRY_LOG_FORMAT", "xml")], &["telemetry.log_format is \"xml\"", "\"human\" or \"json\""]),
        (&[("MILLRACE_TELEMETRY_OTLP_SAMPLE_RATIO", "7")], &["telemetry.otlp_sample_ratio is 7", "0.0 to 1.0"]),
        (&[("MILLRACE_TELEMETRY_LOG_FILTER", "=,=!")], &["telemetry.log_filter is \"=,=!\"", "\"info\""]),
        (
            &[("MILLRACE_TELEMETRY_OTLP_ENDPOINT", "here")],
            &["telemetry.otlp_endpoint is here", "http://localhost:4318"],
        ),
    ];
    for (variables, said) in cases {
        let ran = run(variables, &["serve", "notification"]).await;
        assert_eq!(ran.code, 2, "{variables:?}: {ran}");
        for text in said {
            assert!(ran.stderr.contains(text), "{variables:?} should say {text:?}: {ran}");
        }
        assert_eq!(ran.stdout, "", "{variables:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_wrong_is_said_at_once_wherever_it_was_set_and_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("millrace.toml"), "[order]\nmax_items = 0\n[odrer]\nmax_items = 5\n").unwrap();
    let variables = [("DATABASE_URL", "mysql://shop:hunter2@db/shop"), ("MILLRACE_NATS_PASSWORD", "hunter2")];
    let set = ["--set", "consumer.workers=many", "--set", "consumer.wokers=3"];
    let ran = run_in(&folder, &variables, &[&set[..], &["--json", "serve", "payment"]].concat()).await;
    assert_eq!(ran.code, 2, "{ran}");
    let error: Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(error["code"], "MR0005", "{error}");
    let text = error["error"].as_str().unwrap();
    for part in ["odrer.max_items", "millrace.toml, line 4", "consumer.workers is \"many\"", "mean consumer.workers?"] {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
    // What the types alone do not say is looked at when all could be read.
    std::fs::write(folder.path().join("millrace.toml"), "[order]\nmax_items = 0\n").unwrap();
    let ran = run_in(&folder, &variables, &["serve", "payment"]).await;
    for part in
        ["order.max_items is 0", "millrace.toml, line 2", "database.url is mysql://***@db/shop", "nats.user is not set"]
    {
        assert!(ran.stderr.contains(part), "{part:?} is missing: {ran}");
    }
    assert!(!format!("{error}{ran}").contains("hunter2"), "{ran}");

    for (args, said) in [
        (&["--set", "workers", "doctor"][..], "--set NAME=VALUE"),
        (&["--config", "nowhere.toml", "doctor"][..], "nowhere.toml cannot be read"),
        (&["serve", "shipping"][..], "possible values: order, payment"),
        (&["explain", "MR9999"][..], "no error code MR9999"),
    ] {
        let ran = run(&[], args).await;
        assert!(ran.code == 2 && ran.stderr.contains(said), "{args:?}: {ran}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_for_tests_stops_every_ordinary_start() {
    for name in ["MILLRACE_CRASH_AT", "MILLRACE_CRASH_MARK", "MILLRACE_SABOTAGE"] {
        for args in [&["--json"][..], &["--json", "serve", "payment"], &["--json", "up"], &["--json", "demo"]] {
            let ran = run(&[(name, "inbox")], args).await;
            let error: Value = serde_json::from_str(&ran.stderr).unwrap_or_else(|e| panic!("{e}: {ran}"));
            assert_eq!((ran.code, error["code"].as_str()), (2, Some("MR0015")), "{args:?}: {ran}");
            let says = |field: &str, text: &str| error[field].as_str().is_some_and(|said| said.contains(text));
            assert!(says("error", name) && says("remedy", &format!("unset {name}")), "{args:?}: {ran}");
        }
    }
    // Set in a process under test, but to nonsense.
    for (name, value, said) in [
        ("MILLRACE_CRASH_AT", "after-lunch", "\"after-lunch\", which is no crash point; those there are: between-"),
        ("MILLRACE_CRASH_AT", "after-commit:0", "a number from 1 on"),
        ("MILLRACE_SABOTAGE", "lunch", "what can is inbox, outbox, ack-before-commit, tombstone, idempotency-key"),
    ] {
        let ran = run(&[(name, value)], &["serve", "payment", "--under-test"]).await;
        assert!(ran.code == 2 && ran.stderr.contains(said) && ran.stderr.contains("MR0015"), "{value}: {ran}");
    }
    let ran = run(&[("MILLRACE_SABOTAGE", "inbox")], &["explain", "MR0015"]).await;
    assert!(ran.code == 0 && ran.stdout.contains("A switch for tests is set"), "{ran}");
    let help = run(&[], &["serve", "--help"]).await;
    assert!(help.code == 0 && !help.stdout.contains("under-test"), "{help}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named_with_the_setting_that_moves_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    // Every other port may be any, so that nothing else can be taken.
    let any = |but: &str| {
        [
            "http.listen",
            "ops.listen",
            "simulators.gateway_listen",
            "simulators.smtp_listen",
            "simulators.mail_listen",
            "simulators.sms_listen",
        ]
        .map(|name| format!("{name}={}", if name == but { address.as_str() } else { "127.0.0.1:0" }))
    };
    for (setting, service) in [
        ("http.listen", "order"),
        ("ops.listen", "payment"),
        ("simulators.gateway_listen", "simulators"),
        ("simulators.smtp_listen", "simulators"),
        ("simulators.mail_listen", "simulators"),
        ("simulators.sms_listen", "simulators"),
    ] {
        let settings = any(setting);
        let mut args: Vec<&str> = settings.iter().flat_map(|set| ["--set", set.as_str()]).collect();
        args.extend(["--json", "serve", service]);
        let ran = run(&[("MILLRACE_TELEMETRY_LOG_TO", "none")], &args).await;
        assert_eq!(ran.code, 1, "{ran}");
        let error: Value = serde_json::from_str(&ran.stderr).unwrap();
        assert_eq!(error["code"], "MR0003", "{error}");
        assert!(error["error"].as_str().unwrap().starts_with(&format!("{setting}: {address} ")), "{error}");
        assert!(error["remedy"].as_str().unwrap().contains(&format!("--set {setting}=")), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dump_shows_origins_masks_secrets_and_is_a_settings_file_again() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("millrace.toml"), "[order]\nmax_items = 7\n").unwrap();
    let variables = [
        ("DATABASE_URL", "postgres://shop:hunter2@db/shop"),
        ("MILLRACE_NATS_TOKEN", "hunter2"),
        ("MILLRACE_PAYMENT_GATEWAY_SECRET_KEY", "sk_test_hunter2"),
        ("MILLRACE_NOTIFICATION_SMS_AUTH_TOKEN", "hunter2"),
        ("MILLRACE_NOTIFICATION_EMAIL_URL", "smtps://shop:hunter2@mail.example"),
    ];
    let ran = run_in(&folder, &variables, &["--set", "order.deadline=1m", "--dump-config"]).await;
    assert_eq!(ran.code, 0, "{ran}");
    for line in [
        "max_items = 7  # millrace.toml, line 2",
        "deadline = \"1m\"  # flag --set order.deadline",
        "url = \"postgres://***@db/shop\"  # environment variable DATABASE_URL",
        "token = \"***\"  # environment variable MILLRACE_NATS_TOKEN",
        "secret_key = \"***\"  # environment variable MILLRACE_PAYMENT_GATEWAY_SECRET_KEY",
        "workers = 128  # built-in default",
    ] {
        assert!(ran.stdout.lines().any(|dumped| dumped == line), "no line {line:?}: {ran}");
    }
    assert!(!ran.stdout.contains("hunter2"), "{ran}");

    // Without secrets it says all there is.
    let dumped = run_in(&folder, &[], &["--set", "order.deadline=1m", "--dump-config"]).await;
    std::fs::write(folder.path().join("dumped.toml"), &dumped.stdout).unwrap();
    let again = run_in(&folder, &[], &["--config", "dumped.toml", "--dump-config"]).await;
    assert_eq!(again.code, 0, "{again}");
    let values = |dump: &str| toml::from_str::<toml::Table>(dump).unwrap();
    let (mut first, mut second) = (values(&dumped.stdout), values(&again.stdout));
    // The simulator's key is masked like any other.
    for values in [&mut first, &mut second] {
        values["payment"]["gateway"].as_table_mut().unwrap().remove("secret_key");
    }
    assert_eq!(second, first);
    assert_eq!(second["order"]["max_items"].as_integer(), Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_prints_json_and_tells_the_outcome_by_its_exit_code() {
    let products = sample();
    let installation = Installation::on(Backend::Sqlite, &products).await;
    let url = installation.shop.url().to_owned();
    let ok = async |args: &[&str]| {
        let ran = installation.millrace(&[&["--json"], args].concat()).await;
        assert_eq!(ran.code, 0, "{args:?}: {ran}");
        ran
    };
    let fails = async |args: &[&str], exit: i32| {
        let ran = installation.millrace(&[&["--json"], args].concat()).await;
        assert_eq!(ran.code, exit, "{args:?}: {ran}");
        ran
    };

    let order =
        ["orders", "place", "mug=2", "kettle", "--email", "a@example.org", "--idempotency-key", "k1", "--url", &url];
    let placed = ok(&order).await.json();
    assert_eq!(placed["total"], json!({ "minor": 6099, "currency": "EUR" }));
    assert_eq!(ok(&order).await.json(), placed, "the same key is the same order");
    let id = placed["order_id"].as_str().unwrap();
    let watched = ok(&["orders", "watch", id]).await;
    let events: Vec<Value> = watched.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().any(|event| event["event"] == "orders.confirmed"), "{events:?}");
    Books::close(&installation, &[(id, 6099).into()], &products).await;

    assert_eq!(ok(&["orders", "get", id]).await.json()["status"], "confirmed");
    assert_eq!(ok(&["orders", "list", "--status", "confirmed"]).await.json()["orders"][0]["order_id"], id);
    assert!(ok(&["orders", "timeline", id]).await.json()["timeline"].as_array().unwrap().len() >= 8);
    assert_eq!(ok(&["catalog", "list"]).await.json().as_array().unwrap().len(), 3);
    assert_eq!(ok(&["catalog", "import"]).await.json()["removed"], 0);
    let mug = json!({ "product_id": "mug", "available": 99_998, "reserved": 0, "committed": 2 });
    assert_eq!(ok(&["stock", "list", "mug"]).await.json(), json!([mug]));
    assert_eq!(ok(&["stock", "adjust", "mug", "-8"]).await.json()[0]["available"], 99_990);
    assert!(ok(&["topology", "plan"]).await.json().is_object());
    assert!(ok(&["topology", "apply"]).await.json()["plan"].is_object());
    let history = ok(&["events", "tail", "--subject", "orders.>", "--from-seq", "1", "--no-follow"]).await;
    let history: Vec<Value> = history.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(history[0]["seq"], 1);
    assert_eq!(history.len(), 3, "both versions of orders.created, and orders.confirmed: {history:?}");
    let checks = ok(&["doctor"]).await.json();
    assert!(checks["ok"] == true && checks["checks"].as_array().unwrap().len() >= 9, "{checks}");
    assert_eq!(ok(&["explain", "MR0001"]).await.json()["code"], "MR0001");
    assert!(ok(&["explain"]).await.json().as_array().unwrap().len() > 10);
    let ready = installation.readiness_url("order");
    assert_eq!(ok(&["health", "--url", &ready]).await.json()["ready"], true);

    // A failure is JSON, too, on standard error.
    let error = |ran: &Ran| serde_json::from_str::<Value>(&ran.stderr).unwrap_or_else(|e| panic!("{e}: {ran}"));
    let unknown = fails(&["orders", "get", "01890000-0000-7000-8000-000000000000"], 1).await;
    assert!(error(&unknown)["error"].as_str().unwrap().contains("01890000-0000-7000-8000-000000000000"), "{unknown}");
    let final_already = fails(&["orders", "cancel", id], 1).await;
    assert!(error(&final_already)["error"].as_str().unwrap().contains("confirmed"), "{final_already}");
    let not_sold = fails(&["orders", "place", "unicorn"], 1).await;
    assert!(error(&not_sold)["error"].as_str().unwrap().contains("unicorn"), "{not_sold}");
    let differs = fails(&["--set", "topology.max_deliver=7", "topology", "plan"], 3).await;
    assert!(differs.json().is_object(), "{differs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_server_a_command_says_what_is_missing_and_how_to_get_it() {
    let nowhere = [("NATS_URL", "nats://127.0.0.1:9"), ("MILLRACE_HTTP_LISTEN", "127.0.0.1:9")];
    let commands = [&["catalog", "list"][..], &["stock", "list"], &["topology", "plan"], &["events", "tail"]];
    let running = commands.map(|args| async move { run(&nowhere, &[&["--json"], args].concat()).await });
    for ran in futures::future::join_all(running).await {
        assert_eq!(ran.code, 1, "{ran}");
        let error: Value = serde_json::from_str(&ran.stderr).unwrap();
        assert_eq!(error["code"], "MR0001", "{error}");
        assert!(error["error"].as_str().unwrap().contains("nats://127.0.0.1:9"), "{error}");
        assert!(error["remedy"].as_str().unwrap().contains("millrace up"), "{error}");
    }
    let orders = run(&nowhere, &["orders", "list"]).await;
    assert!(orders.code == 1 && orders.stderr.contains("127.0.0.1:9"), "{orders}");
    let checks = run(&nowhere, &["--json", "doctor"]).await;
    assert_eq!(checks.code, 1, "{checks}");
    let failed: Vec<Value> =
        checks.json()["checks"].as_array().unwrap().iter().filter(|c| c["ok"] == false).cloned().collect();
    assert!(failed.iter().any(|check| check["name"] == "NATS"), "{failed:?}");
    assert!(failed.iter().all(|check| !check["remedy"].as_str().unwrap().is_empty()), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_nobody_reads_to_its_end_is_no_failure_to_complain_about() {
    let binary = env!("CARGO_BIN_EXE_millrace");
    let script = format!("{binary} --dump-config | head -n 1");
    let piped = async || {
        let output =
            tokio::process::Command::new("sh").args(["-c", &script]).output().await.map_err(|e| e.to_string())?;
        Ok::<_, String>((output.stdout, String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    let (_, stderr) = eventually(PATIENCE, piped, "the pipe to end").await;
    assert_eq!(stderr, "");
}
