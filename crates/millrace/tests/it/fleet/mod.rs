//! A fleet in which two releases of a service run side by side: a desk that takes in tasks, a mill that acts on them, and
//! a bystander that was there before and reads version 1 for ever.

mod ledger;
mod process;
mod releases;
mod rolling;

pub(crate) use ledger::{Intent, Ledger, MIGRATIONS};
pub(crate) use process::{TASKS, parts, router, topology};
pub(crate) use releases::{AskMade, Task, one, two};
