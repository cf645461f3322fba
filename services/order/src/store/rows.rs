//! From rows to values and back, shared by both backends.

use contracts::catalog::Product;
use contracts::orders::{Contact, OrderCreated, PricedItem};
use contracts::{Money, OrderId};

use super::columns::{Columns, Json, Reason};
use crate::domain::{End, Order, Placed, Status};
use crate::model::{Entry, KeyRow, Observed, OrderRow};

/// The status of a row that knows only facts.
pub(super) const UNKNOWN: &str = "unknown";

/// Select list of [`order_row`]; also the column list of an insert.
macro_rules! order_columns {
    () => {
        "order_id, status, cancel_reason, payment, stock, entries, customer_id, total_minor, currency, items, \
         payment_method, email, phone, is_foreign, created_at, accepted_at, deadline_at, ended_at"
    };
}
pub(super) use order_columns;

pub(super) fn order_row<R: Columns>(row: &R) -> Result<OrderRow, R::Error> {
    let id = row.order_id(0)?;
    let placed = if row.text(1)? == UNKNOWN { None } else { Some(placed(row, id)?) };
    let order = Order { id, placed, payment: row.parsed(3)?, stock: row.parsed(4)? };
    Ok(OrderRow { order, entries: row.int(5)? })
}

fn placed<R: Columns>(row: &R, order_id: OrderId) -> Result<Placed, R::Error> {
    let end = match row.parsed::<Status>(1)? {
        Status::Processing => None,
        Status::Confirmed => Some(End::Confirmed),
        Status::Cancelled => Some(End::Cancelled(row.parsed::<Reason>(2)?.0)),
    };
    let ended = match end {
        Some(end) => Some((end, row.time(17)?)),
        None => None,
    };
    let order = OrderCreated {
        order_id,
        customer_id: row.parsed(6)?,
        total: Money { minor: row.int(7)?, currency: row.parsed(8)? },
        items: row.parsed::<Json<Vec<PricedItem>>>(9)?.0,
        payment_method: row.maybe_text(10)?,
        contact: Contact { email: row.maybe_text(11)?, phone: row.maybe_text(12)? },
        created_at: row.time(14)?,
    };
    Ok(Placed { order, foreign: row.flag(13)?, accepted_at: row.time(15)?, deadline_at: row.time(16)?, ended })
}

/// An order's values in the order of `order_columns!`, as both drivers take them.
#[derive(Debug)]
pub(super) struct FlatOrder<'a> {
    pub(super) id: OrderId,
    pub(super) status: &'static str,
    pub(super) cancel_reason: Option<&'static str>,
    pub(super) payment: &'static str,
    pub(super) stock: &'static str,
    pub(super) entries: i64,
    pub(super) customer_id: Option<&'a str>,
    pub(super) total_minor: Option<i64>,
    pub(super) currency: Option<&'a str>,
    /// For `items_text`: most of the time an order is written, they are not.
    pub(super) items: Option<&'a [PricedItem]>,
    pub(super) payment_method: Option<&'a str>,
    pub(super) email: Option<&'a str>,
    pub(super) phone: Option<&'a str>,
    pub(super) is_foreign: Option<bool>,
    pub(super) created_at: Option<i64>,
    pub(super) accepted_at: Option<i64>,
    pub(super) deadline_at: Option<i64>,
    pub(super) ended_at: Option<i64>,
}

impl<'a> FlatOrder<'a> {
    pub(super) fn of(row: &'a OrderRow) -> Self {
        let Order { id, placed, payment, stock } = &row.order;
        let placed = placed.as_ref();
        let order = placed.map(|placed| &placed.order);
        Self {
            id: *id,
            status: placed.map_or(UNKNOWN, |placed| placed.status().as_str()),
            cancel_reason: placed.and_then(|placed| placed.cancel_reason()).map(|reason| reason.as_str()),
            payment: payment.as_str(),
            stock: stock.as_str(),
            entries: row.entries,
            customer_id: order.map(|order| order.customer_id.as_str()),
            total_minor: order.map(|order| order.total.minor),
            currency: order.map(|order| order.total.currency.as_str()),
            items: order.map(|order| order.items.as_slice()),
            payment_method: order.and_then(|order| order.payment_method.as_deref()),
            email: order.and_then(|order| order.contact.email.as_deref()),
            phone: order.and_then(|order| order.contact.phone.as_deref()),
            is_foreign: placed.map(|placed| placed.foreign),
            created_at: order.map(|order| order.created_at.unix_ms()),
            accepted_at: placed.map(|placed| placed.accepted_at.unix_ms()),
            deadline_at: placed.map(|placed| placed.deadline_at.unix_ms()),
            ended_at: placed.and_then(|placed| placed.ended_at()).map(|at| at.unix_ms()),
        }
    }
}

/// `key, request_hash, order_id, used_at`
pub(super) fn key_row<R: Columns>(row: &R) -> Result<(String, KeyRow), R::Error> {
    Ok((row.text(0)?, KeyRow { request_hash: row.text(1)?, order_id: row.order_id(2)?, used_at: row.time(3)? }))
}

/// `order_id, seq, at, event_type, service, event_id, detail`
pub(super) fn entry<R: Columns>(row: &R) -> Result<Entry, R::Error> {
    let what = Observed {
        at: row.time(2)?,
        event_type: row.text(3)?,
        service: row.text(4)?,
        event_id: row.text(5)?,
        detail: row.parsed(6)?,
    };
    Ok(Entry { order_id: row.order_id(0)?, seq: row.int(1)?, what })
}

/// `product_id, name, price_minor, currency, opening_stock`
pub(super) fn product<R: Columns>(row: &R) -> Result<Product, R::Error> {
    Ok(Product {
        product_id: row.parsed(0)?,
        name: row.text(1)?,
        unit_price: Money { minor: row.int(2)?, currency: row.parsed(3)? },
        opening_stock: u32::try_from(row.int(4)?).unwrap_or(u32::MAX),
    })
}
