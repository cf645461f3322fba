//! From what each side says about an order to where they disagree, and what to do about it. Pure.

mod events;
mod gateway;
mod money;
mod order;
mod rest;
#[cfg(test)]
mod tests;

use serde::Serialize;

use super::facts::Facts;

/// What is wrong. The names are stable: scripts and alerts go by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Others know an order that the order service does not.
    OrderUnknown,
    /// Still processing past its deadline.
    OrderOverdue,
    /// A consumer passed over an event: the broker has it as handled, the inbox has not.
    EventNotHandled,
    /// An event waits in an outbox far too long.
    EventNotPublished,
    /// An event that counts as published is not on its stream.
    EventLost,
    /// An event of the order is a dead letter that waits for a decision.
    DeadLetterWaits,
    /// The order's timeline does not show an event.
    TimelineGap,
    /// The order has ended, and the payment service does not know it.
    PaymentMissing,
    /// The order is confirmed, its money is not captured, and nothing is due.
    NotCaptured,
    /// The order is cancelled, its money is held or kept, and nothing is due.
    MoneyKept,
    /// A step failed for good.
    PaymentNeedsOperator,
    /// A step is due and nobody sees to it.
    PaymentStepOverdue,
    /// Order, payment and gateway do not name one amount.
    AmountsDiffer,
    /// The gateway says something else about the payment than the payment service.
    GatewayDisagrees,
    /// The gateway holds money that is on no record.
    HoldUnrecorded,
    /// The gateway has taken money that is on no record.
    ChargeUnrecorded,
    /// The gateway has taken money for the order more than once.
    ChargedTwice,
    /// The order is confirmed, and inventory does not know it.
    ReservationMissing,
    /// The order is confirmed, and its stock has not left.
    StockNotCommitted,
    /// The order is cancelled, and its stock is not available again.
    StockStillHeld,
    /// A product's units do not add up.
    StockSumWrong,
    /// The customer was not told how the order ended.
    NoticeNotSent,
}

/// What can be done without asking anybody: what the services would do themselves if they were told again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Fix {
    /// Deliver the event to this consumer alone once more.
    Redeliver { durable: String, stream: String, seq: u64 },
    /// Publish the row of this service's outbox once more, under the id it always had.
    Republish { service: &'static str, row: i64 },
    /// Have the payment service release a hold.
    Release { payment_id: String },
}

/// Sides that do not say the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Disagreement {
    pub kind: Kind,
    /// `None` when it is about a product.
    pub order_id: Option<String>,
    /// Who says what.
    pub says: Vec<Says>,
    /// What somebody has to do, where `fixes` are none or do not help.
    pub remedy: String,
    pub fixes: Vec<Fix>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Says {
    pub who: String,
    pub what: String,
}

/// The moments that a judgement is about, Unix milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Orders to which something happened later than this are under way, and not judged.
    pub settled_before: i64,
    /// What was due earlier than this is overdue.
    pub overdue_before: i64,
    /// The gateway may have forgotten the idempotency key of an authorization that is older than this: asked again, it
    /// would hold the money a second time.
    pub keys_known_since: i64,
}

/// What came of one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Something happened just now; whatever differs may be on its way.
    UnderWay,
    Settled(Vec<Disagreement>),
}

pub fn judge(facts: &Facts, moment: Moment) -> Judgement {
    if facts.latest() > moment.settled_before {
        return Judgement::UnderWay;
    }
    let mut found = Vec::new();
    order::judge(facts, moment, &mut found);
    events::judge(facts, moment, &mut found);
    money::judge(facts, moment, &mut found);
    gateway::judge(facts, moment, &mut found);
    rest::stock(facts, moment, &mut found);
    rest::notices(facts, moment, &mut found);
    Judgement::Settled(found)
}

impl Kind {
    pub fn as_str(self) -> String {
        serde_json::to_value(self).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

impl Disagreement {
    fn new(facts: &Facts, kind: Kind, remedy: impl Into<String>) -> Self {
        let order_id = Some(facts.order_id.clone());
        Self { kind, order_id, says: Vec::new(), remedy: remedy.into(), fixes: Vec::new() }
    }

    pub fn says(mut self, who: impl Into<String>, what: impl Into<String>) -> Self {
        self.says.push(Says { who: who.into(), what: what.into() });
        self
    }

    /// Where `fixes` are some, running them is the remedy.
    fn fixed_by(mut self, fixes: Vec<Fix>) -> Self {
        if !fixes.is_empty() {
            self.remedy = "millrace reconcile --fix".to_owned();
        }
        self.fixes = fixes;
        self
    }
}

impl Facts {
    fn status(&self) -> &str {
        self.order.as_ref().map_or("unknown", |order| order.status.as_str())
    }

    /// Telling a service again what it never handled.
    fn redeliveries(&self, service: &str, moment: Moment) -> Vec<Fix> {
        let theirs = events::never_handled(self).filter(|(_, handling)| handling.service == service);
        theirs.filter_map(|one| events::redelivery(self, one, moment)).collect()
    }

    /// Whether the payment service, told of the order again, would ask for its money under a key that may be forgotten.
    fn would_authorize_anew(&self, moment: Moment) -> bool {
        let asked_before = self.payment.as_ref().is_some_and(|payment| payment.state != "expected");
        let created = self.events.iter().find(|event| event.subject.starts_with("orders.created"));
        !asked_before && created.is_none_or(|event| event.stored_at < moment.keys_known_since)
    }
}
