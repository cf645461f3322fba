//! No room left: at the broker, in one of its streams, or for a database. Who is refused is told when to come back, who was
//! accepted is served once there is room.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::DiscardPolicy;
use serde_json::Value;

use crate::support::{Accepted, Backend, Books, Installation, good_order, sample};

/// Room for the streams themselves and a few dozen orders.
const SMALL_STORE: u64 = 400_000;
/// Orders that come while there is no room.
const MEANWHILE: usize = 20;
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
