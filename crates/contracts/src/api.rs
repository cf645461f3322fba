//! Request/reply messages, on the NATS services framework.

use serde::{Deserialize, Serialize};

use crate::{OrderId, ProductId};

/// Subjects of the endpoints.
pub mod subjects {
    /// Drive an order's payment onwards now and say where it stands.
    pub const PAYMENT_PROCESS: &str = "api.payment.process";
    /// Stock of one product or of all; adjust is a separate subject so that permissions can tell them apart.
    pub const INVENTORY_STOCK: &str = "api.inventory.stock";
    pub const INVENTORY_ADJUST: &str = "api.inventory.adjust";
    pub const ORDERS_GET: &str = "api.orders.get";
}

/// Asks about one order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderQuery {
    pub order_id: OrderId,
}

/// Where an order's payment stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentStatus {
    pub order_id: OrderId,
    /// `authorized`, `declined`, `captured`, `voided`, `refunded`, `capture_failed`, ...
    pub status: String,
    pub payment_id: Option<String>,
    pub amount: Option<crate::Money>,
    /// Why, where a step failed or was declined.
    pub detail: Option<String>,
}

/// Asks for stock levels; no product means all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockQuery {
    #[serde(default)]
    pub product_id: Option<ProductId>,
}

/// Stock of one product: `available + reserved + committed` is what ever came in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockLevel {
    pub product_id: ProductId,
    pub available: i64,
    pub reserved: i64,
    pub committed: i64,
}

/// All stock that was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockLevels {
    pub levels: Vec<StockLevel>,
}

/// Adds to (or takes from) what is available. The id makes a repeated request count once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockAdjustment {
    pub adjustment_id: uuid::Uuid,
    pub product_id: ProductId,
    pub delta: i64,
    pub reason: String,
}
