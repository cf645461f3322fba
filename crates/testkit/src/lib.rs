//! What tests stand on: real servers and real processes, started on demand and gone afterwards.
//!
//! Nothing here ever skips a test: a server that cannot be had is a panic that says why and what to do.
//!
//! ```no_run
//! # async fn example() {
//! let nats = testkit::nats().await; // a server of this test's own, killed when `nats` is dropped
//! let database_url = testkit::fresh_database().await; // an empty database on a server shared by the test process
//! # let (_, _) = (nats, database_url);
//! # }
//! ```

mod clock;
mod cluster;
mod eventually;
mod http;
mod logs;
mod nats;
mod postgres;
mod process;
mod programs;

pub use clock::clock_ahead_by;
pub use cluster::nats_cluster;
pub use eventually::{Condition, eventually};
pub use http::wait_for_http;
pub use millrace::local::guard::Signal;
pub use millrace::local::proxy;
pub use nats::{TestNats, nats, nats_with};
pub use postgres::{TestPostgres, fresh_database, postgres, private_postgres};
pub use process::{Process, ProcessBuilder};
pub use programs::{nats_server_program, postgres_programs};
