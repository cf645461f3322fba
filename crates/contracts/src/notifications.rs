//! Events of the notification service, under `notifications.>`. They name no address: personal data stays in one place.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{OrderId, Timestamp, order_event};

/// What the customer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// "We have your order."
    Acknowledgement,
    Confirmation,
    Cancellation,
}

/// How they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    Email,
    Sms,
}

/// The provider took the message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "notifications.sent v1")]
pub struct NotificationSent {
    pub order_id: OrderId,
    pub notice: Notice,
    pub channel: Channel,
    /// The same each time this notice is sent, so that a mail program shows a repeated one once.
    pub message_id: String,
    pub sent_at: Timestamp,
}
order_event!(NotificationSent, "notifications.sent");

/// The provider refused the message for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "notifications.failed v1")]
pub struct NotificationFailed {
    pub order_id: OrderId,
    pub notice: Notice,
    pub channel: Channel,
    pub reason: String,
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
