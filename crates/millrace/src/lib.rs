//! The Millrace toolkit: what an event-driven service on NATS JetStream needs so that it loses nothing and does nothing
//! twice. Knows nothing of orders; `ARCHITECTURE.md` at the repository's root is the map.

pub mod backoff;
pub mod breaker;
pub mod codes;
pub mod config;
pub mod connection;
pub mod consumer;
pub mod crash;
pub mod dead_letter;
pub mod dead_letters;
pub mod event;
pub mod health;
pub mod history;
pub mod http_client;
pub mod inbox;
pub mod kit;
pub mod local;
pub mod ops;
pub mod outbox;
pub mod problem;
pub mod request_reply;
pub mod retirement;
pub mod sabotage;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod topology;
pub mod usage;
