//! The metrics of one consumer that every message touches, looked up once. What happens rarely is looked up where it
//! happens.

use metrics::{Counter, Histogram};

use crate::telemetry::metrics::{EVENT_TO_HANDLED, HANDLED, HANDLER_DURATION};

pub(super) struct Meters {
    pub(super) handler_seconds: Histogram,
    pub(super) event_to_handled_seconds: Histogram,
    pub(super) done: Counter,
}

impl Meters {
    pub(super) fn of(durable: &str) -> Self {
        let consumer = || durable.to_owned();
        Self {
            handler_seconds: metrics::histogram!(HANDLER_DURATION, "consumer" => consumer()),
            event_to_handled_seconds: metrics::histogram!(EVENT_TO_HANDLED, "consumer" => consumer()),
            done: metrics::counter!(HANDLED, "consumer" => consumer(), "outcome" => "done"),
        }
    }
}
