//! The notification service against real databases, a real broker, and sinks for mails and text messages.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod flow;
mod outage;
mod running;
mod store;
mod support;
