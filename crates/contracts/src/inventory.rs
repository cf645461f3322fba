//! Events of the inventory service, under `inventory.>`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::orders::Item;
use crate::{OrderId, ProductId, Timestamp, examples, order_event};

/// Every item of the order is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "inventory.reserved v1", example = examples::inventory_reserved())]
pub struct InventoryReserved {
    /// The order the stock is for.
    pub order_id: OrderId,
    /// What is held.
    pub items: Vec<Item>,
    /// When this was decided.
    pub reserved_at: Timestamp,
}
order_event!(InventoryReserved, "inventory.reserved");

/// What there was too little of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shortage {
    /// Which product.
    pub product_id: ProductId,
    /// How many the order wants.
    pub requested: u32,
    /// How many there were.
    pub available: i64,
}

/// At least one item was short, so none is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "inventory.rejected v1", example = examples::inventory_rejected())]
pub struct InventoryRejected {
    /// The order the stock is for.
    pub order_id: OrderId,
    /// Each product there was too little of.
    pub shortages: Vec<Shortage>,
    /// When this was decided.
    pub rejected_at: Timestamp,
}
order_event!(InventoryRejected, "inventory.rejected");

/// The held items left the stock for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "inventory.committed v1", example = examples::inventory_committed())]
pub struct InventoryCommitted {
    /// The order the stock is for.
    pub order_id: OrderId,
    /// What left the stock.
    pub items: Vec<Item>,
    /// When this was decided.
    pub committed_at: Timestamp,
}
order_event!(InventoryCommitted, "inventory.committed");

/// The held items are available again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "inventory.released v1", example = examples::inventory_released())]
pub struct InventoryReleased {
    /// The order the stock is for.
    pub order_id: OrderId,
    /// What is available again.
    pub items: Vec<Item>,
    /// When this was decided.
    pub released_at: Timestamp,
}
order_event!(InventoryReleased, "inventory.released");
