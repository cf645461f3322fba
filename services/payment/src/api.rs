//! `api.payment.process`: sees to an order's payment now and says where it stands.

use std::time::Duration;

use contracts::OrderId;
use contracts::api::{OrderQuery, PaymentStatus, subjects};
use millrace::connection::Connection;
use millrace::event::Cause;
use millrace::request_reply::{Endpoint, ReplyError, Request, Running, Service, ServiceError};
use millrace::store::StoreError;
use tokio_util::sync::CancellationToken;

use crate::model::Row;
use crate::steps::Steps;

/// When callers should come back while the gateway or the database is away.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Answers until `shutdown`.
pub async fn serve(
    steps: Steps,
    connection: &Connection,
    shutdown: CancellationToken,
) -> Result<Running, ServiceError> {
    let process = Endpoint::new(subjects::PAYMENT_PROCESS)
        .description("Sees to what is due for an order's payment now, and says where it stands")
        .queue_group("payment");
    Service::builder("payment", env!("CARGO_PKG_VERSION"), "Payments of orders")
        .json_endpoint(process, move |query: OrderQuery, _: Request| {
            let steps = steps.clone();
            async move { process_now(&steps, query.order_id).await }
        })
        .start(connection, shutdown)
        .await
}

/// Fails fast while the gateway is suspended and something is due; otherwise takes the due steps and answers with what
/// has become of the payment.
async fn process_now(steps: &Steps, order_id: OrderId) -> Result<PaymentStatus, ReplyError> {
    let row = steps.reads.get(order_id).await.map_err(unavailable)?;
    let row = row.ok_or_else(|| ReplyError::not_found(format!("no payment of the order {order_id} is known")))?;
    if row.payment.next_step().is_none() {
        return Ok(status(row));
    }
    if steps.is_suspended() {
        let why = "the payment gateway is left alone after a row of failures; the payment goes on when it is back";
        return Err(ReplyError::unavailable(why, steps.settings.breaker.open_for.get()));
    }
    let cause = Cause { correlation_id: row.correlation_id.clone(), ..Cause::spontaneous() };
    // In a task of its own: the caller's deadline must not cut off a call to the gateway in the middle.
    let steps = steps.clone();
    let driven = tokio::spawn(async move { steps.drive(row, &cause).await }).await;
    let driven = driven.map_err(|_| ReplyError::internal("the payment could not be seen to"))?;
    driven.map(status).map_err(unavailable)
}

fn unavailable(error: StoreError) -> ReplyError {
    ReplyError::unavailable(error.to_string(), RETRY_AFTER)
}

fn status(row: Row) -> PaymentStatus {
    let payment = row.payment;
    PaymentStatus {
        order_id: payment.order_id,
        status: payment.state.as_str().to_owned(),
        payment_id: payment.payment_id,
        amount: payment.charge.map(|charge| charge.amount),
        detail: payment.refusal.map(|refusal| format!("{} ({})", refusal.message, refusal.code)).or(row.last_problem),
    }
}
