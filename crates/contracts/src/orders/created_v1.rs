//! Version 1 of `orders.created`: what consumers that were there before Millrace read, and what foreign producers send.

use millrace::event::DecodeError;
use schemars::{JsonSchema, Schema, schema_for};
use serde::{Deserialize, Serialize};

use super::{Contact, Item, OrderCreated, PricedItem};
use crate::examples;
use crate::{Currency, CustomerId, Money, OrderId, Timestamp};

/// An order was placed. Version 1: the amount is a decimal number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "orders.created v1", example = examples::order_created_v1(), example = examples::foreign_order())]
pub struct OrderCreatedV1 {
    /// The order, named by whoever published it.
    pub order_id: OrderId,
    /// Who ordered.
    pub customer_id: CustomerId,
    /// What the customer pays for all items together, in major units: 19.99.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub amount: f64,
    /// The currency of the amount.
    pub currency: Currency,
    /// When the order was placed.
    pub timestamp: Timestamp,
    /// What was ordered. Producers in the wild leave this out; then nothing is reserved.
    #[serde(default)]
    pub items: Vec<Item>,
    /// Always `v1`; producers in the wild leave it out.
    #[serde(default = "v1")]
    #[schemars(extend("const" = "v1"))]
    pub version: String,
}

fn v1() -> String {
    "v1".into()
}

pub(super) fn schema() -> Schema {
    schema_for!(OrderCreatedV1)
}

/// Version 1 has neither unit prices nor contact nor payment method: they are absent afterwards.
pub(super) fn decode(body: &[u8]) -> Result<OrderCreated, DecodeError> {
    const NAME: &str = "orders.created v1";
    let v1: OrderCreatedV1 = serde_json::from_slice(body).map_err(|e| DecodeError::body(NAME, e))?;
    if v1.version != "v1" {
        return Err(DecodeError::Schema {
            event: NAME.into(),
            path: "/version".into(),
            reason: format!("it says {:?} on the subject of v1", v1.version),
        });
    }
    let total = Money::from_decimal(v1.amount, v1.currency).map_err(|e| DecodeError::Schema {
        event: NAME.into(),
        path: "/amount".into(),
        reason: e.to_string(),
    })?;
    if total.minor == 0 {
        return Err(DecodeError::Schema {
            event: NAME.into(),
            path: "/amount".into(),
            reason: "it must be more than 0".into(),
        });
    }
    let priced =
        |item: Item| PricedItem { product_id: item.product_id, quantity: item.quantity, unit_price_minor: None };
    Ok(OrderCreated {
        order_id: v1.order_id,
        customer_id: v1.customer_id,
        total,
        items: v1.items.into_iter().map(priced).collect(),
        payment_method: None,
        contact: Contact::default(),
        created_at: v1.timestamp,
    })
}

/// Drops unit prices, contact and payment method, which version 1 does not have.
pub(super) fn encode(order: &OrderCreated) -> Result<Vec<u8>, serde_json::Error> {
    let plain = |item: &PricedItem| Item { product_id: item.product_id.clone(), quantity: item.quantity };
    serde_json::to_vec(&OrderCreatedV1 {
        order_id: order.order_id,
        customer_id: order.customer_id.clone(),
        amount: order.total.to_decimal(),
        currency: order.total.currency,
        timestamp: order.created_at,
        items: order.items.iter().map(plain).collect(),
        version: v1(),
    })
}
