//! What inventory decides, without any I/O: an order holds all of its items or none, available stock never goes below
//! zero, and the events of an order may arrive in any order and any number of times.
//!
//! Units only ever move between the three counts of a [`Stock`]; they come and go by [`adjust`] alone. So, per product,
//! `available + reserved + committed` is the sum of its adjustments (the opening stock is the first of them).

mod adjustment;
mod reservation;
mod stock;

pub use adjustment::{Adjustment, AdjustmentRefused, adjust, opening};
pub use reservation::{Announcement, Decision, Reservation, Status, Step, decide, merge_lines};
pub use stock::Stock;

#[cfg(test)]
mod tests;
