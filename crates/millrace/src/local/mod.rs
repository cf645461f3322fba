//! Real servers on this machine, for a first try, a demonstration and tests: found or installed once ([`provision`]),
//! started as guarded children that cannot outlive this process ([`guard`]), stopped in order.
//!
//! Unix only: the guard is a small `sh` script.
//!
//! Invariants:
//! - A child ends when this process ends, however this process ends. [`guard::Guarded`] is the only place that starts one.
//! - A child runs in a process group of its own, so that Ctrl-C in a terminal reaches this process alone, which then
//!   decides the order in which things stop.
//! - Servers listen on 127.0.0.1 only: they have no passwords.

mod error;
mod folder;
pub mod guard;
mod logfile;
mod nats;
mod port;
mod postgres;
pub mod provision;
pub mod proxy;

pub use error::LocalError;
pub use folder::copy_folder;
pub use logfile::tail;
pub use nats::{NatsServer, NatsServerBuilder, SyncInterval};
pub use port::free_port;
pub use postgres::{POSTGRES_ACCOUNT, Postgres, PostgresBuilder, run_account};
