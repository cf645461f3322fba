//! The inventory service against real databases and a real broker.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod flow;
mod store;
mod support;
