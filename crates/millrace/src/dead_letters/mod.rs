//! The operator's side of dead letters: look at them, replay them to the consumer that failed, or give them up; and the
//! record of who did what.
//!
//! - A letter's id is its sequence in the stream of dead letters.
//! - A replay goes to `replays.<consumer>.<original subject>`, which only that consumer receives, and bears the
//!   original's event id, so that an effect it had already had does not happen twice.
//! - The letter itself is never changed. What became of it is the fold of its audit entries ([`State`]).
//!
//! How a message becomes a dead letter is in [`dead_letter`](crate::dead_letter).

pub mod advisories;
pub mod audit;
mod desk;
mod error;
mod letter;
mod read;
mod redeliver;
mod replay;
pub mod replays;

pub use desk::{DeadLetters, Filter, Listing, Wanted};
pub use error::Error;
pub use letter::{Group, Letter, REPLAY_ANSWERED_WITHIN, State, group};
pub use redeliver::redeliver;
pub use replay::{Ended, Options, Outcome, Progress, Report};
pub use replays::{Correction, ReplayOf};
