//! What may be asked over request/reply: `api.payment.process` sees to an order's payment now and says where it stands;
//! the others are an operator's.

use std::time::Duration;

use contracts::OrderId;
use contracts::Timestamp;
use contracts::api::{
    OrderQuery, PaymentQuery, PaymentRecord, PaymentRecords, PaymentRelease, PaymentSettlement, PaymentStatus, subjects,
};
use millrace::connection::Connection;
use millrace::event::Cause;
use millrace::request_reply::{Endpoint, ReplyError, Request, Running, Service, ServiceError};
use millrace::store::StoreError;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::model::Row;
use crate::operator::Refused;
use crate::steps::Steps;

/// When callers should come back while the gateway or the database is away.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Most payments in one answer: half a megabyte, which is half of what NATS takes.
const MOST_LISTED: u32 = 500;

/// Answers until `shutdown`.
pub async fn serve(
    steps: Steps,
    connection: &Connection,
    shutdown: CancellationToken,
) -> Result<Running, ServiceError> {
    let endpoint = |subject: &str, what: &str| Endpoint::new(subject).description(what).queue_group("payment");
    let process =
        endpoint(subjects::PAYMENT_PROCESS, "Sees to what is due for an order's payment now, and says where it stands");
    let list = endpoint(subjects::PAYMENT_LIST, "Payments that are not finished, those that need an operator, or one");
    let retry = endpoint(subjects::PAYMENT_RETRY, "Has the gateway asked once more for a step that failed for good");
    let settle = endpoint(subjects::PAYMENT_SETTLE, "Records how a payment was settled that failed for good");
    let release = endpoint(subjects::PAYMENT_RELEASE, "Releases a hold of a cancelled order that is on no record");
    let (listing, retrying, settling, releasing) = (steps.clone(), steps.clone(), steps.clone(), steps.clone());
    Service::builder("payment", env!("CARGO_PKG_VERSION"), "Payments of orders")
        .json_endpoint(process, move |query: OrderQuery, _: Request| {
            let steps = steps.clone();
            async move { process_now(&steps, query.order_id).await }
        })
        .json_endpoint(list, move |query: Option<PaymentQuery>, _: Request| {
            let steps = listing.clone();
            async move { payments(&steps, query.unwrap_or_default()).await }
        })
        .json_endpoint(retry, move |query: OrderQuery, _: Request| {
            let steps = retrying.clone();
            async move { uncut(async move { steps.retry(query.order_id).await }).await }
        })
        .json_endpoint(settle, move |wish: PaymentSettlement, _: Request| {
            let steps = settling.clone();
            async move { uncut(async move { steps.settle(wish.order_id, wish.settled).await }).await }
        })
        .json_endpoint(release, move |wish: PaymentRelease, _: Request| {
            let steps = releasing.clone();
            async move {
                let PaymentRelease { order_id, payment_id, order_is_unknown } = wish;
                uncut(async move { steps.release(order_id, &payment_id, order_is_unknown).await }).await
            }
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
    let driven = tokio::spawn(async move { steps.drive(row, &cause).await }.in_current_span()).await;
    let driven = driven.map_err(|_| ReplyError::internal("the payment could not be seen to"))?;
    driven.map(status).map_err(unavailable)
}

async fn payments(steps: &Steps, query: PaymentQuery) -> Result<PaymentRecords, ReplyError> {
    let limit = query.limit.unwrap_or(MOST_LISTED).min(MOST_LISTED);
    let rows = match (query.order_id, query.needs_operator) {
        (Some(order_id), _) => {
            let row = steps.reads.get(order_id).await.map_err(unavailable)?;
            vec![row.ok_or_else(|| ReplyError::not_found(format!("no payment of the order {order_id} is known")))?]
        }
        (None, true) => steps.reads.needing_operator(limit).await.map_err(unavailable)?,
        (None, false) => {
            let mut rows = steps.reads.needing_operator(limit).await.map_err(unavailable)?;
            rows.extend(steps.reads.due(i64::MAX, limit).await.map_err(unavailable)?);
            rows.truncate(limit as usize);
            rows
        }
    };
    Ok(PaymentRecords { payments: rows.into_iter().map(record).collect() })
}

/// An operator's wish, in a task of its own: the caller's deadline must not cut it off between the gateway and the
/// record.
async fn uncut(wish: impl Future<Output = Result<Row, Refused>> + Send + 'static) -> Result<PaymentRecord, ReplyError> {
    let done = tokio::spawn(wish.in_current_span())
        .await
        .map_err(|_| ReplyError::internal("it could not be done; the log says why"))?;
    done.map(record).map_err(|refused| match refused {
        Refused::Unknown(_) => ReplyError::not_found(refused.to_string()),
        Refused::NotPossible(why) => ReplyError::conflict(why),
        Refused::NoAnswer(why) => ReplyError::unavailable(why, RETRY_AFTER),
        Refused::Store(error) => unavailable(error),
    })
}

fn unavailable(error: StoreError) -> ReplyError {
    ReplyError::unavailable(error.to_string(), RETRY_AFTER)
}

fn record(row: Row) -> PaymentRecord {
    let problem = problem(&row);
    let payment = row.payment;
    PaymentRecord {
        order_id: payment.order_id,
        state: payment.state.as_str().to_owned(),
        needs_operator: payment.failed_step().is_some(),
        confirmed: payment.confirmed,
        cancelled: payment.cancelled,
        amount: payment.charge.map(|charge| charge.amount),
        payment_id: payment.payment_id,
        problem,
        attempts: row.attempts,
        due_at: row.due_at.map(Timestamp::from_unix_ms),
        created_at: Timestamp::from_unix_ms(row.created_at),
        updated_at: Timestamp::from_unix_ms(row.updated_at),
    }
}

fn status(row: Row) -> PaymentStatus {
    let detail = problem(&row);
    let payment = row.payment;
    PaymentStatus {
        order_id: payment.order_id,
        status: payment.state.as_str().to_owned(),
        payment_id: payment.payment_id,
        amount: payment.charge.map(|charge| charge.amount),
        detail,
    }
}

fn problem(row: &Row) -> Option<String> {
    let refusal = row.payment.refusal.as_ref();
    refusal.map(|refusal| format!("{} ({})", refusal.message, refusal.code)).or_else(|| row.last_problem.clone())
}
