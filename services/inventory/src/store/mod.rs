//! Inventory's tables, in both backends, and the queries that only read.

mod postgres;
mod reads;
mod sqlite;

pub use reads::Reads;

use contracts::ProductId;
use contracts::orders::Item;
use millrace::store::Migration;

use crate::domain::Status;

/// The schema, step by step.
pub const MIGRATIONS: &[Migration] = &[Migration {
    name: "V1__stock",
    sqlite: include_str!("migrations/V1__stock.sqlite.sql"),
    postgres: include_str!("migrations/V1__stock.postgres.sql"),
}];

/// A value in a row that this version of the service cannot read.
#[derive(Debug, thiserror::Error)]
#[error("a row of inventory holds {0:?} where it cannot be")]
struct Unreadable(String);

/// A type of the domain that a text column holds.
trait Parsed: Sized {
    fn parsed(text: &str) -> Result<Self, Unreadable>;
}

impl Parsed for Status {
    fn parsed(text: &str) -> Result<Self, Unreadable> {
        Self::parse(text).ok_or_else(|| Unreadable(text.into()))
    }
}

impl Parsed for ProductId {
    fn parsed(text: &str) -> Result<Self, Unreadable> {
        Self::new(text).map_err(|_| Unreadable(text.into()))
    }
}

impl Parsed for Vec<Item> {
    fn parsed(text: &str) -> Result<Self, Unreadable> {
        serde_json::from_str(text).map_err(|_| Unreadable(text.into()))
    }
}

fn items_text(items: &[Item]) -> String {
    // Fails only on a map with non-text keys, which an item does not have.
    serde_json::to_string(items).unwrap_or_default()
}
