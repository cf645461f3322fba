//! What happens when something the service needs is away.

use std::time::{Duration, Instant};

use millrace::config::HumanDuration;
use order::Settings;
use serde_json::json;
use testkit::eventually;

use crate::support::{Backend, Instance, PATIENCE, World, body, database, eur, on_both_backends, product};

on_both_backends! {
    orders_are_taken_while_nats_is_away_and_go_on_when_it_is_back,
    without_a_catalog_nothing_is_sold_and_the_caller_is_told_when_to_return,
}

async fn orders_are_taken_while_nats_is_away_and_go_on_when_it_is_back(backend: Backend) {
    let mut world = World::start(backend).await;
    world.nats.stop().await;
    let id = world.service.place().await;
    world.nats.start().await.unwrap();
    let published = || async { world.published("orders.created.v2").await.len() == 1 };
    eventually(PATIENCE, published, "the order's event").await;
    world.say_yes(id).await;
    world.service.becomes(id, json!({ "status": "confirmed" })).await;
    // The catalog is followed on.
    world.put(&product("mug", eur(1_500))).await;
    let dearer = || async { world.service.post("/orders", &body()).await.body["total"]["minor"] == 5_500 };
    eventually(PATIENCE, dearer, "the new price").await;
    world.service.stop().await;
}

async fn without_a_catalog_nothing_is_sold_and_the_caller_is_told_when_to_return(backend: Backend) {
    let (url, _folder) = database(backend).await;
    let service = Instance::start("nats://127.0.0.1:9", &url, Settings::default()).await;
    let answer = service.post("/orders", &body()).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "2"), "{answer:?}");
    assert_eq!(answer.body["code"], "MR0008");
    assert_eq!(service.get("/catalog").await.status, 503);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_nothing_is_half_done() {
    let mut postgres = testkit::private_postgres().await;
    let nats = testkit::nats().await;
    let url = postgres.database_url("orders").parse().unwrap();
    let settings = Settings { submit_patience: HumanDuration::from_millis(700), ..Settings::default() };
    let service = Instance::start(&nats.url(), &url, settings).await;
    let context = async_nats::jetstream::new(nats.client().await);
    let bucket = eventually(PATIENCE, || context.get_key_value(contracts::catalog::BUCKET), "the bucket").await;
    for product in crate::support::products() {
        bucket.put(product.product_id.as_str(), serde_json::to_vec(&product).unwrap().into()).await.unwrap();
    }
    let sold = || async { service.get("/catalog").await.body["products"].as_array().is_some_and(|p| p.len() == 5) };
    eventually(PATIENCE, sold, "the catalog").await;
    let before = service.place_with_key(&body(), "before").await;
    assert_eq!(before.status, 202);

    postgres.stop().await;
    let started = Instant::now();
    let refused = service.place_with_key(&body(), "during").await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(refused.body["code"], "MR0004");
    // Its batch may have begun when the database went away.
    let said = refused.body["detail"].as_str().unwrap();
    assert!(said.contains("not known") && said.contains("same Idempotency-Key"), "{said}");
    assert!(!refused.header("retry-after").is_empty());
    assert!(started.elapsed() < Duration::from_secs(5), "the caller waited {:?}", started.elapsed());
    assert_eq!(service.get(&format!("/orders/{}", before.order_id())).await.status, 503);
    assert_eq!(service.get("/orders").await.status, 503);

    postgres.start().await.unwrap();
    let again = || async {
        let answer = service.place_with_key(&body(), "during").await;
        if answer.status == 202 { Ok(answer) } else { Err(format!("{answer:?}")) }
    };
    let placed = eventually(PATIENCE, again, "the database to be back").await;
    // What was refused did not happen behind the caller's back.
    let listed = service.get("/orders").await;
    let ids: Vec<_> = listed.body["orders"].as_array().unwrap().iter().map(|order| order["order_id"].clone()).collect();
    assert_eq!(ids, [placed.body["order_id"].clone(), before.body["order_id"].clone()]);
    service.stop().await;
}
