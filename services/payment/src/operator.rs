//! What an operator can have done about a payment that does not go on by itself. Everything goes through the gateway's
//! client and the writer, as every other step does; nothing edits the table.

use contracts::OrderId;
use contracts::api::Settled;
use contracts::payments::Step;
use millrace::breaker::CallError;
use millrace::event::Cause;
use millrace::store::StoreError;
use tracing::info;

use crate::domain::{Answer, Payment, Refusal};
use crate::gateway::GatewayError;
use crate::model::{Intent, Row};
use crate::steps::{Steps, with_sources};

/// Why an operator's wish was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("no payment of the order {0} is known")]
    Unknown(OrderId),
    /// The words say what would help.
    #[error("{0}")]
    NotPossible(String),
    /// The gateway gave no answer: nothing has changed.
    #[error("{0}")]
    NoAnswer(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Steps {
    /// Asks the gateway once more for the step that it refused for good, and goes on from there. A payment that was
    /// settled at the gateway meanwhile is found to be so. Nothing is recorded before the gateway has answered, so a
    /// retry that was cut off can be repeated.
    pub async fn retry(&self, order_id: OrderId) -> Result<Row, Refused> {
        let row = self.known(order_id).await?;
        let Some(step) = row.payment.failed_step() else {
            return Err(Refused::NotPossible(format!(
                "the payment is {}: no step of it has failed for good",
                row.payment.state
            )));
        };
        let asked = self.breaker.try_call(|| self.ask_anew(&row, step), GatewayError::is_transient).await;
        let answer = match asked {
            Ok(answer) => answer,
            Err(CallError::Failed(GatewayError::Permanent { code, message, .. })) => {
                Answer::Refused(Refusal { code, message })
            }
            Err(CallError::Failed(transient)) => return Err(Refused::NoAnswer(with_sources(&transient))),
            Err(open @ CallError::Open { .. }) => return Err(Refused::NoAnswer(open.to_string())),
        };
        info!(order.id = %order_id, step = step.as_str(), "an operator had a step retried that had failed for good");
        self.record_and_go_on(row, Intent::Retried { order_id, step, answer }).await
    }

    /// Puts on record how the payment was settled outside of this service.
    pub async fn settle(&self, order_id: OrderId, settled: Settled) -> Result<Row, Refused> {
        let row = self.known(order_id).await?;
        let ways = row.payment.ways_to_settle();
        if !ways.contains(&settled) {
            return Err(Refused::NotPossible(match ways {
                [] => format!("the payment is {}: there is nothing to settle", row.payment.state),
                ways => {
                    let ways: Vec<_> = ways.iter().map(|way| format!("{way:?}").to_lowercase()).collect();
                    format!("the payment is {}: it can be settled as {}", row.payment.state, ways.join(" or "))
                }
            }));
        }
        info!(order.id = %order_id, settled = ?settled, "an operator settled a payment");
        self.record_and_go_on(row, Intent::Settle { order_id, settled }).await
    }

    /// Puts a hold on record that the gateway has for an order that is off, and releases it.
    pub async fn release(&self, order_id: OrderId, payment_id: &str, unknown: bool) -> Result<Row, Refused> {
        let found = self.gateway.payment(payment_id).await.map_err(|e| Refused::NoAnswer(with_sources(&e)))?;
        let found = found.filter(|payment| payment.order_id == Some(order_id.0));
        let Some(found) = found else {
            return Err(Refused::NotPossible(format!(
                "the gateway knows no payment {payment_id} of the order {order_id}"
            )));
        };
        if found.status != "requires_capture" {
            return Err(Refused::NotPossible(format!(
                "at the gateway {payment_id} is {}: it holds nothing",
                found.status
            )));
        }
        let row = self.reads.get(order_id).await?;
        let (intent, cause) = match &row {
            None if !unknown => return Err(Refused::Unknown(order_id)),
            None => {
                let cause = Cause::spontaneous();
                let correlation_id = cause.correlation_id.clone();
                (Intent::AdoptUnknown { order_id, payment_id: payment_id.to_owned(), correlation_id }, cause)
            }
            Some(row) => (Intent::Adopt { order_id, payment_id: payment_id.to_owned() }, cause_of(row)),
        };
        info!(order.id = %order_id, payment_id, "a hold that was on no record is released");
        let row = self.writer.submit_because(cause.clone(), intent).await?.ok_or(Refused::Unknown(order_id))?;
        if row.payment.payment_id.as_deref() != Some(payment_id) {
            return Err(Refused::NotPossible(why_not_released(&row.payment)));
        }
        Ok(self.drive(row, &cause).await?)
    }

    async fn known(&self, order_id: OrderId) -> Result<Row, Refused> {
        self.reads.get(order_id).await?.ok_or(Refused::Unknown(order_id))
    }

    async fn record_and_go_on(&self, row: Row, intent: Intent) -> Result<Row, Refused> {
        let cause = cause_of(&row);
        let row = self.writer.submit_because(cause.clone(), intent).await?.unwrap_or(row);
        Ok(self.drive(row, &cause).await?)
    }

    async fn ask_anew(&self, row: &Row, step: Step) -> Result<Answer, GatewayError> {
        if step != Step::Authorize {
            return Self::call_at(&self.gateway.asked_anew(row.attempts + 1), &row.payment, step).await;
        }
        // The idempotency key may have expired: asking for the hold could make a second one. So it is looked for.
        let found = self.gateway.payments_of(row.payment.order_id.0).await?;
        let holding =
            found.into_iter().find(|payment| matches!(payment.status.as_str(), "requires_capture" | "succeeded"));
        Ok(match holding {
            Some(payment) => Answer::Done { payment_id: payment.id },
            None => Answer::Refused(Refusal {
                code: "never_authorized".into(),
                message: "The gateway has no money on hold for the order.".into(),
            }),
        })
    }
}

fn cause_of(row: &Row) -> Cause {
    Cause { correlation_id: row.correlation_id.clone(), ..Cause::spontaneous() }
}

fn why_not_released(payment: &Payment) -> String {
    match (&payment.payment_id, payment.cancelled) {
        (Some(other), _) => {
            format!("the order has another payment on record, {other}; release this one at the gateway")
        }
        (None, false) => "the order is not cancelled, so its money may be needed".to_owned(),
        (None, true) => format!("the payment is {} and has a step due; it goes on by itself", payment.state),
    }
}
