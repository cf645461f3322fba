//! Whole parts of the installation away, and what customers and operators see meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use testkit::eventually;
use tokio::task::JoinSet;

use crate::support::{Accepted, Backend, Books, Installation, PATIENCE, SERVICES, Shop, order, sample};

/// Longer than any process may take to drain: its default `shutdown.drain`, and a little to end.
const DRAIN_LIMIT: Duration = Duration::from_secs(25);

#[tokio::test(flavor = "multi_thread")]
async fn without_its_database_the_api_says_503_does_nothing_and_recovers_by_itself() {
    let mut postgres = testkit::private_postgres().await;
    let products = sample();
    let installation = Installation::running(Some(postgres.database_url("shop")), &[], &products).await;
    let shop = &installation.shop;
    let mut accepted = vec![shop.place(&order(0)).await, shop.place(&order(1)).await];

    postgres.stop().await;
    for n in 0..5 {
        let refused = shop.attempt(&order(n), &format!("during-the-outage-{n}")).await.unwrap();
        assert_unavailable(refused).await;
    }
    let (status, text) = shop.fetch(&format!("{}/orders/{}", shop.url(), accepted[0].order_id)).await.unwrap();
    assert_eq!(status, 503, "{text}");
    let told = || async { names_component(&installation, "order", "database").await };
    eventually(PATIENCE, told, "/readyz to name the database").await;

    postgres.start().await.unwrap();
    let back = || async { shop.orders().await };
    let known = eventually(PATIENCE, back, "the API to recover").await;
    assert_eq!(known.len(), accepted.len(), "an order that was refused exists all the same: {known:?}");
    for n in 0..5 {
        // Refused with 503 means: the same request may be sent again.
        let again = || async {
            let answer = shop.attempt(&order(n), &format!("during-the-outage-{n}")).await.map_err(|e| e.to_string())?;
            if answer.status() == StatusCode::ACCEPTED {
                Accepted::of(answer).await
            } else {
                Err(answer.status().to_string())
            }
        };
        accepted.push(eventually(PATIENCE, again, "a refused order to be accepted").await);
    }
    installation.ready().await;
    Books::close(&installation, &accepted, &products).await;
}

async fn assert_unavailable(answer: reqwest::Response) {
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert!(header("retry-after").parse::<u32>().unwrap() > 0, "{answer:?}");
    assert!(header("content-type").starts_with("application/problem+json"), "{answer:?}");
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["status"], 503, "{problem}");
    assert_eq!(problem["code"], "MR0004", "{problem}");
    assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
}

/// Whether a process says that it is not ready, because of this part.
async fn names_component(installation: &Installation, process: &str, component: &str) -> Result<(), String> {
    let (status, text) = installation.readiness(process).await?;
    let named = text.lines().any(|line| line.starts_with(&format!("{process}.{component}: ")));
    if status == 503 && named { Ok(()) } else { Err(format!("{status} {text}")) }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_nats_orders_are_accepted_and_finish_when_it_is_back() {
    let products = sample();
    let mut installation = Installation::on(Backend::Sqlite, &products).await;
    let mut accepted = Vec::new();

    // At start: the service has seen a catalog once, and that is all it needs.
    assert_eq!(installation.process("order").terminate(DRAIN_LIMIT).await, 0);
    installation.nats.stop().await;
    installation.process("order").start();
    for n in 0..10 {
        accepted.push(installation.shop.place(&order(n)).await);
    }
    let told = || async { names_component(&installation, "order", "nats").await };
    eventually(PATIENCE, told, "/readyz to name NATS").await;
    installation.nats.start().await.unwrap();
    installation.ready().await;
    Books::close(&installation, &accepted, &products).await;

    // Later, under load: not one request is refused.
    let shop = installation.shop.clone();
    let outage = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        installation.nats.stop().await;
        let told = || async { names_component(&installation, "order", "nats").await };
        eventually(PATIENCE, told, "/readyz to name NATS").await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        installation.nats.start().await.unwrap();
    };
    let (placed, ()) = tokio::join!(accepted_each_time(&shop, 60), outage);
    accepted.extend(placed);
    Books::close(&installation, &accepted, &products).await;
    installation.no_dead_letters().await;
}

/// Places orders, one every 30 ms. Every request is answered with 202, at once.
async fn accepted_each_time(shop: &Shop, orders: usize) -> Vec<Accepted> {
    let mut placing = JoinSet::new();
    for n in 0..orders {
        let shop = shop.clone();
        placing.spawn(async move {
            let answer = shop.attempt(&order(n), &format!("under-load-{n}")).await.unwrap();
            assert_eq!(answer.status(), StatusCode::ACCEPTED);
            Accepted::of(answer).await.unwrap()
        });
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    placing.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_inventory_processes_share_the_work_and_never_oversell() {
    let product = json!([{ "product_id": "hot", "name": "hot", "opening_stock": 20,
        "unit_price": { "minor": 100, "currency": "EUR" } }]);
    let database = testkit::fresh_database().await;
    // A process takes no more than it can work on; with few workers no single one can take everything.
    let few = [("MILLRACE_CONSUMER_WORKERS", "4")];
    let mut installation = Installation::running(Some(database), &few, &product).await;
    for name in ["inventory-2", "inventory-3"] {
        installation.serve_as(name, "inventory", &[]);
    }
    installation.ready().await;

    let mut placing = JoinSet::new();
    for n in 0..50 {
        let shop = installation.shop.clone();
        let order = json!({ "customer_id": format!("customer-{n}"), "email": "someone@example.org",
            "payment_method": "pm_card_visa", "items": [{ "product_id": "hot", "quantity": 1 }] });
        placing.spawn(async move { shop.place(&order).await });
    }
    let accepted = placing.join_all().await;
    let books = Books::close(&installation, &accepted, &product).await;

    assert_eq!(installation.stock().await.unwrap()["hot"], [0, 0, 20], "available, reserved, committed");
    assert_eq!((books.count("confirmed", None), books.count("cancelled", Some("out_of_stock"))), (20, 30));
    let mut handled = Vec::new();
    for name in ["inventory", "inventory-2", "inventory-3"] {
        let of_orders = "consumer=\"inventory-orders\"";
        handled.push(installation.metric(name, "millrace_handled_total", of_orders).await.unwrap_or(0.0));
    }
    assert!(handled.iter().all(|count| *count > 0.0), "not shared: {handled:?}");
    assert!(handled.iter().sum::<f64>() >= 100.0, "two events of each order: {handled:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_every_service_under_load_and_loses_nothing() {
    let products = sample();
    let mut installation = Installation::on(Backend::Sqlite, &products).await;
    let (shop, over) = (installation.shop.clone(), AtomicBool::new(false));
    let load = async {
        let mut placing = JoinSet::new();
        while !over.load(Ordering::Relaxed) {
            let (shop, n) = (shop.clone(), placing.len());
            placing.spawn(async move { shop.place_number(n).await });
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        placing.join_all().await
    };
    let terminating = async {
        for service in SERVICES {
            tokio::time::sleep(Duration::from_millis(400)).await;
            let process = installation.process(service);
            assert_eq!(process.terminate(DRAIN_LIMIT).await, 0, "exit code of {service}");
            process.start();
        }
        over.store(true, Ordering::Relaxed);
    };
    let (accepted, ()) = tokio::join!(load, terminating);
    Books::close(&installation, &accepted, &products).await;
    installation.no_dead_letters().await;
}
