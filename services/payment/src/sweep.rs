//! Sees to steps that nobody has: calls that got no answer, and payments left behind by a crash. Because of it a
//! payment never depends on a message being delivered again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use contracts::OrderId;
use futures::StreamExt as _;
use millrace::event::Cause;
use millrace::store::StoreError;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::model::Intent;
use crate::steps::{Steps, now_ms};

/// How many payments wait for an operator.
pub const NEEDING_OPERATOR: &str = "millrace_payments_needing_operator";
/// How often they are counted.
const COUNT_EVERY: Duration = Duration::from_secs(2);

/// Runs until `shutdown`; steps that were begun are finished.
pub async fn run(steps: Steps, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(steps.settings.sweep_every.get());
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut counts = tokio::time::interval(COUNT_EVERY);
    counts.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    metrics::describe_gauge!(NEEDING_OPERATOR, "Payments that only an operator can bring to an end.");
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = counts.tick() => {
                if let Ok(count) = steps.reads.count_needing_operator().await {
                    metrics::gauge!(NEEDING_OPERATOR).set(count as f64);
                }
                continue;
            }
            () = shutdown.cancelled() => return,
        }
        match once(&steps, &shutdown).await {
            Ok(0) => {}
            Ok(taken) => debug!(payments = taken, "overdue payments were seen to"),
            Err(StoreError::Stopped) => return,
            Err(reason) => warn!(reason = %reason, "overdue payments could not be looked for, trying again soon"),
        }
    }
}

/// One round. Returns how many payments it took up.
async fn once(steps: &Steps, shutdown: &CancellationToken) -> Result<usize, StoreError> {
    if steps.is_suspended() {
        return Ok(0);
    }
    let due = steps.reads.due_ids(now_ms(), steps.settings.sweep_batch).await?;
    let taken = due.len();
    let failed = AtomicBool::new(false);
    futures::stream::iter(due)
        .for_each_concurrent(steps.settings.sweep_concurrency, async |(order_id, correlation_id)| {
            // With the gateway suspended again in the middle of a round, the rest waits for the next.
            if shutdown.is_cancelled() || steps.is_suspended() || failed.load(Ordering::Relaxed) {
                return;
            }
            if let Err(reason) = take_up(steps, order_id, correlation_id).await {
                // What the database refuses about one payment says nothing about the others.
                failed.fetch_or(!matches!(reason, StoreError::Failed(_)), Ordering::Relaxed);
                warn!(order.id = %order_id, reason = %reason, "an overdue payment could not be recorded");
            }
        })
        .await;
    Ok(taken)
}

/// Claims a payment, so that other instances leave it alone, and takes its due steps.
async fn take_up(steps: &Steps, order_id: OrderId, correlation_id: String) -> Result<(), StoreError> {
    let cause = Cause { correlation_id, ..Cause::spontaneous() };
    let claim = Intent::Claim { order_id };
    if let Some(row) = steps.writer.submit_because(cause.clone(), claim).await? {
        steps.drive(row, &cause).await?;
    }
    Ok(())
}
