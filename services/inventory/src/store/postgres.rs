use contracts::api::StockLevel;
use contracts::{OrderId, ProductId};
use deadpool_postgres::Client;
use millrace::store::{PostgresModel, Table};
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::{Parsed, items_text};
use crate::domain::{Adjustment, Reservation, Stock};
use crate::model::{AdjustmentRow, Intent, InventoryModel, Keys, ReservationRow, Rows, level};

impl PostgresModel for InventoryModel {
    /// Locks first the reservations, then the stock, each in key order: instances that want the same hot products wait
    /// in line instead of in a circle.
    async fn load(&self, db: &Client, intents: &[&Intent]) -> Result<Rows, Error> {
        let mut keys = Keys::of(intents);
        let reservations = load_reservations(db, &keys).await?;
        keys.add_held(&reservations);
        let (stock, adjustments) = futures::try_join!(load_stock(db, &keys), load_adjustments(db, &keys))?;
        Ok(Rows { stock, reservations, adjustments })
    }

    async fn save(&self, db: &Client, rows: &Rows) -> Result<(), Error> {
        // By itself, because adjustments refer to it; almost always there is nothing to insert.
        insert_stock(db, rows).await?;
        futures::try_join!(
            update_stock(db, rows),
            insert_reservations(db, rows),
            update_reservations(db, rows),
            insert_adjustments(db, rows),
        )?;
        Ok(())
    }
}

async fn load_reservations(db: &Client, keys: &Keys) -> Result<Table<OrderId, ReservationRow>, Error> {
    let mut table = Table::default();
    if keys.orders.is_empty() {
        return Ok(table);
    }
    let select = db
        .prepare_cached(
            "select order_id, status, items, changed_at from reservations where order_id = any($1)
             order by order_id for update",
        )
        .await?;
    let ids: Vec<Uuid> = keys.orders.iter().map(|id| id.0).collect();
    for row in db.query(&select, &[&ids]).await? {
        table.loaded(OrderId(row.try_get(0)?), read_reservation(&row)?);
    }
    Ok(table)
}

async fn load_stock(db: &Client, keys: &Keys) -> Result<Table<ProductId, Stock>, Error> {
    let mut table = Table::default();
    if keys.products.is_empty() {
        return Ok(table);
    }
    let select = db
        .prepare_cached(
            "select product_id, available, reserved, committed from stock where product_id = any($1)
             order by product_id for update",
        )
        .await?;
    let ids: Vec<&str> = keys.products.iter().map(ProductId::as_str).collect();
    for row in db.query(&select, &[&ids]).await? {
        table.loaded(product(&row, 0)?, read_stock(&row, 1)?);
    }
    Ok(table)
}

async fn load_adjustments(db: &Client, keys: &Keys) -> Result<Table<Uuid, AdjustmentRow>, Error> {
    let mut table = Table::default();
    if keys.adjustments.is_empty() {
        return Ok(table);
    }
    // Never changed once made, so not locked.
    let select = db
        .prepare_cached(
            "select adjustment_id, product_id, delta, reason, made_at from stock_adjustments
             where adjustment_id = any($1)",
        )
        .await?;
    let ids: Vec<Uuid> = keys.adjustments.iter().copied().collect();
    for row in db.query(&select, &[&ids]).await? {
        let adjustment = Adjustment { product_id: product(&row, 1)?, delta: row.try_get(2)?, reason: row.try_get(3)? };
        table.loaded(row.try_get(0)?, AdjustmentRow { adjustment, made_at: row.try_get(4)? });
    }
    Ok(table)
}

async fn insert_stock(db: &Client, rows: &Rows) -> Result<(), Error> {
    const INSERT: &str = "insert into stock (product_id, available, reserved, committed)
        select * from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[])";
    write_stock(db, INSERT, rows.stock.inserted().collect()).await
}

async fn update_stock(db: &Client, rows: &Rows) -> Result<(), Error> {
    const UPDATE: &str = "update stock set available = t.available, reserved = t.reserved, committed = t.committed
        from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) as t (product_id, available, reserved, committed)
        where stock.product_id = t.product_id";
    write_stock(db, UPDATE, rows.stock.updated().collect()).await
}

async fn write_stock(db: &Client, sql: &str, mut rows: Vec<(&ProductId, &Stock)>) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    // Inserts that collide with another instance's wait for it; in key order they cannot wait for each other.
    rows.sort_unstable_by_key(|(id, _)| *id);
    let statement = db.prepare_cached(sql).await?;
    let ids: Vec<&str> = rows.iter().map(|(id, _)| id.as_str()).collect();
    let count = |of: fn(&Stock) -> i64| -> Vec<i64> { rows.iter().map(|(_, stock)| of(stock)).collect() };
    let (available, reserved, committed) = (count(|s| s.available), count(|s| s.reserved), count(|s| s.committed));
    db.execute(&statement, &[&ids, &available, &reserved, &committed]).await?;
    Ok(())
}

async fn insert_reservations(db: &Client, rows: &Rows) -> Result<(), Error> {
    const INSERT: &str = "insert into reservations (order_id, status, items, changed_at)
        select * from unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[])";
    write_reservations(db, INSERT, rows.reservations.inserted().collect()).await
}

async fn update_reservations(db: &Client, rows: &Rows) -> Result<(), Error> {
    const UPDATE: &str = "update reservations set status = t.status, items = t.items, changed_at = t.changed_at
        from unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[]) as t (order_id, status, items, changed_at)
        where reservations.order_id = t.order_id";
    write_reservations(db, UPDATE, rows.reservations.updated().collect()).await
}

async fn write_reservations(db: &Client, sql: &str, mut rows: Vec<(&OrderId, &ReservationRow)>) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    rows.sort_unstable_by_key(|(id, _)| *id);
    let statement = db.prepare_cached(sql).await?;
    let ids: Vec<Uuid> = rows.iter().map(|(id, _)| id.0).collect();
    let statuses: Vec<&str> = rows.iter().map(|(_, row)| row.reservation.status.as_str()).collect();
    let items: Vec<String> = rows.iter().map(|(_, row)| items_text(&row.reservation.items)).collect();
    let changed: Vec<i64> = rows.iter().map(|(_, row)| row.changed_at).collect();
    db.execute(&statement, &[&ids, &statuses, &items, &changed]).await?;
    Ok(())
}

async fn insert_adjustments(db: &Client, rows: &Rows) -> Result<(), Error> {
    let mut new: Vec<(&Uuid, &AdjustmentRow)> = rows.adjustments.inserted().collect();
    if new.is_empty() {
        return Ok(());
    }
    new.sort_unstable_by_key(|(id, _)| *id);
    let insert = db
        .prepare_cached(
            "insert into stock_adjustments (adjustment_id, product_id, delta, reason, made_at)
             select * from unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::bigint[])",
        )
        .await?;
    let ids: Vec<Uuid> = new.iter().map(|(id, _)| **id).collect();
    let products: Vec<&str> = new.iter().map(|(_, row)| row.adjustment.product_id.as_str()).collect();
    let deltas: Vec<i64> = new.iter().map(|(_, row)| row.adjustment.delta).collect();
    let reasons: Vec<&str> = new.iter().map(|(_, row)| row.adjustment.reason.as_str()).collect();
    let made: Vec<i64> = new.iter().map(|(_, row)| row.made_at).collect();
    db.execute(&insert, &[&ids, &products, &deltas, &reasons, &made]).await?;
    Ok(())
}

impl<'a, T: Parsed> FromSql<'a> for Column<T> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(T::parsed(std::str::from_utf8(raw)?)?))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TEXT
    }
}

/// A text column whose value is read into a type of the domain.
struct Column<T>(T);

fn read_reservation(row: &Row) -> Result<ReservationRow, Error> {
    let (Column(status), Column(items)) = (row.try_get(1)?, row.try_get(2)?);
    Ok(ReservationRow { reservation: Reservation { status, items }, changed_at: row.try_get(3)? })
}

fn product(row: &Row, column: usize) -> Result<ProductId, Error> {
    row.try_get(column).map(|Column(id)| id)
}

/// The three counts, from column `first` on.
fn read_stock(row: &Row, first: usize) -> Result<Stock, Error> {
    Ok(Stock { available: row.try_get(first)?, reserved: row.try_get(first + 1)?, committed: row.try_get(first + 2)? })
}

/// An order's reservation, for reading.
pub(super) async fn reservation(db: &Client, order_id: OrderId) -> Result<Option<ReservationRow>, Error> {
    let select =
        db.prepare_cached("select order_id, status, items, changed_at from reservations where order_id = $1").await?;
    db.query_opt(&select, &[&order_id.0]).await?.as_ref().map(read_reservation).transpose()
}

/// Stock levels of up to `limit` products, or of one.
pub(super) async fn levels(db: &Client, only: Option<&str>, limit: i64) -> Result<Vec<StockLevel>, Error> {
    let select = db
        .prepare_cached(
            "select product_id, available, reserved, committed from stock
             where $1::text is null or product_id = $1 order by product_id limit $2",
        )
        .await?;
    let rows = db.query(&select, &[&only, &limit]).await?;
    rows.iter().map(|row| Ok(level(product(row, 0)?, read_stock(row, 1)?))).collect()
}
