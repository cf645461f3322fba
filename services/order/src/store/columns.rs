//! Reading typed values out of rows, the same way from both backends.

use std::error::Error;
use std::str::FromStr;

use contracts::orders::{CancelReason, PricedItem};
use contracts::{OrderId, Timestamp};
use rusqlite::types::{FromSqlError, FromSqlResult, ValueRef};
use serde_json::Value;
use tokio_postgres::types::Type;
use uuid::Uuid;

type AnyError = Box<dyn Error + Send + Sync>;

/// A row of either backend. Columns are addressed by their place in the select list.
pub(super) trait Columns {
    type Error;

    fn uuid(&self, at: usize) -> Result<Uuid, Self::Error>;
    fn int(&self, at: usize) -> Result<i64, Self::Error>;
    fn flag(&self, at: usize) -> Result<bool, Self::Error>;
    fn maybe_text(&self, at: usize) -> Result<Option<String>, Self::Error>;
    fn text(&self, at: usize) -> Result<String, Self::Error>;
    /// A text column that holds a `T`.
    fn parsed<T: FromStr<Err: Into<AnyError>>>(&self, at: usize) -> Result<T, Self::Error>;

    fn order_id(&self, at: usize) -> Result<OrderId, Self::Error> {
        self.uuid(at).map(OrderId)
    }

    fn time(&self, at: usize) -> Result<Timestamp, Self::Error> {
        self.int(at).map(Timestamp::from_unix_ms)
    }
}

impl Columns for rusqlite::Row<'_> {
    type Error = rusqlite::Error;

    fn uuid(&self, at: usize) -> rusqlite::Result<Uuid> {
        self.parsed(at)
    }

    fn int(&self, at: usize) -> rusqlite::Result<i64> {
        self.get(at)
    }

    fn flag(&self, at: usize) -> rusqlite::Result<bool> {
        self.get(at)
    }

    fn maybe_text(&self, at: usize) -> rusqlite::Result<Option<String>> {
        self.get(at)
    }

    fn text(&self, at: usize) -> rusqlite::Result<String> {
        self.get(at)
    }

    fn parsed<T: FromStr<Err: Into<AnyError>>>(&self, at: usize) -> rusqlite::Result<T> {
        self.get::<_, Parsed<T>>(at).map(|parsed| parsed.0)
    }
}

impl Columns for tokio_postgres::Row {
    type Error = tokio_postgres::Error;

    fn uuid(&self, at: usize) -> Result<Uuid, Self::Error> {
        self.try_get(at)
    }

    fn int(&self, at: usize) -> Result<i64, Self::Error> {
        self.try_get(at)
    }

    fn flag(&self, at: usize) -> Result<bool, Self::Error> {
        self.try_get(at)
    }

    fn maybe_text(&self, at: usize) -> Result<Option<String>, Self::Error> {
        self.try_get(at)
    }

    fn text(&self, at: usize) -> Result<String, Self::Error> {
        self.try_get(at)
    }

    fn parsed<T: FromStr<Err: Into<AnyError>>>(&self, at: usize) -> Result<T, Self::Error> {
        self.try_get::<_, Parsed<T>>(at).map(|parsed| parsed.0)
    }
}

/// Parses while the driver reads, so that a value nobody should have written becomes the driver's own kind of error.
struct Parsed<T>(T);

impl<T: FromStr<Err: Into<AnyError>>> rusqlite::types::FromSql for Parsed<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map(Self).map_err(|error: T::Err| FromSqlError::Other(error.into()))
    }
}

impl<'a, T: FromStr<Err: Into<AnyError>>> tokio_postgres::types::FromSql<'a> for Parsed<T> {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, AnyError> {
        <&str as tokio_postgres::types::FromSql<'a>>::from_sql(kind, raw)?.parse().map(Self).map_err(Into::into)
    }

    fn accepts(kind: &Type) -> bool {
        <&str as tokio_postgres::types::FromSql<'a>>::accepts(kind)
    }
}

/// A JSON text column.
pub(super) struct Json<T>(pub(super) T);

impl<T: serde::de::DeserializeOwned> FromStr for Json<T> {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text).map(Self)
    }
}

/// As [`FromStr`] of the contract's enum, which only writes its names.
pub(super) struct Reason(pub(super) CancelReason);

impl FromStr for Reason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        use CancelReason::{Customer, Deadline, OutOfStock, PaymentDeclined};
        let known = [PaymentDeclined, OutOfStock, Customer, Deadline];
        known
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a reason to cancel"))
    }
}

/// What a timeline says of an event, as the column keeps it.
pub(super) fn detail_text(detail: &Value) -> String {
    serde_json::to_string(detail).unwrap_or_default()
}

/// Items as the column keeps them. Writing a list of plain values as JSON cannot fail.
pub(super) fn items_text(items: &[PricedItem]) -> String {
    serde_json::to_string(items).unwrap_or_default()
}
