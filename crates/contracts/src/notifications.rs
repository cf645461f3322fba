//! Events of the notification service, under `notifications.>`. They name no address: personal data stays in one place.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{OrderId, Timestamp, examples, order_event};

/// What the customer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// "We have your order."
    Acknowledgement,
    /// "Your order stands."
    Confirmation,
    /// "Your order was cancelled."
    Cancellation,
}

/// How they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// By e-mail.
    Email,
    /// By SMS.
    Sms,
}

/// The provider took the message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "notifications.sent v1", example = examples::notification_sent())]
pub struct NotificationSent {
    /// The order the customer is told about.
    pub order_id: OrderId,
    /// What they are told.
    pub notice: Notice,
    /// How they are told.
    pub channel: Channel,
    /// The same each time this notice is sent, so that a mail program shows a repeated one once.
    pub message_id: String,
    /// When the provider took it.
    pub sent_at: Timestamp,
}
order_event!(NotificationSent, "notifications.sent");

/// The provider refused the message for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "notifications.failed v1", example = examples::notification_failed())]
pub struct NotificationFailed {
    /// The order the customer is told about.
    pub order_id: OrderId,
    /// What they are told.
    pub notice: Notice,
    /// How they are told.
    pub channel: Channel,
    /// What the provider said.
    pub reason: String,
    /// When the provider refused.
    pub failed_at: Timestamp,
}
order_event!(NotificationFailed, "notifications.failed");

impl Notice {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Acknowledgement => "acknowledgement",
            Self::Confirmation => "confirmation",
            Self::Cancellation => "cancellation",
        }
    }
}

impl Channel {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Sms => "sms",
        }
    }
}
