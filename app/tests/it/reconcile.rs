//! An operator who holds all sides against each other, and mends what differs.

use async_nats::jetstream;
use serde_json::{Value, json};
use testkit::eventually;
use uuid::Uuid;

use crate::support::{Accepted, Backend, Books, Installation, PATIENCE, order, sample};

/// Kind and order of everything that is found, sorted.
type Found = Vec<(String, String)>;

impl Installation {
    /// Compares, and checks that the exit code says what the report says.
    async fn reconcile(&self, args: &[&str]) -> Value {
        let ran = self.millrace(&[&["reconcile", "--older-than", "1s", "--json"], args].concat()).await;
        let report = ran.json();
        assert_eq!(ran.code, if report["agree"] == true { 0 } else { 1 }, "{ran}");
        report
    }

    /// Waits until a comparison finds exactly this.
    async fn finds(&self, wanted: &Found) -> Value {
        let found = || async {
            let report = self.reconcile(&[]).await;
            if found(&report) == *wanted && report["under_way"] == 0 { Ok(report) } else { Err(report.to_string()) }
        };
        eventually(PATIENCE, found, &format!("{wanted:?}")).await
    }

    /// Takes the last thing that a consumer handled of an order out of its inbox.
    async fn forget(&self, service: &str, consumer: &str, order: &Accepted, event: &str) -> String {
        let id = self.event_id(order, event).await;
        let sql = format!("delete from inbox where consumer = '{consumer}' and event_id = '{id}'");
        assert_eq!(self.damage(service, &sql).await, 1, "{sql}");
        id
    }

    async fn event_id(&self, order: &Accepted, event: &str) -> String {
        let timeline = self.shop.timeline(&order.order_id).await;
        let entry = timeline.iter().find(|entry| entry["event"] == event);
        entry.unwrap_or_else(|| panic!("no {event} in {timeline:?}"))["event_id"].as_str().unwrap().to_owned()
    }
}

fn found(report: &Value) -> Found {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = report["disagreements"].as_array().unwrap();
    let mut found: Found = all.iter().map(|one| (text(&one["kind"]), text(&one["order_id"]))).collect();
    assert!(all.iter().all(|one| !text(&one["remedy"]).is_empty()), "{report}");
    found.sort();
    found
}

fn sorted<const N: usize>(wanted: [(&str, &str); N]) -> Found {
    let mut found: Found = wanted.iter().map(|(kind, order)| ((*kind).to_owned(), (*order).to_owned())).collect();
    found.sort();
    found
}

async fn what_is_damaged_is_named_and_the_safe_part_of_it_mended_once(backend: Backend) {
    let products = sample();
    let database = match backend {
        Backend::Sqlite => None,
        Backend::Postgres => Some(testkit::fresh_database().await),
    };
    // What is deleted from a stream is remembered for this long, and a repetition of it not stored.
    let settings = [("MILLRACE_TOPOLOGY_DUPLICATE_WINDOW", "1s")];
    let installation = Installation::running(database, &settings, &products).await;
    let shop = &installation.shop;
    let mut accepted = Vec::new();
    for n in 0..10 {
        accepted.push(shop.place_number(n).await);
    }
    Books::close(&installation, &accepted, &products).await;
    let clean = installation.finds(&Vec::new()).await;
    assert_eq!((&clean["agree"], &clean["orders"]), (&json!(true), &json!(10)), "{clean}");

    // Inventory is set back to before it heard that the order was confirmed. Number 0: one mug.
    let unsold = &accepted[0];
    installation.forget("inventory", "inventory-orders", unsold, "orders.confirmed").await;
    let held = format!("update reservations set status = 'held' where order_id = '{}'", unsold.order_id);
    assert_eq!(installation.damage("inventory", &held).await, 1);
    let units = "update stock set reserved = reserved + 1, committed = committed - 1 where product_id = 'mug'";
    assert_eq!(installation.damage("inventory", units).await, 1);
    // The order service never heard of the capture.
    let untold = &accepted[1];
    let id = installation.forget("order", "order-payments", untold, "payments.captured").await;
    assert_eq!(installation.damage("order", &format!("delete from order_timeline where event_id = '{id}'")).await, 1);
    // It did, but does not show it any more.
    let unshown = &accepted[3];
    let id = installation.event_id(unshown, "inventory.committed").await;
    assert_eq!(installation.damage("order", &format!("delete from order_timeline where event_id = '{id}'")).await, 1);
    // Payment is set back to before it heard of the confirmation.
    let uncharged = &accepted[5];
    installation.forget("payment", "payment-orders", uncharged, "orders.confirmed").await;
    let back = "update payments set state = 'authorized', confirmed = false";
    let back = format!("{back} where order_id = '{}'", uncharged.order_id);
    assert_eq!(installation.damage("payment", &back).await, 1);
    // The broker forgets an event.
    let lost = &accepted[6];
    delete_event(&installation, "PAYMENTS", "payments.authorized", lost).await;
    // A declined card that is charged all the same, and a hold for an order that nobody knows.
    let declined = &accepted[7];
    shop.hold(&declined.order_id).await;
    let nobodys = Uuid::now_v7().to_string();
    let nobodys_hold = shop.hold(&nobodys).await;

    let unsafe_ones = [("timeline_gap", unshown.order_id.as_str()), ("hold_unrecorded", nobodys.as_str())];
    let damaged = sorted([
        ("event_not_handled", &unsold.order_id),
        ("stock_not_committed", &unsold.order_id),
        ("event_not_handled", &untold.order_id),
        ("timeline_gap", &untold.order_id),
        unsafe_ones[0],
        ("event_not_handled", &uncharged.order_id),
        ("not_captured", &uncharged.order_id),
        ("gateway_disagrees", &uncharged.order_id),
        ("event_lost", &lost.order_id),
        ("hold_unrecorded", &declined.order_id),
        unsafe_ones[1],
    ]);
    let report = installation.finds(&damaged).await;
    let remedy = |kind: &str, order: &str| {
        let all = report["disagreements"].as_array().unwrap();
        let one = all.iter().find(|one| one["kind"] == kind && one["order_id"] == order).unwrap();
        one["remedy"].as_str().unwrap().to_owned()
    };
    assert_eq!(remedy("event_lost", &lost.order_id), "millrace reconcile --fix");
    assert!(remedy("timeline_gap", &unshown.order_id).contains("millrace replay timeline"));
    let page = installation.millrace(&["reconcile", "--older-than", "1s"]).await;
    assert!(page.stdout.contains("event_not_handled  order ") && page.stdout.contains("--fix"), "{page}");
    let one = installation.reconcile(&["--order", &lost.order_id]).await;
    assert_eq!(found(&one), sorted([("event_lost", &lost.order_id)]), "{one}");

    let mended = installation.reconcile(&["--fix"]).await;
    assert_eq!(found(&mended), sorted(unsafe_ones), "{mended}");
    let done = mended["fixes"].as_array().unwrap();
    assert!(done.len() == 5 && done.iter().all(|one| one["ok"] == true), "{mended}");
    assert_eq!(mended["mended"].as_array().unwrap().len(), 9, "{mended}");
    // Nothing is left to do, and nothing is done twice.
    let again = installation.reconcile(&["--fix"]).await;
    assert_eq!(again["fixes"], json!([]), "{again}");
    installation.quiet().await;
    installation.finds(&sorted(unsafe_ones)).await;

    let ledger = shop.ledger().await.unwrap();
    for order in &accepted {
        let intents = ledger.intents.iter().filter(|intent| intent.order_id.as_ref() == Some(&order.order_id));
        assert!(intents.map(|intent| intent.captures).sum::<u32>() <= 1, "charged twice: {ledger:?}");
    }
    let charged: Vec<_> =
        ledger.intents.iter().filter(|intent| intent.order_id.as_ref() == Some(&uncharged.order_id)).collect();
    assert!(matches!(charged.as_slice(), [one] if one.captured == uncharged.total_minor), "{charged:?}");
    let stock = installation.stock().await.unwrap();
    assert_eq!(stock["mug"][1], 0, "units are still held: {stock:?}");

    // The rest is somebody's decision.
    let released =
        installation.millrace(&["payments", "release", &nobodys, &nobodys_hold, "--order-is-unknown", "--json"]).await;
    assert_eq!((released.code, &released.json()["state"]), (0, &json!("voided")), "{released}");
    installation.finds(&sorted([unsafe_ones[0]])).await;
    let rebuilt = installation.millrace(&["replay", "timeline", "--order", &unshown.order_id]).await;
    assert_eq!(rebuilt.code, 0, "{rebuilt}");
    installation.finds(&Vec::new()).await;
    let audit = installation.millrace(&["payments", "show", &declined.order_id, "--json"]).await.json();
    assert_eq!(audit["history"][0]["action"], "reconciled", "{audit}");
    installation.no_dead_letters().await;
}

/// Deletes the order's event from its stream.
async fn delete_event(installation: &Installation, stream: &str, subject: &str, order: &Accepted) {
    let js = jetstream::new(installation.nats.client().await);
    let stream = js.get_stream(stream).await.unwrap();
    for seq in 1..=stream.cached_info().state.last_sequence {
        let message = stream.get_raw_message(seq).await.unwrap();
        let about = message.headers.get("ce-subject").map(|value| value.as_str());
        if message.subject.as_str() == subject && about == Some(order.order_id.as_str()) {
            assert!(stream.delete_message(seq).await.unwrap());
            return;
        }
    }
    panic!("{subject} of {order:?} is not there");
}

mod sqlite {
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_damaged_is_named_and_the_safe_part_of_it_mended_once() {
        super::what_is_damaged_is_named_and_the_safe_part_of_it_mended_once(super::Backend::Sqlite).await;
    }
}

mod postgres {
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_damaged_is_named_and_the_safe_part_of_it_mended_once() {
        super::what_is_damaged_is_named_and_the_safe_part_of_it_mended_once(super::Backend::Postgres).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_capture_is_listed_until_a_retry_mends_it() {
    let products = sample();
    let mut installation = Installation::running(None, &[], &products).await;
    // The order waits for its goods, its money is on hold, and then the gateway turns obstinate.
    installation.process("inventory").kill().await;
    let accepted = installation.shop.place(&order(0)).await;
    let id = accepted.order_id.as_str();
    order_shows(&installation, id, "authorized").await;
    // What inventory has not come to yet is no disagreement.
    installation.finds(&Vec::new()).await;
    installation.shop.gateway_is(json!({ "mode": "errors", "status": 402 })).await;
    installation.process("inventory").start();

    let listed = || async {
        let ran = installation.millrace(&["payments", "list", "--needs-operator", "--json"]).await;
        if ran.json()["count"] == 1 { Ok(ran.json()["payments"][0].clone()) } else { Err(ran.to_string()) }
    };
    let payment = eventually(PATIENCE, listed, "the payment to be listed").await;
    assert_eq!((&payment["order_id"], &payment["state"]), (&json!(id), &json!("capture_failed")), "{payment}");
    assert!(payment["problem"].as_str().is_some_and(|why| !why.is_empty()), "{payment}");
    let page = installation.millrace(&["payments", "show", id]).await;
    assert!(page.stdout.contains(&format!("millrace payments retry {id}")), "{page}");
    let ops = installation.ops_url("payment");
    let doctor = installation.millrace(&["doctor", "--ops", &ops, "--json"]).await.json();
    let told = check(&doctor, "payments");
    assert_eq!(told["found"], "1 need an operator", "{doctor}");
    assert!(told["warn"] == true && told["remedy"] == "millrace payments list --needs-operator", "{doctor}");
    assert_eq!(check(&doctor, "breaker payment-gateway")["found"], "closed", "{doctor}");
    let metric = || async {
        let count = installation.metric("payment", "millrace_payments_needing_operator", "").await?;
        if count == 1.0 { Ok(()) } else { Err(count.to_string()) }
    };
    eventually(PATIENCE, metric, "the metric").await;
    installation.shop.gateway_is(json!({ "mode": "ok" })).await;
    installation.finds(&sorted([("payment_needs_operator", id)])).await;

    installation.shop.gateway_is(json!({ "mode": "errors", "status": 402 })).await;
    let refused = installation.millrace(&["payments", "retry", id, "--json", "--by", "ada@desk"]).await;
    assert_eq!((refused.code, &refused.json()["state"]), (1, &json!("capture_failed")), "{refused}");
    installation.shop.gateway_is(json!({ "mode": "ok" })).await;
    let retried = installation.millrace(&["payments", "retry", id, "--json"]).await;
    assert_eq!((retried.code, &retried.json()["state"]), (0, &json!("captured")), "{retried}");
    order_shows(&installation, id, "captured").await;
    let shown = installation.millrace(&["payments", "show", id, "--json"]).await.json();
    let history = shown["history"].as_array().unwrap();
    assert_eq!(
        (history.len(), &history[0]["who"], &history[1]["detail"]["outcome"]),
        (2, &json!("ada@desk"), &json!("captured"))
    );
    let ledger = installation.shop.ledger().await.unwrap();
    assert!(matches!(ledger.intents.as_slice(), [one] if one.captures == 1), "{ledger:?}");
    installation.finds(&Vec::new()).await;
    let doctor = installation.millrace(&["doctor", "--ops", &ops, "--json"]).await.json();
    assert_eq!(check(&doctor, "payments")["found"], "none needs an operator", "{doctor}");
    let settled = installation.millrace(&["payments", "settle", id, "--as", "captured", "--note", "by hand"]).await;
    assert!(settled.code == 1 && settled.stderr.contains("nothing to settle"), "{settled}");

    // A gateway that is away: its breaker opens, and is seen.
    installation.shop.gateway_is(json!({ "mode": "down" })).await;
    for n in [0, 1, 3, 5, 6] {
        installation.shop.place(&order(n)).await;
    }
    let open = || async {
        let doctor = installation.millrace(&["doctor", "--ops", &ops, "--json"]).await.json();
        let told = check(&doctor, "breaker payment-gateway");
        if told["ok"] == false && !told["remedy"].is_null() { Ok(()) } else { Err(doctor.to_string()) }
    };
    eventually(PATIENCE, open, "the open breaker").await;
}

async fn order_shows(installation: &Installation, id: &str, payment: &str) {
    let shows = || async {
        let orders = installation.shop.orders().await?;
        let found = orders.iter().find(|order| order["order_id"] == id).ok_or("it is not known")?;
        if found["payment"] == payment { Ok(()) } else { Err(found.to_string()) }
    };
    eventually(PATIENCE, shows, payment).await;
}

fn check(doctor: &Value, name: &str) -> Value {
    let checks = doctor["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).cloned().unwrap_or_else(|| panic!("no {name}: {doctor}"))
}
