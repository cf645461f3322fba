//! Retiring a version of an event in an installation that runs: with evidence, without a restart, and back.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{
    self,
    stream::{self, Stream},
};
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use testkit::eventually;
use uuid::Uuid;

use crate::support::cli::Ran;
use crate::support::{Installation, PATIENCE, order, sample};

struct Shopkeeper(Installation);

impl Shopkeeper {
    async fn schemas(&self, args: &[&str]) -> Ran {
        self.0.millrace(&[&["schemas"], args, &["--json"]].concat()).await
    }

    /// What is known of one version of `orders.created`.
    async fn usage(&self, version: u64, args: &[&str]) -> Value {
        let ran = self.schemas(&[&["usage", "orders.created"], args].concat()).await;
        assert_eq!(ran.code, 0, "{ran}");
        let versions = ran.json()["versions"].as_array().unwrap().clone();
        versions.into_iter().find(|usage| usage["version"] == version).unwrap()
    }

    async fn retire(&self, args: &[&str]) -> Ran {
        self.schemas(&[&["retire", "orders.created", "v1"], args].concat()).await
    }

    async fn stream(&self) -> Stream {
        jetstream::new(self.0.nats.client().await).get_stream("ORDERS").await.unwrap()
    }

    /// Somebody else's durable consumer.
    async fn durable(&self, name: &str, filter: &str) -> jetstream::consumer::PullConsumer {
        let config = pull::Config {
            durable_name: Some(name.into()),
            filter_subject: filter.into(),
            ack_policy: AckPolicy::Explicit,
            ..pull::Config::default()
        };
        self.stream().await.create_consumer(config).await.unwrap()
    }

    async fn remove(&self, name: &str) {
        self.stream().await.delete_consumer(name).await.unwrap();
    }

    /// Places an order and waits until it has found its end. Returns how many messages of both versions that made.
    async fn order(&self) -> [usize; 2] {
        let before = self.counts().await;
        let id = self.0.shop.place(&order(0)).await.order_id;
        self.confirmed(&id).await;
        let published = || async {
            let rows = self.0.metric("order", "millrace_outbox_depth_rows", "").await?;
            let grown = self.counts().await[1] > before[1];
            if rows == 0.0 && grown { Ok(()) } else { Err(format!("{rows} rows left")) }
        };
        eventually(PATIENCE, published, "everything to be published").await;
        let after = self.counts().await;
        [after[0] - before[0], after[1] - before[1]]
    }

    async fn confirmed(&self, id: &str) {
        let confirmed = || async {
            let orders = self.0.shop.orders().await?;
            let found = orders.iter().find(|known| known["order_id"] == id).ok_or("it is not known")?;
            if found["status"] == "confirmed" { Ok(()) } else { Err(found.to_string()) }
        };
        eventually(PATIENCE, confirmed, "the order to be confirmed").await;
    }

    /// Waits until this is shown of a reader: whose it is, what it acknowledged, of that lately, and what is left.
    async fn shows(&self, version: u64, name: &str, expected: Value) {
        let shown = || async {
            let usage = self.usage(version, &[]).await;
            let reader = reader(&usage, name);
            let found = json!([reader["whose"], reader["acknowledged"], reader["acknowledged_lately"], reader["left"]]);
            if found == expected { Ok(()) } else { Err(found.to_string()) }
        };
        eventually(PATIENCE, shown, &format!("{name} to be shown as {expected}")).await;
    }

    /// Messages of `orders.created` v1 and v2.
    async fn counts(&self) -> [usize; 2] {
        let stream = self.stream().await;
        let mut found = [0, 0];
        for (n, subject) in ["orders.created", "orders.created.v2"].into_iter().enumerate() {
            let counts: Vec<(String, usize)> =
                stream.info_with_subjects(subject).await.unwrap().try_collect().await.unwrap();
            found[n] = counts.iter().map(|(_, count)| count).sum();
        }
        found
    }

    /// Orders until the copies in version 1 are as wanted: a running service hears of a decision a moment later.
    async fn order_until_copies_are(&self, wanted: usize) {
        let begun = std::time::Instant::now();
        while self.order().await != [wanted, 1] {
            assert!(begun.elapsed() < PATIENCE, "the services do not follow");
        }
        assert_eq!(self.order().await, [wanted, 1]);
    }
}

fn reader<'a>(usage: &'a Value, name: &str) -> &'a Value {
    let readers = usage["readers"].as_array().unwrap();
    readers.iter().find(|reader| reader["name"] == name).unwrap_or_else(|| panic!("no {name} in {usage}"))
}

fn names(readers: &Value) -> Vec<&str> {
    let mut names: Vec<&str> =
        readers.as_array().unwrap().iter().map(|found| found["reader"]["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_retired_on_evidence_while_everything_runs_and_restored_again() {
    let mut shop = Shopkeeper(Installation::running(None, &[], &sample()).await);
    let warehouse = shop.durable("warehouse", "orders.created").await;
    shop.durable("archive", "orders.>").await;
    shop.durable("accounting", "orders.confirmed").await;
    for _ in 0..3 {
        assert_eq!(shop.order().await, [1, 1], "both versions of each order");
    }
    let mut messages = warehouse.fetch().max_messages(2).expires(Duration::from_secs(5)).messages().await.unwrap();
    while let Some(message) = messages.next().await {
        message.unwrap().double_ack().await.unwrap();
    }

    shop.shows(1, "warehouse", json!(["others", 2, 2, 1])).await;
    // By a wildcard.
    shop.shows(1, "archive", json!(["others", 0, 0, 3])).await;
    shop.shows(1, "order-foreign", json!(["intake", 3, 3, 0])).await;
    for ours in ["payment-orders", "inventory-orders", "notification-orders"] {
        shop.shows(2, ours, json!(["ours", 3, 3, 0])).await;
    }
    let v1 = shop.usage(1, &[]).await;
    assert!(reader(&v1, "warehouse")["last_active"].is_string());
    assert_eq!(v1["readers"].as_array().unwrap().len(), 3, "{v1}");
    let source = &v1["published"]["sources"][0];
    assert_eq!(json!([source["source"], source["foreign"], source["messages"]]), json!(["/millrace/order", false, 3]));
    let page = shop.0.millrace(&["schemas", "usage"]).await;
    assert!(page.stdout.contains("warehouse") && page.stdout.contains("3 by /millrace/order (ours)"), "{page}");
    for schema in contracts::all_schemas() {
        let shown = page.stdout.lines().any(|line| line.starts_with(&format!("{} v", schema.event_type)));
        let several = contracts::all_schemas().iter().filter(|one| one.event_type == schema.event_type).count() > 1;
        assert_eq!(shown, several, "only events with several versions: {} {page}", schema.event_type);
    }

    // Tools that look at history leave a consumer at the broker for a while; nobody acts on what it reads.
    for tool in [
        &["reconcile", "--skip-gateway"][..],
        &["replay", "timeline", "--dry-run"],
        &["events", "tail", "--since", "1h", "--no-follow"],
    ] {
        let looked = shop.0.millrace(tool).await;
        assert_eq!(looked.code, 0, "{looked}");
    }
    let refused = shop.retire(&[]).await;
    assert_eq!((refused.code, names(&refused.json()["readers"])), (1, vec!["archive", "warehouse"]), "{refused}");
    let told = shop.0.millrace(&["schemas", "retire", "orders.created", "v1"]).await;
    assert!(told.code == 1 && told.stderr.contains("nats consumer rm ORDERS warehouse"), "{told}");
    assert_eq!(shop.order().await, [1, 1], "a refusal changes nothing");

    shop.remove("archive").await;
    // Nobody of theirs has been heard of for long, as far as this command is concerned.
    let idle = ["--idle", "1ms"];
    let refused = shop.retire(&idle).await;
    assert_eq!(refused.json()["readers"][0]["reader"]["idle"], true, "{refused}");
    assert_eq!((refused.code, names(&refused.json()["readers"])), (1, vec!["warehouse"]));
    // No monitoring answers here, so nobody knows who else reads it.
    let unseen = shop.retire(&["--idle", "1ms", "--ignore-idle"]).await;
    assert_eq!((unseen.code, &unseen.json()["readers"]), (1, &json!([])), "{unseen}");
    assert!(unseen.json()["unseen"].as_str().unwrap().contains("monitoring does not answer"), "{unseen}");
    let told = shop.0.millrace(&["schemas", "retire", "orders.created", "v1", "--idle", "1ms", "--ignore-idle"]).await;
    assert!(told.code == 1 && told.stderr.contains("--ignore-unseen"), "{told}");
    let who = ["--as", "ada@desk", "--because", "they moved"];
    let retired = shop.retire(&[&["--idle", "1ms", "--ignore-idle", "--ignore-unseen"][..], &who].concat()).await;
    assert_eq!((retired.code, &retired.json()["state"]), (0, &json!("retired")), "{retired}");
    shop.order_until_copies_are(0).await;
    let v1 = shop.usage(1, &[]).await;
    let decision = &v1["standing"]["decision"];
    assert_eq!(
        json!([decision["state"], decision["by"], decision["because"]]),
        json!(["retired", "ada@desk", "they moved"])
    );
    assert_eq!(shop.retire(&[]).await.code, 0, "retiring twice changes nothing");

    // What others publish in it is taken in as before, and goes on in the newest version.
    let foreign = json!({ "order_id": Uuid::now_v7(), "customer_id": "somebody", "amount": 10.5, "currency": "EUR",
        "timestamp": "2026-01-02T03:04:05Z", "items": [{ "product_id": "mug", "quantity": 1 }] });
    let client = shop.0.nats.client().await;
    client.publish("orders.created", foreign.to_string().into()).await.unwrap();
    client.flush().await.unwrap();
    shop.confirmed(foreign["order_id"].as_str().unwrap()).await;
    let sources = shop.usage(1, &[]).await["published"]["sources"].clone();
    assert_eq!(json!([sources[0]["source"], sources[0]["foreign"]]), json!([null, true]), "{sources}");

    // A service that starts now follows it too.
    shop.0.kill_and_restart("order", Duration::from_millis(10)).await;
    shop.0.ready().await;
    shop.order_until_copies_are(0).await;

    let restored = shop.schemas(&["restore", "orders.created", "v1"]).await;
    assert_eq!((restored.code, &restored.json()["state"]), (0, &json!("published")), "{restored}");
    shop.order_until_copies_are(1).await;
    shop.0.no_dead_letters().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_setting_retires_a_version_too_and_only_the_setting_restores_it() {
    let settings = [("MILLRACE_CONTRACTS_RETIRED", "orders.created v1")];
    let shop = Shopkeeper(Installation::running(None, &settings, &sample()).await);
    for _ in 0..2 {
        assert_eq!(shop.order().await, [0, 1]);
    }
    assert_eq!(shop.usage(1, &[]).await["standing"]["by_settings"], true);
    // A setting, which may be this command's alone, is no decision that the services follow.
    assert_eq!(shop.retire(&["--ignore-unseen"]).await.code, 0);
    assert_eq!(shop.usage(1, &[]).await["standing"]["decision"]["state"], "retired");
    let restored = shop.0.millrace(&["schemas", "restore", "orders.created", "v1"]).await;
    assert!(restored.code == 1 && restored.stderr.contains("take it out of contracts.retired"), "{restored}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_retired_is_refused_in_words_that_help() {
    let shop = Shopkeeper(Installation::new(None, &[]).await);
    let refusal = async |args: &[&str]| {
        let ran = shop.0.millrace(&[&["schemas", "retire", "--ignore-unseen"], args].concat()).await;
        (ran.code, ran.stderr)
    };
    for (args, code, words) in [
        (["orders.create", "v1"], 2, "there is no event orders.create\n  try: one of orders.created, "),
        (["orders.created", "v3"], 2, "orders.created has no version v3\n  try: one of v2, v1"),
        (["orders.created", "2"], 2, "is the newest version"),
        // Nothing was ever applied here.
        (["orders.created", "v1"], 1, "there is no bucket contracts"),
    ] {
        let (found, text) = refusal(&args).await;
        assert!(found == code && text.contains(words), "{args:?}: {found} {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_without_jetstream_is_seen_where_monitoring_is_and_keeps_the_version() {
    let nats = testkit::nats_with(|server| server.monitor_port(0)).await;
    let folder = tempfile::tempdir().unwrap();
    let environment = [("NATS_URL".to_owned(), nats.url())];
    let millrace = async |args: &[&str]| crate::support::cli::millrace(folder.path(), &environment, args).await;
    assert_eq!(millrace(&["topology", "apply"]).await.code, 0);
    let till = async_nats::ConnectOptions::new().name("till").connect(nats.url()).await.unwrap();
    let mut listening = till.subscribe("orders.created").await.unwrap();
    let _elsewhere = till.subscribe("orders.created.v2.>").await.unwrap();
    till.flush().await.unwrap();

    // Copies of other events are read as well, and copies of this one.
    let js = jetstream::new(till.clone());
    for (origin, copies) in [("PAYMENTS", "ledger"), ("ORDERS", "backup")] {
        let mirror = stream::Source { name: origin.into(), ..stream::Source::default() };
        let config = stream::Config { name: copies.into(), mirror: Some(mirror), ..stream::Config::default() };
        let stream = js.create_stream(config).await.unwrap();
        let reader = pull::Config { durable_name: Some(format!("{copies}-reader")), ..pull::Config::default() };
        stream.create_consumer(reader).await.unwrap();
    }

    let monitor = format!("http://127.0.0.1:{}", nats.monitor_port().unwrap());
    let seen = millrace(&["schemas", "usage", "orders.created", "--json", "--monitor", &monitor]).await.json();
    assert_eq!(seen["core_subscribers"]["visibility"], "visible", "{seen}");
    let v1 = seen["versions"].as_array().unwrap().iter().find(|usage| usage["version"] == 1).unwrap();
    assert_eq!(json!([reader(v1, "till")["kind"], reader(v1, "till")["filter"]]), json!(["core", ["orders.created"]]));
    let retire = ["schemas", "retire", "orders.created", "v1", "--json", "--monitor", &monitor];
    let refused = millrace(&retire).await;
    assert_eq!((refused.code, names(&refused.json()["readers"])), (1, vec!["backup-reader", "till"]), "{refused}");
    assert_eq!(seen["core_subscribers"].get("partly"), None, "{seen}");
    js.delete_stream("backup").await.unwrap();

    let nobody =
        millrace(&["schemas", "usage", "orders.created", "--json", "--monitor", "http://127.0.0.1:1"]).await.json();
    assert_eq!(nobody["core_subscribers"]["visibility"], "not_visible", "{nobody}");
    listening.unsubscribe().await.unwrap();
    till.flush().await.unwrap();
    let retired = || async {
        let ran = millrace(&retire).await;
        if ran.code == 0 { Ok(()) } else { Err(ran.to_string()) }
    };
    eventually(PATIENCE, retired, "the version to be retired once the subscriber is gone").await;
}
