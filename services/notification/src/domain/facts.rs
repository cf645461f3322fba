use contracts::Money;
use contracts::notifications::{Channel, Notice};
use contracts::orders::{CancelReason, OrderCreated, PricedItem};

/// What `orders.created` says that a notice needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    pub email: Option<String>,
    pub phone: Option<String>,
    pub total: Money,
    pub items: Vec<PricedItem>,
}

impl Placed {
    /// The channels the customer can be reached over.
    pub fn channels(&self) -> impl Iterator<Item = Channel> {
        super::CHANNELS.into_iter().filter(|channel| self.address(*channel).is_some())
    }

    pub fn address(&self, channel: Channel) -> Option<&str> {
        match channel {
            Channel::Email => self.email.as_deref(),
            Channel::Sms => self.phone.as_deref(),
        }
        .filter(|address| !address.is_empty())
    }
}

impl From<&OrderCreated> for Placed {
    fn from(order: &OrderCreated) -> Self {
        Self {
            email: order.contact.email.clone(),
            phone: order.contact.phone.clone(),
            total: order.total,
            items: order.items.clone(),
        }
    }
}

/// Something that happened to an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    Placed(Placed),
    Confirmed,
    Cancelled(CancelReason),
}

/// All that happened to an order, whatever the sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    pub placed: Option<Placed>,
    pub confirmed: bool,
    pub cancelled: Option<CancelReason>,
}

impl Facts {
    pub(super) fn add(&mut self, fact: &Fact) {
        match fact {
            Fact::Placed(placed) => {
                self.placed.get_or_insert_with(|| placed.clone());
            }
            Fact::Confirmed => self.confirmed = true,
            Fact::Cancelled(reason) => {
                self.cancelled.get_or_insert(*reason);
            }
        }
    }

    /// What the customer should hear, earlier notices first.
    pub(super) fn notices(&self) -> impl Iterator<Item = Notice> + use<> {
        [
            (self.placed.is_some(), Notice::Acknowledgement),
            (self.confirmed, Notice::Confirmation),
            (self.cancelled.is_some(), Notice::Cancellation),
        ]
        .into_iter()
        .filter_map(|(wanted, notice)| wanted.then_some(notice))
    }
}
