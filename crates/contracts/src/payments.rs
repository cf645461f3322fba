//! Events of the payment service, under `payments.>`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Money, OrderId, Timestamp, examples, order_event};

/// A step of moving money at the gateway. Part of the gateway's idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Set money aside.
    Authorize,
    /// Charge what was set aside.
    Capture,
    /// Give back what was set aside.
    Void,
    /// Pay back what was charged.
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
#[schemars(title = "payments.authorized v1", example = examples::payment_authorized())]
pub struct PaymentAuthorized {
    /// The order that is paid for.
    pub order_id: OrderId,
    /// The gateway's name for this payment.
    pub payment_id: String,
    /// How much is set aside.
    pub amount: Money,
    /// When the gateway's answer came in.
    pub authorized_at: Timestamp,
}
order_event!(PaymentAuthorized, "payments.authorized");

/// The gateway refused: no money was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "payments.declined v1", example = examples::payment_declined())]
pub struct PaymentDeclined {
    /// The order that is paid for.
    pub order_id: OrderId,
    /// The gateway's code: `card_declined`.
    pub code: String,
    /// The gateway's words.
    pub message: String,
    /// When the gateway's answer came in.
    pub declined_at: Timestamp,
}
order_event!(PaymentDeclined, "payments.declined");

/// The customer was charged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "payments.captured v1", example = examples::payment_captured())]
pub struct PaymentCaptured {
    /// The order that is paid for.
    pub order_id: OrderId,
    /// The gateway's name for this payment.
    pub payment_id: String,
    /// How much was charged.
    pub amount: Money,
    /// When the gateway's answer came in.
    pub captured_at: Timestamp,
}
order_event!(PaymentCaptured, "payments.captured");

/// The authorization was given back: nothing was charged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "payments.voided v1", example = examples::payment_voided())]
pub struct PaymentVoided {
    /// The order that is paid for.
    pub order_id: OrderId,
    /// The gateway's name for this payment.
    pub payment_id: String,
    /// When the gateway's answer came in.
    pub voided_at: Timestamp,
}
order_event!(PaymentVoided, "payments.voided");

/// A charge was paid back in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "payments.refunded v1", example = examples::payment_refunded())]
pub struct PaymentRefunded {
    /// The order that is paid for.
    pub order_id: OrderId,
    /// The gateway's name for this payment.
    pub payment_id: String,
    /// How much was paid back.
    pub amount: Money,
    /// When the gateway's answer came in.
    pub refunded_at: Timestamp,
}
order_event!(PaymentRefunded, "payments.refunded");

/// The gateway refused a capture, void or refund for good: somebody has to look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "payments.failed v1", example = examples::payment_failed())]
pub struct PaymentFailed {
    /// The order that is paid for.
    pub order_id: OrderId,
    /// What was asked of the gateway.
    pub step: Step,
    /// The gateway's code: `card_declined`.
    pub code: String,
    /// The gateway's words.
    pub message: String,
    /// When the gateway's answer came in.
    pub failed_at: Timestamp,
}
order_event!(PaymentFailed, "payments.failed");
