//! What each side says about one order, as plain data. The judge looks at nothing else. Times are Unix milliseconds.

use std::collections::BTreeSet;

/// Everything known about one order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    pub order_id: String,
    /// `None` also while the order service knows the order from others' events alone.
    pub order: Option<Order>,
    /// Events that the order's timeline shows.
    pub timeline: BTreeSet<String>,
    pub payment: Option<Payment>,
    pub reservation: Option<Reservation>,
    pub notices: Option<Notices>,
    /// The order's payments at the gateway; `None` when the gateway was not asked.
    pub gateway: Option<Vec<Intent>>,
    /// The order's events on the streams, in the newest version.
    pub events: Vec<Event>,
    pub outbox: Vec<OutboxRow>,
}

/// The order service's row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order {
    /// `processing`, `confirmed`, `cancelled`
    pub status: String,
    pub total: Amount,
    pub email: bool,
    pub phone: bool,
    pub accepted_at: i64,
    pub deadline_at: i64,
    pub ended_at: Option<i64>,
}

/// Minor units and ISO 4217.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amount {
    pub minor: i64,
    pub currency: String,
}

/// The payment service's row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payment {
    pub state: String,
    pub cancelled: bool,
    pub amount: Option<Amount>,
    pub payment_id: Option<String>,
    pub due_at: Option<i64>,
    pub updated_at: i64,
    pub problem: Option<String>,
}

/// The inventory service's row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reservation {
    pub status: String,
    pub changed_at: i64,
}

/// The notification service's rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notices {
    pub deliveries: Vec<Delivery>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivery {
    /// `acknowledgement`, `confirmation`, `cancellation`
    pub notice: String,
    /// `email`, `sms`
    pub channel: String,
    /// `due`, `sent`, `failed`, `skipped`
    pub status: String,
    pub next_attempt_at: i64,
}

/// The gateway's record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intent {
    pub id: String,
    /// `requires_payment_method`, `requires_capture`, `succeeded`, `canceled`
    pub status: String,
    pub amount: Amount,
    pub captured: i64,
    pub refunded: i64,
    pub created_at: i64,
}

/// A message of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    pub stream: String,
    pub seq: u64,
    pub subject: String,
    /// As inboxes and timelines keep it.
    pub event_id: String,
    pub stored_at: i64,
    /// What became of it at each consumer that is to handle it.
    pub handling: Vec<Handling>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handling {
    pub durable: String,
    pub service: &'static str,
    pub state: Handled,
}

/// What became of an event at a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handled {
    /// The inbox has its mark.
    Yes,
    /// The consumer has not come to it yet.
    NotYet,
    /// The broker takes it for handled, and the inbox has no mark of it.
    Never,
    /// It is a dead letter that waits for a decision.
    DeadLetter(u64),
    /// It was a dead letter, and somebody decided.
    GivenUp,
}

/// An outgoing event in a service's database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutboxRow {
    pub service: &'static str,
    pub id: i64,
    pub subject: String,
    pub created_at: i64,
    /// Where the broker said it stands; `None` until it has confirmed it.
    pub place: Option<(String, u64)>,
    /// Whether its stream holds it.
    pub on_stream: bool,
}

impl Facts {
    /// When something last happened to the order.
    pub fn latest(&self) -> i64 {
        let order = self.order.iter().map(|order| order.accepted_at.max(order.ended_at.unwrap_or(0)));
        let payment = self.payment.iter().map(|payment| payment.updated_at);
        let reservation = self.reservation.iter().map(|reservation| reservation.changed_at);
        let intents = self.gateway.iter().flatten().map(|intent| intent.created_at);
        let events = self.events.iter().map(|event| event.stored_at);
        order.chain(payment).chain(reservation).chain(intents).chain(events).max().unwrap_or(0)
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.currency.parse().map(|currency| contracts::Money::new(self.minor, currency)) {
            Ok(Ok(money)) => write!(f, "{money}"),
            _ => write!(f, "{} {}", self.minor, self.currency),
        }
    }
}
