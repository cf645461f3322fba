//! The order service against real databases and a real NATS.

mod support;

mod bad_requests;
mod flow;
mod openapi;
mod store;
mod stream;
mod trouble;
