//! What notification decides, without any I/O: which notices an order's customer gets, over which channels, and what
//! becomes of each.
//!
//! The notices follow from the set of facts known about an order, not from the sequence they arrived in: a confirmation
//! that overtook the creation is due as soon as the address is known. A delivery is `Due` until it is `Sent`, `Failed` or
//! `Skipped`, and those are final; so a notice is sent for certain, and again only if an answer was lost.

mod delivery;
mod facts;

pub use delivery::{Announcement, Delivery, Report, Status, Verdict};
pub use facts::{Fact, Facts, Placed};

use std::collections::BTreeMap;
use std::time::Duration;

use contracts::Money;
use contracts::notifications::{Channel, Notice};
use contracts::orders::{CancelReason, PricedItem};

/// The rules that an operator can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Whether the channel is in use; a notice over one that is not is skipped.
    pub email: bool,
    pub sms: bool,
    /// For how long a delivery belongs to the one who was told to make it: longer than one attempt can take.
    pub claim: Duration,
    /// A notice that could not be delivered for this long has failed: by then the customer knows otherwise.
    pub give_up_after: Duration,
}

impl Policy {
    fn uses(&self, channel: Channel) -> bool {
        match channel {
            Channel::Email => self.email,
            Channel::Sms => self.sms,
        }
    }
}

/// Everything known about one order's notices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    pub facts: Facts,
    /// In the order in which they are sent.
    pub deliveries: BTreeMap<(Notice, Channel), Delivery>,
}

/// One message to be sent, with all its text needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    pub notice: Notice,
    pub channel: Channel,
    /// The e-mail address or phone number.
    pub to: String,
    pub total: Money,
    pub items: Vec<PricedItem>,
    /// Of a cancellation.
    pub reason: Option<CancelReason>,
    /// Attempts that went before.
    pub attempts: u32,
}

impl State {
    /// Takes in a fact. What becomes due by it is due from `now_ms`.
    pub fn learn(&mut self, fact: &Fact, policy: &Policy, now_ms: i64) {
        self.facts.add(fact);
        let Some(placed) = &self.facts.placed else { return };
        for notice in self.facts.notices() {
            for channel in placed.channels() {
                let status = if policy.uses(channel) { Status::Due } else { Status::Skipped };
                self.deliveries.entry((notice, channel)).or_insert_with(|| Delivery::new(status, now_ms));
            }
        }
    }

    /// What is to be sent now over these channels, earlier notices first.
    pub fn next_due(&self, channels: &[Channel], now_ms: i64) -> Vec<Send> {
        let Some(placed) = &self.facts.placed else { return Vec::new() };
        let due = self.deliveries.iter().filter(|((_, channel), delivery)| {
            channels.contains(channel) && delivery.status == Status::Due && delivery.next_attempt_at <= now_ms
        });
        due.filter_map(|((notice, channel), delivery)| {
            Some(Send {
                notice: *notice,
                channel: *channel,
                to: placed.address(*channel)?.to_owned(),
                total: placed.total,
                items: placed.items.clone(),
                reason: self.facts.cancelled.filter(|_| *notice == Notice::Cancellation),
                attempts: delivery.attempts,
            })
        })
        .collect()
    }

    /// As [`next_due`](Self::next_due), and nobody else gets the same deliveries for a while.
    pub fn claim(&mut self, channels: &[Channel], policy: &Policy, now_ms: i64) -> Vec<Send> {
        let sends = self.next_due(channels, now_ms);
        for send in &sends {
            if let Some(delivery) = self.deliveries.get_mut(&(send.notice, send.channel)) {
                delivery.next_attempt_at = now_ms.saturating_add(millis(policy.claim));
            }
        }
        sends
    }

    /// Takes in what became of an attempt. A delivery that is final stays as it is.
    pub fn report(&mut self, report: &Report, policy: &Policy, now_ms: i64) -> Option<Announcement> {
        let delivery = self.deliveries.get_mut(&(report.notice, report.channel))?;
        delivery.report(&report.verdict, policy, now_ms)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The channels there are.
pub const CHANNELS: [Channel; 2] = [Channel::Email, Channel::Sms];

#[cfg(test)]
mod tests;
