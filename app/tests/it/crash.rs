//! `kill -9` of any one process in mid-flow: every accepted order still reaches exactly one end, with the card charged
//! once or not at all, and no unit of stock lost or sold twice.

#![expect(clippy::print_stdout, reason = "whoever looks at a failure has to know the moments, which are random")]

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::{Accepted, Backend, Books, Installation, SERVICES, Shop, sample};

const ORDERS: usize = 40;
const KILLS: usize = 3;
const ORDER_EVERY: Duration = Duration::from_millis(60);
/// How long a process has run when it is killed, and how long it stays away, in milliseconds.
const UPTIME_MS: Range<u64> = 100..900;
const DOWNTIME_MS: Range<u64> = 20..500;

#[tokio::test(flavor = "multi_thread")]
async fn no_kill_loses_an_order_or_charges_twice_on_sqlite() {
    survives_every_kill(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_kill_loses_an_order_or_charges_twice_on_postgresql() {
    survives_every_kill(Backend::Postgres).await;
}

async fn survives_every_kill(backend: Backend) {
    let products = sample();
    let mut installation = Installation::on(backend, &products).await;
    let (mut accepted, mut redelivered) = (Vec::new(), 0.0);
    for victim in SERVICES.into_iter().chain(["nats-server"]) {
        let shop = installation.shop.clone();
        let over = AtomicBool::new(false);
        let killing = async {
            let moments = kill_at_varied_moments(&mut installation, victim).await;
            over.store(true, Ordering::Relaxed);
            moments
        };
        let (placed, moments) = tokio::join!(place_orders(&shop, accepted.len(), &over), killing);
        println!("{victim} on {backend:?}: {} orders, killed after and away for {moments:?}", placed.len());
        accepted.extend(placed);
        Books::close(&installation, &accepted, &products).await;
        let again = redeliveries(&installation).await;
        println!("{victim} on {backend:?}: {again} redeliveries");
        redelivered += again;
    }
    // Otherwise no kill has hit anything in mid-flow, and nothing is proved.
    assert!(redelivered > 0.0);
    installation.no_dead_letters().await;
}

/// Messages that the services, since each was started, were given a second time.
async fn redeliveries(installation: &Installation) -> f64 {
    let mut all = 0.0;
    for service in SERVICES {
        // A service that has seen none does not show the metric.
        all += installation.metric(service, "millrace_redeliveries_total", "").await.unwrap_or(0.0);
    }
    all
}

/// Places orders at a steady rate, at least as many as promised, and until the last kill is over.
async fn place_orders(shop: &Shop, first: usize, over: &AtomicBool) -> Vec<Accepted> {
    let mut placing = JoinSet::new();
    let mut ticks = tokio::time::interval(ORDER_EVERY);
    while placing.len() < ORDERS || !over.load(Ordering::Relaxed) {
        ticks.tick().await;
        let (shop, n) = (shop.clone(), first + placing.len());
        placing.spawn(async move { shop.place_number(n).await });
    }
    placing.join_all().await
}

async fn kill_at_varied_moments(installation: &mut Installation, victim: &str) -> Vec<(Duration, Duration)> {
    let mut moments = Vec::new();
    for _ in 0..KILLS {
        let uptime = Duration::from_millis(fastrand::u64(UPTIME_MS));
        let downtime = Duration::from_millis(fastrand::u64(DOWNTIME_MS));
        tokio::time::sleep(uptime).await;
        installation.kill_and_restart(victim, downtime).await;
        moments.push((uptime, downtime));
    }
    moments
}
