//! The transactional outbox: events are rows of the service's database before they are messages.
//!
//! The writer stores [`NewRow`]s in the transaction of the state change and hands them on, after the commit, through a
//! [`RelaySender`] to the [`Relay`], which publishes them at once from memory, many in flight, and tells the writer which
//! ones the broker confirmed. What memory could not hold, or a crash left behind, the relay reads back from the table.

mod amnesia;
mod doubt;
pub mod header_text;
mod publish;
mod queue;
mod relay;
mod sender;
mod streams;

pub(crate) use publish::{Refused, publish, refused_as_second};
pub use relay::{Relay, RelaySettings};
pub use sender::RelaySender;

use bytes::Bytes;

use crate::event::HeaderPairs;

/// A message to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRow {
    /// `Nats-Msg-Id`, unique in the table.
    pub message_id: String,
    pub subject: String,
    /// Rows of one lane are published in the order they were committed.
    pub lane: String,
    pub headers: HeaderPairs,
    pub body: Bytes,
}

/// A message in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Ascending in commit order.
    pub id: i64,
    pub message: NewRow,
}

/// What is known of a row's message at the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmation {
    pub row_id: i64,
    /// Where the broker has it; `None` when it turned out to have lost it, so that it has to be published again.
    pub place: Option<Place>,
}

/// Rows of one stream that one run of a server acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) stream: String,
    pub(crate) broker: String,
    /// When the first acknowledgement came, Unix milliseconds.
    pub(crate) first_ms: i64,
}

/// A message's place at the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub stream: String,
    pub stream_seq: u64,
    /// When the acknowledgement came, Unix milliseconds.
    pub acknowledged_ms: i64,
    /// Which run of a server acknowledged it: [`Connection::server_run`](crate::connection::Connection::server_run).
    pub broker: String,
}

impl Place {
    /// The broker has just said so.
    pub(crate) fn given_now(at: publish::Stored, broker: String) -> Self {
        Self { stream: at.stream, stream_seq: at.stream_seq, acknowledged_ms: unix_ms(), broker }
    }
}

fn unix_ms() -> i64 {
    (time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000) as i64
}

/// A row of which the broker has said that it has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    pub row_id: i64,
    pub message_id: String,
    pub stream_seq: u64,
}

/// How much is waiting to be published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    pub rows: u64,
    /// When the oldest was committed, Unix milliseconds.
    pub oldest_created_ms: Option<i64>,
}
