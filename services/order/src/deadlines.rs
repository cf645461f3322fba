//! Timers of this service: orders past their deadline are cancelled, idempotency keys past their lifetime forgotten.

use std::time::Duration;

use contracts::Timestamp;
use millrace::event::Cause;
use millrace::store::{StoreError, Submission, Writer};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::changes::Changes;
use crate::model::{Intent, OrderModel};
use crate::settings::Settings;
use crate::store::Reads;

pub(crate) struct Deadlines {
    pub(crate) reads: Reads,
    pub(crate) writer: Writer<OrderModel>,
    pub(crate) changes: Changes,
    pub(crate) settings: Settings,
}

impl Deadlines {
    /// Begins once `may_end` is true.
    pub(crate) async fn run(self, mut may_end: watch::Receiver<bool>, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => return,
            true = async { may_end.wait_for(|may_end| *may_end).await.is_ok() } => {}
        }
        let mut look = every(self.settings.deadline_poll.get());
        let mut prune = every(self.settings.idempotency_key_prune.get());
        loop {
            let done = tokio::select! {
                () = shutdown.cancelled() => return,
                _ = look.tick() => self.expire_overdue().await,
                _ = prune.tick() => self.forget_keys().await,
            };
            if let Err(reason) = done {
                // The database is away or slow; the next tick tries again and finds the same orders.
                warn!(reason = %reason, "deadlines could not be enforced, trying again");
            }
        }
    }

    /// Instances that share a database may find the same orders; the second to decide finds them ended.
    async fn expire_overdue(&self) -> Result<(), StoreError> {
        let overdue = self.reads.overdue(now(), self.settings.deadline_batch).await?;
        if overdue.is_empty() {
            return Ok(());
        }
        info!(orders = overdue.len(), "orders have reached their deadline");
        // Submitted side by side, so that they share commits.
        let expiring = overdue.iter().map(|order_id| {
            let intent = Intent::Expire { order_id: *order_id };
            self.submit(intent)
        });
        let results = futures::future::join_all(expiring).await;
        for order_id in overdue {
            self.changes.announce(order_id);
        }
        results.into_iter().collect()
    }

    async fn forget_keys(&self) -> Result<(), StoreError> {
        let lifetime = self.settings.idempotency_key_lifetime.as_millis() as i64;
        self.submit(Intent::ForgetKeys { used_before: Timestamp::from_unix_ms(now().unix_ms() - lifetime) }).await
    }

    async fn submit(&self, intent: Intent) -> Result<(), StoreError> {
        let submission = Submission { intent, cause: Cause::spontaneous(), mark: None };
        // Bounded, so that a shutdown is not held up by a database that is away.
        self.writer.submit_within(self.settings.submit_patience.get(), submission).await.map(|_| ())
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

fn now() -> Timestamp {
    Timestamp(OffsetDateTime::now_utc())
}
