//! What the services say to each other: events, request/reply messages, catalog entries, and the values they are made
//! of. Knows no service; every service knows this.
//!
//! A value that exists is valid: constructors and deserialization refuse anything else.

pub mod api;
pub mod catalog;
pub mod documents;
mod examples;
pub mod ids;
pub mod inventory;
pub mod money;
pub mod notifications;
pub mod orders;
pub mod payments;
pub mod subjects;
pub mod time;
pub mod topology;

pub use ids::{CustomerId, OrderId, ProductId};
pub use money::{Currency, Money};
pub use time::Timestamp;

use millrace::event::Schema;

/// Every event and version there is, for `schemas/`, validation and documentation.
pub fn all_schemas() -> Vec<Schema> {
    [
        Schema::all_of::<orders::OrderCreated>(),
        Schema::all_of::<orders::OrderConfirmed>(),
        Schema::all_of::<orders::OrderCancelled>(),
        Schema::all_of::<payments::PaymentAuthorized>(),
        Schema::all_of::<payments::PaymentDeclined>(),
        Schema::all_of::<payments::PaymentCaptured>(),
        Schema::all_of::<payments::PaymentVoided>(),
        Schema::all_of::<payments::PaymentRefunded>(),
        Schema::all_of::<payments::PaymentFailed>(),
        Schema::all_of::<inventory::InventoryReserved>(),
        Schema::all_of::<inventory::InventoryRejected>(),
        Schema::all_of::<inventory::InventoryCommitted>(),
        Schema::all_of::<inventory::InventoryReleased>(),
        Schema::all_of::<notifications::NotificationSent>(),
        Schema::all_of::<notifications::NotificationFailed>(),
    ]
    .concat()
}

/// Declares an event contract about one order: its newest version, and those before it, which are
/// [`Older`](millrace::event::Older) types.
macro_rules! order_event {
    ($type:ty, $name:literal) => {
        order_event!(@ $type, $name, 1, $name);
    };
    ($type:ty, $name:literal, version $version:literal $(, older $($older:ty),+)?) => {
        order_event!(@ $type, $name, $version, concat!($name, ".v", $version) $(, $($older),+)?);
    };
    (@ $type:ty, $name:literal, $version:literal, $subject:expr $(, $older:ty)*) => {
        impl millrace::event::Event for $type {
            const TYPE: &'static str = $name;
            const VERSION: u32 = $version;
            const SUBJECT: &'static str = $subject;
            const OLDER: &'static [millrace::event::OlderVersion<Self>] =
                &[$(millrace::event::OlderVersion::of::<$older>()),*];

            fn key(&self) -> String {
                self.order_id.to_string()
            }
        }
    };
}
pub(crate) use order_event;
