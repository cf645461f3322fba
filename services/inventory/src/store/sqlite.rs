use contracts::OrderId;
use contracts::api::StockLevel;
use millrace::store::SqliteModel;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::{Parsed, items_text};
use crate::domain::{Adjustment, Reservation, Stock};
use crate::model::{AdjustmentRow, Intent, InventoryModel, Keys, ReservationRow, Rows, level};

impl SqliteModel for InventoryModel {
    fn load(&self, db: &Connection, intents: &[&Intent]) -> Result<Rows> {
        let mut keys = Keys::of(intents);
        let mut rows = Rows::default();
        let mut reservation =
            db.prepare_cached("select status, items, changed_at from reservations where order_id = ?")?;
        for order_id in &keys.orders {
            if let Some(row) = reservation.query_row([order_id.to_string()], read_reservation).optional()? {
                rows.reservations.loaded(*order_id, row);
            }
        }
        keys.add_held(&rows.reservations);
        let mut stock = db.prepare_cached("select available, reserved, committed from stock where product_id = ?")?;
        for product_id in &keys.products {
            if let Some(row) = stock.query_row([product_id.as_str()], |row| read_stock(row, 0)).optional()? {
                rows.stock.loaded(product_id.clone(), row);
            }
        }
        let mut adjustment = db.prepare_cached(
            "select product_id, delta, reason, made_at from stock_adjustments where adjustment_id = ?",
        )?;
        for id in &keys.adjustments {
            if let Some(row) = adjustment.query_row([id.to_string()], read_adjustment).optional()? {
                rows.adjustments.loaded(*id, row);
            }
        }
        Ok(rows)
    }

    fn save(&self, db: &Connection, rows: &Rows) -> Result<()> {
        let mut insert =
            db.prepare_cached("insert into stock (product_id, available, reserved, committed) values (?, ?, ?, ?)")?;
        for (product, stock) in rows.stock.inserted() {
            insert.execute(params![product.as_str(), stock.available, stock.reserved, stock.committed])?;
        }
        let mut update =
            db.prepare_cached("update stock set available = ?, reserved = ?, committed = ? where product_id = ?")?;
        for (product, stock) in rows.stock.updated() {
            update.execute(params![stock.available, stock.reserved, stock.committed, product.as_str()])?;
        }
        save_reservations(db, rows)?;
        let mut insert = db.prepare_cached(
            "insert into stock_adjustments (adjustment_id, product_id, delta, reason, made_at) values (?, ?, ?, ?, ?)",
        )?;
        for (id, AdjustmentRow { adjustment, made_at }) in rows.adjustments.inserted() {
            let Adjustment { product_id, delta, reason } = adjustment;
            insert.execute(params![id.to_string(), product_id.as_str(), delta, reason, made_at])?;
        }
        Ok(())
    }
}

fn save_reservations(db: &Connection, rows: &Rows) -> Result<()> {
    let mut insert =
        db.prepare_cached("insert into reservations (status, items, changed_at, order_id) values (?, ?, ?, ?)")?;
    let mut update =
        db.prepare_cached("update reservations set status = ?, items = ?, changed_at = ? where order_id = ?")?;
    let write = |statement: &mut rusqlite::CachedStatement<'_>, id: &OrderId, row: &ReservationRow| {
        let items = items_text(&row.reservation.items);
        statement.execute(params![row.reservation.status.as_str(), items, row.changed_at, id.to_string()])
    };
    for (id, row) in rows.reservations.inserted() {
        write(&mut insert, id, row)?;
    }
    for (id, row) in rows.reservations.updated() {
        write(&mut update, id, row)?;
    }
    Ok(())
}

/// A text column whose value is read into a type of the domain.
fn parsed<T: Parsed>(row: &Row<'_>, column: usize) -> Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    T::parsed(text).map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

fn read_reservation(row: &Row<'_>) -> Result<ReservationRow> {
    let reservation = Reservation { status: parsed(row, 0)?, items: parsed(row, 1)? };
    Ok(ReservationRow { reservation, changed_at: row.get(2)? })
}

/// The three counts, from column `first` on.
fn read_stock(row: &Row<'_>, first: usize) -> Result<Stock> {
    Ok(Stock { available: row.get(first)?, reserved: row.get(first + 1)?, committed: row.get(first + 2)? })
}

fn read_adjustment(row: &Row<'_>) -> Result<AdjustmentRow> {
    let adjustment = Adjustment { product_id: parsed(row, 0)?, delta: row.get(1)?, reason: row.get(2)? };
    Ok(AdjustmentRow { adjustment, made_at: row.get(3)? })
}

/// An order's reservation, for reading.
pub(super) fn reservation(db: &Connection, order_id: OrderId) -> Result<Option<ReservationRow>> {
    db.prepare_cached("select status, items, changed_at from reservations where order_id = ?")?
        .query_row([order_id.to_string()], read_reservation)
        .optional()
}

/// Stock levels of up to `limit` products, or of one.
pub(super) fn levels(db: &Connection, only: Option<&str>, limit: u32) -> Result<Vec<StockLevel>> {
    let mut select = db.prepare_cached(
        "select product_id, available, reserved, committed from stock where ?1 is null or product_id = ?1
         order by product_id limit ?2",
    )?;
    let rows = select.query_map(params![only, limit], |row| Ok(level(parsed(row, 0)?, read_stock(row, 1)?)))?;
    rows.collect()
}
