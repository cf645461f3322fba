//! One story told in examples: an order of two espresso cups, as it would travel. They are typed, so they cannot drift from
//! the contracts, and they end up in the schemas and in everything that is made from those.

use millrace::event::Event;
use serde_json::{Value, json};

use crate::api::{OrderQuery, PaymentStatus, StockAdjustment, StockLevel, StockLevels, StockQuery};
use crate::inventory::{InventoryCommitted, InventoryRejected, InventoryReleased, InventoryReserved, Shortage};
use crate::notifications::{Channel, Notice, NotificationFailed, NotificationSent};
use crate::orders::{
    CancelReason, Contact, Item, OrderCancelled, OrderConfirmed, OrderCreated, OrderCreatedV1, PricedItem,
};
use crate::payments::{
    PaymentAuthorized, PaymentCaptured, PaymentDeclined, PaymentFailed, PaymentRefunded, PaymentVoided, Step,
};
use crate::{Currency, CustomerId, Money, OrderId, ProductId, Timestamp};

const PAYMENT: &str = "pi_3QZx8tM2eZvKYlo2";

fn order_id() -> OrderId {
    OrderId(uuid::Uuid::from_u128(0x01a1_fc36_7afe_751a_b49e_55bc_81fd_d682))
}

/// Milliseconds after the order was placed.
fn at(ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(1_795_232_791_294 + ms)
}

/// A text that is known to be valid, as a test of every example shows.
fn valid<T: TryFrom<String, Error: std::fmt::Debug>>(text: &str) -> T {
    match T::try_from(text.to_owned()) {
        Ok(value) => value,
        Err(error) => unreachable!("the example {text:?}: {error:?}"),
    }
}

fn total() -> Money {
    Money { minor: 1_380, currency: valid::<Currency>("EUR") }
}

fn cups() -> ProductId {
    valid("espresso-cup")
}

fn items() -> Vec<Item> {
    vec![Item { product_id: cups(), quantity: 2 }]
}

pub(crate) fn order_created() -> OrderCreated {
    OrderCreated {
        order_id: order_id(),
        customer_id: valid::<CustomerId>("customer-42"),
        total: total(),
        items: vec![PricedItem { product_id: cups(), quantity: 2, unit_price_minor: Some(690) }],
        payment_method: Some("pm_card_visa".into()),
        contact: Contact { email: Some("someone@example.org".into()), phone: Some("+4915112345678".into()) },
        created_at: at(0),
    }
}

pub(crate) fn order_created_v1() -> OrderCreatedV1 {
    OrderCreatedV1 {
        order_id: order_id(),
        customer_id: order_created().customer_id,
        amount: total().to_decimal(),
        currency: total().currency,
        timestamp: at(0),
        items: items(),
        version: "v1".into(),
    }
}

/// What producers in the wild send: the first five fields only.
pub(crate) fn foreign_order() -> Value {
    json!({
        "order_id": "7f1c2d7e-5b0a-4f0e-9a57-0a4b8f6f3f10",
        "customer_id": "customer-7",
        "amount": 149.99,
        "currency": "EUR",
        "timestamp": "2026-11-21T03:46:31Z",
    })
}

pub(crate) fn order_confirmed() -> OrderConfirmed {
    OrderConfirmed { order_id: order_id(), total: total(), confirmed_at: at(28) }
}

pub(crate) fn order_cancelled() -> OrderCancelled {
    OrderCancelled { order_id: order_id(), reason: CancelReason::OutOfStock, cancelled_at: at(28) }
}

pub(crate) fn payment_authorized() -> PaymentAuthorized {
    PaymentAuthorized { order_id: order_id(), payment_id: PAYMENT.into(), amount: total(), authorized_at: at(22) }
}

pub(crate) fn payment_declined() -> PaymentDeclined {
    PaymentDeclined {
        order_id: order_id(),
        code: "card_declined".into(),
        message: "Your card was declined.".into(),
        declined_at: at(22),
    }
}

pub(crate) fn payment_captured() -> PaymentCaptured {
    PaymentCaptured { order_id: order_id(), payment_id: PAYMENT.into(), amount: total(), captured_at: at(31) }
}

pub(crate) fn payment_voided() -> PaymentVoided {
    PaymentVoided { order_id: order_id(), payment_id: PAYMENT.into(), voided_at: at(31) }
}

pub(crate) fn payment_refunded() -> PaymentRefunded {
    PaymentRefunded { order_id: order_id(), payment_id: PAYMENT.into(), amount: total(), refunded_at: at(900_000) }
}

pub(crate) fn payment_failed() -> PaymentFailed {
    PaymentFailed {
        order_id: order_id(),
        step: Step::Capture,
        code: "charge_expired_for_capture".into(),
        message: "The authorization has expired.".into(),
        failed_at: at(900_000),
    }
}

pub(crate) fn inventory_reserved() -> InventoryReserved {
    InventoryReserved { order_id: order_id(), items: items(), reserved_at: at(5) }
}

pub(crate) fn inventory_rejected() -> InventoryRejected {
    let shortages = vec![Shortage { product_id: cups(), requested: 2, available: 1 }];
    InventoryRejected { order_id: order_id(), shortages, rejected_at: at(5) }
}

pub(crate) fn inventory_committed() -> InventoryCommitted {
    InventoryCommitted { order_id: order_id(), items: items(), committed_at: at(30) }
}

pub(crate) fn inventory_released() -> InventoryReleased {
    InventoryReleased { order_id: order_id(), items: items(), released_at: at(30) }
}

pub(crate) fn notification_sent() -> NotificationSent {
    NotificationSent {
        order_id: order_id(),
        notice: Notice::Confirmation,
        channel: Channel::Email,
        message_id: format!("{}.confirmation@millrace.example", order_created().key()),
        sent_at: at(33),
    }
}

pub(crate) fn notification_failed() -> NotificationFailed {
    NotificationFailed {
        order_id: order_id(),
        notice: Notice::Confirmation,
        channel: Channel::Sms,
        reason: "the number is not reachable".into(),
        failed_at: at(33),
    }
}

pub(crate) fn order_query() -> OrderQuery {
    OrderQuery { order_id: order_id() }
}

pub(crate) fn payment_status() -> PaymentStatus {
    PaymentStatus {
        order_id: order_id(),
        status: "captured".into(),
        payment_id: Some(PAYMENT.into()),
        amount: Some(total()),
        detail: None,
    }
}

pub(crate) fn stock_query() -> StockQuery {
    StockQuery { product_id: Some(cups()) }
}

pub(crate) fn stock_level() -> StockLevel {
    StockLevel { product_id: cups(), available: 118, reserved: 2, committed: 40 }
}

pub(crate) fn stock_levels() -> StockLevels {
    StockLevels { levels: vec![stock_level()] }
}

pub(crate) fn stock_adjustment() -> StockAdjustment {
    StockAdjustment {
        adjustment_id: uuid::Uuid::from_u128(0x01a1_fc40_0a11_7c3e_8a60_3f0e_2b6d_9c51),
        product_id: cups(),
        delta: 24,
        reason: "delivery of 21 November".into(),
    }
}
