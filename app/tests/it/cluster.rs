//! Three nats-servers, three copies of every stream: one may go at any time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use futures::future::join_all;
use serde_json::Value;
use testkit::{TestNats, eventually};
use tokio::time::sleep;

use crate::support::{Books, Installation, PATIENCE, good_order, sample};

const ORDER_EVERY: Duration = Duration::from_millis(100);
/// How long orders are placed before a fault, and after it.
const UNDISTURBED: Duration = Duration::from_secs(1);
const ORDERS: &str = "ORDERS";

/// An installation whose services know all three servers. Its broker is one of them, the others are given back.
async fn installation_at_a_cluster(settings: &[(&str, &str)]) -> (Installation, Vec<TestNats>) {
    let mut servers = testkit::nats_cluster().await;
    let urls = servers.iter().map(|server| server.url()).collect::<Vec<_>>().join(",");
    let first = servers.remove(0);
    let of_cluster = [("NATS_URL", urls.as_str()), ("MILLRACE_TOPOLOGY_REPLICAS", "3")];
    let installation = Installation::at(first, None, &[&of_cluster, settings].concat());
    (installation, servers)
}

/// The server that leads a stream, as it is called.
async fn leader(of: &str, asked: &TestNats) -> Result<String, String> {
    let js = jetstream::new(asked.client().await);
    let stream = js.get_stream(of).await.map_err(|error| error.to_string())?;
    let cluster = stream.cached_info().cluster.clone().ok_or("no cluster")?;
    cluster.leader.ok_or_else(|| "no leader".to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_leader_of_a_stream_is_killed_no_customer_is_refused_and_every_order_ends() {
    let products = sample();
    let (mut installation, mut others) = installation_at_a_cluster(&[]).await;
    installation.start(&products).await;
    let fallen = leader(ORDERS, &installation.nats).await.unwrap();
    if fallen == installation.nats.name() {
        // The test itself asks this one, so it has to stay.
        std::mem::swap(&mut installation.nats, &mut others[0]);
    }
    let victim = others.iter_mut().find(|server| server.name() == fallen).unwrap();
    let (shop, over) = (installation.shop.clone(), AtomicBool::new(false));
    let killing = async {
        sleep(UNDISTURBED).await;
        victim.kill().await;
        let order = shop.accepted_at_once(&good_order(0)).await;
        let confirmed = || async {
            let (_, text) = shop.fetch(&shop.order_url(&order.order_id)).await?;
            let order: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
            if order["status"] == "confirmed" { Ok(()) } else { Err(text) }
        };
        eventually(PATIENCE, confirmed, "an order to be confirmed by the two servers that are left").await;
        assert_ne!(leader(ORDERS, &installation.nats).await.unwrap(), fallen);
        victim.start().await.unwrap();
        installation.ready().await;
        sleep(UNDISTURBED).await;
        over.store(true, Ordering::Relaxed);
        order
    };
    let (mut accepted, extra) = tokio::join!(shop.sell_until(&over, ORDER_EVERY), killing);
    accepted.push(extra);
    let books = Books::close(&installation, &accepted, &products).await;
    assert_eq!(books.count("confirmed", None), accepted.len());
    installation.no_dead_letters().await;
}

/// Two servers come back without what they had acknowledged last, and agree on that; the third, which kept its power,
/// has to give way. The services are connected to that one all the time.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_majority_of_a_cluster_lost_in_a_power_cut_is_published_again_by_those_who_stayed_connected() {
    let products = sample();
    let (mut installation, mut others) = installation_at_a_cluster(&[]).await;
    let kept = installation.nats.url();
    installation.always("NATS_URL", &kept);
    installation.start(&products).await;
    let shop = installation.shop.clone();
    let mut accepted = vec![shop.accepted_at_once(&good_order(0)).await];
    Books::close(&installation, &accepted, &products).await;
    let mut copies = Vec::new();
    for server in &mut others {
        copies.push(server.copy_of_disk().await);
    }
    for n in 1..6 {
        accepted.push(shop.accepted_at_once(&good_order(n)).await);
    }
    Books::close(&installation, &accepted, &products).await;
    let before = last_sequence(&installation.nats).await.unwrap();

    for server in &mut others {
        server.kill().await;
    }
    // It would win the election with all it has; so it is slow at that moment.
    installation.nats.pause().await.unwrap();
    for (server, copy) in others.iter_mut().zip(copies) {
        server.lose_power(copy).await;
    }
    join_all(others.iter_mut().map(|server| async { server.start().await.unwrap() })).await;
    let after = || async { last_sequence(&others[0]).await };
    let after = eventually(PATIENCE, after, "the two to agree").await;
    assert!(after < before, "nothing was lost: {after}, {before}");
    installation.nats.resume().unwrap();

    for n in 6..10 {
        accepted.push(shop.accepted_at_once(&good_order(n)).await);
    }
    // Every event is in its stream, once.
    Books::close(&installation, &accepted, &products).await;
    assert!(installation.metric("order", "millrace_broker_lost_total", "").await.unwrap() > 0.0);
    installation.no_dead_letters().await;
}

/// The last place that the stream of orders has given, by the server that leads it.
async fn last_sequence(asked: &TestNats) -> Result<u64, String> {
    let js = jetstream::new(asked.client().await);
    let stream = js.get_stream(ORDERS).await.map_err(|error| error.to_string())?;
    Ok(stream.cached_info().state.last_sequence)
}
