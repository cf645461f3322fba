//! Stock and reservations.
pub mod domain;
