//! Events of the order service, under `orders.>`.

mod created_v1;

pub use created_v1::OrderCreatedV1;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{CustomerId, Money, OrderId, ProductId, Timestamp, examples, order_event};

/// How to reach the customer. Absent means: do not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Contact {
    /// Where e-mail reaches the customer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "email"))]
    pub email: Option<String>,
    /// Where SMS reach the customer, in E.164: `+4915112345678`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^\+[1-9][0-9]{6,14}$"))]
    pub phone: Option<String>,
}

/// How many of a product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct Item {
    /// Which product.
    pub product_id: ProductId,
    /// How many of it.
    #[schemars(range(min = 1))]
    // An order over HTTP takes at most 10000 (setting `order.max_quantity`); events know no such limit.
    #[schema(minimum = 1, maximum = 10_000, example = 2)]
    pub quantity: u32,
}

/// How many of a product, at what price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PricedItem {
    /// Which product.
    pub product_id: ProductId,
    /// How many of it.
    #[schemars(range(min = 1))]
    pub quantity: u32,
    /// The price of one, in minor units of the order's currency. Absent when a foreign v1 order named no unit prices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub unit_price_minor: Option<i64>,
}

/// An order was accepted. Version 2: money in integer minor units, unit prices, customer contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "orders.created v2", example = examples::order_created())]
pub struct OrderCreated {
    /// The order.
    pub order_id: OrderId,
    /// Who ordered.
    pub customer_id: CustomerId,
    /// What the customer pays for all items together.
    pub total: Money,
    /// What was ordered. Empty when a foreign v1 order named none: then nothing is reserved.
    pub items: Vec<PricedItem>,
    /// The gateway's token for the means of payment. Absent: the payment service's configured default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_method: Option<String>,
    /// How to reach the customer.
    #[serde(default)]
    pub contact: Contact,
    /// When the order was placed.
    pub created_at: Timestamp,
}

order_event!(OrderCreated, "orders.created", version 2, older OrderCreatedV1);

/// Payment was authorized and stock was held: the order stands. Final.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "orders.confirmed v1", example = examples::order_confirmed())]
pub struct OrderConfirmed {
    /// The order.
    pub order_id: OrderId,
    /// What the customer pays for all items together.
    pub total: Money,
    /// When the second of the two yeses came in.
    pub confirmed_at: Timestamp,
}
order_event!(OrderConfirmed, "orders.confirmed");

/// Why an order ended without goods and money changing hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// The payment gateway refused.
    PaymentDeclined,
    /// There was too little of at least one product.
    OutOfStock,
    /// The customer asked for it.
    Customer,
    /// It was still processing at its deadline.
    Deadline,
}

impl CancelReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PaymentDeclined => "payment_declined",
            Self::OutOfStock => "out_of_stock",
            Self::Customer => "customer",
            Self::Deadline => "deadline",
        }
    }
}

/// The order will not be fulfilled. Final.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "orders.cancelled v1", example = examples::order_cancelled())]
pub struct OrderCancelled {
    /// The order.
    pub order_id: OrderId,
    /// Why.
    pub reason: CancelReason,
    /// When it was decided.
    pub cancelled_at: Timestamp,
}
order_event!(OrderCancelled, "orders.cancelled");
