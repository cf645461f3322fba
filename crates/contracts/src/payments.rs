//! Events of the payment service, under `payments.>`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Money, OrderId, Timestamp, order_event};

/// A step of moving money at the gateway. Part of the gateway's idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Authorize,
    Capture,
    Void,
    Refund,
}

impl Step {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authorize => "authorize",
            Self::Capture => "capture",
            Self::Void => "void",
            Self::Refund => "refund",
        }
    }
}

/// The amount is set aside on the customer's card; nothing is charged yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "payments.authorized v1")]
pub struct PaymentAuthorized {
    pub order_id: OrderId,
    /// The gateway's name for this payment.
    pub payment_id: String,
    pub amount: Money,
    pub authorized_at: Timestamp,
}
order_event!(PaymentAuthorized, "payments.authorized");

/// The gateway refused: no money was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "payments.declined v1")]
pub struct PaymentDeclined {
    pub order_id: OrderId,
    /// The gateway's code: `card_declined`.
    pub code: String,
    pub message: String,
    pub declined_at: Timestamp,
}
order_event!(PaymentDeclined, "payments.declined");

/// The customer was charged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "payments.captured v1")]
pub struct PaymentCaptured {
    pub order_id: OrderId,
    pub payment_id: String,
    pub amount: Money,
    pub captured_at: Timestamp,
}
order_event!(PaymentCaptured, "payments.captured");

/// The authorization was given back: nothing was charged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "payments.voided v1")]
pub struct PaymentVoided {
    pub order_id: OrderId,
    pub payment_id: String,
    pub voided_at: Timestamp,
}
order_event!(PaymentVoided, "payments.voided");

/// A charge was paid back in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "payments.refunded v1")]
pub struct PaymentRefunded {
    pub order_id: OrderId,
    pub payment_id: String,
    pub amount: Money,
    pub refunded_at: Timestamp,
}
order_event!(PaymentRefunded, "payments.refunded");

/// The gateway refused a capture, void or refund for good: somebody has to look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "payments.failed v1")]
pub struct PaymentFailed {
    pub order_id: OrderId,
    pub step: Step,
    pub code: String,
    pub message: String,
    pub failed_at: Timestamp,
}
order_event!(PaymentFailed, "payments.failed");
