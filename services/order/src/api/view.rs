//! What the API answers with. Contact and means of payment are not shown: whoever knows an order's id need not know them.

use contracts::orders::CancelReason;
use contracts::{CustomerId, Money, OrderId, ProductId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use crate::domain::{Order, Payment, Status, Stock};
use crate::model::Entry;

/// One item of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ItemView {
    pub product_id: ProductId,
    #[schema(minimum = 1)]
    pub quantity: u32,
    /// Absent for an order from elsewhere that named no prices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit_price: Option<Money>,
}

/// The answer to a new order. The same for every repetition with the same `Idempotency-Key`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    pub order_id: OrderId,
    #[schema(schema_with = receipt_status)]
    pub status: String,
    pub customer_id: CustomerId,
    pub total: Money,
    pub items: Vec<ItemView>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// An order as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderView {
    pub order_id: OrderId,
    #[schema(schema_with = status)]
    pub status: String,
    /// Why it was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<CancelReason>,
    pub customer_id: CustomerId,
    pub total: Money,
    pub items: Vec<ItemView>,
    #[schema(schema_with = payment)]
    pub payment: String,
    #[schema(schema_with = stock)]
    pub stock: String,
    /// Whether it came in as an event of another system and not through this API.
    pub foreign: bool,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it is cancelled if it is still processing.
    #[schema(value_type = String, format = DateTime)]
    pub deadline_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
}

/// One thing that happened to an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TimelineEntry {
    /// In the order this service learnt of things; the `id` of the live stream.
    #[schema(minimum = 1)]
    pub seq: i64,
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The event's type.
    #[schema(example = "payments.authorized")]
    pub event: String,
    /// Who published it.
    #[schema(example = "payment")]
    pub service: String,
    pub event_id: String,
    /// What there is to know about it, different for each type.
    #[schema(value_type = Object)]
    pub detail: Value,
}

/// What happened to an order, by time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Timeline {
    pub order_id: OrderId,
    pub timeline: Vec<TimelineEntry>,
}

/// A page of orders, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderList {
    pub orders: Vec<OrderView>,
    /// Leads to the next page as `?cursor=`. Absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 32, max_length = 32, pattern = "^[A-Za-z0-9_-]+$")]
    pub next_cursor: Option<String>,
}

/// Everything that can be ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CatalogView {
    pub products: Vec<ProductView>,
}

/// One product on sale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProductView {
    pub product_id: ProductId,
    pub name: String,
    pub unit_price: Money,
}

/// A text that is one of these names, which are the ones the code writes.
fn one_of(names: &[&str], description: &str) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(names.iter().copied()))
        .description(Some(description))
        .build()
}

pub(super) fn status() -> Object {
    one_of(Status::NAMES, "`confirmed` and `cancelled` are final.")
}

fn receipt_status() -> Object {
    one_of(&[Status::Processing.as_str()], "What becomes of the order shows `GET /orders/{order_id}`.")
}

fn payment() -> Object {
    one_of(Payment::NAMES, "Where the money stands. A step that ends in `_failed` has failed for good.")
}

fn stock() -> Object {
    one_of(Stock::NAMES, "Where the goods stand.")
}

impl OrderView {
    /// `None` for an order that is known only from facts.
    pub(crate) fn of(order: &Order) -> Option<Self> {
        let placed = order.placed.as_ref()?;
        Some(Self {
            order_id: order.id,
            status: placed.status().as_str().to_owned(),
            reason: placed.cancel_reason(),
            customer_id: placed.order.customer_id.clone(),
            total: placed.order.total,
            items: items_of(&placed.order),
            payment: order.payment.as_str().to_owned(),
            stock: order.stock.as_str().to_owned(),
            foreign: placed.foreign,
            created_at: placed.order.created_at,
            deadline_at: placed.deadline_at,
            ended_at: placed.ended_at(),
        })
    }
}

impl Receipt {
    pub(crate) fn of(order: &contracts::orders::OrderCreated) -> Self {
        Self {
            order_id: order.order_id,
            status: Status::Processing.as_str().to_owned(),
            customer_id: order.customer_id.clone(),
            total: order.total,
            items: items_of(order),
            created_at: order.created_at,
        }
    }
}

fn items_of(order: &contracts::orders::OrderCreated) -> Vec<ItemView> {
    let currency = order.total.currency;
    let view = |item: &contracts::orders::PricedItem| ItemView {
        product_id: item.product_id.clone(),
        quantity: item.quantity,
        unit_price: item.unit_price_minor.map(|minor| Money { minor, currency }),
    };
    order.items.iter().map(view).collect()
}

impl From<Entry> for TimelineEntry {
    fn from(entry: Entry) -> Self {
        let Entry { seq, what, .. } = entry;
        Self {
            seq,
            at: what.at,
            event: what.event_type,
            service: what.service,
            event_id: what.event_id,
            detail: what.detail,
        }
    }
}
