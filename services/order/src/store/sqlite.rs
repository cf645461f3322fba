//! The model's rows in SQLite.

use std::sync::LazyLock;

use millrace::store::SqliteModel;
use millrace::store::several::{self, Several};
use rusqlite::{Connection, Result, Row, ToSql, params};

use super::columns::{detail_text, items_text};
use super::rows::{FlatOrder, key_row, order_columns, order_row};
use crate::model::{CatalogWrite, Entry, Intent, Needs, OrderModel, Rows};

static ENTRY: LazyLock<Several> = LazyLock::new(|| {
    let head = "insert into order_timeline (order_id, seq, at, event_type, service, event_id, detail) values ";
    Several::new(head, "(?, ?, ?, ?, ?, ?, ?)", "")
});

impl SqliteModel for OrderModel {
    fn load(&self, db: &Connection, intents: &[&Intent]) -> Result<Rows> {
        let needs = Needs::of(intents);
        let mut rows = Rows::default();
        let mut find = db.prepare_cached(concat!("select ", order_columns!(), " from orders where order_id = ?"))?;
        for id in &needs.orders {
            let mut found = find.query([id.to_string()])?;
            if let Some(row) = found.next()? {
                rows.orders.loaded(*id, order_row::<Row<'_>>(row)?);
            }
        }
        let mut find = db.prepare_cached("select 1 from order_timeline where order_id = ? and event_id = ?")?;
        for (id, event_id) in needs.entries {
            if find.exists(params![id.to_string(), event_id])? {
                rows.known_entries.insert((id, event_id.to_owned()));
            }
        }
        let mut find = db.prepare_cached("select coalesce(max(seq), 0) from order_timeline where order_id = ?")?;
        for id in needs.highest {
            rows.highest.insert(id, find.query_row([id.to_string()], |row| row.get(0))?);
        }
        let mut find =
            db.prepare_cached("select key, request_hash, order_id, used_at from idempotency_keys where key = ?")?;
        for key in needs.keys {
            let mut found = find.query([key])?;
            if let Some(row) = found.next()? {
                let (key, row) = key_row::<Row<'_>>(row)?;
                rows.keys.loaded(key, row);
            }
        }
        Ok(rows)
    }

    fn save(&self, db: &Connection, rows: &Rows) -> Result<()> {
        save_orders(db, rows)?;
        add_entries(db, &rows.new_entries)?;
        mend_entries(db, rows)?;
        // An expired key is used anew.
        let mut upsert = db.prepare_cached(
            "insert into idempotency_keys (key, request_hash, order_id, used_at) values (?, ?, ?, ?)
             on conflict (key) do update set request_hash = excluded.request_hash, order_id = excluded.order_id,
                 used_at = excluded.used_at",
        )?;
        for (key, row) in rows.keys.inserted().chain(rows.keys.updated()) {
            upsert.execute(params![key, row.request_hash, row.order_id.to_string(), row.used_at.unix_ms()])?;
        }
        if let Some(before) = rows.forget_keys_before {
            db.prepare_cached("delete from idempotency_keys where used_at < ?")?.execute([before.unix_ms()])?;
        }
        if !rows.catalog.is_empty() {
            save_catalog(db, &CatalogWrite::of(&rows.catalog))?;
        }
        Ok(())
    }
}

fn add_entries(db: &Connection, entries: &[Entry]) -> Result<()> {
    for portion in several::portions(entries) {
        let of_entry =
            |Entry { order_id, what, .. }: &Entry| (order_id.to_string(), what.at.unix_ms(), detail_text(&what.detail));
        let made: Vec<_> = portion.iter().map(of_entry).collect();
        let values: Vec<&dyn ToSql> = portion
            .iter()
            .zip(&made)
            .flat_map(|(Entry { seq, what, .. }, (order_id, at, detail))| {
                [order_id as &dyn ToSql, seq, at, &what.event_type, &what.service, &what.event_id, detail]
            })
            .collect();
        ENTRY.execute(db, portion.len(), &values)?;
    }
    Ok(())
}

fn mend_entries(db: &Connection, rows: &Rows) -> Result<()> {
    let mut correct = db.prepare_cached(
        "update order_timeline set at = ?, event_type = ?, service = ?, detail = ? where order_id = ? and event_id = ?",
    )?;
    for (id, what) in &rows.corrected_entries {
        let (at, detail) = (what.at.unix_ms(), detail_text(&what.detail));
        correct.execute(params![at, what.event_type, what.service, detail, id.to_string(), what.event_id])?;
    }
    let mut remove = db.prepare_cached("delete from order_timeline where order_id = ? and event_id = ?")?;
    for (id, event_id) in &rows.removed_entries {
        remove.execute(params![id.to_string(), event_id])?;
    }
    Ok(())
}

fn save_orders(db: &Connection, rows: &Rows) -> Result<()> {
    // `replace` is for a row that knew only facts; it has no other table hanging on it.
    let mut insert = db.prepare_cached(concat!(
        "insert or replace into orders (",
        order_columns!(),
        ") values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    ))?;
    // What is fixed when an order is placed stays out, and the status unless it has changed: the indexes are only of rows
    // with certain statuses, so naming it makes SQLite write an order's entries in them anew.
    let mut update = db.prepare_cached("update orders set payment = ?, stock = ?, entries = ? where order_id = ?")?;
    let mut end = db.prepare_cached(
        "update orders set status = ?, cancel_reason = ?, payment = ?, stock = ?, entries = ?, ended_at = ?
         where order_id = ?",
    )?;
    let filled = |id| rows.filled.contains(id);
    let inserted = rows.orders.inserted().chain(rows.orders.updated().filter(|(id, _)| filled(id)));
    for (_, row) in inserted {
        let flat = FlatOrder::of(row);
        insert.execute(params![
            flat.id.to_string(),
            flat.status,
            flat.cancel_reason,
            flat.payment,
            flat.stock,
            flat.entries,
            flat.customer_id,
            flat.total_minor,
            flat.currency,
            flat.items.map(items_text),
            flat.payment_method,
            flat.email,
            flat.phone,
            flat.is_foreign,
            flat.created_at,
            flat.accepted_at,
            flat.deadline_at,
            flat.ended_at,
        ])?;
    }
    for (id, row) in rows.orders.updated().filter(|(id, _)| !filled(id)) {
        let flat = FlatOrder::of(row);
        let (id, has_ended) = (id.to_string(), rows.ended.contains(id));
        match has_ended {
            false => update.execute(params![flat.payment, flat.stock, flat.entries, id])?,
            true => end.execute(params![
                flat.status,
                flat.cancel_reason,
                flat.payment,
                flat.stock,
                flat.entries,
                flat.ended_at,
                id,
            ])?,
        };
    }
    Ok(())
}

fn save_catalog(db: &Connection, write: &CatalogWrite<'_>) -> Result<()> {
    if write.replace {
        db.prepare_cached("delete from catalog_products")?.execute([])?;
    }
    let mut remove = db.prepare_cached("delete from catalog_products where product_id = ?")?;
    for id in &write.remove {
        remove.execute([id.as_str()])?;
    }
    let mut upsert = db.prepare_cached(
        "insert or replace into catalog_products (product_id, name, price_minor, currency, opening_stock)
         values (?, ?, ?, ?, ?)",
    )?;
    for product in &write.put {
        let price = product.unit_price;
        upsert.execute(params![
            product.product_id.as_str(),
            product.name,
            price.minor,
            price.currency.as_str(),
            product.opening_stock
        ])?;
    }
    if let Some(place) = write.place {
        let mut upsert = db.prepare_cached(
            "insert or replace into catalog_place (id, bucket_created_ms, revision, lost_behind) values (1, ?, ?, ?)",
        )?;
        let lost_behind = place.lost_behind.map(|revision| revision as i64);
        upsert.execute(params![place.bucket_created_ms, place.revision as i64, lost_behind])?;
    }
    Ok(())
}
