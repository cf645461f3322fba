//! A payment's row, read the same way from both backends.

use std::error::Error;
use std::str::FromStr;

use contracts::{Currency, Money, OrderId};
use rusqlite::types::{FromSqlError, FromSqlResult, ValueRef};
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::domain::{Charge, Payment, Refusal, State};
use crate::model::Row;

/// The select list [`read`] expects.
macro_rules! columns {
    () => {
        "order_id, state, confirmed, cancelled, amount_minor, currency, payment_method, payment_id, refusal_code, \
         refusal_message, due_at, attempts, last_problem, correlation_id, created_at, updated_at"
    };
}
pub(super) use columns;

/// Reads a whole row selected with [`columns!`].
pub(super) fn read<C: Columns>(row: &C) -> Result<Row, C::Error> {
    let charge = match (row.maybe_int(4)?, row.maybe_parsed::<Currency>(5)?, row.maybe_text(6)?) {
        (Some(minor), Some(currency), Some(payment_method)) => {
            Some(Charge { amount: Money { minor, currency }, payment_method })
        }
        _ => None,
    };
    let refusal = match (row.maybe_text(8)?, row.maybe_text(9)?) {
        (Some(code), Some(message)) => Some(Refusal { code, message }),
        _ => None,
    };
    let payment = Payment {
        order_id: OrderId(row.uuid(0)?),
        state: row.parsed::<State>(1)?,
        confirmed: row.flag(2)?,
        cancelled: row.flag(3)?,
        charge,
        payment_id: row.maybe_text(7)?,
        refusal,
    };
    Ok(Row {
        payment,
        due_at: row.maybe_int(10)?,
        attempts: u32::try_from(row.int(11)?).unwrap_or(u32::MAX),
        last_problem: row.maybe_text(12)?,
        correlation_id: row.maybe_text(13)?.unwrap_or_default(),
        created_at: row.int(14)?,
        updated_at: row.int(15)?,
    })
}

type AnyError = Box<dyn Error + Send + Sync>;

/// A row of either backend. Columns are addressed by their place in the select list.
pub(super) trait Columns {
    type Error;

    fn uuid(&self, at: usize) -> Result<Uuid, Self::Error>;
    fn flag(&self, at: usize) -> Result<bool, Self::Error>;
    fn int(&self, at: usize) -> Result<i64, Self::Error>;
    fn maybe_int(&self, at: usize) -> Result<Option<i64>, Self::Error>;
    fn maybe_text(&self, at: usize) -> Result<Option<String>, Self::Error>;
    fn parsed<T: FromStr<Err: Into<AnyError>>>(&self, at: usize) -> Result<T, Self::Error>;
    fn maybe_parsed<T: FromStr<Err: Into<AnyError>>>(&self, at: usize) -> Result<Option<T>, Self::Error>;
}

/// Parses while the driver reads, so that a value nobody should have written becomes the driver's own kind of error.
struct Parsed<T>(T);

impl<T: FromStr<Err: Into<AnyError>>> rusqlite::types::FromSql for Parsed<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map(Self).map_err(|error: T::Err| FromSqlError::Other(error.into()))
    }
}

impl<'a, T: FromStr<Err: Into<AnyError>>> tokio_postgres::types::FromSql<'a> for Parsed<T> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, AnyError> {
        std::str::from_utf8(raw)?.parse().map(Self).map_err(Into::into)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TEXT
    }
}

macro_rules! columns_by {
    ($row:ty, $error:ty, $get:ident, $uuid:ident) => {
        impl Columns for $row {
            type Error = $error;

            fn uuid(&self, at: usize) -> Result<Uuid, $error> {
                $uuid(self, at)
            }

            fn flag(&self, at: usize) -> Result<bool, $error> {
                self.$get(at)
            }

            fn int(&self, at: usize) -> Result<i64, $error> {
                self.$get(at)
            }

            fn maybe_int(&self, at: usize) -> Result<Option<i64>, $error> {
                self.$get(at)
            }

            fn maybe_text(&self, at: usize) -> Result<Option<String>, $error> {
                self.$get(at)
            }

            fn parsed<T: FromStr<Err: Into<AnyError>>>(&self, at: usize) -> Result<T, $error> {
                self.$get::<_, Parsed<T>>(at).map(|parsed| parsed.0)
            }

            fn maybe_parsed<T: FromStr<Err: Into<AnyError>>>(&self, at: usize) -> Result<Option<T>, $error> {
                Ok(self.$get::<_, Option<Parsed<T>>>(at)?.map(|parsed| parsed.0))
            }
        }
    };
}

fn text_uuid(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Uuid> {
    row.parsed(at)
}

fn native_uuid(row: &tokio_postgres::Row, at: usize) -> Result<Uuid, tokio_postgres::Error> {
    row.try_get(at)
}

columns_by!(rusqlite::Row<'_>, rusqlite::Error, get, text_uuid);
columns_by!(tokio_postgres::Row, tokio_postgres::Error, try_get, native_uuid);
