//! The binary as its users run it, against real servers.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails must fail its test")]

mod bench;
mod catalog;
mod cli;
mod clocks;
mod cluster;
mod crash;
mod crash_points;
mod dead_letters;
mod demo;
mod docs;
mod faults;
mod foreign;
mod foreign_ids;
mod no_room;
mod outages;
mod reconcile;
mod replay;
mod restore;
mod schemas;
mod schemas_usage;
mod support;
mod verify;
mod verify_target;
