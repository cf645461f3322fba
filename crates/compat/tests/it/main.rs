//! The judge of contracts, against a table of changes and against a validator.

#![expect(clippy::unwrap_used, reason = "a helper that fails must fail its test")]

mod folders;
mod pairs;
mod random;
mod soundness;
mod spoken;
mod writer;
