//! The load: customers in a closed loop, each ordering again as soon as it is answered, or in an open one, where orders
//! come when they come.
//!
//! In the open loop an order's time starts when it was meant to be sent, also when every connection was still busy with
//! earlier ones then. Otherwise a server that stands still for a second would be asked nothing during that second, and
//! only one order would be seen to wait ("coordinated omission").

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::http::Connection;
use super::latency::Latency;
use super::orders::{self, Taste};
use super::sizes::CONNECTIONS;
use super::tracker::Tracker;
use crate::failure::Failure;

/// When a closed loop ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    Orders(u32),
    Elapsed(Duration),
}

/// Where and what to order.
#[derive(Clone)]
pub struct Shop {
    pub api: SocketAddr,
    pub taste: Taste,
    pub seed: u64,
    /// Gives each order of a world a number of its own.
    pub numbers: Arc<AtomicU64>,
    /// Told of every accepted order.
    pub tracker: Option<Arc<Tracker>>,
}

/// Whether customers wait while too many orders are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backlog {
    Bounded,
    Free,
}

/// What became of a load.
#[derive(Debug)]
pub struct Served {
    pub accepted: u64,
    /// Answered with anything but 202.
    pub refused: u64,
    /// From the first request to the last answer.
    pub took: Duration,
    pub latency: Latency,
}

impl Served {
    pub fn rate(&self) -> f64 {
        self.accepted as f64 / self.took.as_secs_f64().max(1e-9)
    }
}

impl Shop {
    /// Orders over 64 connections, each ordering again at once.
    pub async fn closed(&self, until: Until, backlog: Backlog) -> Result<Served, Failure> {
        let gate = self.tracker.clone().filter(|_| backlog == Backlog::Bounded);
        gate.iter().for_each(|gate| gate.open());
        let (begun, left) = (Instant::now(), Arc::new(AtomicU32::new(0)));
        self.crowd(begun, gate, move || {
            let left = left.clone();
            async move {
                let more = match until {
                    Until::Orders(orders) => left.fetch_add(1, Ordering::Relaxed) < orders,
                    Until::Elapsed(length) => begun.elapsed() < length,
                };
                more.then(Instant::now)
            }
        })
        .await
    }

    /// Orders at a fixed rate for so long.
    pub async fn open(&self, rate: f64, length: Duration) -> Result<Served, Failure> {
        let count = (rate * length.as_secs_f64()).ceil().max(1.0) as u32;
        let begun = Instant::now() + Duration::from_millis(20);
        let clock = Arc::new(Clock { begun, rate, count, due: Semaphore::new(0), next: AtomicU32::new(0) });
        let _ticking = Ticking::start(clock.clone());
        self.crowd(begun, None, move || {
            let clock = clock.clone();
            async move { clock.turn().await }
        })
        .await
    }

    /// Customers, one for each connection. `turn` waits until there is one more order to place, and says since when.
    async fn crowd<F, Turn>(&self, begun: Instant, gate: Option<Arc<Tracker>>, turn: F) -> Result<Served, Failure>
    where
        F: Fn() -> Turn + Clone + Send + 'static,
        Turn: Future<Output = Option<Instant>> + Send,
    {
        let mut customers = JoinSet::new();
        for number in 0..CONNECTIONS {
            let (shop, gate, turn) = (self.clone(), gate.clone(), turn.clone());
            customers.spawn(async move { shop.customer(number, gate, turn).await });
        }
        let mut served = Served { accepted: 0, refused: 0, took: Duration::ZERO, latency: Latency::new() };
        while let Some(one) = customers.join_next().await {
            let one = one.map_err(|panic| Failure::new(panic.to_string()))?;
            let one = one.map_err(|e| Failure::new(format!("http://{} broke off: {e}", self.api)))?;
            served.accepted += one.accepted;
            served.refused += one.refused;
            served.latency.add(&one.latency);
        }
        served.took = begun.elapsed();
        Ok(served)
    }

    async fn customer<F, Turn>(self, customer: usize, gate: Option<Arc<Tracker>>, turn: F) -> std::io::Result<Served>
    where
        F: Fn() -> Turn,
        Turn: Future<Output = Option<Instant>>,
    {
        let mut rng = Rng::with_seed(self.seed ^ ((customer as u64) << 32) ^ self.numbers.load(Ordering::Relaxed));
        let mut connection = Connection::open(self.api).await?;
        let mut request = Vec::with_capacity(1024);
        let mut served = Served { accepted: 0, refused: 0, took: Duration::ZERO, latency: Latency::new() };
        loop {
            if let Some(gate) = &gate {
                gate.admit().await;
            }
            let Some(intended) = turn().await else {
                gate.iter().for_each(|gate| gate.withdraw());
                return Ok(served);
            };
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            orders::write(&mut request, self.api, number, self.taste, &mut rng);
            let answer = connection.exchange(&request).await?;
            let answered = Instant::now();
            served.latency.record(answered - intended);
            match (answer.status, answer.order) {
                (202, order) => {
                    served.accepted += 1;
                    if let (Some(tracker), Some(order)) = (&self.tracker, order) {
                        tracker.accepted(order, intended, answered);
                    }
                }
                _ => {
                    served.refused += 1;
                    gate.iter().for_each(|gate| gate.withdraw());
                }
            }
        }
    }
}

/// When the orders of an open loop are meant to be sent.
struct Clock {
    begun: Instant,
    rate: f64,
    count: u32,
    /// One permit for each order whose time has come.
    due: Semaphore,
    next: AtomicU32,
}

impl Clock {
    async fn turn(&self) -> Option<Instant> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= self.count {
            return None;
        }
        // Fails only on a semaphore that was closed, and nobody closes this one.
        self.due.acquire().await.ok()?.forget();
        Some(self.intended(number))
    }

    fn intended(&self, number: u32) -> Instant {
        self.begun + Duration::from_secs_f64(f64::from(number) / self.rate)
    }
}

/// A thread that says when: tokio's timers are right to a millisecond, which is as long as an answer takes.
struct Ticking(Arc<AtomicBool>);

impl Ticking {
    fn start(clock: Arc<Clock>) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = stopped.clone();
        std::thread::spawn(move || {
            let mut said = 0;
            while said < clock.count && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(clock.intended(said).saturating_duration_since(Instant::now()));
                let now = Instant::now();
                let first = said;
                while said < clock.count && clock.intended(said) <= now {
                    said += 1;
                }
                clock.due.add_permits((said - first) as usize);
            }
        });
        Self(stopped)
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers everything with 202, and stands still once for so long.
    async fn server(stall: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let standing = Arc::new(tokio::sync::RwLock::new(()));
        let stalling = standing.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let _nobody_is_answered = stalling.write().await;
            tokio::time::sleep(stall).await;
        });
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let standing = standing.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                        drop(standing.read().await);
                        stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                    }
                });
            }
        });
        address
    }

    fn shop(api: SocketAddr) -> Shop {
        Shop { api, taste: Taste::Spread, seed: 1, numbers: Arc::default(), tracker: None }
    }

    #[tokio::test]
    async fn a_closed_loop_places_as_many_orders_as_it_was_told() {
        let served = shop(server(Duration::ZERO).await).closed(Until::Orders(200), Backlog::Free).await.unwrap();
        assert_eq!((served.accepted, served.refused, served.latency.count()), (200, 0, 200));
    }

    #[tokio::test]
    async fn a_standstill_counts_for_every_order_that_was_meant_to_be_sent_meanwhile() {
        // 1,000 orders a second for a second, and no answer for 600 ms of it: more than half of them have to wait, though
        // only 64 can be on their way.
        let stall = Duration::from_millis(600);
        let served = shop(server(stall).await).open(1_000.0, Duration::from_secs(1)).await.unwrap();
        assert_eq!(served.accepted, 1_000);
        assert!(served.latency.percentile(60.0) > 100.0, "p60 {} ms", served.latency.percentile(60.0));
        assert!(served.latency.max() >= 590.0, "{} ms", served.latency.max());
    }
}
