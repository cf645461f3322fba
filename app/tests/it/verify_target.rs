//! `millrace verify --target` at a system that is running and has other customers too.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::support::cli::Ran;
use crate::support::{Accepted, Backend, Books, Installation, Sql, free_port, sample};

/// Settings that lead nowhere: what is not set must not be found by chance either.
const NOWHERE: [(&str, &str); 4] = [
    ("NATS_URL", "nats://127.0.0.1:1"),
    ("DATABASE_URL", "sqlite:nowhere/{service}.db"),
    ("MILLRACE_PAYMENT_GATEWAY_URL", "http://127.0.0.1:1"),
    ("MILLRACE_SIMULATORS_MAIL_LISTEN", "127.0.0.1:1"),
];

async fn verify(installation: &Installation, settings: &[(&str, &str)], args: &[&str]) -> (Ran, Value) {
    let ran = installation.millrace_with(settings, &[&["verify", "--json"], args].concat()).await;
    let report = ran.json();
    (ran, report)
}

/// Ids of invariants that were violated, and of those that could not be checked.
fn outcome(report: &Value) -> (Vec<String>, Vec<String>) {
    let ids = |wanted: &dyn Fn(&Value) -> bool| {
        let found = report["invariants"].as_array().unwrap().iter().filter(|invariant| wanted(invariant));
        found.map(|invariant| invariant["id"].as_str().unwrap().to_owned()).collect()
    };
    (ids(&|invariant| invariant["violations"] != 0), ids(&|invariant| invariant["not_checked"] != Value::Null))
}

/// Orders of others, until the work is done.
async fn meanwhile<T>(installation: &Installation, work: impl Future<Output = T>) -> (T, Vec<Accepted>) {
    let over = AtomicBool::new(false);
    let others = async {
        let mut accepted = Vec::new();
        while !over.load(Ordering::Relaxed) {
            accepted.push(installation.shop.place_number(accepted.len()).await);
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        accepted
    };
    let working = async {
        let done = work.await;
        over.store(true, Ordering::Relaxed);
        done
    };
    tokio::join!(working, others)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_system_with_other_customers_passes_on_sqlite() {
    passes(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_system_with_two_order_apis_and_other_customers_passes_on_postgresql() {
    passes(Backend::Postgres).await;
}

async fn passes(backend: Backend) {
    let products = sample();
    let mut installation = Installation::on(backend, &products).await;
    let mut urls = vec![installation.shop.url().to_owned()];
    if backend == Backend::Postgres {
        let second = format!("127.0.0.1:{}", free_port());
        installation.serve_as("order-2", "order", &[("MILLRACE_HTTP_LISTEN", &second)]);
        installation.ready().await;
        urls.push(format!("http://{second}"));
    }
    // Others have come before, and come meanwhile.
    let before = installation.shop.place_number(0).await;
    Books::close(&installation, &[before], &products).await;
    let urls = urls.join(",");
    let args = ["--target", &urls, "--orders", "60", "--rate", "20", "--seed", "1"];
    let ((ran, report), others) = meanwhile(&installation, verify(&installation, &[], &args)).await;
    assert_eq!((ran.code, outcome(&report)), (0, (vec![], vec![])), "{report:#}\n{}", ran.stderr);
    assert_eq!((&report["passed"], &report["accepted"], &report["seed"]), (&true.into(), &60.into(), &1.into()));
    assert!(!others.is_empty());
    for invariant in report["invariants"].as_array().unwrap() {
        let least = if invariant["id"] == "I5" { 0 } else { 1 };
        assert!(invariant["checked"].as_u64().unwrap() >= least, "{invariant:#}");
    }
    // The same again is a run of its own, although the same is ordered.
    let again = ["--target", &urls, "--orders", "10", "--rate", "20", "--seed", "1"];
    let (ran, report) = verify(&installation, &[], &again).await;
    assert_eq!((ran.code, &report["accepted"]), (0, &10.into()), "{report:#}\n{}", ran.stderr);
    let orders = installation.shop.orders().await.unwrap();
    assert_eq!(orders.len(), 1 + others.len() + 70);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_broken_by_hand_is_noticed_and_named() {
    let installation = Installation::on(Backend::Sqlite, &sample()).await;
    let database = |service| Sql::new(installation.database_url(service));
    database("inventory").run("update stock set available = available + 1 where product_id = 'mug'").await;
    database("order")
        .run(
            "create trigger lose before insert on order_timeline when new.event_type = 'payments.captured'
             begin select raise(ignore); end",
        )
        .await;
    database("payment")
        .run(
            "create trigger lie after update on payments when new.state = 'captured'
             begin update payments set state = 'voided' where order_id = new.order_id; end",
        )
        .await;
    let url = installation.shop.url().to_owned();
    let args = ["--target", &url, "--orders", "20", "--seed", "2", "--settle", "8s"];
    let (ran, report) = verify(&installation, &[], &args).await;
    assert_eq!(ran.code, 1, "{report:#}");
    let (violated, unchecked) = outcome(&report);
    assert_eq!((violated, unchecked), (["I2", "I3", "I6"].map(str::to_owned).to_vec(), vec![]), "{report:#}");
    let said = report["invariants"].to_string();
    for words in ["mug: adjustments come to", "the payment service says voided", "is on the timeline 0 times"] {
        assert!(said.contains(words), "no {words:?} in {report:#}");
    }
    let examples = report["examples"].as_array().unwrap();
    assert!(
        examples.iter().any(|example| example["invariant"] == "I2" && example["order_id"].is_string()),
        "{report:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_api_alone_is_enough_for_one_end_each_and_the_rest_is_said_to_be_unchecked() {
    let mut installation = Installation::on(Backend::Sqlite, &sample()).await;
    let url = installation.shop.url().to_owned();
    let args = ["--target", &url, "--orders", "12", "--seed", "3", "--settle", "6s"];
    let (ran, report) = verify(&installation, &NOWHERE, &args).await;
    let rest = || ["I2", "I3", "I4", "I5", "I6", "I7"].map(str::to_owned).to_vec();
    assert_eq!((ran.code, outcome(&report)), (0, (vec![], rest())), "{report:#}\n{}", ran.stderr);
    assert_eq!(report["not_checked"], serde_json::json!(rest()), "{report:#}");
    assert!(report["invariants"][0]["checked"].as_u64().unwrap() >= 24, "{report:#}");

    // Another system's database, ledger and NATS say nothing about this one.
    let other = Installation::on(Backend::Sqlite, &sample()).await;
    let (ran, report) = verify(&other, &[], &args).await;
    assert_eq!((ran.code, outcome(&report)), (0, (vec![], rest())), "{report:#}\n{}", ran.stderr);
    assert!(report.to_string().contains("it knows none of these orders"), "{report:#}");

    // From outside it is seen as well when orders do not come to their end.
    installation.process("payment").kill().await;
    let (ran, report) = verify(&installation, &NOWHERE, &args).await;
    assert_eq!((ran.code, outcome(&report)), (1, (vec!["I1".to_owned()], rest())), "{report:#}\n{}", ran.stderr);
    assert!(report["invariants"][0].to_string().contains("is still processing"), "{report:#}");
}

#[tokio::test]
async fn what_would_break_or_charge_for_real_is_refused_before_anything_is_ordered() {
    let folder = tempfile::tempdir().unwrap();
    let live = [("MILLRACE_PAYMENT_GATEWAY_SECRET_KEY".to_owned(), "sk_live_1".to_owned())];
    let target = ["verify", "--target", "http://127.0.0.1:1"];
    for (environment, args, words) in [
        (&[][..], &[&target[..], &["--faults", "kill"]].concat()[..], "--faults"),
        (&[], &["verify", "--target", "shop.example"], "is not the address of an order API"),
        (&[], &[&target[..], &["--keep"]].concat(), "cannot be used with"),
        (&[], &[&target[..], &["--backend", "sqlite"]].concat(), "cannot be used with"),
        (&[], &["verify", "--mailbox", "http://127.0.0.1:1"], "--target"),
        (&live, &target, "live key"),
    ] {
        let ran = crate::support::cli::millrace(folder.path(), environment, args).await;
        assert_eq!(ran.code, 2, "{args:?}: {ran}");
        assert!(ran.stderr.contains(words), "{args:?}: {ran}");
    }
    let nobody = crate::support::cli::millrace(folder.path(), &[], &target).await;
    assert_eq!(nobody.code, 1, "{nobody}");
    assert!(nobody.stderr.contains("does not answer"), "{nobody}");
}
