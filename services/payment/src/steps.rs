//! Carries out what is due at the gateway. The only place that calls it.

use std::time::Duration;

use contracts::payments::Step;
use contracts::{OrderId, Timestamp};
use millrace::breaker::{Breaker, CallError, State};
use millrace::event::Cause;
use millrace::store::{StoreError, Writer};
use time::OffsetDateTime;
use tracing::{error, warn};

use crate::domain::{Answer, Payment, Refusal};
use crate::gateway::{Authorization, Gateway, GatewayError};
use crate::model::{Intent, PaymentModel, Row};
use crate::settings::Settings;
use crate::store::Reads;
use crate::under_test;

/// More steps than any payment has: a limit where a defect would otherwise call the gateway for ever.
const MOST_STEPS: usize = 8;

/// Sees to payments. Clones share the breaker.
#[derive(Clone)]
pub struct Steps {
    pub reads: Reads,
    pub writer: Writer<PaymentModel>,
    pub gateway: Gateway,
    pub breaker: Breaker,
    pub settings: Settings,
}

/// The gateway gave no answer, or was not asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unanswered {
    pub problem: String,
    /// Not before the gateway, or its breaker, can be expected to do better.
    pub at_least: Duration,
    /// Whether it was asked at all.
    pub attempted: bool,
}

impl Steps {
    /// Takes one step after the other until none is due or the gateway gives no answer; then the sweep goes on later.
    /// Returns the payment as it stands at the end.
    pub async fn drive(&self, mut row: Row, cause: &Cause) -> Result<Row, StoreError> {
        for _ in 0..MOST_STEPS {
            let Some(step) = row.payment.next_step() else { break };
            let answer = self.ask(&row.payment, step, row.created_at).await;
            let unanswered = answer.is_err();
            let intent = self.record(&row, step, answer);
            row = self.writer.submit_because(cause.clone(), intent).await?.unwrap_or(row);
            if unanswered {
                break;
            }
        }
        Ok(row)
    }

    fn record(&self, row: &Row, step: Step, answer: Result<Answer, Unanswered>) -> Intent {
        let order_id = row.payment.order_id;
        match answer {
            Ok(answer) => Intent::Answered { order_id, step, answer },
            Err(Unanswered { problem, at_least, attempted }) => {
                let attempts = if attempted { row.attempts } else { 0 };
                let retry_in = at_least + self.pause_after(attempts);
                Intent::Unanswered { order_id, step, problem, retry_in, attempted }
            }
        }
    }

    /// Exponential with full jitter, so that payments that failed together do not come back together.
    fn pause_after(&self, attempts: u32) -> Duration {
        let ceiling = self.settings.retry_first.saturating_mul(2_u32.saturating_pow(attempts));
        ceiling.min(self.settings.retry_most.get()).mul_f64(0.1 + 0.9 * fastrand::f64())
    }

    /// Asks the gateway for one step, unless its breaker is open. `known_since` is when the order was first spoken
    /// of, Unix milliseconds.
    pub async fn ask(&self, payment: &Payment, step: Step, known_since: i64) -> Result<Answer, Unanswered> {
        let order_id = payment.order_id;
        if step == Step::Authorize && self.too_late_to_authorize(known_since) {
            error!(order.id = %order_id, "whether an order's money is on hold was never learnt, an operator has to look");
            return Ok(Answer::GivenUp(self.why_given_up()));
        }
        let called = self.breaker.try_call(|| self.call(payment, step), GatewayError::is_transient).await;
        let outcome = match &called {
            Ok(Answer::Done { .. }) => "done",
            Ok(_) | Err(CallError::Failed(GatewayError::Permanent { .. })) => "refused",
            Err(CallError::Failed(GatewayError::Transient { .. })) => "unanswered",
            Err(CallError::Open { .. }) => "breaker_open",
        };
        metrics::counter!("millrace_payment_steps_total", "step" => step.as_str(), "outcome" => outcome).increment(1);
        if matches!(outcome, "done" | "refused") {
            under_test::AFTER_GATEWAY_ANSWER.reach();
        }
        match called {
            Ok(answer) => Ok(answer),
            Err(CallError::Open { retry_after, .. }) => Err(Unanswered {
                problem: "the payment gateway is left alone after a row of failures".into(),
                at_least: retry_after,
                attempted: false,
            }),
            Err(CallError::Failed(GatewayError::Permanent { code, message, .. })) => {
                if step != Step::Authorize {
                    error!(order.id = %order_id, step = step.as_str(), code, message, "the payment gateway refused for good, an operator has to look");
                }
                Ok(Answer::Refused(Refusal { code, message }))
            }
            Err(CallError::Failed(transient)) => {
                let problem = with_sources(&transient);
                warn!(order.id = %order_id, step = step.as_str(), problem, "the payment gateway gave no answer, it is asked again later");
                let at_least = transient.retry_after().unwrap_or_default().min(self.settings.retry_most.get());
                Err(Unanswered { problem, at_least, attempted: true })
            }
        }
    }

    async fn call(&self, payment: &Payment, step: Step) -> Result<Answer, GatewayError> {
        under_test::BEFORE_GATEWAY_CALL.reach();
        Self::call_at(&self.gateway, payment, step).await
    }

    pub(crate) async fn call_at(gateway: &Gateway, payment: &Payment, step: Step) -> Result<Answer, GatewayError> {
        let OrderId(order_id) = payment.order_id;
        let payment_id = payment.payment_id.as_deref();
        let done = |payment_id: &str| Answer::Done { payment_id: payment_id.to_owned() };
        match (step, payment_id, &payment.charge) {
            (Step::Authorize, _, Some(charge)) => {
                let (amount, method) = (charge.amount, &charge.payment_method);
                match gateway.authorize(order_id, amount.minor, amount.currency.as_str(), method).await? {
                    Authorization::Authorized { intent_id } => Ok(done(&intent_id)),
                    Authorization::Declined { code, message } => Ok(Answer::Refused(Refusal { code, message })),
                }
            }
            (Step::Capture, Some(id), _) => gateway.capture(order_id, id).await.map(|()| done(id)),
            (Step::Void, Some(id), _) => gateway.void(order_id, id).await.map(|()| done(id)),
            (Step::Refund, Some(id), Some(charge)) => {
                gateway.refund(order_id, id, charge.amount.minor).await.map(|()| done(id))
            }
            // The states that make these steps due always come with what they need; a row that was tampered with does
            // not, and must not be repeated for ever.
            _ => Ok(Answer::Refused(Refusal {
                code: "incomplete_record".into(),
                message: format!("The payment's record lacks what is needed to {}.", step.as_str()),
            })),
        }
    }

    fn too_late_to_authorize(&self, known_since: i64) -> bool {
        let age_ms = now_ms().saturating_sub(known_since);
        u128::try_from(age_ms).is_ok_and(|age_ms| age_ms > self.settings.authorize_within.as_millis())
    }

    fn why_given_up(&self) -> Refusal {
        let message = format!(
            "The gateway gave no answer within {}; look there whether the order's money is on hold.",
            self.settings.authorize_within
        );
        Refusal { code: "no_answer".into(), message }
    }

    /// Whether the gateway is left alone for now.
    pub fn is_suspended(&self) -> bool {
        self.breaker.state() == State::Open
    }
}

/// Unix milliseconds.
pub(crate) fn now_ms() -> i64 {
    Timestamp(OffsetDateTime::now_utc()).unix_ms()
}

pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
