//! The catalog: what can be ordered, at what price. Lives in the key-value bucket [`BUCKET`], one key per product.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Money, ProductId};

/// The JetStream key-value bucket; the key is the product id, the value a [`Product`] as JSON.
pub const BUCKET: &str = "catalog";

/// One product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Product {
    pub product_id: ProductId,
    pub name: String,
    pub unit_price: Money,
    /// What inventory starts with when it first sees the product; later changes go through stock adjustments.
    pub opening_stock: u32,
}
