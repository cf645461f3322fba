//! What can happen to orders, and what is read and written for it. Decisions about an order itself are in `domain.rs`;
//! here they meet rows, idempotency keys and outgoing events.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use contracts::catalog::Product;
use contracts::orders::{OrderCancelled, OrderConfirmed, OrderCreated};
use contracts::{OrderId, ProductId, Timestamp};
use millrace::event::EventId;
use millrace::store::{Model, Outbound, Table};
use serde_json::Value;
use time::OffsetDateTime;

use crate::domain::{Cancellation, End, Fact, Order, Placement, Recalled};
use crate::timeline as shown;

/// The name under which this service appears on timelines.
pub const SERVICE: &str = "order";

/// Something that should happen.
#[derive(Debug, Clone)]
pub enum Intent {
    /// An order placed through the API, priced already.
    Create { order: Box<OrderCreated>, key: Option<KeyUse> },
    /// An event of another service about an order.
    Observe { order_id: OrderId, fact: Fact, observed: Observed },
    /// The customer wants the order cancelled.
    Cancel { order_id: OrderId },
    /// The poller found the order's deadline in the past.
    Expire { order_id: OrderId },
    /// An order that somebody else published as version 1 of `orders.created`. Published again in the newest version,
    /// under `event_id`.
    AcceptForeign { order: Box<OrderCreated>, event_id: EventId },
    /// The catalog changed.
    SaveCatalog(CatalogChange),
    /// Idempotency keys of before this moment have had their time.
    ForgetKeys { used_before: Timestamp },
    /// Puts timelines right: the state of orders is not touched.
    Mend(Mending),
    /// What this service has told of orders, as the stream has it.
    Recall(Vec<Told>),
}

/// An event of this service, read from the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub order_id: OrderId,
    pub what: ToldWhat,
    /// As the timeline shows it.
    pub observed: Observed,
}

/// What such an event says.
#[derive(Debug, Clone, PartialEq)]
pub enum ToldWhat {
    Placed { order: Box<OrderCreated>, foreign: bool },
    Ended(End),
}

/// What is wrong with timelines, by the history on the streams.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mending {
    /// Events that are not there.
    pub missing: Vec<(OrderId, Observed)>,
    /// Events that are there otherwise than they were.
    pub altered: Vec<(OrderId, Observed)>,
    /// Ids of entries without an event.
    pub stray: Vec<(OrderId, String)>,
}

/// What was put right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mended {
    pub added: u64,
    pub corrected: u64,
    pub removed: u64,
    /// Events of orders that are not here at all.
    pub unknown: u64,
}

/// An `Idempotency-Key` and the request it came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUse {
    pub key: String,
    /// Tells whether a second request with the key is the same request.
    pub request_hash: String,
}

/// An event of another service, as the timeline shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// Unique over publishers.
    pub event_id: String,
    pub event_type: String,
    pub service: String,
    pub at: Timestamp,
    pub detail: Value,
}

/// What the stored copy of the catalog has to become.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CatalogChange {
    /// Everything that is not in `put` goes.
    pub replace: bool,
    pub put: Vec<Product>,
    pub remove: Vec<ProductId>,
    /// How far the copy has followed the bucket with this.
    pub place: Option<CatalogPlace>,
}

/// How far the copy of the catalog has followed the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogPlace {
    /// When the bucket was made: another time is another bucket, with revisions of its own.
    pub bucket_created_ms: i64,
    /// The last revision that was followed.
    pub revision: u64,
    /// The bucket had only revisions up to this one when it was noticed that it has lost later ones, which the copy has.
    pub lost_behind: Option<u64>,
}

/// What the one who asked is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Created,
    /// The key was used before for the same request, which placed this order.
    Replayed(OrderId),
    /// The key was used before for another request.
    KeyTaken,
    Foreign(Placement),
    Cancellation(Cancellation),
    /// A fact or a deadline was taken into account; whether that ended the order.
    Noted(Option<End>),
    Mended(Mended),
    /// One for each event.
    Recalled(Vec<Recalled>),
    Done,
}

/// An order's row.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderRow {
    pub order: Order,
    /// How many entries its timeline has; the next one gets this number plus one.
    pub entries: i64,
}

/// An idempotency key's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    pub request_hash: String,
    pub order_id: OrderId,
    pub used_at: Timestamp,
}

/// One entry of a timeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub order_id: OrderId,
    /// From 1, in the order this service learnt of things; never reused, so a reader can resume behind it.
    pub seq: i64,
    pub what: Observed,
}

/// The rows of a batch.
#[derive(Debug, Default)]
pub struct Rows {
    pub orders: Table<OrderId, OrderRow>,
    /// Orders that were only known from facts and now are here in full.
    pub filled: HashSet<OrderId>,
    /// Orders that have ended in this batch: the others have the status they had.
    pub ended: HashSet<OrderId>,
    pub keys: Table<String, KeyRow>,
    /// Events that are on the timeline already, of those the batch is about.
    pub known_entries: HashSet<(OrderId, String)>,
    pub new_entries: Vec<Entry>,
    /// Highest numbers on timelines that are mended: a number that somebody else wrote must not be given out again.
    pub highest: HashMap<OrderId, i64>,
    pub corrected_entries: Vec<(OrderId, Observed)>,
    pub removed_entries: Vec<(OrderId, String)>,
    pub catalog: Vec<CatalogChange>,
    pub forget_keys_before: Option<Timestamp>,
}

/// What a batch of intents needs to be loaded.
#[derive(Debug, Default)]
pub struct Needs<'a> {
    pub orders: Vec<OrderId>,
    pub entries: Vec<(OrderId, &'a str)>,
    pub highest: Vec<OrderId>,
    pub keys: Vec<&'a str>,
}

impl<'a> Needs<'a> {
    pub fn of(intents: &[&'a Intent]) -> Self {
        let mut needs = Self::default();
        for intent in intents {
            match intent {
                Intent::Create { order, key } => {
                    needs.orders.push(order.order_id);
                    needs.keys.extend(key.as_ref().map(|key| key.key.as_str()));
                }
                Intent::Observe { order_id, observed, .. } => {
                    needs.orders.push(*order_id);
                    needs.entries.push((*order_id, &observed.event_id));
                }
                Intent::Cancel { order_id } | Intent::Expire { order_id } => needs.orders.push(*order_id),
                Intent::AcceptForeign { order, .. } => needs.orders.push(order.order_id),
                Intent::Mend(mending) => {
                    let events = mending.missing.iter().chain(&mending.altered);
                    let events = events.map(|(id, what)| (*id, what.event_id.as_str()));
                    let stray = mending.stray.iter().map(|(id, event_id)| (*id, event_id.as_str()));
                    let from = needs.entries.len();
                    needs.entries.extend(events.chain(stray));
                    needs.highest.extend(needs.entries.iter().skip(from).map(|(id, _)| *id));
                }
                Intent::Recall(told) => {
                    needs.orders.extend(told.iter().map(|told| told.order_id));
                    needs.entries.extend(told.iter().map(|told| (told.order_id, told.observed.event_id.as_str())));
                }
                Intent::SaveCatalog(_) | Intent::ForgetKeys { .. } => {}
            }
        }
        needs.highest.sort_unstable();
        needs.highest.dedup();
        needs.orders.extend(&needs.highest);
        needs.orders.sort_unstable();
        needs.orders.dedup();
        needs.keys.sort_unstable();
        needs.keys.dedup();
        needs
    }
}

/// Decides about orders.
#[derive(Debug, Clone)]
pub struct OrderModel {
    /// How long an order may be processing.
    pub deadline: Duration,
    /// How long an idempotency key is remembered.
    pub key_lifetime: Duration,
}

impl Model for OrderModel {
    type Intent = Intent;
    type Outcome = Outcome;
    type Rows = Rows;

    fn decide(&self, rows: &mut Rows, intent: &Intent, now: OffsetDateTime, out: &mut Outbound) -> Outcome {
        let now = Timestamp::from_unix_ms(Timestamp(now).unix_ms());
        match intent {
            Intent::Create { order, key } => self.create(rows, order, key.as_ref(), now, out),
            Intent::Observe { order_id, fact, observed } => {
                // A rebuild may have put the event on the timeline before it came here, so that says nothing about
                // whether the order has heard of it. A fact heard twice changes nothing.
                let is_new = rows.known_entries.insert((*order_id, observed.event_id.clone()));
                rows.change(*order_id, out, |order, timeline, out| {
                    timeline.extend(is_new.then(|| observed.clone()));
                    let end = order.observe(*fact, now);
                    announce(order, end, now, timeline, out);
                    Outcome::Noted(end)
                })
            }
            Intent::Cancel { order_id } => rows.change(*order_id, out, |order, timeline, out| {
                let cancellation = order.cancel(now);
                if cancellation == Cancellation::Now {
                    let end = order.placed.as_ref().and_then(|placed| placed.ended).map(|(end, _)| end);
                    announce(order, end, now, timeline, out);
                }
                Outcome::Cancellation(cancellation)
            }),
            Intent::Expire { order_id } => rows.change(*order_id, out, |order, timeline, out| {
                let end = order.expire(now);
                announce(order, end, now, timeline, out);
                Outcome::Noted(end)
            }),
            Intent::AcceptForeign { order, event_id } => self.accept_foreign(rows, order, event_id, now, out),
            Intent::Mend(mending) => Outcome::Mended(rows.mend(mending)),
            Intent::Recall(told) => Outcome::Recalled(told.iter().map(|told| self.recall(rows, told, out)).collect()),
            Intent::SaveCatalog(change) => {
                rows.catalog.push(change.clone());
                Outcome::Done
            }
            Intent::ForgetKeys { used_before } => {
                rows.forget_keys_before = rows.forget_keys_before.max(Some(*used_before));
                Outcome::Done
            }
        }
    }
}

impl OrderModel {
    fn create(
        &self,
        rows: &mut Rows,
        order: &OrderCreated,
        key: Option<&KeyUse>,
        now: Timestamp,
        out: &mut Outbound,
    ) -> Outcome {
        if let Some(asked) = key {
            match rows.keys.get(&asked.key).filter(|row| now < later(row.used_at, self.key_lifetime)) {
                Some(row) if row.request_hash != asked.request_hash => return Outcome::KeyTaken,
                // The very same attempt may come twice, after a connection was lost; it is no replay.
                Some(row) if row.order_id != order.order_id => return Outcome::Replayed(row.order_id),
                _ => {
                    let row =
                        KeyRow { request_hash: asked.request_hash.clone(), order_id: order.order_id, used_at: now };
                    rows.keys.put(asked.key.clone(), row);
                }
            }
        }
        self.place(rows, order, false, now, out, |out| out.publish(order));
        Outcome::Created
    }

    fn accept_foreign(
        &self,
        rows: &mut Rows,
        order: &OrderCreated,
        event_id: &EventId,
        now: Timestamp,
        out: &mut Outbound,
    ) -> Outcome {
        Outcome::Foreign(self.place(rows, order, true, now, out, |out| {
            // Version 1 is there already: it is what arrived.
            out.publish_versions(event_id, order, &[1]);
            event_id.clone()
        }))
    }

    /// Publishes nothing: it is what was published.
    fn recall(&self, rows: &mut Rows, told: &Told, out: &mut Outbound) -> Recalled {
        let known_by_facts = rows.orders.get(&told.order_id).is_some_and(|row| row.order.placed.is_none());
        let at = told.observed.at;
        let is_new = !rows.known_entries.contains(&(told.order_id, told.observed.event_id.clone()));
        let recalled = rows.change(told.order_id, out, |order, timeline, _| {
            let recalled = match &told.what {
                ToldWhat::Placed { order: created, foreign } => {
                    order.recall_placed(created, *foreign, at, later(at, self.deadline))
                }
                ToldWhat::Ended(end) => order.recall_end(*end, at),
            };
            timeline.extend((recalled == Recalled::Now && is_new).then(|| told.observed.clone()));
            recalled
        });
        if recalled == Recalled::Now {
            rows.known_entries.insert((told.order_id, told.observed.event_id.clone()));
            if known_by_facts && matches!(told.what, ToldWhat::Placed { .. }) {
                rows.filled.insert(told.order_id);
            }
        }
        recalled
    }

    fn place(
        &self,
        rows: &mut Rows,
        created: &OrderCreated,
        foreign: bool,
        now: Timestamp,
        out: &mut Outbound,
        publish: impl FnOnce(&mut Outbound) -> EventId,
    ) -> Placement {
        let known_by_facts = rows.orders.get(&created.order_id).is_some_and(|row| row.order.placed.is_none());
        let placement = rows.change(created.order_id, out, |order, timeline, out| {
            let placement = order.place(created, foreign, now, later(now, self.deadline));
            if let Placement::Accepted(end) = placement {
                timeline.push(shown::created(&publish(out), now, created, foreign));
                announce(order, end, now, timeline, out);
            }
            placement
        });
        if known_by_facts && matches!(placement, Placement::Accepted(_)) {
            rows.filled.insert(created.order_id);
        }
        placement
    }
}

impl Rows {
    /// Changes one order and appends to its timeline. An order that is not known and stays unknown leaves no row.
    fn change<T>(
        &mut self,
        id: OrderId,
        out: &mut Outbound,
        change: impl FnOnce(&mut Order, &mut Vec<Observed>, &mut Outbound) -> T,
    ) -> T {
        let mut row =
            self.orders.get(&id).cloned().unwrap_or_else(|| OrderRow { order: Order::unknown(id), entries: 0 });
        let mut timeline = Vec::new();
        let ended_before = row.order.ended();
        let result = change(&mut row.order, &mut timeline, out);
        if row.order.ended() != ended_before {
            self.ended.insert(id);
        }
        for what in timeline {
            row.entries += 1;
            self.new_entries.push(Entry { order_id: id, seq: row.entries, what });
        }
        if row.entries > 0 {
            self.orders.put(id, row);
        }
        result
    }

    /// Adds, corrects and removes entries. What has been put right meanwhile is left alone.
    fn mend(&mut self, mending: &Mending) -> Mended {
        let mut mended = Mended::default();
        let corrections = mending.altered.iter().map(|wanted| (wanted, true));
        for ((id, what), correct) in mending.missing.iter().map(|wanted| (wanted, false)).chain(corrections) {
            let Some(mut row) = self.orders.get(id).cloned() else {
                mended.unknown += 1;
                continue;
            };
            if !self.known_entries.insert((*id, what.event_id.clone())) {
                if correct {
                    self.corrected_entries.push((*id, what.clone()));
                    mended.corrected += 1;
                }
                continue;
            }
            row.entries = row.entries.max(self.highest.get(id).copied().unwrap_or(0)) + 1;
            self.new_entries.push(Entry { order_id: *id, seq: row.entries, what: what.clone() });
            self.orders.put(*id, row);
            mended.added += 1;
        }
        for (id, event_id) in &mending.stray {
            if self.known_entries.remove(&(*id, event_id.clone())) {
                self.removed_entries.push((*id, event_id.clone()));
                mended.removed += 1;
            }
        }
        mended
    }
}

/// Publishes an order's end and writes it on the timeline.
fn announce(order: &Order, end: Option<End>, now: Timestamp, timeline: &mut Vec<Observed>, out: &mut Outbound) {
    let (Some(end), Some(placed)) = (end, &order.placed) else { return };
    timeline.push(match end {
        End::Confirmed => {
            let event = OrderConfirmed { order_id: order.id, total: placed.order.total, confirmed_at: now };
            shown::confirmed(&out.publish(&event), now, &event)
        }
        End::Cancelled(reason) => {
            let event = OrderCancelled { order_id: order.id, reason, cancelled_at: now };
            shown::cancelled(&out.publish(&event), now, &event)
        }
    });
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    Timestamp::from_unix_ms(at.unix_ms().saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
}

/// What a batch of catalog changes comes to: the products to write, and those to take away.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CatalogWrite<'a> {
    pub replace: bool,
    pub put: Vec<&'a Product>,
    pub remove: Vec<&'a ProductId>,
    pub place: Option<CatalogPlace>,
}

impl<'a> CatalogWrite<'a> {
    /// Later changes win over earlier ones.
    pub fn of(changes: &'a [CatalogChange]) -> Self {
        let mut last: HashMap<&ProductId, Option<&Product>> = HashMap::new();
        let mut replace = false;
        for change in changes {
            if change.replace {
                replace = true;
                last.clear();
            }
            last.extend(change.put.iter().map(|product| (&product.product_id, Some(product))));
            last.extend(change.remove.iter().map(|id| (id, None)));
        }
        let place = changes.iter().rev().find_map(|change| change.place);
        let mut write = Self { replace, place, ..Self::default() };
        for (id, product) in last {
            match product {
                Some(product) => write.put.push(product),
                None => write.remove.push(id),
            }
        }
        // In one order everywhere, so that instances writing the same do not lock each other out.
        write.put.sort_unstable_by(|a, b| a.product_id.cmp(&b.product_id));
        write.remove.sort_unstable();
        write
    }
}
