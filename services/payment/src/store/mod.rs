//! The table of payments, in both backends, and the queries that only read.

mod columns;
mod postgres;
mod reads;
mod sqlite;

pub use reads::Reads;

use millrace::store::Migration;

/// The schema, step by step.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        name: "V1__payments",
        sqlite: include_str!("migrations/V1__payments.sqlite.sql"),
        postgres: include_str!("migrations/V1__payments.postgres.sql"),
    },
    Migration {
        name: "V2__payments_failed",
        sqlite: include_str!("migrations/V2__payments_failed.sqlite.sql"),
        postgres: "",
    },
];
