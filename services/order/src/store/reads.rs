//! Questions the API asks. Each is one statement that reads the same on both backends but for its placeholders.

use contracts::catalog::Product;
use contracts::{CustomerId, OrderId, Timestamp};
use millrace::store::{Database, Pool, StoreError};
use rusqlite::types::Value;
use uuid::Uuid;

use super::rows::{entry, key_row, order_columns, order_row, product};
use crate::domain::{Order, Status};
use crate::model::{CatalogPlace, Entry, KeyRow};

/// Reads beside the writer.
#[derive(Clone)]
pub struct Reads {
    database: Database,
}

/// Which orders a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    pub status: Option<Status>,
    pub customer_id: Option<CustomerId>,
    /// Only what comes behind this.
    pub after: Option<Position>,
    pub limit: u32,
}

/// A place in the list, which shows the newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub accepted_at: Timestamp,
    pub order_id: OrderId,
}

/// A page of orders and where the next one begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub orders: Vec<Order>,
    pub next: Option<Position>,
}

/// What a database knows of what this service has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToldUpTo {
    /// Everything up to this sequence of the stream.
    Sequence(u64),
    /// Everything decided before this moment.
    Time(Timestamp),
    Nothing,
}

/// Lists of values are as long as a multiple of this.
const LIST: usize = 64;

/// A placeholder's value for either backend.
#[derive(Clone)]
enum Param {
    Id(OrderId),
    Int(i64),
    Text(String),
}

/// Runs one statement on whichever backend there is and maps its rows with a function generic over both.
macro_rules! select {
    ($database:expr, $sql:expr, $params:expr, $map:path) => {{
        let sql: String = $sql;
        let params: Vec<Param> = $params;
        match $database.pool() {
            Pool::Sqlite(pool) => {
                let read = move |db: &rusqlite::Connection| -> Result<Vec<_>, StoreError> {
                    let mut select = db.prepare_cached(&sql)?;
                    let values = params.into_iter().map(Value::from);
                    let rows = select.query_map(rusqlite::params_from_iter(values), |row| $map(row))?;
                    Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
                };
                pool.read(read).await
            }
            Pool::Postgres(pool) => {
                let client = pool.get().await?;
                let select = client.prepare_cached(&sql).await?;
                let values: Vec<_> = params.iter().map(Param::postgres).collect();
                let rows = client.query(&select, &values).await?;
                Ok(rows.iter().map($map).collect::<Result<Vec<_>, tokio_postgres::Error>>()?)
            }
        }
    }};
}

impl Reads {
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// An order that is here in full; not one that is known from facts alone.
    pub async fn order(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        let sql = concat!("select ", order_columns!(), " from orders where order_id = $1 and status <> 'unknown'");
        let found: Result<Vec<_>, StoreError> = select!(self.database, sql.to_owned(), vec![Param::Id(id)], order_row);
        Ok(found?.pop().map(|row| row.order))
    }

    /// An order's timeline in the order of the events' own times; entries of one millisecond as they were learnt.
    pub async fn timeline(&self, id: OrderId) -> Result<Vec<Entry>, StoreError> {
        let sql = "select order_id, seq, at, event_type, service, event_id, detail from order_timeline
                   where order_id = $1 order by at, seq";
        select!(self.database, sql.to_owned(), vec![Param::Id(id)], entry)
    }

    /// What was added to an order's timeline behind `seq`, in the order it was learnt.
    pub async fn entries_after(&self, id: OrderId, seq: i64) -> Result<Vec<Entry>, StoreError> {
        let sql = "select order_id, seq, at, event_type, service, event_id, detail from order_timeline
                   where order_id = $1 and seq > $2 order by seq";
        select!(self.database, sql.to_owned(), vec![Param::Id(id), Param::Int(seq)], entry)
    }

    /// Everything on the timelines of these orders.
    pub async fn timelines(&self, ids: &[OrderId]) -> Result<Vec<Entry>, StoreError> {
        let (list, params) = list(ids.iter().map(|id| Param::Id(*id)));
        let sql = format!(
            "select order_id, seq, at, event_type, service, event_id, detail from order_timeline
             where order_id in ({list})"
        );
        select!(self.database, sql, params, entry)
    }

    /// A page of all timelines, order by order, of what comes behind an entry.
    pub async fn entries_behind(&self, id: OrderId, seq: i64, limit: u32) -> Result<Vec<Entry>, StoreError> {
        let sql = "select order_id, seq, at, event_type, service, event_id, detail from order_timeline
                   where (order_id, seq) > ($1, $2) order by order_id, seq limit $3";
        let params = vec![Param::Id(id), Param::Int(seq), Param::Int(i64::from(limit))];
        select!(self.database, sql.to_owned(), params, entry)
    }

    /// Which of these orders are here, be it from facts alone.
    pub async fn known(&self, ids: &[OrderId]) -> Result<Vec<OrderId>, StoreError> {
        let (list, params) = list(ids.iter().map(|id| Param::Id(*id)));
        select!(self.database, format!("select order_id from orders where order_id in ({list})"), params, order_id)
    }

    /// Which of these messages are in the outbox, published or not.
    pub async fn in_outbox(&self, message_ids: &[String]) -> Result<Vec<String>, StoreError> {
        let (list, params) = list(message_ids.iter().map(|id| Param::Text(id.clone())));
        let sql = format!("select message_id from outbox where message_id in ({list})");
        select!(self.database, sql, params, message_id)
    }

    /// Up to where in the stream this database surely knows what this service has told. An event is published after its
    /// commit and before a later one's place is written down, so below any place that stands here nothing is missing.
    pub async fn told_up_to(&self, stream: &str) -> Result<ToldUpTo, StoreError> {
        // Compared in this way SQLite reads from the latest row back, and not all of them.
        let sql = "select stream_seq from outbox where coalesce(stream, '') = $1 order by id desc limit 1";
        let found: Result<Vec<_>, StoreError> =
            select!(self.database, sql.to_owned(), vec![Param::Text(stream.to_owned())], int);
        if let Some(sequence) = found?.pop() {
            return Ok(ToldUpTo::Sequence(sequence.max(0) as u64));
        }
        // Old rows are removed. What was told and is not known here was decided after any end that is known here.
        let sql = "select ended_at from orders where status <> 'unknown' and ended_at is not null
                   order by accepted_at desc, order_id desc limit 1";
        let found: Result<Vec<_>, StoreError> = select!(self.database, sql.to_owned(), vec![], int);
        Ok(found?.pop().map_or(ToldUpTo::Nothing, |ms| ToldUpTo::Time(Timestamp::from_unix_ms(ms))))
    }

    /// A page of the list, newest first.
    pub async fn list(&self, page: &Page) -> Result<Listed, StoreError> {
        let (sql, params) = page.select();
        let found: Result<Vec<_>, StoreError> = select!(self.database, sql, params, order_row);
        let mut orders: Vec<Order> = found?.into_iter().map(|row| row.order).collect();
        // One more than asked for was read, to know whether there is another page.
        let more = orders.len() > page.limit as usize;
        orders.truncate(page.limit as usize);
        let last = orders.last().and_then(|order| {
            let accepted_at = order.placed.as_ref()?.accepted_at;
            Some(Position { accepted_at, order_id: order.id })
        });
        Ok(Listed { orders, next: last.filter(|_| more) })
    }

    /// Orders still processing whose deadline is `now` or earlier, the most overdue first.
    pub async fn overdue(&self, now: Timestamp, limit: u32) -> Result<Vec<OrderId>, StoreError> {
        let sql = "select order_id from orders where status = 'processing' and deadline_at <= $1
                   order by deadline_at limit $2";
        let params = vec![Param::Int(now.unix_ms()), Param::Int(i64::from(limit))];
        select!(self.database, sql.to_owned(), params, order_id)
    }

    /// What an idempotency key was used for.
    pub async fn key(&self, key: &str) -> Result<Option<KeyRow>, StoreError> {
        let sql = "select key, request_hash, order_id, used_at from idempotency_keys where key = $1";
        let found: Result<Vec<_>, StoreError> =
            select!(self.database, sql.to_owned(), vec![Param::Text(key.to_owned())], key_row);
        Ok(found?.pop().map(|(_, row)| row))
    }

    /// The stored copy of the catalog.
    pub async fn catalog(&self) -> Result<Vec<Product>, StoreError> {
        let sql =
            "select product_id, name, price_minor, currency, opening_stock from catalog_products order by product_id";
        select!(self.database, sql.to_owned(), vec![], product)
    }

    /// How far that copy has followed the bucket.
    pub async fn catalog_place(&self) -> Result<Option<CatalogPlace>, StoreError> {
        let sql = "select bucket_created_ms, revision, coalesce(lost_behind, -1) from catalog_place";
        Ok(select!(self.database, sql.to_owned(), vec![], place)?.pop())
    }
}

fn place<R: super::columns::Columns>(row: &R) -> Result<CatalogPlace, R::Error> {
    Ok(CatalogPlace {
        bucket_created_ms: row.int(0)?,
        revision: row.int(1)? as u64,
        lost_behind: u64::try_from(row.int(2)?).ok(),
    })
}

fn order_id<R: super::columns::Columns>(row: &R) -> Result<OrderId, R::Error> {
    row.order_id(0)
}

fn int<R: super::columns::Columns>(row: &R) -> Result<i64, R::Error> {
    row.int(0)
}

fn message_id<R: super::columns::Columns>(row: &R) -> Result<String, R::Error> {
    row.text(0)
}

/// Placeholders for a list of values. There are few lengths of such lists, so that the statements can be kept prepared:
/// the last value is repeated.
fn list(values: impl Iterator<Item = Param>) -> (String, Vec<Param>) {
    let mut params: Vec<Param> = values.collect();
    if let Some(last) = params.last().cloned() {
        params.resize(params.len().next_multiple_of(LIST), last);
    }
    ((1..=params.len()).map(|n| format!("${n}")).collect::<Vec<_>>().join(", "), params)
}

impl Page {
    fn select(&self) -> (String, Vec<Param>) {
        let mut sql = concat!("select ", order_columns!(), " from orders where status <> 'unknown'").to_owned();
        let mut params = Vec::new();
        let mut with = |condition: &str, values: Vec<Param>| {
            let mut condition = condition.to_owned();
            for value in values {
                params.push(value);
                condition = condition.replacen('?', &format!("${}", params.len()), 1);
            }
            sql.push_str(&condition);
        };
        if let Some(status) = self.status {
            with(" and status = ?", vec![Param::Text(status.as_str().to_owned())]);
        }
        if let Some(customer) = &self.customer_id {
            with(" and customer_id = ?", vec![Param::Text(customer.to_string())]);
        }
        if let Some(after) = self.after {
            let place = vec![Param::Int(after.accepted_at.unix_ms()), Param::Id(after.order_id)];
            with(" and (accepted_at, order_id) < (?, ?)", place);
        }
        let limit = vec![Param::Int(i64::from(self.limit) + 1)];
        with(" order by accepted_at desc, order_id desc limit ?", limit);
        (sql, params)
    }
}

impl From<Param> for Value {
    fn from(param: Param) -> Self {
        match param {
            Param::Id(id) => Self::Text(id.to_string()),
            Param::Int(value) => Self::Integer(value),
            Param::Text(text) => Self::Text(text),
        }
    }
}

impl Param {
    fn postgres(&self) -> &(dyn tokio_postgres::types::ToSql + Sync) {
        match self {
            Self::Id(OrderId(id)) => id as &Uuid,
            Self::Int(value) => value,
            Self::Text(text) => text,
        }
    }
}
