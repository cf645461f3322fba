use contracts::OrderId;
use deadpool_postgres::Client;
use millrace::store::PostgresModel;
use tokio_postgres::Error;
use uuid::Uuid;

use super::columns::{columns, read};
use crate::domain::{Charge, Refusal};
use crate::model::{Intent, PaymentModel, Row, Rows, orders_of};

const INSERT: &str = concat!(
    "insert into payments (",
    columns!(),
    ") select * from unnest($1::uuid[], $2::text[], $3::boolean[], $4::boolean[], $5::bigint[], $6::text[], $7::text[],
        $8::text[], $9::text[], $10::text[], $11::bigint[], $12::bigint[], $13::text[], $14::text[], $15::bigint[],
        $16::bigint[])"
);

const UPDATE: &str = concat!(
    "update payments set state = t.state, confirmed = t.confirmed, cancelled = t.cancelled,
        amount_minor = t.amount_minor, currency = t.currency, payment_method = t.payment_method,
        payment_id = t.payment_id, refusal_code = t.refusal_code, refusal_message = t.refusal_message,
        due_at = t.due_at, attempts = t.attempts, last_problem = t.last_problem, updated_at = t.updated_at
    from unnest($1::uuid[], $2::text[], $3::boolean[], $4::boolean[], $5::bigint[], $6::text[], $7::text[],
        $8::text[], $9::text[], $10::text[], $11::bigint[], $12::bigint[], $13::text[], $14::text[], $15::bigint[],
        $16::bigint[]) as t (",
    columns!(),
    ") where payments.order_id = t.order_id"
);

/// In the words of the partial index that holds nothing else.
macro_rules! needs_operator {
    () => {
        "state in ('authorize_unknown', 'capture_failed', 'void_failed', 'refund_failed')"
    };
}

impl PostgresModel for PaymentModel {
    async fn load(&self, db: &Client, intents: &[&Intent]) -> Result<Rows, Error> {
        let select = db
            .prepare_cached(concat!(
                "select ",
                columns!(),
                " from payments where order_id = any($1) order by order_id for update"
            ))
            .await?;
        let ids: Vec<Uuid> = orders_of(intents).into_iter().map(|id| id.0).collect();
        let mut rows = Rows::default();
        for row in db.query(&select, &[&ids]).await? {
            let row = read(&row)?;
            rows.payments.loaded(row.payment.order_id, row);
        }
        Ok(rows)
    }

    async fn save(&self, db: &Client, rows: &Rows) -> Result<(), Error> {
        futures::try_join!(
            write(db, INSERT, rows.payments.inserted().map(|(_, row)| row).collect()),
            write(db, UPDATE, rows.payments.updated().map(|(_, row)| row).collect()),
        )?;
        Ok(())
    }
}

async fn write(db: &Client, sql: &str, mut rows: Vec<&Row>) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    // Inserts that collide with another instance's wait for it; in key order they cannot wait for each other.
    rows.sort_unstable_by_key(|row| row.payment.order_id);
    let statement = db.prepare_cached(sql).await?;
    let order_ids: Vec<Uuid> = rows.iter().map(|row| row.payment.order_id.0).collect();
    let states: Vec<&str> = rows.iter().map(|row| row.payment.state.as_str()).collect();
    let confirmed: Vec<bool> = rows.iter().map(|row| row.payment.confirmed).collect();
    let cancelled: Vec<bool> = rows.iter().map(|row| row.payment.cancelled).collect();
    let charges: Vec<Option<&Charge>> = rows.iter().map(|row| row.payment.charge.as_ref()).collect();
    let minors: Vec<Option<i64>> = charges.iter().map(|c| c.map(|c| c.amount.minor)).collect();
    let currencies: Vec<Option<&str>> = charges.iter().map(|c| c.map(|c| c.amount.currency.as_str())).collect();
    let methods: Vec<Option<&str>> = charges.iter().map(|c| c.map(|c| c.payment_method.as_str())).collect();
    let payment_ids: Vec<Option<&str>> = rows.iter().map(|row| row.payment.payment_id.as_deref()).collect();
    let refusals: Vec<Option<&Refusal>> = rows.iter().map(|row| row.payment.refusal.as_ref()).collect();
    let codes: Vec<Option<&str>> = refusals.iter().map(|r| r.map(|r| r.code.as_str())).collect();
    let messages: Vec<Option<&str>> = refusals.iter().map(|r| r.map(|r| r.message.as_str())).collect();
    let due: Vec<Option<i64>> = rows.iter().map(|row| row.due_at).collect();
    let attempts: Vec<i64> = rows.iter().map(|row| i64::from(row.attempts)).collect();
    let problems: Vec<Option<&str>> = rows.iter().map(|row| row.last_problem.as_deref()).collect();
    let correlations: Vec<&str> = rows.iter().map(|row| row.correlation_id.as_str()).collect();
    let created: Vec<i64> = rows.iter().map(|row| row.created_at).collect();
    let updated: Vec<i64> = rows.iter().map(|row| row.updated_at).collect();
    db.execute(
        &statement,
        &[
            &order_ids,
            &states,
            &confirmed,
            &cancelled,
            &minors,
            &currencies,
            &methods,
            &payment_ids,
            &codes,
            &messages,
            &due,
            &attempts,
            &problems,
            &correlations,
            &created,
            &updated,
        ],
    )
    .await?;
    Ok(())
}

pub(super) async fn get(db: &Client, order_id: OrderId) -> Result<Option<Row>, Error> {
    let select = db.prepare_cached(concat!("select ", columns!(), " from payments where order_id = $1")).await?;
    db.query_opt(&select, &[&order_id.0]).await?.as_ref().map(read).transpose()
}

pub(super) async fn due(db: &Client, at_ms: i64, limit: u32) -> Result<Vec<Row>, Error> {
    let select = db
        .prepare_cached(concat!("select ", columns!(), " from payments where due_at <= $1 order by due_at limit $2"))
        .await?;
    db.query(&select, &[&at_ms, &i64::from(limit)]).await?.iter().map(read).collect()
}

/// See the same in `sqlite.rs`.
pub(super) async fn due_ids(db: &Client, at_ms: i64, limit: u32) -> Result<Vec<(String, String)>, Error> {
    let select = db
        .prepare_cached(
            "select order_id::text, correlation_id from payments where due_at <= $1 order by due_at limit $2",
        )
        .await?;
    let rows = db.query(&select, &[&at_ms, &i64::from(limit)]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

pub(super) async fn count_needing_operator(db: &Client) -> Result<i64, Error> {
    let select = db.prepare_cached(concat!("select count(*) from payments where ", needs_operator!())).await?;
    db.query_one(&select, &[]).await?.try_get(0)
}

pub(super) async fn needing_operator(db: &Client, limit: u32) -> Result<Vec<Row>, Error> {
    let select = db
        .prepare_cached(concat!(
            "select ",
            columns!(),
            " from payments where ",
            needs_operator!(),
            " order by updated_at limit $1"
        ))
        .await?;
    db.query(&select, &[&i64::from(limit)]).await?.iter().map(read).collect()
}
