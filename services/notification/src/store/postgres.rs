use contracts::OrderId;
use contracts::notifications::Channel;
use deadpool_postgres::Client;
use millrace::store::PostgresModel;
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::columns::{Parsed, PlacedColumns, items_text};
use crate::domain::{Delivery, Facts};
use crate::model::{DeliveryKey, Intent, NotificationModel, OrderRow, Rows, orders_of};

const SELECT_DELIVERIES: &str = "select order_id, notice, channel, status, attempts, due_since, next_attempt_at, detail
     from deliveries where order_id = any($1)";

impl PostgresModel for NotificationModel {
    /// Locks the orders in key order; whoever has an order's lock has its deliveries, so those need none.
    async fn load(&self, db: &Client, intents: &[&Intent]) -> Result<Rows, Error> {
        let ids: Vec<Uuid> = orders_of(intents).into_iter().map(|id| id.0).collect();
        let mut rows = Rows::default();
        let select = db
            .prepare_cached(
                "select order_id, correlation_id, email, phone, total_minor, currency, items, confirmed, cancelled
                 from orders where order_id = any($1) order by order_id for update",
            )
            .await?;
        for row in db.query(&select, &[&ids]).await? {
            rows.orders.loaded(OrderId(row.try_get(0)?), read_order(&row)?);
        }
        let select = db.prepare_cached(SELECT_DELIVERIES).await?;
        for row in db.query(&select, &[&ids]).await? {
            let (key, delivery) = read_delivery(&row)?;
            rows.deliveries.loaded(key, delivery);
        }
        Ok(rows)
    }

    async fn save(&self, db: &Client, rows: &Rows) -> Result<(), Error> {
        // By itself, because deliveries refer to it.
        insert_orders(db, rows).await?;
        futures::try_join!(update_orders(db, rows), insert_deliveries(db, rows), update_deliveries(db, rows))?;
        Ok(())
    }
}

async fn insert_orders(db: &Client, rows: &Rows) -> Result<(), Error> {
    const INSERT: &str = "insert into orders
            (order_id, correlation_id, email, phone, total_minor, currency, items, confirmed, cancelled)
        select * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[],
            $8::boolean[], $9::text[])";
    write_orders(db, INSERT, rows.orders.inserted().collect()).await
}

async fn update_orders(db: &Client, rows: &Rows) -> Result<(), Error> {
    const UPDATE: &str = "update orders set correlation_id = t.correlation_id, email = t.email, phone = t.phone,
            total_minor = t.total_minor, currency = t.currency, items = t.items, confirmed = t.confirmed,
            cancelled = t.cancelled
        from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[], $8::boolean[],
            $9::text[])
            as t (order_id, correlation_id, email, phone, total_minor, currency, items, confirmed, cancelled)
        where orders.order_id = t.order_id";
    write_orders(db, UPDATE, rows.orders.updated().collect()).await
}

async fn write_orders(db: &Client, sql: &str, mut rows: Vec<(&OrderId, &OrderRow)>) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    // Inserts that collide with another instance's wait for it; in key order they cannot wait for each other.
    rows.sort_unstable_by_key(|(id, _)| *id);
    let statement = db.prepare_cached(sql).await?;
    let ids: Vec<Uuid> = rows.iter().map(|(id, _)| id.0).collect();
    let correlations: Vec<&str> = rows.iter().map(|(_, row)| row.correlation_id.as_str()).collect();
    let placed: Vec<_> = rows.iter().map(|(_, row)| row.facts.placed.as_ref()).collect();
    let emails: Vec<_> = placed.iter().map(|p| p.and_then(|p| p.email.as_deref())).collect();
    let phones: Vec<_> = placed.iter().map(|p| p.and_then(|p| p.phone.as_deref())).collect();
    let totals: Vec<_> = placed.iter().map(|p| p.map(|p| p.total.minor)).collect();
    let currencies: Vec<_> = placed.iter().map(|p| p.map(|p| p.total.currency.as_str())).collect();
    let items: Vec<_> = placed.iter().map(|p| p.map(|p| items_text(&p.items))).collect();
    let confirmed: Vec<bool> = rows.iter().map(|(_, row)| row.facts.confirmed).collect();
    let cancelled: Vec<_> = rows.iter().map(|(_, row)| row.facts.cancelled.map(|reason| reason.as_str())).collect();
    db.execute(
        &statement,
        &[&ids, &correlations, &emails, &phones, &totals, &currencies, &items, &confirmed, &cancelled],
    )
    .await?;
    Ok(())
}

async fn insert_deliveries(db: &Client, rows: &Rows) -> Result<(), Error> {
    const INSERT: &str = "insert into deliveries
            (order_id, notice, channel, status, attempts, due_since, next_attempt_at, detail)
        select * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[],
            $8::text[])";
    write_deliveries(db, INSERT, rows.deliveries.inserted().collect()).await
}

async fn update_deliveries(db: &Client, rows: &Rows) -> Result<(), Error> {
    const UPDATE: &str = "update deliveries set status = t.status, attempts = t.attempts, due_since = t.due_since,
            next_attempt_at = t.next_attempt_at, detail = t.detail
        from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[])
            as t (order_id, notice, channel, status, attempts, due_since, next_attempt_at, detail)
        where deliveries.order_id = t.order_id and deliveries.notice = t.notice and deliveries.channel = t.channel";
    write_deliveries(db, UPDATE, rows.deliveries.updated().collect()).await
}

async fn write_deliveries(db: &Client, sql: &str, rows: Vec<(&DeliveryKey, &Delivery)>) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let statement = db.prepare_cached(sql).await?;
    let ids: Vec<Uuid> = rows.iter().map(|((id, _, _), _)| id.0).collect();
    let notices: Vec<&str> = rows.iter().map(|((_, notice, _), _)| notice.as_str()).collect();
    let channels: Vec<&str> = rows.iter().map(|((_, _, channel), _)| channel.as_str()).collect();
    let statuses: Vec<&str> = rows.iter().map(|(_, row)| row.status.as_str()).collect();
    let attempts: Vec<i64> = rows.iter().map(|(_, row)| i64::from(row.attempts)).collect();
    let since: Vec<i64> = rows.iter().map(|(_, row)| row.due_since).collect();
    let next: Vec<i64> = rows.iter().map(|(_, row)| row.next_attempt_at).collect();
    let details: Vec<Option<&str>> = rows.iter().map(|(_, row)| row.detail.as_deref()).collect();
    db.execute(&statement, &[&ids, &notices, &channels, &statuses, &attempts, &since, &next, &details]).await?;
    Ok(())
}

/// A text column whose value is read into a type of the domain.
struct Column<T>(T);

impl<'a, T: Parsed> FromSql<'a> for Column<T> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(T::parsed(std::str::from_utf8(raw)?)?))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TEXT
    }
}

fn parsed<T: Parsed>(row: &Row, column: usize) -> Result<T, Error> {
    row.try_get(column).map(|Column(value)| value)
}

fn parsed_if_set<T: Parsed>(row: &Row, column: usize) -> Result<Option<T>, Error> {
    Ok(row.try_get::<_, Option<Column<T>>>(column)?.map(|Column(value)| value))
}

fn read_order(row: &Row) -> Result<OrderRow, Error> {
    let placed = PlacedColumns {
        email: row.try_get(2)?,
        phone: row.try_get(3)?,
        total_minor: row.try_get(4)?,
        currency: parsed_if_set(row, 5)?,
        items: parsed_if_set(row, 6)?,
    };
    let facts = Facts { placed: placed.into(), confirmed: row.try_get(7)?, cancelled: parsed_if_set(row, 8)? };
    Ok(OrderRow { facts, correlation_id: row.try_get(1)? })
}

fn read_delivery(row: &Row) -> Result<(DeliveryKey, Delivery), Error> {
    let delivery = Delivery {
        status: parsed(row, 3)?,
        attempts: u32::try_from(row.try_get::<_, i64>(4)?).unwrap_or(u32::MAX),
        due_since: row.try_get(5)?,
        next_attempt_at: row.try_get(6)?,
        detail: row.try_get(7)?,
    };
    Ok(((OrderId(row.try_get(0)?), parsed(row, 1)?, parsed(row, 2)?), delivery))
}

/// Orders with something to send over this channel by `now_ms`, the longest waiting first.
pub(super) async fn due(db: &Client, channel: Channel, now_ms: i64, limit: i64) -> Result<Vec<OrderId>, Error> {
    let select = db
        .prepare_cached(
            "select distinct order_id from
                 (select order_id from deliveries where status = 'due' and next_attempt_at <= $2 and channel = $1
                  order by next_attempt_at limit $3) as longest_waiting",
        )
        .await?;
    let rows = db.query(&select, &[&channel.as_str(), &now_ms, &limit]).await?;
    rows.iter().map(|row| row.try_get(0).map(OrderId)).collect()
}

pub(super) async fn due_count(db: &Client) -> Result<i64, Error> {
    let select = db.prepare_cached("select count(*) from deliveries where status = 'due'").await?;
    db.query_one(&select, &[]).await?.try_get(0)
}

pub(super) async fn deliveries(db: &Client, order_id: OrderId) -> Result<Vec<(DeliveryKey, Delivery)>, Error> {
    let select = db.prepare_cached(SELECT_DELIVERIES).await?;
    let rows = db.query(&select, &[&vec![order_id.0]]).await?;
    rows.iter().map(read_delivery).collect()
}
