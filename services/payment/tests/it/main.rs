//! The payment service against the real thing: nats-server, PostgreSQL and SQLite, and the gateway simulator.

mod flow;
mod store;
mod support;
mod trouble;
