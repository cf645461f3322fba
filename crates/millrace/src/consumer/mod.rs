//! Consuming: a durable pull consumer, a router from subjects to typed handlers, and what happens to a message.
//!
//! - A worker slot is reserved before a message is asked for, so nothing waits in memory that cannot be started at once.
//! - Messages with the same key are handled one after the other, different keys side by side.
//! - While a handler works the broker is told so; it does not deliver the message to anybody else.
//! - `Ok` acknowledges. A transient failure comes back after a delay, exponential with full jitter. A permanent failure,
//!   an undecodable body, or the last attempt makes a dead letter: the copy is confirmed first, then the original ends.
//!   What is never answered at all becomes one through the broker's advisory.

mod advisories;
mod delivery;
mod failure;
mod first_failures;
mod meters;
mod pull;
mod router;
mod runner;
mod work;

pub use advisories::Advisories;
pub use failure::{Causes, Failure};
pub use router::{Call, Handling, OWN_SOURCE_PREFIX, Router};
pub use runner::{Consumer, ConsumerSettings, Restore};
