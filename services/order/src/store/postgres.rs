//! The model's rows in PostgreSQL, set by set. Several instances may share the database: what is loaded is locked, in
//! the order of the keys.

use deadpool_postgres::Client;
use futures::try_join;
use millrace::store::PostgresModel;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::columns::{detail_text, items_text};
use super::rows::{FlatOrder, key_row, order_columns, order_row};
use crate::model::{CatalogWrite, Intent, Needs, OrderModel, OrderRow, Rows};

impl PostgresModel for OrderModel {
    async fn load(&self, db: &Client, intents: &[&Intent]) -> Result<Rows, Error> {
        let needs = Needs::of(intents);
        let order_ids: Vec<Uuid> = needs.orders.iter().map(|id| id.0).collect();
        let entry_orders: Vec<Uuid> = needs.entries.iter().map(|(id, _)| id.0).collect();
        let entry_events: Vec<&str> = needs.entries.iter().map(|(_, event_id)| *event_id).collect();
        // Sent together and answered in this order: the orders are locked before their timelines are looked at.
        let highest: Vec<Uuid> = needs.highest.iter().map(|id| id.0).collect();
        let (orders, entries, highest, keys) = try_join!(
            query(
                db,
                order_ids.is_empty(),
                concat!(
                    "select ",
                    order_columns!(),
                    " from orders where order_id = any($1) order by order_id for update"
                ),
                [&order_ids],
            ),
            query(
                db,
                entry_orders.is_empty(),
                "select t.order_id, t.event_id from unnest($1::uuid[], $2::text[]) as asked (order_id, event_id)
                 join order_timeline t using (order_id, event_id)",
                [&entry_orders, &entry_events],
            ),
            query(
                db,
                highest.is_empty(),
                "select order_id, max(seq) from order_timeline where order_id = any($1) group by order_id",
                [&highest],
            ),
            query(
                db,
                needs.keys.is_empty(),
                "select key, request_hash, order_id, used_at from idempotency_keys where key = any($1)
                 order by key for update",
                [&needs.keys],
            ),
        )?;
        let mut rows = Rows::default();
        for row in &orders {
            let row = order_row(row)?;
            rows.orders.loaded(row.order.id, row);
        }
        for row in &entries {
            rows.known_entries.insert((contracts::OrderId(row.try_get(0)?), row.try_get(1)?));
        }
        for row in &highest {
            rows.highest.insert(contracts::OrderId(row.try_get(0)?), row.try_get(1)?);
        }
        for row in &keys {
            let (key, row) = key_row(row)?;
            rows.keys.loaded(key, row);
        }
        Ok(rows)
    }

    async fn save(&self, db: &Client, rows: &Rows) -> Result<(), Error> {
        let (filled, changed): (Vec<_>, Vec<_>) = rows.orders.updated().partition(|(id, _)| rows.filled.contains(id));
        try_join!(
            insert_orders(db, rows.orders.inserted().map(|(_, row)| row)),
            fill_orders(db, filled.into_iter().map(|(_, row)| row)),
            update_orders(db, changed.into_iter().map(|(_, row)| row)),
            insert_entries(db, rows),
            correct_entries(db, rows),
            remove_entries(db, rows),
            save_keys(db, rows),
            save_catalog(db, rows),
        )
        .map(|_| ())
    }
}

type Params<'a, const N: usize> = [&'a (dyn ToSql + Sync); N];

async fn query<const N: usize>(db: &Client, skip: bool, sql: &str, params: Params<'_, N>) -> Result<Vec<Row>, Error> {
    if skip {
        return Ok(Vec::new());
    }
    db.query(&db.prepare_cached(sql).await?, &params).await
}

async fn execute<const N: usize>(db: &Client, skip: bool, sql: &str, params: Params<'_, N>) -> Result<(), Error> {
    if !skip {
        db.execute(&db.prepare_cached(sql).await?, &params).await?;
    }
    Ok(())
}

/// One array per column of `orders`.
struct Arrays<'a>(Vec<FlatOrder<'a>>);

impl<'a> Arrays<'a> {
    fn of(rows: impl Iterator<Item = &'a OrderRow>) -> Self {
        let mut flat: Vec<FlatOrder<'a>> = rows.map(FlatOrder::of).collect();
        // In one order everywhere: two instances that insert the same orders must not wait for each other in a circle.
        flat.sort_unstable_by_key(|row| row.id);
        Self(flat)
    }

    fn column<T>(&self, value: impl Fn(&FlatOrder<'a>) -> T) -> Vec<T> {
        self.0.iter().map(value).collect()
    }

    async fn execute(&self, db: &Client, sql: &str) -> Result<(), Error> {
        let params: Params<'_, 18> = [
            &self.column(|row| row.id.0),
            &self.column(|row| row.status),
            &self.column(|row| row.cancel_reason),
            &self.column(|row| row.payment),
            &self.column(|row| row.stock),
            &self.column(|row| row.entries),
            &self.column(|row| row.customer_id),
            &self.column(|row| row.total_minor),
            &self.column(|row| row.currency),
            &self.column(|row| row.items.map(items_text)),
            &self.column(|row| row.payment_method),
            &self.column(|row| row.email),
            &self.column(|row| row.phone),
            &self.column(|row| row.is_foreign),
            &self.column(|row| row.created_at),
            &self.column(|row| row.accepted_at),
            &self.column(|row| row.deadline_at),
            &self.column(|row| row.ended_at),
        ];
        execute(db, self.0.is_empty(), sql, params).await
    }
}

/// The arrays of [`Arrays`] as a table `t`.
macro_rules! all_arrays {
    () => {
        "unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::bigint[], \
         $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::boolean[], $15::bigint[], \
         $16::bigint[], $17::bigint[], $18::bigint[])"
    };
}

async fn insert_orders<'a>(db: &Client, rows: impl Iterator<Item = &'a OrderRow>) -> Result<(), Error> {
    let sql = concat!("insert into orders (", order_columns!(), ") select * from ", all_arrays!());
    Arrays::of(rows).execute(db, sql).await
}

/// Orders that were known only from facts.
async fn fill_orders<'a>(db: &Client, rows: impl Iterator<Item = &'a OrderRow>) -> Result<(), Error> {
    let sql = concat!(
        "update orders o set (",
        order_columns!(),
        ") = row(t.*) from (select * from ",
        all_arrays!(),
        " as t (",
        order_columns!(),
        ")) as t where o.order_id = t.order_id"
    );
    Arrays::of(rows).execute(db, sql).await
}

/// Everything that changes after an order was placed.
async fn update_orders<'a>(db: &Client, rows: impl Iterator<Item = &'a OrderRow>) -> Result<(), Error> {
    let all = Arrays::of(rows);
    let sql = "update orders o set status = t.status, cancel_reason = t.cancel_reason, payment = t.payment,
                   stock = t.stock, entries = t.entries, ended_at = t.ended_at
               from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[])
                   as t (order_id, status, cancel_reason, payment, stock, entries, ended_at)
               where o.order_id = t.order_id";
    let params: Params<'_, 7> = [
        &all.column(|row| row.id.0),
        &all.column(|row| row.status),
        &all.column(|row| row.cancel_reason),
        &all.column(|row| row.payment),
        &all.column(|row| row.stock),
        &all.column(|row| row.entries),
        &all.column(|row| row.ended_at),
    ];
    execute(db, all.0.is_empty(), sql, params).await
}

async fn insert_entries(db: &Client, rows: &Rows) -> Result<(), Error> {
    let new = &rows.new_entries;
    let details: Vec<String> = new.iter().map(|entry| detail_text(&entry.what.detail)).collect();
    let sql = "insert into order_timeline (order_id, seq, at, event_type, service, event_id, detail)
               select * from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[])";
    let params: Params<'_, 7> = [
        &new.iter().map(|entry| entry.order_id.0).collect::<Vec<_>>(),
        &new.iter().map(|entry| entry.seq).collect::<Vec<_>>(),
        &new.iter().map(|entry| entry.what.at.unix_ms()).collect::<Vec<_>>(),
        &new.iter().map(|entry| entry.what.event_type.as_str()).collect::<Vec<_>>(),
        &new.iter().map(|entry| entry.what.service.as_str()).collect::<Vec<_>>(),
        &new.iter().map(|entry| entry.what.event_id.as_str()).collect::<Vec<_>>(),
        &details,
    ];
    execute(db, new.is_empty(), sql, params).await
}

async fn correct_entries(db: &Client, rows: &Rows) -> Result<(), Error> {
    let corrected = &rows.corrected_entries;
    let details: Vec<String> = corrected.iter().map(|(_, what)| detail_text(&what.detail)).collect();
    let sql = "update order_timeline o set at = t.at, event_type = t.event_type, service = t.service, detail = t.detail
               from unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[])
                   as t (order_id, event_id, at, event_type, service, detail)
               where o.order_id = t.order_id and o.event_id = t.event_id";
    let params: Params<'_, 6> = [
        &corrected.iter().map(|(id, _)| id.0).collect::<Vec<_>>(),
        &corrected.iter().map(|(_, what)| what.event_id.as_str()).collect::<Vec<_>>(),
        &corrected.iter().map(|(_, what)| what.at.unix_ms()).collect::<Vec<_>>(),
        &corrected.iter().map(|(_, what)| what.event_type.as_str()).collect::<Vec<_>>(),
        &corrected.iter().map(|(_, what)| what.service.as_str()).collect::<Vec<_>>(),
        &details,
    ];
    execute(db, corrected.is_empty(), sql, params).await
}

async fn remove_entries(db: &Client, rows: &Rows) -> Result<(), Error> {
    let removed = &rows.removed_entries;
    let sql = "delete from order_timeline o using unnest($1::uuid[], $2::text[]) as t (order_id, event_id)
               where o.order_id = t.order_id and o.event_id = t.event_id";
    let params: Params<'_, 2> = [
        &removed.iter().map(|(id, _)| id.0).collect::<Vec<_>>(),
        &removed.iter().map(|(_, event_id)| event_id.as_str()).collect::<Vec<_>>(),
    ];
    execute(db, removed.is_empty(), sql, params).await
}

async fn save_keys(db: &Client, rows: &Rows) -> Result<(), Error> {
    /// Without `on conflict`: a key that another instance used meanwhile has to be decided again.
    const INSERT: &str = "insert into idempotency_keys (key, request_hash, order_id, used_at)
         select * from unnest($1::text[], $2::text[], $3::uuid[], $4::bigint[])";
    const UPDATE: &str =
        "update idempotency_keys k set request_hash = t.request_hash, order_id = t.order_id, used_at = t.used_at
         from unnest($1::text[], $2::text[], $3::uuid[], $4::bigint[]) as t (key, request_hash, order_id, used_at)
         where k.key = t.key";
    let mut inserted: Vec<_> = rows.keys.inserted().collect();
    inserted.sort_unstable_by_key(|(key, _)| *key);
    let updated: Vec<_> = rows.keys.updated().collect();
    for (sql, rows) in [(INSERT, inserted), (UPDATE, updated)] {
        let params: Params<'_, 4> = [
            &rows.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(),
            &rows.iter().map(|(_, row)| row.request_hash.as_str()).collect::<Vec<_>>(),
            &rows.iter().map(|(_, row)| row.order_id.0).collect::<Vec<_>>(),
            &rows.iter().map(|(_, row)| row.used_at.unix_ms()).collect::<Vec<_>>(),
        ];
        execute(db, rows.is_empty(), sql, params).await?;
    }
    if let Some(before) = rows.forget_keys_before {
        execute(db, false, "delete from idempotency_keys where used_at < $1", [&before.unix_ms()]).await?;
    }
    Ok(())
}

/// Every instance sees the same changes in the same order and writes them all, so the last one to write is right.
async fn save_catalog(db: &Client, rows: &Rows) -> Result<(), Error> {
    if rows.catalog.is_empty() {
        return Ok(());
    }
    let CatalogWrite { replace, put, remove, place } = CatalogWrite::of(&rows.catalog);
    let kept: Vec<&str> = put.iter().map(|product| product.product_id.as_str()).collect();
    let removed: Vec<&str> = remove.iter().map(|id| id.as_str()).collect();
    execute(db, !replace, "delete from catalog_products where product_id <> all($1)", [&kept]).await?;
    execute(db, removed.is_empty(), "delete from catalog_products where product_id = any($1)", [&removed]).await?;
    let sql = "insert into catalog_products (product_id, name, price_minor, currency, opening_stock)
               select * from unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::bigint[])
               on conflict (product_id) do update set name = excluded.name, price_minor = excluded.price_minor,
                   currency = excluded.currency, opening_stock = excluded.opening_stock";
    let params: Params<'_, 5> = [
        &kept,
        &put.iter().map(|product| product.name.as_str()).collect::<Vec<_>>(),
        &put.iter().map(|product| product.unit_price.minor).collect::<Vec<_>>(),
        &put.iter().map(|product| product.unit_price.currency.to_string()).collect::<Vec<_>>(),
        &put.iter().map(|product| i64::from(product.opening_stock)).collect::<Vec<_>>(),
    ];
    execute(db, put.is_empty(), sql, params).await?;
    let Some(place) = place else { return Ok(()) };
    let sql = "insert into catalog_place (id, bucket_created_ms, revision, lost_behind) values (1, $1, $2, $3)
               on conflict (id) do update set bucket_created_ms = excluded.bucket_created_ms,
                   revision = excluded.revision, lost_behind = excluded.lost_behind";
    let lost_behind = place.lost_behind.map(|revision| revision as i64);
    execute(db, false, sql, [&place.bucket_created_ms, &(place.revision as i64), &lost_behind]).await
}
