//! The toolkit against real servers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails must fail its test")]

mod broker;
mod proxy;
mod support;
mod things;

mod connection;
mod consumer;
mod dead_letters;
mod fleet;
mod kit;
mod outbox;
mod request_reply;
mod store;
mod topology;
mod versions;
