//! The events of one order. A service says each of them about an order at most once (that is one of the promises), so a
//! kind stands for the one event of its kind, its id included.

use std::fmt;

use contracts::payments::Step;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Created,
    Confirmed,
    Cancelled,
    Authorized,
    Declined,
    Captured,
    Voided,
    Refunded,
    AuthorizeFailed,
    CaptureFailed,
    VoidFailed,
    RefundFailed,
    Reserved,
    Rejected,
    Committed,
    Released,
}

impl Kind {
    pub(crate) const ALL: [Self; 16] = [
        Self::Created,
        Self::Confirmed,
        Self::Cancelled,
        Self::Authorized,
        Self::Declined,
        Self::Captured,
        Self::Voided,
        Self::Refunded,
        Self::AuthorizeFailed,
        Self::CaptureFailed,
        Self::VoidFailed,
        Self::RefundFailed,
        Self::Reserved,
        Self::Rejected,
        Self::Committed,
        Self::Released,
    ];

    pub(crate) fn failed(step: Step) -> Self {
        match step {
            Step::Authorize => Self::AuthorizeFailed,
            Step::Capture => Self::CaptureFailed,
            Step::Void => Self::VoidFailed,
            Step::Refund => Self::RefundFailed,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Created => "orders.created",
            Self::Confirmed => "orders.confirmed",
            Self::Cancelled => "orders.cancelled",
            Self::Authorized => "payments.authorized",
            Self::Declined => "payments.declined",
            Self::Captured => "payments.captured",
            Self::Voided => "payments.voided",
            Self::Refunded => "payments.refunded",
            Self::AuthorizeFailed => "payments.failed (authorize)",
            Self::CaptureFailed => "payments.failed (capture)",
            Self::VoidFailed => "payments.failed (void)",
            Self::RefundFailed => "payments.failed (refund)",
            Self::Reserved => "inventory.reserved",
            Self::Rejected => "inventory.rejected",
            Self::Committed => "inventory.committed",
            Self::Released => "inventory.released",
        }
    }

    /// Who says it.
    pub(crate) fn publisher(self) -> Service {
        match self {
            Self::Created | Self::Confirmed | Self::Cancelled => Service::Order,
            Self::Reserved | Self::Rejected | Self::Committed | Self::Released => Service::Inventory,
            _ => Service::Payment,
        }
    }

    /// Who handles it.
    pub(crate) fn readers(self) -> &'static [Service] {
        match self.publisher() {
            Service::Order => &[Service::Payment, Service::Inventory],
            Service::Payment | Service::Inventory => &[Service::Order],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of events of one order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Kinds(u16);

impl Kinds {
    pub(crate) fn of(kinds: &[Kind]) -> Self {
        kinds.iter().fold(Self::default(), |set, kind| set.with(*kind))
    }

    pub(crate) fn with(self, kind: Kind) -> Self {
        Self(self.0 | 1 << kind as u16)
    }

    pub(crate) fn without(self, kind: Kind) -> Self {
        Self(self.0 & !(1 << kind as u16))
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn has(self, kind: Kind) -> bool {
        self.0 & 1 << kind as u16 != 0
    }

    pub(crate) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(move |kind| self.has(*kind))
    }
}

/// Who has a database, an inbox and an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Service {
    Order,
    Payment,
    Inventory,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Order => "order",
            Self::Payment => "payment",
            Self::Inventory => "inventory",
        })
    }
}
