//! The order service's tables, in SQLite and PostgreSQL: written by the model, read through [`Reads`].

mod columns;
mod postgres;
mod reads;
mod rows;
mod sqlite;

pub use reads::{Listed, Page, Position, Reads, ToldUpTo};

use millrace::store::Migration;

/// The steps of this service's schema.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        name: "V1__orders",
        sqlite: include_str!("migrations/V1__orders.sqlite.sql"),
        postgres: include_str!("migrations/V1__orders.postgres.sql"),
    },
    Migration {
        name: "V2__catalog_place",
        sqlite: include_str!("migrations/V2__catalog_place.sqlite.sql"),
        postgres: include_str!("migrations/V2__catalog_place.postgres.sql"),
    },
];
