//! The payment service against the real thing: nats-server, PostgreSQL and SQLite, and the gateway simulator.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod flow;
mod operator;
mod store;
mod support;
mod trouble;
