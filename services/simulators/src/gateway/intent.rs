//! One payment and the moves it allows. Pure: no clock, no I/O.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answer::Refusal;
use super::tokens::{Fate, Token};

/// Where a payment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The card was declined; no money is held.
    RequiresPaymentMethod,
    /// Money is held on the card and waits for a capture.
    RequiresCapture,
    /// Money was taken.
    Succeeded,
    /// The hold was released.
    Canceled,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::RequiresPaymentMethod => "requires_payment_method",
            Self::RequiresCapture => "requires_capture",
            Self::Succeeded => "succeeded",
            Self::Canceled => "canceled",
        }
    }
}

/// What a client asked to charge, checked.
pub(super) struct NewIntent {
    /// Minor units, at least 1.
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) token: &'static Token,
    pub(super) manual_capture: bool,
    pub(super) metadata: BTreeMap<String, String>,
    /// Seconds since 1970.
    pub(super) created: u64,
}

pub(super) struct Intent {
    pub(super) id: String,
    pub(super) status: Status,
    /// How often money really moved: taken, and given back.
    pub(super) captures: u32,
    pub(super) refunds: u32,
    /// Minor units.
    pub(super) captured: i64,
    pub(super) refunded: i64,
    pub(super) new: NewIntent,
    /// The idempotency keys whose answers speak of this intent; they live and die with it.
    pub(super) keys: Vec<String>,
}

impl Intent {
    /// Asks the imaginary bank. A declined payment is an intent too, as it is at Stripe.
    pub(super) fn open(id: String, new: NewIntent) -> Self {
        let declined = matches!(new.token.fate, Fate::Decline(..));
        let status = if declined { Status::RequiresPaymentMethod } else { Status::RequiresCapture };
        let mut intent = Self { id, status, captures: 0, refunds: 0, captured: 0, refunded: 0, new, keys: Vec::new() };
        if !declined && !intent.new.manual_capture {
            intent.take(intent.new.amount);
        }
        intent
    }

    /// The bank's refusal, if it refused.
    pub(super) fn decline(&self) -> Option<Refusal> {
        let Fate::Decline(code, decline_code, message) = self.new.token.fate else { return None };
        Some(Refusal::card(code, decline_code, message).about(self.to_json(false)))
    }

    /// Takes the money that is held, or a part of it; the rest of the hold is released.
    pub(super) fn capture(&mut self, amount: Option<i64>) -> Result<(), Refusal> {
        if self.status != Status::RequiresCapture {
            return Err(self.unexpected_state("captured", "requires_capture"));
        }
        let amount = amount.unwrap_or(self.new.amount);
        if amount > self.new.amount {
            return Err(Refusal::invalid(format!("Only {} can be captured, not {amount}.", self.new.amount))
                .code("amount_too_large")
                .param("amount_to_capture"));
        }
        if self.new.token.fate == Fate::CaptureFails {
            return Err(Refusal::card("card_declined", Some("generic_decline"), "The bank refused the capture.")
                .about(self.to_json(false)));
        }
        self.take(amount);
        Ok(())
    }

    /// Releases the hold.
    pub(super) fn cancel(&mut self) -> Result<(), Refusal> {
        match self.status {
            Status::RequiresCapture | Status::RequiresPaymentMethod => {
                self.status = Status::Canceled;
                Ok(())
            }
            Status::Succeeded | Status::Canceled => {
                Err(self.unexpected_state("canceled", "requires_payment_method, requires_capture"))
            }
        }
    }

    /// Gives money back and returns how much.
    pub(super) fn refund(&mut self, amount: Option<i64>) -> Result<i64, Refusal> {
        if self.status != Status::Succeeded {
            return Err(self.unexpected_state("refunded", "succeeded"));
        }
        let left = self.captured - self.refunded;
        if left == 0 {
            return Err(Refusal::invalid(format!("The charge of {} was refunded already.", self.id))
                .code("charge_already_refunded"));
        }
        let amount = amount.unwrap_or(left);
        if amount > left {
            return Err(Refusal::invalid(format!("Refund amount ({amount}) is greater than what is left ({left})."))
                .param("amount"));
        }
        self.refunded += amount;
        self.refunds += 1;
        Ok(amount)
    }

    /// Whether money is held that somebody still has to take or release.
    pub(super) fn holds_money(&self) -> bool {
        self.status == Status::RequiresCapture
    }

    /// Minor units put on hold when the bank agreed, zero when it declined.
    pub(super) fn authorized(&self) -> i64 {
        if self.decline().is_some() { 0 } else { self.new.amount }
    }

    /// The order the client named in its metadata.
    pub(super) fn order_id(&self) -> Option<&str> {
        self.new.metadata.get("order_id").map(String::as_str)
    }

    pub(super) fn charge_id(&self) -> String {
        self.id.replacen("pi_", "ch_", 1)
    }

    /// The PaymentIntent object; `expand` puts the charge in place of its id.
    pub(super) fn to_json(&self, expand: bool) -> Value {
        let charge = json!({
            "id": self.charge_id(),
            "object": "charge",
            "amount": self.new.amount,
            "amount_captured": self.captured,
            "amount_refunded": self.refunded,
            "captured": self.captures > 0,
            "currency": self.new.currency,
            "payment_intent": self.id,
            "refunded": self.captured > 0 && self.refunded == self.captured,
        });
        json!({
            "id": self.id,
            "object": "payment_intent",
            "amount": self.new.amount,
            "amount_capturable": if self.holds_money() { self.new.amount } else { 0 },
            "amount_received": self.captured,
            "capture_method": if self.new.manual_capture { "manual" } else { "automatic" },
            "created": self.new.created,
            "currency": self.new.currency,
            "latest_charge": if expand { charge } else { Value::from(self.charge_id()) },
            "livemode": false,
            "metadata": self.new.metadata,
            "payment_method": self.new.token.name,
            "payment_method_types": ["card"],
            "status": self.status,
        })
    }

    fn take(&mut self, amount: i64) {
        self.status = Status::Succeeded;
        self.captured = amount;
        self.captures += 1;
    }

    fn unexpected_state(&self, verb: &str, allowed: &str) -> Refusal {
        let message = format!(
            "This PaymentIntent could not be {verb} because it has a status of {}. Allowed: {allowed}.",
            self.status.name()
        );
        Refusal::invalid(message).code("payment_intent_unexpected_state").about(self.to_json(false))
    }
}
