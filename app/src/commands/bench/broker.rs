//! What is still to be done, as the broker knows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::pull;
use contracts::topology::{TopologySettings, topology};
use millrace::connection::Connection;
use tokio::task::JoinHandle;

use crate::failure::Failure;

/// How often the backlog is looked at during a load: seldom enough to cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// And at its end, where the time counts.
const SETTLE_POLL: Duration = Duration::from_millis(10);
/// Nothing moves for so long: something is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// Messages that each consumer has not acknowledged yet.
pub async fn backlogs(connection: &Connection) -> Result<Vec<u64>, Failure> {
    let mut open = Vec::new();
    for declared in topology(&TopologySettings::default()).consumers {
        let failed = |e: &dyn std::fmt::Display| Failure::new(format!("consumer {}: {e}", declared.durable));
        let found =
            connection.jetstream().get_consumer_from_stream::<pull::Config, _, _>(&declared.durable, &declared.stream);
        let info = found.await.map_err(|e| failed(&e))?.cached_info().clone();
        open.push(info.num_pending + info.num_ack_pending as u64);
    }
    Ok(open)
}

/// How many messages a stream has ever taken.
pub async fn stored(connection: &Connection, stream: &str) -> Result<u64, Failure> {
    let found = connection.jetstream().get_stream(stream).await;
    let found = found.map_err(|e| Failure::new(format!("stream {stream}: {e}")))?;
    Ok(found.cached_info().state.last_sequence)
}

/// Waits until every event of so many orders is published and every one of them is handled. Two notices and two
/// movements of stock belong to each.
pub async fn settled(connection: &Connection, orders: u64) -> Result<(), Failure> {
    let (mut moved, mut before) = (Instant::now(), (0, 0));
    loop {
        let (mails, stock) = (stored(connection, "NOTIFICATIONS").await?, stored(connection, "INVENTORY").await?);
        let open: u64 = backlogs(connection).await?.iter().sum();
        if mails >= 2 * orders && stock >= 2 * orders && open == 0 {
            return Ok(());
        }
        if before != (mails + stock, open) {
            (moved, before) = (Instant::now(), (mails + stock, open));
        }
        if moved.elapsed() > PATIENCE {
            return Err(Failure::new(format!(
                "nothing has moved for {PATIENCE:?}: of {orders} orders {mails} notices are sent, {stock} movements of \
                 stock made, and {open} messages are open"
            )));
        }
        tokio::time::sleep(SETTLE_POLL).await;
    }
}

/// Events of all services so far.
pub async fn published(connection: &Connection) -> Result<u64, Failure> {
    let mut all = 0;
    for stream in ["ORDERS", "PAYMENTS", "INVENTORY", "NOTIFICATIONS"] {
        all += stored(connection, stream).await?;
    }
    Ok(all)
}

/// Remembers the longest backlog of any consumer until it is stopped.
pub struct Peak {
    most: Arc<AtomicU64>,
    looking: JoinHandle<()>,
}

impl Peak {
    pub fn watch(connection: &Connection) -> Self {
        let (connection, most) = (connection.clone(), Arc::new(AtomicU64::new(0)));
        let looking = tokio::spawn({
            let most = most.clone();
            async move {
                loop {
                    tokio::time::sleep(LOOK_EVERY).await;
                    let longest = backlogs(&connection).await.ok().and_then(|open| open.into_iter().max());
                    most.fetch_max(longest.unwrap_or(0), Ordering::Relaxed);
                }
            }
        });
        Self { most, looking }
    }

    pub fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.looking.abort();
    }
}
