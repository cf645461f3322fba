//! One function per consumed event.
//!
//! What the event says is recorded first, together with its inbox mark; then what has become due is seen to. A call to
//! the gateway that gets no answer is no failure of the message: the step stays due in the table, and the sweep repeats it.
//!
//! One shortcut: capture, void and refund may be asked for *before* the event is recorded, and both recorded in one
//! commit. A crash in between is harmless, because the payment they are about is on record, and so is what becomes of it
//! when the message comes again. An authorization is never asked for ahead: a crash would leave no trace that the
//! money may be on hold, and a cancellation that is handled before the message comes again would find nothing to
//! release.

use contracts::orders::{OrderCancelled, OrderConfirmed, OrderCreated};
use contracts::payments::Step;
use contracts::{OrderId, Timestamp};
use millrace::consumer::Failure;
use millrace::event::Received;
use millrace::store::Committed;

use crate::domain::{Answer, Charge, OrderEvent};
use crate::model::Intent;
use crate::steps::Steps;

/// Authorizes.
pub async fn order_created(steps: Steps, event: Received<OrderCreated>) -> Result<(), Failure> {
    let named = event.data.payment_method.clone();
    let payment_method = named.unwrap_or_else(|| steps.settings.default_payment_method.clone());
    let charge = Charge { amount: event.data.total, payment_method };
    let order_id = event.data.order_id;
    observe(&steps, &event, order_id, OrderEvent::Created(charge), None).await
}

/// Captures.
pub async fn order_confirmed(steps: Steps, event: Received<OrderConfirmed>) -> Result<(), Failure> {
    let order_id = event.data.order_id;
    let answer = ask_ahead(&steps, order_id, &OrderEvent::Confirmed).await;
    observe(&steps, &event, order_id, OrderEvent::Confirmed, answer).await
}

/// Voids or refunds, or leaves a tombstone.
pub async fn order_cancelled(steps: Steps, event: Received<OrderCancelled>) -> Result<(), Failure> {
    let order_id = event.data.order_id;
    let answer = ask_ahead(&steps, order_id, &OrderEvent::Cancelled).await;
    observe(&steps, &event, order_id, OrderEvent::Cancelled, answer).await
}

/// The gateway's answer to the step that `event` will make due, if it may be asked for already and answers.
async fn ask_ahead(steps: &Steps, order_id: OrderId, event: &OrderEvent) -> Option<(Step, Answer)> {
    // With the database away nothing is asked ahead: recording the event will wait for it.
    let row = steps.reads.get(order_id).await.ok()??;
    let mut payment = row.payment;
    let due_already = payment.next_step();
    payment.apply_event(event);
    let step = payment.next_step().filter(|step| *step != Step::Authorize && due_already != Some(*step))?;
    let answer = steps.ask(&payment, step, row.created_at).await.ok()?;
    Some((step, answer))
}

async fn observe<E>(
    steps: &Steps,
    received: &Received<E>,
    order_id: OrderId,
    event: OrderEvent,
    answer: Option<(Step, Answer)>,
) -> Result<(), Failure> {
    let correlation_id = received.meta.correlation_id.clone();
    let said_at = Timestamp(received.meta.time);
    let intent = Intent::Observe { order_id, correlation_id, said_at, event, answer };
    let row = match steps.writer.submit(received.submission(intent)).await? {
        Committed::Now(row) => row,
        // Recorded by an earlier delivery, which may have ended before it saw to what was due. If it cannot be read
        // now, the sweep sees to it.
        Committed::Before => steps.reads.get(order_id).await.ok().flatten(),
    };
    if let Some(row) = row {
        steps.drive(row, &received.meta.cause()).await?;
    }
    Ok(())
}
