//! What a run left behind, as plain data: what customers were told, what the outside world saw, what the services'
//! databases and the streams hold. The checks look at nothing else.

use std::collections::BTreeMap;

use contracts::orders::{OrderCancelled, OrderConfirmed};
use contracts::subjects;
use millrace::event::Event;

/// An order's id, as text.
pub type Id = String;

/// Everything the checks look at.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// One for each order that somebody wanted.
    pub wishes: Vec<Wish>,
    /// Messages that nobody can read, by a mark in their body.
    pub poison: BTreeMap<String, Poison>,
    /// Units of each product at first.
    pub opening: BTreeMap<String, i64>,
    /// Units that came in or went out during the run.
    pub adjustments: Vec<(String, i64)>,
    pub samples: Samples,
    /// The order database.
    pub orders: BTreeMap<Id, OrderRow>,
    /// What the API lists.
    pub listed: BTreeMap<Id, Listed>,
    pub timelines: BTreeMap<Id, Vec<Entry>>,
    /// The payment database: state by order.
    pub payments: BTreeMap<Id, String>,
    /// The gateway's ledger.
    pub charges: Vec<Charge>,
    /// The inventory database.
    pub stock: BTreeMap<String, Stock>,
    pub booked_adjustments: BTreeMap<String, i64>,
    pub reservations: BTreeMap<Id, String>,
    /// How often each Message-ID came in at the mail server.
    pub mails: BTreeMap<String, u64>,
    /// Everything on the streams of events.
    pub messages: Vec<Message>,
    pub dead_letters: Vec<Letter>,
    /// By service.
    pub outboxes: BTreeMap<String, Vec<OutboxRow>>,
    /// By service: (consumer, event id).
    pub inboxes: BTreeMap<String, Vec<(String, String)>>,
    /// Who has to handle what.
    pub consumers: Vec<Consumer>,
    /// What a ledger says that it no longer knows.
    pub forgotten: Vec<String>,
    /// Where others buy as well: then totals alone say nothing.
    pub shared_stock: Option<SharedStock>,
    /// The streams could not be read; ends are looked for on timelines.
    pub without_streams: bool,
}

/// Stock that others use too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedStock {
    pub books: BTreeMap<String, Book>,
    /// What reservations hold or took: product and units.
    pub lines: BTreeMap<Id, Vec<(String, i64)>>,
}

/// One product at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Book {
    pub stock: Stock,
    /// Everything that ever came in or went out other than by an order.
    pub came_in: i64,
    /// By the reservations of all orders.
    pub held: i64,
    pub taken: i64,
}

/// A message that nobody can read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Poison {
    pub body: String,
    /// How often it was published.
    pub published: u64,
}

/// What somebody wanted and was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    pub number: u32,
    pub customer: String,
    /// Came in as an event of another system.
    pub foreign: bool,
    /// The orders that answers with 202 named: exactly one, however often it was asked. For a foreign order its own id.
    pub accepted: Vec<Id>,
    /// Final refusals, which none of these orders deserves.
    pub refused: Vec<String>,
    /// In cents.
    pub total: i64,
    pub items: Vec<(String, u32)>,
    pub card_is_bad: bool,
    pub wants_scarce: bool,
    pub email: bool,
    /// The wish to cancel, if there was one, and what it was answered.
    pub cancel: Option<CancelAnswer>,
    /// How long the order may take before its deadline ends it.
    pub deadline_ms: i64,
}

/// What a wish to cancel was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelAnswer {
    /// 202 or 200: it is cancelled.
    Cancelled,
    /// 409: it is confirmed.
    TooLate,
    /// No answer came until the end.
    Unanswered,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrderRow {
    pub customer: String,
    pub status: String,
    pub reason: Option<String>,
    pub total: i64,
    pub accepted_at: i64,
    pub ended_at: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    pub status: String,
    pub reason: Option<String>,
    pub payment: String,
    pub stock: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    pub event_id: String,
    pub event_type: String,
    /// Unix milliseconds.
    pub at: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Charge {
    pub id: String,
    pub order: Option<Id>,
    /// `requires_payment_method`, `requires_capture`, `succeeded`, `canceled`
    pub status: String,
    pub captures: u32,
    pub captured: i64,
    pub refunded: i64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stock {
    pub available: i64,
    pub reserved: i64,
    pub committed: i64,
}

/// Looks at the stock during the run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Samples {
    pub taken: u64,
    /// What was wrong, with the product.
    pub wrong: Vec<String>,
}

/// A message of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    pub stream: String,
    pub seq: u64,
    pub subject: String,
    /// `Nats-Msg-Id`
    pub message_id: Option<String>,
    /// `ce-id`
    pub event_id: Option<String>,
    pub event_type: String,
    pub order: Option<Id>,
    /// Of a cancellation.
    pub reason: Option<String>,
    /// `ce-time`
    pub at: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Letter {
    pub consumer: String,
    pub stream: String,
    pub seq: u64,
    pub subject: String,
    pub reason: String,
    pub error: String,
    pub body: String,
    pub message_id: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutboxRow {
    pub message_id: String,
    pub subject: String,
    pub published: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Consumer {
    pub durable: String,
    /// Whose inbox holds its marks; `None` for one that leaves none.
    pub service: Option<String>,
    pub stream: String,
    pub subjects: Vec<String>,
    /// Messages it has not finished.
    pub open: u64,
}

impl Message {
    /// Whether this message ends an order.
    pub fn is_end(&self) -> bool {
        matches!(subjects::newest_on(&self.subject), Some(OrderConfirmed::TYPE | OrderCancelled::TYPE))
    }

    /// A copy in an older version: it shares its event with the newest and is on no timeline.
    pub fn is_older_version(&self) -> bool {
        subjects::is_older(&self.subject)
    }
}
