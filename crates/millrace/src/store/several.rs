//! SQLite statements that write several rows at once. To run a statement, and to keep the last number of a table that gives
//! out its ids in ascending order, costs as much as a small row itself.
//!
//! ```text
//! for portion in several::portions(&rows) {
//!     STATEMENT.execute(db, portion.len(), &values_of(portion))?;
//! }
//! ```

use rusqlite::{Connection, ToSql};

/// Rows in one statement. The batches of a busy service hold some dozens; what is left over is written row by row.
const ROWS: usize = 8;

/// One statement, for one row and for several.
#[derive(Debug)]
pub struct Several {
    one: String,
    several: String,
}

impl Several {
    /// `row` is what stands in the statement for each row, as `(?, ?)`.
    pub fn new(head: &str, row: &str, tail: &str) -> Self {
        let of = |rows: usize| format!("{head}{}{tail}", vec![row; rows].join(", "));
        Self { one: of(1), several: of(ROWS) }
    }

    /// Executes it for what [`portions`] gives. Returns how many rows it changed.
    pub fn execute(&self, db: &Connection, rows: usize, values: &[&dyn ToSql]) -> rusqlite::Result<usize> {
        db.prepare_cached(if rows == 1 { &self.one } else { &self.several })?.execute(values)
    }
}

/// Whether so many rows are enough for one statement.
pub fn are_several(rows: usize) -> bool {
    rows >= ROWS
}

/// The rows by the statement they are written with: several at a time, the rest alone.
pub fn portions<T>(rows: &[T]) -> impl Iterator<Item = &[T]> {
    let (several, rest) = rows.as_chunks::<ROWS>();
    several.iter().map(<[T; ROWS]>::as_slice).chain(rest.chunks(1))
}
