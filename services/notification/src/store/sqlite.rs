use contracts::OrderId;
use contracts::notifications::Channel;
use millrace::store::SqliteModel;
use rusqlite::types::Type;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Result, Row, params};

use super::columns::{Parsed, PlacedColumns, items_text};
use crate::domain::{Delivery, Facts};
use crate::model::{DeliveryKey, Intent, NotificationModel, OrderRow, Rows, orders_of};

const SELECT_ORDER: &str = "select correlation_id, email, phone, total_minor, currency, items, confirmed, cancelled
     from orders where order_id = ?";
const SELECT_DELIVERIES: &str = "select notice, channel, status, attempts, due_since, next_attempt_at, detail
     from deliveries where order_id = ?";

impl SqliteModel for NotificationModel {
    fn load(&self, db: &Connection, intents: &[&Intent]) -> Result<Rows> {
        let mut rows = Rows::default();
        let mut order = db.prepare_cached(SELECT_ORDER)?;
        let mut deliveries = db.prepare_cached(SELECT_DELIVERIES)?;
        for order_id in orders_of(intents) {
            if let Some(row) = order.query_row([order_id.to_string()], read_order).optional()? {
                rows.orders.loaded(order_id, row);
            }
            let mut found = deliveries.query([order_id.to_string()])?;
            while let Some(row) = found.next()? {
                rows.deliveries.loaded((order_id, parsed(row, 0)?, parsed(row, 1)?), read_delivery(row)?);
            }
        }
        Ok(rows)
    }

    fn save(&self, db: &Connection, rows: &Rows) -> Result<()> {
        let mut insert = db.prepare_cached(
            "insert into orders (correlation_id, email, phone, total_minor, currency, items, confirmed, cancelled, order_id)
             values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?;
        for (id, row) in rows.orders.inserted() {
            write_order(&mut insert, *id, row)?;
        }
        let mut update = db.prepare_cached(
            "update orders set correlation_id = ?, email = ?, phone = ?, total_minor = ?, currency = ?, items = ?,
             confirmed = ?, cancelled = ? where order_id = ?",
        )?;
        for (id, row) in rows.orders.updated() {
            write_order(&mut update, *id, row)?;
        }
        let mut insert = db.prepare_cached(
            "insert into deliveries (status, attempts, due_since, next_attempt_at, detail, order_id, notice, channel)
             values (?, ?, ?, ?, ?, ?, ?, ?)",
        )?;
        for (key, row) in rows.deliveries.inserted() {
            write_delivery(&mut insert, key, row)?;
        }
        let mut update = db.prepare_cached(
            "update deliveries set status = ?, attempts = ?, due_since = ?, next_attempt_at = ?, detail = ?
             where order_id = ? and notice = ? and channel = ?",
        )?;
        for (key, row) in rows.deliveries.updated() {
            write_delivery(&mut update, key, row)?;
        }
        Ok(())
    }
}

fn write_order(statement: &mut CachedStatement<'_>, id: OrderId, row: &OrderRow) -> Result<usize> {
    let placed = row.facts.placed.as_ref();
    statement.execute(params![
        row.correlation_id,
        placed.and_then(|p| p.email.as_ref()),
        placed.and_then(|p| p.phone.as_ref()),
        placed.map(|p| p.total.minor),
        placed.map(|p| p.total.currency.as_str().to_owned()),
        placed.map(|p| items_text(&p.items)),
        row.facts.confirmed,
        row.facts.cancelled.map(|reason| reason.as_str()),
        id.to_string(),
    ])
}

fn write_delivery(statement: &mut CachedStatement<'_>, key: &DeliveryKey, row: &Delivery) -> Result<usize> {
    let (order_id, notice, channel) = key;
    statement.execute(params![
        row.status.as_str(),
        row.attempts,
        row.due_since,
        row.next_attempt_at,
        row.detail,
        order_id.to_string(),
        notice.as_str(),
        channel.as_str(),
    ])
}

/// A text column whose value is read into a type of the domain.
fn parsed<T: Parsed>(row: &Row<'_>, column: usize) -> Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    T::parsed(text).map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

fn parsed_if_set<T: Parsed>(row: &Row<'_>, column: usize) -> Result<Option<T>> {
    if row.get_ref(column)?.data_type() == Type::Null { Ok(None) } else { parsed(row, column).map(Some) }
}

fn read_order(row: &Row<'_>) -> Result<OrderRow> {
    let placed = PlacedColumns {
        email: row.get(1)?,
        phone: row.get(2)?,
        total_minor: row.get(3)?,
        currency: parsed_if_set(row, 4)?,
        items: parsed_if_set(row, 5)?,
    };
    let facts = Facts { placed: placed.into(), confirmed: row.get(6)?, cancelled: parsed_if_set(row, 7)? };
    Ok(OrderRow { facts, correlation_id: row.get(0)? })
}

/// From the third column on.
fn read_delivery(row: &Row<'_>) -> Result<Delivery> {
    Ok(Delivery {
        status: parsed(row, 2)?,
        attempts: row.get(3)?,
        due_since: row.get(4)?,
        next_attempt_at: row.get(5)?,
        detail: row.get(6)?,
    })
}

/// Orders with something to send over this channel by `now_ms`, the longest waiting first.
pub(super) fn due(db: &Connection, channel: Channel, now_ms: i64, limit: u32) -> Result<Vec<String>> {
    let mut select = db.prepare_cached(
        "select distinct order_id from
             (select order_id from deliveries where status = 'due' and next_attempt_at <= ?2 and channel = ?1
              order by next_attempt_at limit ?3)",
    )?;
    select.query_map(params![channel.as_str(), now_ms, limit], |row| row.get(0))?.collect()
}

pub(super) fn due_count(db: &Connection) -> Result<i64> {
    db.prepare_cached("select count(*) from deliveries where status = 'due'")?.query_row([], |row| row.get(0))
}

pub(super) fn deliveries(db: &Connection, order_id: OrderId) -> Result<Vec<(DeliveryKey, Delivery)>> {
    let mut select = db.prepare_cached(SELECT_DELIVERIES)?;
    let rows = select.query_map([order_id.to_string()], |row| {
        Ok(((order_id, parsed(row, 0)?, parsed(row, 1)?), read_delivery(row)?))
    })?;
    rows.collect()
}
