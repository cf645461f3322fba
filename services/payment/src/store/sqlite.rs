use contracts::OrderId;
use millrace::store::SqliteModel;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Result, params};

use super::columns::{columns, read};
use crate::model::{Intent, PaymentModel, Row, Rows, orders_of};

const INSERT: &str =
    concat!("insert into payments (", columns!(), ") values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");

// Takes the same parameters as the insert, by their numbers; the last ones set what never changes.
const UPDATE: &str = "update payments set state = ?2, confirmed = ?3, cancelled = ?4, amount_minor = ?5, currency = ?6,
        payment_method = ?7, payment_id = ?8, refusal_code = ?9, refusal_message = ?10, due_at = ?11, attempts = ?12,
        last_problem = ?13, updated_at = ?16, correlation_id = ?14, created_at = ?15
    where order_id = ?1";

/// In the words of the partial index that holds nothing else.
macro_rules! needs_operator {
    () => {
        "(state = 'authorize_unknown' or state = 'capture_failed' or state = 'void_failed' or state = 'refund_failed')"
    };
}

impl SqliteModel for PaymentModel {
    fn load(&self, db: &Connection, intents: &[&Intent]) -> Result<Rows> {
        let mut rows = Rows::default();
        for order_id in orders_of(intents) {
            if let Some(row) = get(db, order_id)? {
                rows.payments.loaded(order_id, row);
            }
        }
        Ok(rows)
    }

    fn save(&self, db: &Connection, rows: &Rows) -> Result<()> {
        let mut insert = db.prepare_cached(INSERT)?;
        for (_, row) in rows.payments.inserted() {
            write(&mut insert, row)?;
        }
        let mut update = db.prepare_cached(UPDATE)?;
        for (_, row) in rows.payments.updated() {
            write(&mut update, row)?;
        }
        Ok(())
    }
}

fn write(statement: &mut CachedStatement<'_>, row: &Row) -> Result<usize> {
    let payment = &row.payment;
    let (charge, refusal) = (payment.charge.as_ref(), payment.refusal.as_ref());
    statement.execute(params![
        payment.order_id.to_string(),
        payment.state.as_str(),
        payment.confirmed,
        payment.cancelled,
        charge.map(|charge| charge.amount.minor),
        charge.map(|charge| charge.amount.currency.as_str()),
        charge.map(|charge| charge.payment_method.as_str()),
        payment.payment_id,
        refusal.map(|refusal| refusal.code.as_str()),
        refusal.map(|refusal| refusal.message.as_str()),
        row.due_at,
        row.attempts,
        row.last_problem,
        row.correlation_id,
        row.created_at,
        row.updated_at,
    ])
}

pub(super) fn get(db: &Connection, order_id: OrderId) -> Result<Option<Row>> {
    db.prepare_cached(concat!("select ", columns!(), " from payments where order_id = ?"))?
        .query_row([order_id.to_string()], |row| read(row))
        .optional()
}

pub(super) fn due(db: &Connection, at_ms: i64, limit: u32) -> Result<Vec<Row>> {
    db.prepare_cached(concat!("select ", columns!(), " from payments where due_at <= ? order by due_at limit ?"))?
        .query_map([at_ms, i64::from(limit)], |row| read(row))?
        .collect()
}

/// Order and correlation id: what is wrong elsewhere in a row must not keep the others from being found.
pub(super) fn due_ids(db: &Connection, at_ms: i64, limit: u32) -> Result<Vec<(String, String)>> {
    db.prepare_cached("select order_id, correlation_id from payments where due_at <= ? order by due_at limit ?")?
        .query_map([at_ms, i64::from(limit)], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

pub(super) fn count_needing_operator(db: &Connection) -> Result<i64> {
    db.prepare_cached(concat!("select count(*) from payments where ", needs_operator!()))?
        .query_row([], |row| row.get(0))
}

pub(super) fn needing_operator(db: &Connection, limit: u32) -> Result<Vec<Row>> {
    db.prepare_cached(concat!(
        "select ",
        columns!(),
        " from payments where ",
        needs_operator!(),
        " order by updated_at limit ?"
    ))?
    .query_map([limit], |row| read(row))?
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MIGRATIONS;

    /// What SQLite does for a statement, as `explain` lists it.
    fn plan(db: &Connection, explain: &str, column: usize) -> Vec<String> {
        let mut plan = db.prepare(explain).unwrap();
        for parameter in 1..=plan.parameter_count() {
            plan.raw_bind_parameter(parameter, 1).unwrap();
        }
        let mut lines = Vec::new();
        let mut rows = plan.raw_query();
        while let Some(row) = rows.next().unwrap() {
            lines.push(row.get(column).unwrap());
        }
        lines
    }

    #[test]
    fn payments_that_need_an_operator_are_found_by_their_index_which_no_write_makes_a_table_for() {
        let db = Connection::open_in_memory().unwrap();
        MIGRATIONS.iter().try_for_each(|step| db.execute_batch(step.sqlite)).unwrap();
        let count = concat!("explain query plan select count(*) from payments where ", needs_operator!());
        let list = concat!(
            "explain query plan select * from payments where ",
            needs_operator!(),
            " order by updated_at limit ?"
        );
        for query in [count, list] {
            let found = plan(&db, query, 3);
            assert!(found.len() == 1 && found[0].contains("payments_failed"), "{found:?}");
        }
        for write in [INSERT, UPDATE] {
            let done = plan(&db, &format!("explain {write}"), 1);
            assert!(!done.contains(&"OpenEphemeral".to_owned()), "{write}: {done:?}");
        }
    }
}
