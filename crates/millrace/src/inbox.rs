//! The inbox: which consumer has handled which event, remembered in the same transaction as the effect.

use crate::event::Meta;

/// One row of the inbox. Unique, so an event takes effect once per consumer however often it is delivered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mark {
    pub consumer: String,
    pub event_id: String,
}

impl Mark {
    pub fn new(consumer: &str, meta: &Meta) -> Self {
        Self { consumer: consumer.to_owned(), event_id: meta.inbox_id() }
    }
}
