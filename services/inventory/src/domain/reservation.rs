use std::collections::BTreeMap;

use contracts::ProductId;
use contracts::inventory::Shortage;
use contracts::orders::Item;

use super::Stock;

/// Where an order stands in inventory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Every item is held.
    Held,
    /// At least one item was short, so none is held.
    Rejected,
    /// The items left with the order.
    Committed,
    /// The order was cancelled and holds nothing. Final: a cancellation outweighs whatever else arrives.
    Released,
    /// `orders.confirmed` arrived first; what is to be held is still unknown.
    Expected,
    /// `orders.cancelled` arrived first; nothing may be held when `orders.created` follows.
    Tombstone,
}

impl Status {
    const ALL: [Self; 6] =
        [Self::Held, Self::Rejected, Self::Committed, Self::Released, Self::Expected, Self::Tombstone];

    /// As databases keep it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Rejected => "rejected",
            Self::Committed => "committed",
            Self::Released => "released",
            Self::Expected => "expected",
            Self::Tombstone => "tombstone",
        }
    }

    /// The reverse of [`as_str`](Self::as_str).
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// What an order asked for and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    pub status: Status,
    /// One line per product, sorted by product; empty until `orders.created` arrived.
    pub items: Vec<Item>,
}

/// What happened to the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// With the items as ordered; several lines may name one product.
    Created(Vec<Item>),
    Confirmed,
    Cancelled,
}

/// What others are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announcement {
    Reserved(Vec<Item>),
    Rejected(Vec<Shortage>),
    Committed(Vec<Item>),
    Released(Vec<Item>),
}

/// The new state, and what to say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub reservation: Reservation,
    /// The products whose counts changed, each once.
    pub stock: Vec<(ProductId, Stock)>,
    pub announce: Vec<Announcement>,
}

/// Decides one step of one order. `None`: it changes nothing, because it was known or something final outweighs it.
pub fn decide(
    known: Option<&Reservation>,
    step: &Step,
    stock_of: impl Fn(&ProductId) -> Option<Stock>,
) -> Option<Decision> {
    let before = known.map(|r| r.status);
    match (step, before) {
        (Step::Created(lines), None) => Some(reserve(lines, false, stock_of)),
        (Step::Created(lines), Some(Status::Expected)) => Some(reserve(lines, true, stock_of)),
        (Step::Created(lines), Some(Status::Tombstone)) => {
            let items = items_of(&merge_lines(lines));
            Some(Decision::quiet(Reservation { status: Status::Released, items }))
        }
        (Step::Confirmed, None) => Some(Decision::quiet(Reservation { status: Status::Expected, items: Vec::new() })),
        (Step::Cancelled, None | Some(Status::Expected)) => {
            Some(Decision::quiet(Reservation { status: Status::Tombstone, items: Vec::new() }))
        }
        (Step::Confirmed, Some(Status::Held)) => {
            let items = known?.items.clone();
            Some(Decision {
                stock: moved(&items, stock_of, Stock::commit),
                announce: vec![Announcement::Committed(items.clone())],
                reservation: Reservation { status: Status::Committed, items },
            })
        }
        (Step::Cancelled, Some(Status::Held)) => Some(give_back(known?, stock_of, Stock::release)),
        // The order service confirms or cancels, never both. Should both come all the same, the units return for the
        // reason the money does: a cancelled order ends without either changing hands.
        (Step::Cancelled, Some(Status::Committed)) => Some(give_back(known?, stock_of, Stock::take_back)),
        (Step::Cancelled, Some(Status::Rejected)) => {
            Some(Decision::quiet(Reservation { status: Status::Released, items: known?.items.clone() }))
        }
        (Step::Created(_), Some(Status::Held | Status::Rejected | Status::Committed | Status::Released))
        | (
            Step::Confirmed,
            Some(Status::Rejected | Status::Committed | Status::Released | Status::Expected | Status::Tombstone),
        )
        | (Step::Cancelled, Some(Status::Released | Status::Tombstone)) => None,
    }
}

impl Decision {
    /// No unit moves and nobody needs to know.
    fn quiet(reservation: Reservation) -> Self {
        Self { reservation, stock: Vec::new(), announce: Vec::new() }
    }
}

/// Adds up lines that name the same product; lines without units are dropped. Sums may exceed what one line can say.
pub fn merge_lines(lines: &[Item]) -> BTreeMap<ProductId, i64> {
    let mut units = BTreeMap::new();
    for line in lines.iter().filter(|line| line.quantity > 0) {
        *units.entry(line.product_id.clone()).or_insert(0) += i64::from(line.quantity);
    }
    units
}

fn items_of(units: &BTreeMap<ProductId, i64>) -> Vec<Item> {
    units.iter().map(|(product, &units)| Item { product_id: product.clone(), quantity: clamp(units) }).collect()
}

fn clamp(units: i64) -> u32 {
    u32::try_from(units).unwrap_or(u32::MAX)
}

/// All or nothing. An order that is confirmed already takes its items along at once.
fn reserve(lines: &[Item], confirmed: bool, stock_of: impl Fn(&ProductId) -> Option<Stock>) -> Decision {
    let units = merge_lines(lines);
    let items = items_of(&units);
    let mut stock = Vec::with_capacity(units.len());
    let mut shortages = Vec::new();
    for (product, &units) in &units {
        let now = stock_of(product).unwrap_or_default();
        // More than a line can say cannot be announced either, so it is never held.
        match now.hold(units).filter(|_| units <= i64::from(u32::MAX)) {
            Some(held) => stock.push((product.clone(), if confirmed { held.commit(units) } else { held })),
            None => shortages.push(Shortage {
                product_id: product.clone(),
                requested: clamp(units),
                available: now.available,
            }),
        }
    }
    if !shortages.is_empty() {
        return Decision {
            reservation: Reservation { status: Status::Rejected, items },
            stock: Vec::new(),
            announce: vec![Announcement::Rejected(shortages)],
        };
    }
    let mut announce = vec![Announcement::Reserved(items.clone())];
    if confirmed {
        announce.push(Announcement::Committed(items.clone()));
    }
    let status = if confirmed { Status::Committed } else { Status::Held };
    Decision { reservation: Reservation { status, items }, stock, announce }
}

fn give_back(
    known: &Reservation,
    stock_of: impl Fn(&ProductId) -> Option<Stock>,
    change: fn(Stock, i64) -> Stock,
) -> Decision {
    let items = known.items.clone();
    Decision {
        stock: moved(&items, stock_of, change),
        announce: vec![Announcement::Released(items.clone())],
        reservation: Reservation { status: Status::Released, items },
    }
}

fn moved(
    items: &[Item],
    stock_of: impl Fn(&ProductId) -> Option<Stock>,
    change: fn(Stock, i64) -> Stock,
) -> Vec<(ProductId, Stock)> {
    // A product that is held has a row; were it gone, the counts would go negative and the schema refuse them loudly.
    let of = |item: &Item| change(stock_of(&item.product_id).unwrap_or_default(), i64::from(item.quantity));
    items.iter().map(|item| (item.product_id.clone(), of(item))).collect()
}
