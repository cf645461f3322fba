//! How values of the domain are written in text columns, and the nullable columns of an order as one value.

use contracts::notifications::{Channel, Notice};
use contracts::orders::{CancelReason, PricedItem};
use contracts::{Currency, Money};

use crate::domain::{CHANNELS, Placed, Status};
use crate::model::NOTICES;

/// A value in a row that this version of the service cannot read.
#[derive(Debug, thiserror::Error)]
#[error("a row of notification holds {0:?} where it cannot be")]
pub(super) struct Unreadable(String);

/// A type of the domain that a text column holds.
pub(super) trait Parsed: Sized {
    fn parsed(text: &str) -> Result<Self, Unreadable>;
}

fn found<T>(value: Option<T>, text: &str) -> Result<T, Unreadable> {
    value.ok_or_else(|| Unreadable(text.into()))
}

impl Parsed for Status {
    fn parsed(text: &str) -> Result<Self, Unreadable> {
        found(Self::parse(text), text)
    }
}

impl Parsed for Notice {
    fn parsed(text: &str) -> Result<Self, Unreadable> {
        found(NOTICES.into_iter().find(|notice| notice.as_str() == text), text)
    }
}

impl Parsed for Channel {
    fn parsed(text: &str) -> Result<Self, Unreadable> {
        found(CHANNELS.into_iter().find(|channel| channel.as_str() == text), text)
    }
}

impl Parsed for CancelReason {
    fn parsed(text: &str) -> Result<Self, Unreadable> {
        let all = [Self::PaymentDeclined, Self::OutOfStock, Self::Customer, Self::Deadline];
        found(all.into_iter().find(|reason| reason.as_str() == text), text)
    }
}

impl Parsed for Currency {
    fn parsed(text: &str) -> Result<Self, Unreadable> {
        found(text.parse().ok(), text)
    }
}

impl Parsed for Vec<PricedItem> {
    fn parsed(text: &str) -> Result<Self, Unreadable> {
        found(serde_json::from_str(text).ok(), text)
    }
}

/// The columns that are null until `orders.created` arrived, all together.
pub(super) struct PlacedColumns {
    pub(super) email: Option<String>,
    pub(super) phone: Option<String>,
    pub(super) total_minor: Option<i64>,
    pub(super) currency: Option<Currency>,
    pub(super) items: Option<Vec<PricedItem>>,
}

impl From<PlacedColumns> for Option<Placed> {
    fn from(columns: PlacedColumns) -> Self {
        let PlacedColumns { email, phone, total_minor, currency, items } = columns;
        let total = Money { minor: total_minor?, currency: currency? };
        Some(Placed { email, phone, total, items: items? })
    }
}

pub(super) fn items_text(items: &[PricedItem]) -> String {
    // Fails only on a map with non-text keys, which an item does not have.
    serde_json::to_string(items).unwrap_or_default()
}
