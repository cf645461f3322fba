//! Events of the inventory service, under `inventory.>`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::orders::Item;
use crate::{OrderId, ProductId, Timestamp, order_event};

/// Every item of the order is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "inventory.reserved v1")]
pub struct InventoryReserved {
    pub order_id: OrderId,
    pub items: Vec<Item>,
    pub reserved_at: Timestamp,
}
order_event!(InventoryReserved, "inventory.reserved");

/// What there was too little of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shortage {
    pub product_id: ProductId,
    pub requested: u32,
    pub available: i64,
}

/// At least one item was short, so none is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "inventory.rejected v1")]
pub struct InventoryRejected {
    pub order_id: OrderId,
    pub shortages: Vec<Shortage>,
    pub rejected_at: Timestamp,
}
order_event!(InventoryRejected, "inventory.rejected");

/// The held items left the stock for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "inventory.committed v1")]
pub struct InventoryCommitted {
    pub order_id: OrderId,
    pub items: Vec<Item>,
    pub committed_at: Timestamp,
}
order_event!(InventoryCommitted, "inventory.committed");

/// The held items are available again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "inventory.released v1")]
pub struct InventoryReleased {
    pub order_id: OrderId,
    pub items: Vec<Item>,
    pub released_at: Timestamp,
}
order_event!(InventoryReleased, "inventory.released");
