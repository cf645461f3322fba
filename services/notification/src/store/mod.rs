//! Notification's tables, in both backends, and the queries that only read.

mod columns;
mod postgres;
mod reads;
mod sqlite;

pub use reads::Reads;

use millrace::store::Migration;

/// The schema, step by step.
pub const MIGRATIONS: &[Migration] = &[Migration {
    name: "V1__notices",
    sqlite: include_str!("migrations/V1__notices.sqlite.sql"),
    postgres: include_str!("migrations/V1__notices.postgres.sql"),
}];
