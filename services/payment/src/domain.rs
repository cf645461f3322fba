//! One order's payment: what is known, which step at the gateway is due, and what an answer changes. Pure.
//!
//! Two rules make every order of arrival safe:
//! - A cancellation that comes before the order itself leaves a tombstone: nothing is ever asked of the gateway.
//! - An authorization that may have been asked for is asked for again, cancelled or not, until its answer is known. The
//!   idempotency key makes that the same authorization; only then can it be given back. Forgetting it would leave the
//!   customer's money on hold.

mod operator;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use contracts::payments::{
    PaymentAuthorized, PaymentCaptured, PaymentDeclined, PaymentFailed, PaymentRefunded, PaymentVoided, Step,
};
use contracts::{Money, OrderId, Timestamp};

/// Where an order's payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Something was said about an order that is not known yet.
    Expected,
    /// Cancelled before the order was known: the tombstone. The gateway was never asked.
    Cancelled,
    /// The gateway is to put the money on hold, and may have been asked already.
    Authorizing,
    /// The money is on hold.
    Authorized,
    /// The gateway refused; nothing is on hold.
    Declined,
    /// The customer was charged.
    Captured,
    /// The hold was released; nothing was charged.
    Voided,
    /// The charge was given back.
    Refunded,
    /// It was never learnt whether the money is on hold. An operator has to look.
    AuthorizeUnknown,
    /// The hold could not be turned into a charge. An operator has to look.
    CaptureFailed,
    /// The hold could not be released. An operator has to look.
    VoidFailed,
    /// The charge could not be given back. An operator has to look.
    RefundFailed,
}

impl State {
    pub const ALL: [Self; 12] = [
        Self::Expected,
        Self::Cancelled,
        Self::Authorizing,
        Self::Authorized,
        Self::Declined,
        Self::Captured,
        Self::Voided,
        Self::Refunded,
        Self::AuthorizeUnknown,
        Self::CaptureFailed,
        Self::VoidFailed,
        Self::RefundFailed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expected => "expected",
            Self::Cancelled => "cancelled",
            Self::Authorizing => "authorizing",
            Self::Authorized => "authorized",
            Self::Declined => "declined",
            Self::Captured => "captured",
            Self::Voided => "voided",
            Self::Refunded => "refunded",
            Self::AuthorizeUnknown => "authorize_unknown",
            Self::CaptureFailed => "capture_failed",
            Self::VoidFailed => "void_failed",
            Self::RefundFailed => "refund_failed",
        }
    }

    /// Money is not where it should be, and nothing goes on by itself.
    pub fn needs_operator(self) -> bool {
        matches!(self, Self::AuthorizeUnknown | Self::CaptureFailed | Self::VoidFailed | Self::RefundFailed)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no state: the row was written by something newer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a state of a payment")]
pub struct UnknownState(String);

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| UnknownState(text.to_owned()))
    }
}

/// What the customer is to be charged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    pub amount: Money,
    /// The gateway's token. Settled when the order is recorded: a repeated call must have the same arguments, even if
    /// the configured default changes in between.
    pub payment_method: String,
}

/// What the order service said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderEvent {
    Created(Charge),
    Confirmed,
    Cancelled,
}

/// Why a step was refused: the gateway's code and words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: String,
    pub message: String,
}

/// What the gateway finally said to a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is done. `payment_id` is the gateway's name for the payment.
    Done {
        payment_id: String,
    },
    Refused(Refusal),
    /// An authorization never got an answer, and its idempotency key is about to expire: asking again could put the
    /// money on hold twice.
    GivenUp(Refusal),
}

/// What the world is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaymentEvent {
    Authorized(PaymentAuthorized),
    Declined(PaymentDeclined),
    Captured(PaymentCaptured),
    Voided(PaymentVoided),
    Refunded(PaymentRefunded),
    Failed(PaymentFailed),
}

/// All that is known about one order's payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    pub order_id: OrderId,
    pub state: State,
    /// The order stands: capture.
    pub confirmed: bool,
    /// The order is off: keep no money. Beats `confirmed`.
    pub cancelled: bool,
    /// Absent until the order itself is known.
    pub charge: Option<Charge>,
    /// The gateway's name for the payment, once there is one.
    pub payment_id: Option<String>,
    /// Why the card was declined, or the last step failed.
    pub refusal: Option<Refusal>,
}

impl Payment {
    /// Nothing is known yet.
    pub fn expected(order_id: OrderId) -> Self {
        Self {
            order_id,
            state: State::Expected,
            confirmed: false,
            cancelled: false,
            charge: None,
            payment_id: None,
            refusal: None,
        }
    }

    /// Which call to the gateway is due.
    pub fn next_step(&self) -> Option<Step> {
        match self.state {
            State::Authorizing => Some(Step::Authorize),
            State::Authorized | State::CaptureFailed if self.cancelled => Some(Step::Void),
            State::Authorized if self.confirmed => Some(Step::Capture),
            State::Captured if self.cancelled => Some(Step::Refund),
            _ => None,
        }
    }

    /// Remembers what the order service said, in whatever order it arrives and however often.
    pub fn apply_event(&mut self, event: &OrderEvent) {
        match event {
            OrderEvent::Created(charge) => {
                if self.charge.is_none() {
                    self.charge = Some(charge.clone());
                }
                if self.state == State::Expected {
                    self.state = State::Authorizing;
                }
            }
            OrderEvent::Confirmed => self.confirmed = true,
            OrderEvent::Cancelled => {
                self.cancelled = true;
                if self.state == State::Expected {
                    self.state = State::Cancelled;
                }
            }
        }
    }

    /// Records the gateway's answer to a step. An answer that says nothing new, or comes too late to matter, changes
    /// nothing; one that says where the money is counts even when the step is not due any more.
    pub fn apply_answer(&mut self, step: Step, answer: &Answer, now: Timestamp) -> Option<PaymentEvent> {
        let due = self.next_step() == Some(step);
        match answer {
            Answer::Done { payment_id } => self.done(step, payment_id, now),
            Answer::Refused(refusal) if due => Some(self.refused(step, refusal, now)),
            Answer::GivenUp(refusal) if due && step == Step::Authorize => Some(self.given_up(refusal, now)),
            Answer::Refused(_) | Answer::GivenUp(_) => None,
        }
    }

    fn done(&mut self, step: Step, payment_id: &str, now: Timestamp) -> Option<PaymentEvent> {
        let goal = match (step, self.state) {
            // Even on a tombstone or after giving up: a hold that is not recorded would never be released.
            (Step::Authorize, State::Authorizing | State::Cancelled | State::AuthorizeUnknown) => State::Authorized,
            (Step::Capture, State::Authorized | State::CaptureFailed) => State::Captured,
            (Step::Void, State::Authorized | State::CaptureFailed | State::VoidFailed) => State::Voided,
            (Step::Refund, State::Captured | State::RefundFailed) => State::Refunded,
            _ => return None,
        };
        self.reach(step, goal, payment_id, now)
    }

    fn reach(&mut self, step: Step, goal: State, payment_id: &str, now: Timestamp) -> Option<PaymentEvent> {
        self.state = goal;
        self.refusal = None;
        self.payment_id = Some(payment_id.to_owned());
        let (order_id, payment_id) = (self.order_id, payment_id.to_owned());
        // Without an amount only a tombstone can be, whose order was never announced either.
        let amount = self.charge.as_ref().map(|charge| charge.amount);
        Some(match step {
            Step::Authorize => PaymentEvent::Authorized(PaymentAuthorized {
                order_id,
                payment_id,
                amount: amount?,
                authorized_at: now,
            }),
            Step::Capture => {
                PaymentEvent::Captured(PaymentCaptured { order_id, payment_id, amount: amount?, captured_at: now })
            }
            Step::Void => PaymentEvent::Voided(PaymentVoided { order_id, payment_id, voided_at: now }),
            Step::Refund => {
                PaymentEvent::Refunded(PaymentRefunded { order_id, payment_id, amount: amount?, refunded_at: now })
            }
        })
    }

    fn refused(&mut self, step: Step, refusal: &Refusal, now: Timestamp) -> PaymentEvent {
        self.refusal = Some(refusal.clone());
        self.state = match step {
            Step::Authorize => State::Declined,
            Step::Capture => State::CaptureFailed,
            Step::Void => State::VoidFailed,
            Step::Refund => State::RefundFailed,
        };
        let Refusal { code, message } = refusal.clone();
        let order_id = self.order_id;
        match step {
            Step::Authorize => PaymentEvent::Declined(PaymentDeclined { order_id, code, message, declined_at: now }),
            _ => PaymentEvent::Failed(PaymentFailed { order_id, step, code, message, failed_at: now }),
        }
    }

    fn given_up(&mut self, refusal: &Refusal, now: Timestamp) -> PaymentEvent {
        self.refusal = Some(refusal.clone());
        self.state = State::AuthorizeUnknown;
        let Refusal { code, message } = refusal.clone();
        PaymentEvent::Failed(PaymentFailed {
            order_id: self.order_id,
            step: Step::Authorize,
            code,
            message,
            failed_at: now,
        })
    }
}
