//! How much of everything.

use std::time::Duration;

/// Connections of the load generator.
pub const CONNECTIONS: usize = 64;

#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub rounds: u32,
    /// Orders before anything is measured.
    pub warm_up: u32,
    /// One round of a closed loop, and of an open one.
    pub closed: Duration,
    pub open: Duration,
    /// Orders in one round through the whole pipeline.
    pub pipeline: u32,
    /// Orders a second at which latency is looked at, and for how long.
    pub rates: [u32; 3],
    pub steady: Duration,
    pub latency_rounds: u32,
    /// Orders that wait while consumers are down.
    pub drain: u32,
    /// Orders of the past.
    pub past: u32,
    /// How long nothing happens.
    pub rest: Duration,
    /// Orders in one round through the pipeline on a cluster that syncs every message.
    pub cluster: u32,
}

impl Sizes {
    pub fn full() -> Self {
        Self {
            rounds: 5,
            warm_up: 3_000,
            closed: Duration::from_secs(10),
            open: Duration::from_secs(10),
            pipeline: 20_000,
            rates: [100, 500, 1_000],
            steady: Duration::from_secs(20),
            latency_rounds: 3,
            drain: 100_000,
            past: 1_000_000,
            rest: Duration::from_secs(30),
            cluster: 5_000,
        }
    }

    pub fn quick() -> Self {
        Self {
            rounds: 3,
            warm_up: 500,
            closed: Duration::from_millis(1_500),
            open: Duration::from_millis(1_500),
            pipeline: 2_000,
            steady: Duration::from_millis(2_500),
            latency_rounds: 1,
            drain: 2_000,
            past: 20_000,
            rest: Duration::from_secs(4),
            cluster: 500,
            ..Self::full()
        }
    }

    pub fn tiny() -> Self {
        Self {
            rounds: 1,
            warm_up: 5,
            closed: Duration::from_millis(200),
            open: Duration::from_millis(200),
            pipeline: 30,
            rates: [10, 20, 40],
            steady: Duration::from_millis(400),
            latency_rounds: 1,
            drain: 20,
            past: 100,
            rest: Duration::from_millis(300),
            cluster: 10,
        }
    }
}
