//! The order service against real databases and a real NATS.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

mod bad_requests;
mod catch_up;
mod flow;
mod openapi;
mod replay;
mod store;
mod stream;
mod trouble;
