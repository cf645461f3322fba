//! What notification keeps, and how an intent is decided on it. All rules are in [`domain`](crate::domain).

use std::collections::BTreeSet;

use contracts::notifications::{Channel, Notice, NotificationFailed, NotificationSent};
use contracts::{OrderId, Timestamp};
use millrace::store::{Model, Outbound, Table};
use time::OffsetDateTime;

use crate::domain::{Announcement, CHANNELS, Delivery, Fact, Facts, Policy, Report, Send, State};

/// The decisions of notification, under an operator's rules.
#[derive(Debug, Clone)]
pub struct NotificationModel {
    pub policy: Policy,
    /// Right-hand side of the ids of messages: `<order>.<notice>@<this>`.
    pub message_domain: String,
}

/// Something that should happen to an order's notices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intent {
    /// A fact arrived; what is due by it now is claimed by the one who brought it.
    Learn { order_id: OrderId, fact: Fact, correlation_id: String },
    /// Somebody wants to send what stayed due over these channels.
    Claim { order_id: OrderId, channels: Vec<Channel> },
    /// What became of attempts.
    Report { order_id: OrderId, reports: Vec<Report> },
}

impl Intent {
    fn order_id(&self) -> OrderId {
        match self {
            Self::Learn { order_id, .. } | Self::Claim { order_id, .. } | Self::Report { order_id, .. } => *order_id,
        }
    }
}

/// What became of an intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// To be sent by the one who asked.
    Due(Due),
    Done,
}

/// Messages that belong to the one who got this, for as long as the claim lasts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Due {
    pub sends: Vec<Send>,
    /// Of the order.
    pub correlation_id: String,
}

/// An order as a row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrderRow {
    pub facts: Facts,
    pub correlation_id: String,
}

pub type DeliveryKey = (OrderId, Notice, Channel);

/// The rows of one batch.
#[derive(Debug, Default)]
pub struct Rows {
    pub orders: Table<OrderId, OrderRow>,
    pub deliveries: Table<DeliveryKey, Delivery>,
}

/// The orders a batch is about, sorted: rows are locked in this order, so that instances do not wait for each other in
/// circles.
pub(crate) fn orders_of(intents: &[&Intent]) -> BTreeSet<OrderId> {
    intents.iter().map(|intent| intent.order_id()).collect()
}

/// All notices there can be about an order.
pub(crate) const NOTICES: [Notice; 3] = [Notice::Acknowledgement, Notice::Confirmation, Notice::Cancellation];

/// The same every time the notice is sent: mail programs show a repeated one once.
pub fn message_id(order_id: OrderId, notice: Notice, domain: &str) -> String {
    format!("{order_id}.{}@{domain}", notice.as_str())
}

impl Model for NotificationModel {
    type Intent = Intent;
    type Outcome = Outcome;
    type Rows = Rows;

    fn decide(&self, rows: &mut Rows, intent: &Intent, now: OffsetDateTime, out: &mut Outbound) -> Outcome {
        let now = Timestamp::from(now);
        let order_id = intent.order_id();
        let row = rows.orders.get(&order_id).cloned().unwrap_or_default();
        let mut state = state_of(rows, order_id, row.facts);
        let mut correlation_id = row.correlation_id;
        let outcome = match intent {
            Intent::Learn { fact, correlation_id: theirs, .. } => {
                if correlation_id.is_empty() {
                    correlation_id.clone_from(theirs);
                }
                state.learn(fact, &self.policy, now.unix_ms());
                let sends = state.claim(&CHANNELS, &self.policy, now.unix_ms());
                Outcome::Due(Due { sends, correlation_id: correlation_id.clone() })
            }
            // Nothing was heard of the order, so there is nothing to remember either.
            Intent::Claim { .. } | Intent::Report { .. } if correlation_id.is_empty() => return Outcome::Done,
            Intent::Claim { channels, .. } => {
                let sends = state.claim(channels, &self.policy, now.unix_ms());
                Outcome::Due(Due { sends, correlation_id: correlation_id.clone() })
            }
            Intent::Report { reports, .. } => {
                for report in reports {
                    if let Some(announcement) = state.report(report, &self.policy, now.unix_ms()) {
                        self.publish(order_id, report, announcement, now, out);
                    }
                }
                Outcome::Done
            }
        };
        put(rows, order_id, state, correlation_id);
        outcome
    }
}

impl NotificationModel {
    fn publish(&self, order_id: OrderId, of: &Report, what: Announcement, now: Timestamp, out: &mut Outbound) {
        let Report { notice, channel, .. } = *of;
        match what {
            Announcement::Sent => {
                let message_id = message_id(order_id, notice, &self.message_domain);
                out.publish(&NotificationSent { order_id, notice, channel, message_id, sent_at: now })
            }
            Announcement::Failed { reason } => {
                out.publish(&NotificationFailed { order_id, notice, channel, reason, failed_at: now })
            }
        };
    }
}

fn state_of(rows: &Rows, order_id: OrderId, facts: Facts) -> State {
    let mut state = State { facts, ..State::default() };
    for notice in NOTICES {
        for channel in CHANNELS {
            if let Some(delivery) = rows.deliveries.get(&(order_id, notice, channel)) {
                state.deliveries.insert((notice, channel), delivery.clone());
            }
        }
    }
    state
}

fn put(rows: &mut Rows, order_id: OrderId, state: State, correlation_id: String) {
    rows.orders.put(order_id, OrderRow { facts: state.facts, correlation_id });
    for ((notice, channel), delivery) in state.deliveries {
        rows.deliveries.put((order_id, notice, channel), delivery);
    }
}
