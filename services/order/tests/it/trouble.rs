//! What happens when something the service needs is away.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_nats::jetstream::kv::Config;
use contracts::catalog::BUCKET;
use millrace::config::HumanDuration;
use millrace::health::Status;
use order::Settings;
use serde_json::json;
use testkit::eventually;

use crate::support::{Backend, Instance, PATIENCE, World, body, database, eur, on_both_backends, product};

on_both_backends! {
    orders_are_taken_while_nats_is_away_and_go_on_when_it_is_back,
    without_a_catalog_nothing_is_sold_and_the_caller_is_told_when_to_return,
    a_catalog_bucket_that_lost_its_last_changes_is_not_followed_back_to_old_prices,
    a_catalog_bucket_that_was_made_anew_is_followed,
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

async fn a_catalog_bucket_that_lost_its_last_changes_is_not_followed_back_to_old_prices(backend: Backend) {
    let mut world = World::start(backend).await;
    let before = world.nats.copy_of_disk().await;
    world.put(&product("mug", eur(1_500))).await;
    world.put(&product("cup", eur(200))).await;
    world.bucket().await.delete("tea").await.unwrap();
    let wanted = [("cup", 200), ("gift", 0), ("mug", 1_500), ("pot", 2_500), ("yacht", 99_999_999)];
    eventually(PATIENCE, || sells(&world, &wanted), "the changes").await;

    world.nats.lose_power(before).await;
    world.nats.start().await.unwrap();
    eventually(PATIENCE, || async { catalog_is_degraded(&world, "cup, mug, tea") }, "the loss to be noticed").await;
    sells(&world, &wanted).await.unwrap();

    // Not after a restart either.
    world.service.stop().await;
    world.service = Instance::start(&world.nats.url(), &world.database_url, Settings::default()).await;
    let known = || async {
        catalog_is_degraded(&world, "cup, mug, tea")?;
        sells(&world, &wanted).await
    };
    eventually(PATIENCE, known, "the loss to be known after a restart").await;
    world.service.ready().await;

    // What is written from now on counts, and makes it whole again.
    world.put(&product("mug", eur(1_500))).await;
    world.put(&product("cup", eur(250))).await;
    eventually(PATIENCE, || async { catalog_is_degraded(&world, " tea") }, "what is missing to be named").await;
    world.bucket().await.delete("tea").await.unwrap();
    let whole = || async { world.service.health.readiness().components["catalog"].status == Status::Ready };
    eventually(PATIENCE, whole, "the catalog to be whole").await;
    world.put(&product("mug", eur(1_600))).await;
    let wanted = [("cup", 250), ("gift", 0), ("mug", 1_600), ("pot", 2_500), ("yacht", 99_999_999)];
    eventually(PATIENCE, || sells(&world, &wanted), "the bucket to be followed as before").await;
    world.service.stop().await;
}

async fn a_catalog_bucket_that_was_made_anew_is_followed(backend: Backend) {
    let mut world = World::start(backend).await;
    world.service.stop().await;
    let context = world.connection.jetstream();
    context.delete_key_value(BUCKET).await.unwrap();
    let config = Config { bucket: BUCKET.into(), history: 1, ..Config::default() };
    context.create_key_value(config).await.unwrap();
    world.put(&product("mug", eur(700))).await;
    world.service = Instance::start(&world.nats.url(), &world.database_url, Settings::default()).await;
    eventually(PATIENCE, || sells(&world, &[("mug", 700)]), "the new catalog").await;
    assert_eq!(world.service.health.readiness().components["catalog"].status, Status::Ready);
    world.service.stop().await;
}

/// Whether exactly these products are on sale, at these prices.
async fn sells(world: &World, wanted: &[(&str, i64)]) -> Result<(), String> {
    let answer = world.service.get("/catalog").await;
    let sold: BTreeMap<&str, i64> = answer.body["products"]
        .as_array()
        .ok_or_else(|| answer.body.to_string())?
        .iter()
        .map(|one| (one["product_id"].as_str().unwrap(), one["unit_price"]["minor"].as_i64().unwrap()))
        .collect();
    if sold == wanted.iter().copied().collect() { Ok(()) } else { Err(format!("{sold:?}")) }
}

fn catalog_is_degraded(world: &World, naming: &str) -> Result<(), String> {
    let readiness = world.service.health.readiness();
    let condition = readiness.components.get("catalog").ok_or("it is starting")?;
    let named = condition.reason.as_ref().is_some_and(|reason| reason.ends_with(naming));
    if condition.status == Status::Degraded && named { Ok(()) } else { Err(format!("{condition:?}")) }
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
