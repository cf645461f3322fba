//! What can happen to payments, and the rows it is remembered in. Decisions about a payment itself are in `domain.rs`;
//! here they meet the schedule of what is due and the outgoing events.

use std::time::Duration;

use contracts::api::Settled;
use contracts::payments::Step;
use contracts::{OrderId, Timestamp};
use millrace::store::{Model, Outbound, Table};
use time::OffsetDateTime;

use crate::domain::{Answer, OrderEvent, Payment, PaymentEvent};
use crate::under_test;

/// Something that should happen.
#[derive(Debug, Clone)]
pub enum Intent {
    /// The order service said something, at `said_at`. `answer` is there when the gateway was asked before this was recorded, which
    /// saves a commit; see `handlers.rs` for when that is allowed.
    Observe {
        order_id: OrderId,
        correlation_id: String,
        said_at: Timestamp,
        event: OrderEvent,
        answer: Option<(Step, Answer)>,
    },
    /// The gateway answered to a step.
    Answered { order_id: OrderId, step: Step, answer: Answer },
    /// It did not: the step stays due, not before `retry_in` has passed. `attempted` is false when it was not even
    /// asked, because its breaker was open.
    Unanswered { order_id: OrderId, step: Step, problem: String, retry_in: Duration, attempted: bool },
    /// Somebody wants to see to a step whose time has come, alone.
    Claim { order_id: OrderId },
    /// An operator had the gateway asked once more for the step that failed for good.
    Retried { order_id: OrderId, step: Step, answer: Answer },
    /// An operator says how a payment was settled.
    Settle { order_id: OrderId, settled: Settled },
    /// The gateway holds money for an order that is off, and it is on no record.
    Adopt { order_id: OrderId, payment_id: String },
    /// The same for an order that nobody knows: it is off from now on.
    AdoptUnknown { order_id: OrderId, payment_id: String, correlation_id: String },
}

impl Intent {
    pub fn order_id(&self) -> OrderId {
        match self {
            Self::Observe { order_id, .. }
            | Self::Answered { order_id, .. }
            | Self::Unanswered { order_id, .. }
            | Self::Claim { order_id }
            | Self::Retried { order_id, .. }
            | Self::Settle { order_id, .. }
            | Self::Adopt { order_id, .. }
            | Self::AdoptUnknown { order_id, .. } => *order_id,
        }
    }
}

/// A payment's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub payment: Payment,
    /// When the sweep has to see to the due step, Unix milliseconds; `None` when no step is due.
    pub due_at: Option<i64>,
    /// Calls for the due step that got no answer; where a step failed for good, an operator's retries that were refused.
    pub attempts: u32,
    /// Why the last of them did not.
    pub last_problem: Option<String>,
    /// The order's, for events that no message causes: a step the sweep has seen to.
    pub correlation_id: String,
    /// When the order was first spoken of, Unix milliseconds. Not when this database first heard of it: a database that was
    /// restored hears of old orders again, whose idempotency keys the gateway may have forgotten.
    pub created_at: i64,
    /// Unix milliseconds.
    pub updated_at: i64,
}

impl Row {
    fn new(order_id: OrderId, correlation_id: &str, said_at: Timestamp, now_ms: i64) -> Self {
        Self {
            payment: Payment::expected(order_id),
            due_at: None,
            attempts: 0,
            last_problem: None,
            correlation_id: correlation_id.to_owned(),
            created_at: said_at.unix_ms().min(now_ms),
            updated_at: now_ms,
        }
    }

    /// Keeps the schedule in step with the payment after a change.
    fn reschedule(&mut self, due_before: Option<Step>, later_ms: i64) {
        let due = self.payment.next_step();
        if due == due_before {
            return;
        }
        self.due_at = due.map(|_| later_ms);
        self.attempts = 0;
        self.last_problem = None;
    }
}

/// The rows of a batch.
#[derive(Debug, Default)]
pub struct Rows {
    pub payments: Table<OrderId, Row>,
}

/// The orders a batch of intents is about, each once, in the order their rows are to be locked.
pub fn orders_of(intents: &[&Intent]) -> Vec<OrderId> {
    let mut ids: Vec<_> = intents.iter().map(|intent| intent.order_id()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Decides about payments.
#[derive(Debug, Clone)]
pub struct PaymentModel {
    /// How long whoever made a step due, or claimed it, has to see to it before the sweep does. Longer than a call to
    /// the gateway takes at most.
    pub grace: Duration,
}

impl Model for PaymentModel {
    type Intent = Intent;
    /// The payment as it stands now. `None`: there is none, or the claim came too early or too late.
    type Outcome = Option<Row>;
    type Rows = Rows;

    fn decide(&self, rows: &mut Rows, intent: &Intent, now: OffsetDateTime, out: &mut Outbound) -> Option<Row> {
        let now_ms = Timestamp(now).unix_ms();
        let now = Timestamp::from_unix_ms(now_ms);
        let order_id = intent.order_id();
        let known = rows.payments.get(&order_id).cloned();
        let mut row = match intent {
            // Sabotage: a cancellation that comes before its order leaves nothing.
            Intent::Observe { event: OrderEvent::Cancelled, .. }
                if known.is_none() && under_test::TOMBSTONE.is_on() =>
            {
                return None;
            }
            Intent::Observe { correlation_id, said_at, .. } => {
                known.clone().unwrap_or_else(|| Row::new(order_id, correlation_id, *said_at, now_ms))
            }
            Intent::AdoptUnknown { correlation_id, .. } => {
                known.clone().unwrap_or_else(|| Row::new(order_id, correlation_id, now, now_ms))
            }
            _ => known.clone()?,
        };
        let due_before = row.payment.next_step();
        let later_ms = now_ms.saturating_add(millis(self.grace));
        match intent {
            Intent::Observe { event, answer, .. } => {
                row.payment.apply_event(event);
                if let Some((step, answer)) = answer {
                    publish(out, row.payment.apply_answer(*step, answer, now));
                }
            }
            Intent::Answered { step, answer, .. } => publish(out, row.payment.apply_answer(*step, answer, now)),
            Intent::Unanswered { step, problem, retry_in, attempted, .. } if due_before == Some(*step) => {
                row.due_at = Some(now_ms.saturating_add(millis(*retry_in)));
                row.attempts = row.attempts.saturating_add(u32::from(*attempted));
                row.last_problem = Some(problem.clone());
            }
            Intent::Unanswered { .. } => {}
            Intent::Claim { .. } => {
                row.due_at = Some(row.due_at.filter(|due_at| *due_at <= now_ms).map(|_| later_ms)?);
            }
            Intent::Retried { step, answer, .. } => {
                let retried = row.payment.failed_step() == Some(*step);
                publish(out, row.payment.apply_retry(*step, answer, now));
                let refused = retried && row.payment.failed_step() == Some(*step);
                row.attempts = if refused { row.attempts.saturating_add(1) } else { row.attempts };
            }
            Intent::Settle { settled, .. } => publish(out, row.payment.settle(*settled, now)),
            Intent::Adopt { payment_id, .. } => publish(out, row.payment.adopt(payment_id, now)),
            Intent::AdoptUnknown { payment_id, .. } => {
                // A payment that is on record belongs to an order that somebody knows.
                if row.payment.charge.is_none() {
                    row.payment.apply_event(&OrderEvent::Cancelled);
                    publish(out, row.payment.adopt(payment_id, now));
                }
            }
        }
        row.reschedule(due_before, later_ms);
        if known.as_ref() != Some(&row) {
            row.updated_at = now_ms;
            rows.payments.put(order_id, row.clone());
        }
        Some(row)
    }
}

fn publish(out: &mut Outbound, event: Option<PaymentEvent>) {
    match event {
        None => {}
        Some(PaymentEvent::Authorized(event)) => drop(out.publish(&event)),
        Some(PaymentEvent::Declined(event)) => drop(out.publish(&event)),
        Some(PaymentEvent::Captured(event)) => drop(out.publish(&event)),
        Some(PaymentEvent::Voided(event)) => drop(out.publish(&event)),
        Some(PaymentEvent::Refunded(event)) => drop(out.publish(&event)),
        Some(PaymentEvent::Failed(event)) => drop(out.publish(&event)),
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
