//! Whether a contract may change: compares two JSON Schemas (2020-12) and says of every difference whom it breaks.
//!
//! The question behind it is containment. New readers read old data if every document the old schema allows is one that
//! the new schema allows as well; old readers read new data if the opposite holds. [`prove`] tries to show the one and the
//! other, keyword by keyword. What it cannot show is reported, so a break may be called where there is none, but a break
//! is never called compatible: property tests hold that against a validator.
//!
//! One assumption is made, because without it no optional field could ever be added to an open object: nobody has used
//! the name of a new field before it was declared. [`Names::Any`] does without it.

mod compare;
mod folder;
mod keyword;
mod kinds;
mod node;
mod number;
mod prove;
mod same;
mod value;
mod walk;

pub use compare::{Difference, Verdict, compare};
pub use folder::{Change, Contract, compare_contracts};

/// What is assumed of property names that only one of two schemas declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Names {
    /// They were not used before they were declared: writers send only what the contract names.
    #[default]
    Fresh,
    /// Where an object is open, they may have been used with any value.
    Any,
}
