//! The invariants, one file each: pure functions from what a run left behind to what is wrong with it. They decide by
//! rules of their own and use none of the services' decisions, whose mistakes they would share.

mod dead_letters;
mod ends;
mod mail;
mod money;
mod outboxes;
mod shared_stock;
mod stock;
#[cfg(test)]
mod tests;
mod timelines;

use std::collections::BTreeMap;

use super::evidence::{Evidence, Id, Message, OrderRow, Wish};

/// What became of one invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `I1`
    pub id: &'static str,
    /// What is promised.
    pub promise: &'static str,
    /// Of what it was checked how often.
    pub checked: u64,
    pub violations: Vec<Violation>,
    /// Why it could not be checked, where it could not.
    pub unchecked: Option<String>,
    /// Worth knowing and allowed.
    pub remarks: Vec<String>,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The order it is about, if it is about one.
    pub order: Option<Id>,
    pub what: String,
}

/// All invariants, in their order.
pub fn all(evidence: &Evidence) -> Vec<Finding> {
    let index = Index::of(evidence);
    vec![
        ends::check(evidence, &index),
        money::check(evidence, &index),
        match &evidence.shared_stock {
            None => stock::check(evidence, &index),
            Some(shared) => shared_stock::check(evidence, shared),
        },
        mail::check(evidence, &index),
        dead_letters::check(evidence),
        timelines::check(evidence, &index),
        outboxes::check(evidence),
    ]
}

impl Finding {
    fn new(id: &'static str, promise: &'static str) -> Self {
        Self { id, promise, checked: 0, violations: Vec::new(), unchecked: None, remarks: Vec::new() }
    }

    /// Counts one look, and what was wrong with it.
    fn look(&mut self, order: Option<&Id>, wrong: impl IntoIterator<Item = String>) {
        self.checked += 1;
        self.violations.extend(wrong.into_iter().map(|what| Violation { order: order.cloned(), what }));
    }
}

/// Ways to look at the evidence that several checks need.
struct Index<'a> {
    /// Wishes that became an order, by its id.
    wishes: BTreeMap<&'a Id, &'a Wish>,
    /// Messages about an order, in the order of their streams.
    messages: BTreeMap<&'a Id, Vec<&'a Message>>,
}

impl<'a> Index<'a> {
    fn of(evidence: &'a Evidence) -> Self {
        let wishes = evidence.wishes.iter().flat_map(|wish| wish.accepted.iter().map(move |id| (id, wish))).collect();
        let mut messages: BTreeMap<&Id, Vec<&Message>> = BTreeMap::new();
        // What nobody can read names no order either.
        for message in
            evidence.messages.iter().filter(|message| message.event_id.is_some() || !message.is_older_version())
        {
            if let Some(order) = &message.order {
                messages.entry(order).or_default().push(message);
            }
        }
        Self { wishes, messages }
    }

    fn about(&self, order: &Id) -> &[&'a Message] {
        self.messages.get(order).map(Vec::as_slice).unwrap_or_default()
    }
}

impl OrderRow {
    fn is_confirmed(&self) -> bool {
        self.status == "confirmed"
    }

    fn is_cancelled(&self) -> bool {
        self.status == "cancelled"
    }

    /// `cancelled (customer)`
    fn end(&self) -> String {
        match &self.reason {
            Some(reason) => format!("{} ({reason})", self.status),
            None => self.status.clone(),
        }
    }
}
