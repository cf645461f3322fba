//! No room left: at the broker, in one of its streams, or for a database. Who is refused is told when to come back, who was
//! accepted is served once there is room.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::DiscardPolicy;
use reqwest::StatusCode;
use serde_json::Value;
use testkit::eventually;

use crate::support::{Accepted, Backend, Books, Installation, PATIENCE, good_order, sample};

/// Room for the streams themselves and a few dozen orders.
const SMALL_STORE: u64 = 400_000;
/// A disk with room for a database and a few hundred orders.
const SMALL_DISK: u64 = 8 * 1024 * 1024;
/// Orders that come while there is no room.
const MEANWHILE: usize = 20;
/// Each takes as long as a customer is kept waiting for a database.
const REFUSALS: usize = 3;
/// An event that waits for so long is one that the broker refuses.
const STUCK: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_room_refuses_no_customer_and_every_order_ends_once_there_is_room() {
    let products = sample();
    let nats = testkit::nats_with(|server| server.max_file_store(SMALL_STORE)).await;
    let mut installation = Installation::at(nats, None, &[]);
    installation.start(&products).await;
    let mut accepted = orders_until_the_broker_refuses(&installation).await;
    accepted.extend(orders(&installation, accepted.len(), MEANWHILE).await);
    installation.nats.lift_max_file_store();
    installation.nats.restart().await.unwrap();
    all_end_well(&installation, &accepted, &products).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_at_its_limit_refuses_no_customer_and_every_order_ends_once_it_is_raised() {
    let products = sample();
    let installation = Installation::on(Backend::Postgres, &products).await;
    let js = jetstream::new(installation.nats.client().await);
    let stream = js.get_stream("ORDERS").await.unwrap();
    let unlimited = stream.cached_info().config.clone();
    let mut limited = unlimited.clone();
    (limited.max_bytes, limited.discard) = (20_000, DiscardPolicy::New);
    js.update_stream(limited).await.unwrap();
    let mut accepted = orders_until_the_broker_refuses(&installation).await;
    accepted.extend(orders(&installation, accepted.len(), MEANWHILE).await);
    js.update_stream(unlimited).await.unwrap();
    all_end_well(&installation, &accepted, &products).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_disk_of_its_database_is_full_orders_are_refused_and_what_was_accepted_ends_afterwards() {
    let products = sample();
    let mut installation = Installation::new(None, &[]).await;
    installation.import(&products).await;
    installation.serve("simulators");
    ["payment", "inventory", "notification"].iter().for_each(|service| installation.serve(service));
    let disk = installation.serve_on_small_disk("order", SMALL_DISK);
    installation.ready().await;
    let shop = &installation.shop;
    let mut accepted = orders(&installation, 0, 10).await;
    // In mid-flow: what the others say of these orders finds no room.
    disk.fill();
    let mut refused = Vec::new();
    while refused.len() < REFUSALS {
        let (order, key) = (good_order(refused.len()), format!("without-room-{}", refused.len()));
        let answer = shop.attempt(&order, &key).await.unwrap();
        if answer.status() == StatusCode::ACCEPTED {
            // It went where there had been something before.
            accepted.push(Accepted::of(answer).await.unwrap());
            assert!(accepted.len() < 1_000, "there is room for everything");
            continue;
        }
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
        assert!(answer.headers()["retry-after"].to_str().unwrap().parse::<u32>().unwrap() > 0);
        refused.push((order, key));
    }
    let known = shop.orders().await.unwrap();
    assert_eq!(known.len(), accepted.len(), "an order that was refused exists all the same");

    disk.make_room();
    for (order, key) in refused {
        let again = || async {
            let answer = shop.attempt(&order, &key).await.map_err(|error| error.to_string())?;
            if answer.status() == StatusCode::ACCEPTED {
                Accepted::of(answer).await
            } else {
                Err(format!("{answer:?}"))
            }
        };
        accepted.push(eventually(PATIENCE, again, "a refused order to be accepted").await);
    }
    all_end_well(&installation, &accepted, &products).await;
}

async fn orders(installation: &Installation, first: usize, count: usize) -> Vec<Accepted> {
    let shop = &installation.shop;
    let placing = (first..first + count).map(|n| async move { shop.accepted_at_once(&good_order(n)).await });
    futures::future::join_all(placing).await
}

/// Every one of them is accepted, before and after.
async fn orders_until_the_broker_refuses(installation: &Installation) -> Vec<Accepted> {
    let mut accepted = Vec::new();
    while !installation
        .metric("order", "millrace_outbox_oldest_age_seconds", "")
        .await
        .is_ok_and(|age| age > STUCK.as_secs_f64())
    {
        accepted.extend(orders(installation, accepted.len(), 5).await);
        assert!(accepted.len() < 1_000, "the broker has room for everything");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    accepted
}

async fn all_end_well(installation: &Installation, accepted: &[Accepted], products: &Value) {
    let books = Books::close(installation, accepted, products).await;
    assert_eq!(books.count("confirmed", None), accepted.len());
    installation.no_dead_letters().await;
}
