//! The ways out of states that only an operator can end. Each starts with an operator's word, never by itself. Pure.

use contracts::Timestamp;
use contracts::api::Settled;
use contracts::payments::Step;

use super::{Answer, Payment, PaymentEvent, State};

/// Stands in for the gateway's name of a payment that was settled elsewhere.
const SETTLED_ELSEWHERE: &str = "settled-by-operator";

impl Payment {
    /// The step that failed for good, unless something else is due since.
    pub fn failed_step(&self) -> Option<Step> {
        match self.state {
            _ if self.next_step().is_some() => None,
            State::AuthorizeUnknown => Some(Step::Authorize),
            State::CaptureFailed => Some(Step::Capture),
            State::VoidFailed => Some(Step::Void),
            State::RefundFailed => Some(Step::Refund),
            _ => None,
        }
    }

    /// Records what the gateway said to the failed step when it was asked once more. For an authorization it was not
    /// asked to hold money but whether it does; a refusal means that it does not.
    pub fn apply_retry(&mut self, step: Step, answer: &Answer, now: Timestamp) -> Option<PaymentEvent> {
        // Somebody else was faster.
        if self.failed_step() != Some(step) {
            return None;
        }
        match answer {
            Answer::Done { payment_id } => self.done(step, payment_id, now),
            Answer::Refused(refusal) if step == Step::Authorize => Some(self.refused(step, refusal, now)),
            // Told when it failed for the first time.
            Answer::Refused(refusal) | Answer::GivenUp(refusal) => {
                self.refusal = Some(refusal.clone());
                None
            }
        }
    }

    /// Puts a hold on record that the gateway has and we have not, so that it is released as every hold of a cancelled
    /// order is. Only where no other payment is on record, and only once the order is off.
    pub fn adopt(&mut self, payment_id: &str, now: Timestamp) -> Option<PaymentEvent> {
        // A step that is due finds out by itself.
        if !self.cancelled || self.payment_id.is_some() || self.next_step().is_some() {
            return None;
        }
        // What was taken for a no was a yes.
        if self.state == State::Declined {
            self.state = State::AuthorizeUnknown;
        }
        self.done(Step::Authorize, payment_id, now)
    }

    /// How an operator may say that this payment was settled.
    pub fn ways_to_settle(&self) -> &'static [Settled] {
        match self.failed_step() {
            None => &[],
            Some(Step::Authorize) => &[Settled::Voided],
            Some(Step::Capture) => &[Settled::Captured, Settled::Voided],
            Some(Step::Void) => &[Settled::Voided, Settled::Refunded],
            Some(Step::Refund) => &[Settled::Refunded],
        }
    }

    /// Takes an operator's word for where the money is.
    pub fn settle(&mut self, settled: Settled, now: Timestamp) -> Option<PaymentEvent> {
        if !self.ways_to_settle().contains(&settled) {
            return None;
        }
        let payment_id = self.payment_id.clone().unwrap_or_else(|| SETTLED_ELSEWHERE.to_owned());
        let (step, goal) = match settled {
            Settled::Captured => (Step::Capture, State::Captured),
            Settled::Voided => (Step::Void, State::Voided),
            Settled::Refunded => (Step::Refund, State::Refunded),
        };
        self.reach(step, goal, &payment_id, now)
    }
}
