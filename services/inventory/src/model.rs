//! What inventory keeps, and how an intent is decided on it. All rules are in [`domain`](crate::domain).

use std::collections::BTreeSet;

use contracts::api::{StockAdjustment, StockLevel};
use contracts::catalog::Product;
use contracts::inventory::{InventoryCommitted, InventoryRejected, InventoryReleased, InventoryReserved};
use contracts::{OrderId, ProductId, Timestamp};
use millrace::store::{Model, Outbound, Table};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{self, Adjustment, AdjustmentRefused, Announcement, Reservation, Step, Stock};
use crate::under_test;

/// The decisions of inventory; it has no settings.
#[derive(Debug, Clone, Copy, Default)]
pub struct InventoryModel;

/// Something that should happen to stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intent {
    /// A step in the life of an order.
    Order { order_id: OrderId, step: Step },
    /// A product of the catalog; only one that is new gets its opening stock.
    AddProduct { product_id: ProductId, opening_stock: u32 },
    /// Units that come in or go out other than by an order.
    Adjust(StockAdjustment),
}

impl Intent {
    pub fn add(product: &Product) -> Self {
        Self::AddProduct { product_id: product.product_id.clone(), opening_stock: product.opening_stock }
    }
}

/// What became of an intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The order's step took effect now, or had before.
    Done,
    /// Whether the product was new.
    Added(bool),
    /// The stock after the adjustment.
    Adjusted(Result<StockLevel, AdjustmentRefused>),
}

/// A reservation as a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservationRow {
    pub reservation: Reservation,
    /// When it last changed, Unix milliseconds.
    pub changed_at: i64,
}

/// An adjustment as a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdjustmentRow {
    pub adjustment: Adjustment,
    /// Unix milliseconds.
    pub made_at: i64,
}

/// The rows of one batch.
#[derive(Debug, Default)]
pub struct Rows {
    pub stock: Table<ProductId, Stock>,
    pub reservations: Table<OrderId, ReservationRow>,
    pub adjustments: Table<Uuid, AdjustmentRow>,
}

/// The keys a batch needs, each sorted: rows are locked in this order, so that instances do not wait for each other in
/// circles.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    pub(crate) orders: BTreeSet<OrderId>,
    pub(crate) products: BTreeSet<ProductId>,
    pub(crate) adjustments: BTreeSet<Uuid>,
}

impl Keys {
    /// What the intents themselves name. The products of reservations that exist already come on top.
    pub(crate) fn of(intents: &[&Intent]) -> Self {
        let mut keys = Self::default();
        for intent in intents {
            match intent {
                Intent::Order { order_id, step } => {
                    keys.orders.insert(*order_id);
                    if let Step::Created(lines) = step {
                        keys.products.extend(lines.iter().map(|line| line.product_id.clone()));
                    }
                }
                Intent::AddProduct { product_id, .. } => {
                    keys.products.insert(product_id.clone());
                }
                Intent::Adjust(asked) => {
                    keys.products.insert(asked.product_id.clone());
                    keys.adjustments.insert(asked.adjustment_id);
                }
            }
        }
        keys
    }

    /// Adds the products that loaded reservations hold: confirming or cancelling them moves those units.
    pub(crate) fn add_held(&mut self, reservations: &Table<OrderId, ReservationRow>) {
        let items = reservations.values().flat_map(|row| &row.reservation.items);
        self.products.extend(items.map(|item| item.product_id.clone()));
    }
}

impl Model for InventoryModel {
    type Intent = Intent;
    type Outcome = Outcome;
    type Rows = Rows;

    fn decide(&self, rows: &mut Rows, intent: &Intent, now: OffsetDateTime, out: &mut Outbound) -> Outcome {
        match intent {
            Intent::Order { order_id, step } => {
                order_step(rows, *order_id, step, now.into(), out);
                Outcome::Done
            }
            Intent::AddProduct { product_id, opening_stock } => {
                Outcome::Added(add_product(rows, product_id, *opening_stock, now.into()))
            }
            Intent::Adjust(asked) => Outcome::Adjusted(adjust(rows, asked, now.into())),
        }
    }
}

fn order_step(rows: &mut Rows, order_id: OrderId, step: &Step, now: Timestamp, out: &mut Outbound) {
    let known = rows.reservations.get(&order_id).map(|row| &row.reservation);
    if known.is_none() && *step == Step::Cancelled && under_test::TOMBSTONE.is_on() {
        // Sabotage: a cancellation that comes before its order leaves nothing.
        return;
    }
    let Some(decision) = domain::decide(known, step, |product| rows.stock.get(product).copied()) else {
        return;
    };
    for (product, stock) in decision.stock {
        rows.stock.put(product, stock);
    }
    let changed_at = now.unix_ms();
    rows.reservations.put(order_id, ReservationRow { reservation: decision.reservation, changed_at });
    for announcement in decision.announce {
        publish(order_id, announcement, now, out);
    }
}

fn publish(order_id: OrderId, announcement: Announcement, now: Timestamp, out: &mut Outbound) {
    match announcement {
        Announcement::Reserved(items) => out.publish(&InventoryReserved { order_id, items, reserved_at: now }),
        Announcement::Rejected(shortages) => out.publish(&InventoryRejected { order_id, shortages, rejected_at: now }),
        Announcement::Committed(items) => out.publish(&InventoryCommitted { order_id, items, committed_at: now }),
        Announcement::Released(items) => out.publish(&InventoryReleased { order_id, items, released_at: now }),
    };
}

fn add_product(rows: &mut Rows, product_id: &ProductId, opening_stock: u32, now: Timestamp) -> bool {
    if rows.stock.get(product_id).is_some() {
        return false;
    }
    let (stock, id, adjustment) = domain::opening(product_id, opening_stock);
    rows.stock.put(product_id.clone(), stock);
    rows.adjustments.put(id, AdjustmentRow { adjustment, made_at: now.unix_ms() });
    true
}

fn adjust(rows: &mut Rows, asked: &StockAdjustment, now: Timestamp) -> Result<StockLevel, AdjustmentRefused> {
    let made = rows.adjustments.get(&asked.adjustment_id).map(|row| &row.adjustment);
    let stock = rows.stock.get(&asked.product_id).copied();
    if let Some((stock, adjustment)) = domain::adjust(made, stock, asked)? {
        rows.stock.put(asked.product_id.clone(), stock);
        rows.adjustments.put(asked.adjustment_id, AdjustmentRow { adjustment, made_at: now.unix_ms() });
    }
    let now = rows.stock.get(&asked.product_id).copied().unwrap_or_default();
    Ok(level(asked.product_id.clone(), now))
}

/// A row of the table as it is told to others.
pub(crate) fn level(product_id: ProductId, stock: Stock) -> StockLevel {
    let Stock { available, reserved, committed } = stock;
    StockLevel { product_id, available, reserved, committed }
}
