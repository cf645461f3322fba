//! The ledger: what the gateway was asked, and what happened to the money.
//!
//! This is the other side's view, independent of what the payment service believes. An order was charged exactly once
//! when the intents that carry its id have `captures` adding up to one.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};

use super::bank::Bank;
use super::intent::{Intent, Status};
use super::operation::Params;
use super::server::Gateway;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// When it came in, milliseconds since 1970.
    pub at_ms: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// HTTP method.
    pub method: String,
    /// Path, without the query.
    pub path: String,
    /// The `Idempotency-Key`, if one was sent.
    pub idempotency_key: Option<String>,
    /// Form or query parameters.
    pub params: Params,
    /// The status it was answered with; null when the connection was dropped instead.
    pub status: Option<u16>,
    /// Whether the answer was one kept from an earlier request with the same key.
    pub replayed: bool,
}

/// One intent; amounts are minor units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// `pi_...`
    pub id: String,
    /// From `metadata[order_id]`.
    pub order_id: Option<String>,
    /// Where it stands.
    pub status: Status,
    /// What the client asked for.
    pub amount: i64,
    /// ISO 4217, lower case.
    pub currency: String,
    /// Which token paid.
    pub payment_method: String,
    /// What was put on hold.
    pub authorized: i64,
    /// What was taken.
    pub captured: i64,
    /// What was given back.
    pub refunded: i64,
    /// How often money was taken.
    pub captures: u32,
    /// How often money was given back.
    pub refunds: u32,
}

/// The answer of `GET /_control/ledger`, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The requests it saw.
    pub requests: Vec<Seen>,
    /// How many older requests it has forgotten.
    pub requests_dropped: u64,
    /// The payments.
    pub intents: Vec<Summary>,
    /// How many finished payments it has forgotten; zero means that `intents` is complete.
    pub intents_dropped: u64,
}

/// Which part of the ledger to read.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Part {
    /// Only the intents of this order.
    order_id: Option<String>,
    /// Only this many of the latest requests.
    requests: Option<usize>,
}

pub(super) async fn read(State(gateway): State<Arc<Gateway>>, Query(part): Query<Part>) -> Json<Ledger> {
    Json(gateway.with_bank(|bank| part.of(bank)))
}

impl Part {
    fn of(&self, bank: &Bank) -> Ledger {
        let wanted = |intent: &&Intent| self.order_id.is_none() || self.order_id.as_deref() == intent.order_id();
        let mut requests: Vec<_> = bank.seen.iter().rev().take(self.requests.unwrap_or(usize::MAX)).cloned().collect();
        requests.reverse();
        Ledger {
            requests,
            requests_dropped: bank.seen.dropped(),
            intents: bank.intents().filter(wanted).map(Summary::of).collect(),
            intents_dropped: bank.dropped(),
        }
    }
}

impl Summary {
    fn of(intent: &Intent) -> Self {
        Self {
            id: intent.id.clone(),
            order_id: intent.order_id().map(str::to_owned),
            status: intent.status,
            amount: intent.new.amount,
            currency: intent.new.currency.clone(),
            payment_method: intent.new.token.name.to_owned(),
            authorized: intent.authorized(),
            captured: intent.captured,
            refunded: intent.refunded,
            captures: intent.captures,
            refunds: intent.refunds,
        }
    }
}
