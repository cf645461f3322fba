//! Version 1 of `orders.created`: what consumers that were there before Millrace read, and what foreign producers send.

use millrace::event::{Older, Unconvertible};
use schemars::JsonSchema;
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

impl Older<OrderCreated> for OrderCreatedV1 {
    const VERSION: u32 = 1;
    const SUBJECT: &'static str = "orders.created";
    const LOSES: &'static [&'static str] =
        &["/contact/email", "/contact/phone", "/items/*/unit_price_minor", "/payment_method"];

    fn up(self) -> Result<OrderCreated, Unconvertible> {
        if self.version != "v1" {
            let reason = format!("it says {:?} on the subject of v1", self.version);
            return Err(Unconvertible::new("/version", reason));
        }
        let total =
            Money::from_decimal(self.amount, self.currency).map_err(|error| Unconvertible::new("/amount", error))?;
        if total.minor == 0 {
            return Err(Unconvertible::new("/amount", "it must be more than 0"));
        }
        let priced =
            |item: Item| PricedItem { product_id: item.product_id, quantity: item.quantity, unit_price_minor: None };
        Ok(OrderCreated {
            order_id: self.order_id,
            customer_id: self.customer_id,
            total,
            items: self.items.into_iter().map(priced).collect(),
            payment_method: None,
            contact: Contact::default(),
            created_at: self.timestamp,
        })
    }

    fn down(order: &OrderCreated) -> Self {
        let plain = |item: &PricedItem| Item { product_id: item.product_id.clone(), quantity: item.quantity };
        Self {
            order_id: order.order_id,
            customer_id: order.customer_id.clone(),
            amount: order.total.to_decimal(),
            currency: order.total.currency,
            timestamp: order.created_at,
            items: order.items.iter().map(plain).collect(),
            version: v1(),
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace::event::{DecodeError, Event, faults_of_versions};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// With a value in every field that may have one.
    fn full(minor: i64, quantities: &[u32]) -> OrderCreated {
        let item = |(n, quantity): (usize, &u32)| json!({ "product_id": format!("mug-{n}"), "quantity": quantity, "unit_price_minor": minor });
        serde_json::from_value(json!({
            "order_id": "01a1fc36-7afe-751a-b49e-55bc81fdd682", "customer_id": "ada",
            "total": { "minor": minor, "currency": "EUR" }, "items": quantities.iter().enumerate().map(item).collect::<Vec<_>>(),
            "payment_method": "pm_card_visa", "contact": { "email": "ada@example.org", "phone": "+4915112345678" },
            "created_at": "2026-01-02T03:04:05.678Z",
        }))
        .unwrap()
    }

    proptest! {
        // Each compiles the schemas anew.
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn v1_loses_what_it_says_and_nothing_else(minor in 1..99_999_999_999_i64, quantities in prop::collection::vec(1..10_000_u32, 1..5)) {
            prop_assert_eq!(faults_of_versions(&[full(minor, &quantities)]), Vec::<String>::new());
        }
    }

    fn read_v1(change: &dyn Fn(&mut Value)) -> Result<OrderCreated, DecodeError> {
        let mut body = json!({
            "order_id": "01a1fc36-7afe-751a-b49e-55bc81fdd682", "customer_id": "ada", "amount": 19.99, "currency": "EUR",
            "timestamp": "2026-01-02T03:04:05Z",
        });
        change(&mut body);
        (OrderCreated::OLDER[0].decode)(body.to_string().as_bytes())
    }

    #[test]
    fn what_v1_has_not_is_absent_and_never_invented() {
        let order = read_v1(&|_| {}).unwrap();
        assert_eq!((order.total.minor, order.items.len(), order.payment_method), (1_999, 0, None));
        assert_eq!(order.contact, Contact::default());
    }

    #[test]
    fn a_v1_of_a_foreign_publisher_goes_up_and_down_and_means_the_same() {
        // The first five fields are all that such publishers send.
        let order = read_v1(&|_| {}).unwrap();
        let body = (OrderCreated::OLDER[0].encode)(&order).unwrap();
        let v1: Value = serde_json::from_slice(&body).unwrap();
        for (field, value) in [("amount", json!(19.99)), ("currency", json!("EUR")), ("customer_id", json!("ada"))] {
            assert_eq!(v1[field], value);
        }
        assert_eq!((OrderCreated::OLDER[0].decode)(&body).unwrap(), order);
    }

    #[test]
    fn a_v1_that_cannot_be_read_says_where() {
        let path = |field: &str, value: Value| match read_v1(&|body| body[field] = value.clone()) {
            Err(DecodeError::Schema { event, path, .. }) if event == "orders.created v1" => path,
            other => panic!("{other:?}"),
        };
        assert_eq!(path("amount", json!(19.999)), "/amount");
        assert_eq!(path("amount", json!(0)), "/amount");
        assert_eq!(path("amount", json!("19.99")), "/amount");
        assert_eq!(path("currency", json!("XXX")), "/currency");
        assert_eq!(path("version", json!("v2")), "/version");
        assert_eq!(path("items", json!([{ "product_id": "mug", "quantity": -1 }])), "/items/0/quantity");
    }
}
