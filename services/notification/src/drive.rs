//! Sends what is due and writes down what became of it. What stays due is found again by the sweep.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use contracts::OrderId;
use contracts::notifications::Channel;
use futures::StreamExt;
use millrace::event::Cause;
use millrace::kit::SourceResult;
use millrace::store::{StoreError, Writer};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::channels::Channels;
use crate::domain::{Report, Send, Verdict};
use crate::model::{Due, Intent, NotificationModel, Outcome};
use crate::store::Reads;

/// How often what is due is counted for the metric: often enough for an alert, too seldom to cost anything.
const COUNT_EVERY: Duration = Duration::from_secs(15);

/// The hands of the service.
pub struct Driver {
    pub writer: Writer<NotificationModel>,
    pub reads: Reads,
    pub channels: Channels,
    /// After this long no further attempt is begun under one claim: its end would come after the claim's.
    pub last_start: Duration,
}

/// How what stayed due is found again.
#[derive(Debug, Clone, Copy)]
pub struct Sweep {
    pub every: Duration,
    /// Deliveries taken up at once, per channel.
    pub batch: u32,
    /// Orders driven side by side.
    pub concurrency: usize,
}

impl Driver {
    /// Sends what was claimed for this order, and commits what became of it. The channels work side by side; in each,
    /// notices go out in their order, so nobody reads "confirmed" before "we have it".
    ///
    /// # Errors
    /// Only the database's: that a provider failed is a result like any other.
    pub async fn drive(&self, order_id: OrderId, due: Due, cause: Cause) -> Result<(), StoreError> {
        let (email, sms): (Vec<Send>, Vec<Send>) = due.sends.into_iter().partition(|s| s.channel == Channel::Email);
        let (mut reports, sms) = tokio::join!(self.in_turn(order_id, email), self.in_turn(order_id, sms));
        reports.extend(sms);
        if !reports.is_empty() {
            self.writer.submit_because(cause, Intent::Report { order_id, reports }).await?;
        }
        Ok(())
    }

    async fn in_turn(&self, order_id: OrderId, sends: Vec<Send>) -> Vec<Report> {
        let began = Instant::now();
        let mut reports = Vec::with_capacity(sends.len());
        let mut held_up = None;
        for send in &sends {
            let verdict = match held_up {
                Some(after) => Verdict::Postponed { after },
                None => {
                    let _slot = self.channels.slot(send.channel).await;
                    if began.elapsed() > self.last_start {
                        break;
                    }
                    self.channels.send(order_id, send).await
                }
            };
            if let Verdict::Later { after, .. } | Verdict::Postponed { after } = verdict {
                held_up = Some(after);
            }
            reports.push(Report { notice: send.notice, channel: send.channel, verdict });
        }
        reports
    }

    /// Takes over what is due for this order and belongs to nobody, and sends it.
    ///
    /// # Errors
    /// As [`drive`](Self::drive).
    pub async fn take_up(&self, order_id: OrderId, channels: Vec<Channel>) -> Result<(), StoreError> {
        let claim = Intent::Claim { order_id, channels };
        if let Outcome::Due(due) = self.writer.submit_because(Cause::spontaneous(), claim).await? {
            let cause = Cause { correlation_id: due.correlation_id.clone(), ..Cause::spontaneous() };
            self.drive(order_id, due, cause).await?;
        }
        Ok(())
    }

    /// Looks for what is due and belongs to nobody (its attempt failed, its process died) until `shutdown`; attempts that
    /// have begun are finished first. A channel whose breaker is open is left alone.
    pub async fn sweep(self: Arc<Self>, settings: Sweep, shutdown: CancellationToken) -> SourceResult {
        let mut every = tokio::time::interval(settings.every);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut counted: Option<Instant> = None;
        loop {
            tokio::select! {
                _ = every.tick() => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            match self.sweep_once(settings, &shutdown).await {
                Ok(()) => {}
                Err(StoreError::Stopped) => return Ok(()),
                Err(reason) => warn!(reason = %reason, "What is due cannot be looked up, trying again."),
            }
            if counted.is_none_or(|at| at.elapsed() >= COUNT_EVERY) {
                counted = Some(Instant::now());
                if let Ok(rows) = self.reads.due_count().await {
                    metrics::gauge!("millrace_notices_due_rows").set(rows as f64);
                }
            }
        }
    }

    async fn sweep_once(&self, settings: Sweep, shutdown: &CancellationToken) -> Result<(), StoreError> {
        let channels = self.channels.open();
        let now_ms = contracts::Timestamp::from(OffsetDateTime::now_utc()).unix_ms();
        let mut orders = BTreeSet::new();
        for channel in &channels {
            orders.extend(self.reads.due(*channel, now_ms, settings.batch).await?);
        }
        futures::stream::iter(orders)
            .take_until(shutdown.cancelled())
            .for_each_concurrent(settings.concurrency, |order_id| {
                let channels = channels.clone();
                async move {
                    if let Err(reason) = self.take_up(order_id, channels).await {
                        warn!(order.id = %order_id, reason = %reason, "What is due for an order could not be taken up yet.");
                    }
                }
            })
            .await;
        Ok(())
    }
}
