//! What an order is and how it comes to its one end. Pure: no I/O, no clock, no randomness.
//!
//! An order is confirmed when payment and stock both say yes and cancelled at the first no, at the customer's wish or at
//! its deadline. Either end is final. Facts may arrive in any order, repeatedly, and before the order itself: payment and
//! stock only ever move up their lists of states, so the same facts always add up to the same state.

#[cfg(test)]
mod tests;

use contracts::orders::{CancelReason, OrderCreated};
use contracts::{OrderId, Timestamp};

/// An order as far as it is known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub id: OrderId,
    /// `None` while only facts about the order arrived, not the order itself.
    pub placed: Option<Placed>,
    pub payment: Payment,
    pub stock: Stock,
}

/// What was ordered, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    pub order: OrderCreated,
    /// Published by somebody else, not placed through this service's API.
    pub foreign: bool,
    /// When this service took it on. A foreign order's own `created_at` is whatever its publisher says.
    pub accepted_at: Timestamp,
    pub deadline_at: Timestamp,
    pub ended: Option<(End, Timestamp)>,
}

/// The end of an order. There is exactly one, and it never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Confirmed,
    Cancelled(CancelReason),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Confirmed => f.write_str("confirmed"),
            Self::Cancelled(reason) => write!(f, "cancelled ({})", reason.as_str()),
        }
    }
}

/// Where the money stands. Ordered: of several facts the last in this list is what counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Payment {
    Pending,
    Declined,
    Authorized,
    VoidFailed,
    Voided,
    CaptureFailed,
    Captured,
    RefundFailed,
    Refunded,
}

/// Where the goods stand. Ordered as [`Payment`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stock {
    Pending,
    Rejected,
    Reserved,
    Released,
    Committed,
}

/// What another service said about an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    Payment(Payment),
    Stock(Stock),
    /// Shown on the timeline, decides nothing.
    Notice,
}

/// What became of a wish to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancellation {
    Now,
    /// It was cancelled before, for whatever reason.
    Already,
    /// It is confirmed: money and goods are on their way.
    TooLate,
    UnknownOrder,
}

/// What became of an order that was handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// It is new. What was known about it may have ended it at once.
    Accepted(Option<End>),
    /// The same order is here already.
    Known,
    /// Another order is here under the same id.
    Clash,
}

/// What a database that is older than the streams has learnt again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recalled {
    Now,
    /// It was here already.
    Known,
    /// The order has ended otherwise here: both ends have been told.
    Contradicted(End),
    UnknownOrder,
}

impl Order {
    /// An order of which nothing is known yet.
    pub fn unknown(id: OrderId) -> Self {
        Self { id, placed: None, payment: Payment::Pending, stock: Stock::Pending }
    }

    /// Takes the order itself on.
    pub fn place(&mut self, order: &OrderCreated, foreign: bool, now: Timestamp, deadline_at: Timestamp) -> Placement {
        if let Some(placed) = &self.placed {
            return if placed.is_same(order) { Placement::Known } else { Placement::Clash };
        }
        self.placed = Some(Placed { order: order.clone(), foreign, accepted_at: now, deadline_at, ended: None });
        Placement::Accepted(self.settle(now))
    }

    /// Takes the order on as this service has told of it before. Decides nothing: the end may have been told as well.
    pub fn recall_placed(
        &mut self,
        order: &OrderCreated,
        foreign: bool,
        at: Timestamp,
        deadline_at: Timestamp,
    ) -> Recalled {
        if self.placed.is_some() {
            return Recalled::Known;
        }
        self.placed = Some(Placed { order: order.clone(), foreign, accepted_at: at, deadline_at, ended: None });
        Recalled::Now
    }

    /// Ends the order as this service has told before: others act on that, so whatever was heard since decides nothing.
    pub fn recall_end(&mut self, end: End, at: Timestamp) -> Recalled {
        match self.placed.as_ref().map(|placed| placed.ended) {
            None => Recalled::UnknownOrder,
            Some(Some((ended, _))) if ended == end => Recalled::Known,
            Some(Some((ended, _))) => Recalled::Contradicted(ended),
            Some(None) => {
                self.end(end, at);
                Recalled::Now
            }
        }
    }

    /// Takes a fact into account; says whether it ended the order.
    pub fn observe(&mut self, fact: Fact, now: Timestamp) -> Option<End> {
        match fact {
            Fact::Payment(payment) => self.payment = self.payment.max(payment),
            Fact::Stock(stock) => self.stock = self.stock.max(stock),
            Fact::Notice => {}
        }
        self.settle(now)
    }

    /// The customer wants it cancelled.
    pub fn cancel(&mut self, now: Timestamp) -> Cancellation {
        match self.placed.as_ref().map(|placed| placed.ended) {
            None => Cancellation::UnknownOrder,
            Some(Some((End::Confirmed, _))) => Cancellation::TooLate,
            Some(Some((End::Cancelled(_), _))) => Cancellation::Already,
            Some(None) => {
                self.end(End::Cancelled(CancelReason::Customer), now);
                Cancellation::Now
            }
        }
    }

    /// Ends the order if its deadline has passed while it was still processing.
    pub fn expire(&mut self, now: Timestamp) -> Option<End> {
        let placed = self.placed.as_ref()?;
        if placed.ended.is_some() || now < placed.deadline_at {
            return None;
        }
        self.end(End::Cancelled(CancelReason::Deadline), now)
    }

    pub fn ended(&self) -> Option<(End, Timestamp)> {
        self.placed.as_ref()?.ended
    }

    fn settle(&mut self, now: Timestamp) -> Option<End> {
        if self.placed.as_ref()?.ended.is_some() {
            return None;
        }
        match (self.payment.answer(), self.stock.answer()) {
            (Some(false), _) => self.end(End::Cancelled(CancelReason::PaymentDeclined), now),
            (_, Some(false)) => self.end(End::Cancelled(CancelReason::OutOfStock), now),
            (Some(true), Some(true)) => self.end(End::Confirmed, now),
            _ => None,
        }
    }

    fn end(&mut self, end: End, now: Timestamp) -> Option<End> {
        self.placed.as_mut()?.ended = Some((end, now));
        Some(end)
    }
}

impl Placed {
    /// Whether `other` is this order told again. What older versions of the event cannot carry does not count, so that
    /// an order is recognised in a copy of itself.
    fn is_same(&self, other: &OrderCreated) -> bool {
        let (mine, theirs) = (&self.order, other);
        mine.customer_id == theirs.customer_id
            && mine.total == theirs.total
            && mine.items.len() == theirs.items.len()
            && mine
                .items
                .iter()
                .zip(&theirs.items)
                .all(|(a, b)| a.product_id == b.product_id && a.quantity == b.quantity)
    }

    /// `processing`, `confirmed` or `cancelled`.
    pub fn status(&self) -> Status {
        match self.ended {
            None => Status::Processing,
            Some((End::Confirmed, _)) => Status::Confirmed,
            Some((End::Cancelled(_), _)) => Status::Cancelled,
        }
    }

    pub fn cancel_reason(&self) -> Option<CancelReason> {
        match self.ended {
            Some((End::Cancelled(reason), _)) => Some(reason),
            _ => None,
        }
    }

    pub fn ended_at(&self) -> Option<Timestamp> {
        self.ended.map(|(_, at)| at)
    }
}

/// An order's status in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    Processing,
    Confirmed,
    Cancelled,
}

impl Payment {
    /// Whether the payment service has said yes or no to the order. Whatever follows an authorization implies it.
    fn answer(self) -> Option<bool> {
        match self {
            Self::Pending => None,
            Self::Declined => Some(false),
            _ => Some(true),
        }
    }
}

impl Stock {
    fn answer(self) -> Option<bool> {
        match self {
            Self::Pending => None,
            Self::Rejected => Some(false),
            _ => Some(true),
        }
    }
}

/// Names of an enum's values, as databases and the API write them.
macro_rules! named {
    ($type:ident, $what:literal, { $($variant:ident = $name:literal),+ $(,)? }) => {
        impl $type {
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }

        impl std::str::FromStr for $type {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                match text {
                    $($name => Ok(Self::$variant),)+
                    other => Err(UnknownName { what: $what, text: other.chars().take(64).collect(), known: Self::NAMES }),
                }
            }
        }
    };
}

/// A text that is not one of an enum's names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}; it is one of {}", known.join(", "))]
pub struct UnknownName {
    what: &'static str,
    text: String,
    known: &'static [&'static str],
}

named!(Status, "status", { Processing = "processing", Confirmed = "confirmed", Cancelled = "cancelled" });

named!(Payment, "payment state", {
    Pending = "pending",
    Declined = "declined",
    Authorized = "authorized",
    VoidFailed = "void_failed",
    Voided = "voided",
    CaptureFailed = "capture_failed",
    Captured = "captured",
    RefundFailed = "refund_failed",
    Refunded = "refunded",
});

named!(Stock, "stock state", {
    Pending = "pending",
    Rejected = "rejected",
    Reserved = "reserved",
    Released = "released",
    Committed = "committed",
});
