//! The services' own decisions: `order::domain`, `payment::domain`, `inventory::domain`, called as they are.
//!
//! Around them is what handlers and `Model::decide` of each service add: which event a fact comes from, which event an
//! outcome is told in. (What `decide` adds beyond that is not seen here: timelines, idempotency keys of requests, and when
//! the payment sweep looks at a row. Here it may look at any moment.) Decisions are pure, so each is made once per state
//! and input and looked up from then on.

use std::collections::HashMap;

use contracts::orders::{Item, OrderCreated, PricedItem};
use contracts::payments::Step;
use contracts::{Money, OrderId, ProductId, Timestamp};
use inventory::domain::{Announcement, Decision, Reservation, Status, Stock};
use order::domain::{Cancellation, End, Fact, Order, Placement};
use payment::domain::{Answer, Charge, OrderEvent, Payment, PaymentEvent, Refusal, State};

use crate::explorer::Quick;
use crate::gateway::{Heard, Request};
use crate::intern::Numbered;
use crate::kinds::{Kind, Kinds};
use crate::scenario::Safeties;

/// How many products an order names: more than one, as a reservation is all or nothing.
pub(crate) const PRODUCTS: usize = 2;
/// What the order costs, in minor units.
pub(crate) const TOTAL: i64 = 1_999;
/// Units by product: available, reserved, committed.
pub(crate) type Shelf = [[i8; 3]; PRODUCTS];

const ACCEPTED: i64 = 0;
const DEADLINE: i64 = 900_000;

/// What can happen to an order at the order service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    Place,
    Cancel,
    Expire,
    Event(Kind),
}

/// A request to the gateway, by number, and what was heard.
pub(crate) type Answered = (u8, Heard);
/// The state after a decision, and what is said.
type Decided = (u8, Kinds);
type Memo<K, V> = HashMap<K, V, Quick>;

/// States are numbers here. Number 0 is "not known yet" everywhere.
pub(crate) struct Services {
    pub(crate) orders: Numbered<Order>,
    pub(crate) payments: Numbered<Option<Payment>>,
    pub(crate) reservations: Numbered<Option<Reservation>>,
    pub(crate) requests: Numbered<Request>,
    safeties: Safeties,
    order_decisions: Memo<(u8, Input), Decided>,
    payment_decisions: Memo<(u8, Option<Kind>, Option<Answered>), Decided>,
    stock_decisions: Memo<(u8, Kind, Shelf), (u8, Shelf, Kinds)>,
    due: Memo<(u8, Option<Kind>), Option<u8>>,
}

impl Services {
    pub(crate) fn new(safeties: Safeties) -> Self {
        Self {
            orders: Numbered::starting_with(Order::unknown(order_id())),
            payments: Numbered::starting_with(None),
            reservations: Numbered::starting_with(None),
            requests: Numbered::starting_with(Request { step: Step::Authorize, intent: None, amount: TOTAL }),
            safeties,
            order_decisions: Memo::default(),
            payment_decisions: Memo::default(),
            stock_decisions: Memo::default(),
            due: Memo::default(),
        }
    }

    /// One intent of the order service; what it publishes.
    pub(crate) fn order(&mut self, order: u8, input: Input) -> Decided {
        if let Some(known) = self.order_decisions.get(&(order, input)) {
            return *known;
        }
        let mut after = self.orders.get(order).clone();
        let mut said = Kinds::default();
        let end = match input {
            Input::Place => match after.place(&placed(), false, at(ACCEPTED), at(DEADLINE)) {
                Placement::Accepted(end) => {
                    said = said.with(Kind::Created);
                    end
                }
                Placement::Known | Placement::Clash => None,
            },
            Input::Cancel => match after.cancel(at(ACCEPTED)) {
                Cancellation::Now => ended(&after),
                Cancellation::Already | Cancellation::TooLate | Cancellation::UnknownOrder => None,
            },
            Input::Expire => after.expire(at(DEADLINE)),
            Input::Event(kind) => after.observe(fact(kind), at(ACCEPTED)),
        };
        said = match end {
            None => said,
            Some(End::Confirmed) => said.with(Kind::Confirmed),
            Some(End::Cancelled(_)) => said.with(Kind::Cancelled),
        };
        let decision = (self.orders.number_of(after), said);
        self.order_decisions.insert((order, input), decision);
        decision
    }

    /// One intent of the payment service: an event, an answer to a request, or both; what it publishes.
    pub(crate) fn payment(&mut self, payment: u8, event: Option<Kind>, answer: Option<Answered>) -> Decided {
        let key = (payment, event, answer);
        if let Some(known) = self.payment_decisions.get(&key) {
            return *known;
        }
        let known = self.payments.get(payment).clone();
        let mut said = Kinds::default();
        let row = match event {
            Some(_) => Some(known.unwrap_or_else(|| Payment::expected(order_id()))),
            // An answer alone makes no row.
            None => known,
        };
        let after = row.map(|mut payment| {
            if let Some(event) = event {
                payment.apply_event(&order_event(event));
            }
            if let Some((request, heard)) = answer {
                let step = self.requests.get(request).step;
                let event = payment.apply_answer(step, &spoken(heard), at(ACCEPTED));
                said = event.map_or(said, |event| said.with(kind_of(&event)));
            }
            payment
        });
        let after = after.filter(|payment| self.safeties.payment_tombstone || payment.state != State::Cancelled);
        let decision = (self.payments.number_of(after), said);
        self.payment_decisions.insert(key, decision);
        decision
    }

    /// The call to the gateway that is due; with `ahead`, the one that this event will make due, as `ask_ahead` of the
    /// payment handlers finds it. (That one never asks ahead for an authorization; here the caller sees to that.)
    pub(crate) fn due(&mut self, payment: u8, ahead: Option<Kind>) -> Option<u8> {
        if let Some(known) = self.due.get(&(payment, ahead)) {
            return *known;
        }
        let mut row = self.payments.get(payment).clone().unwrap_or_else(|| Payment::expected(order_id()));
        let already = row.next_step();
        let step = match ahead {
            None => already,
            Some(event) => {
                row.apply_event(&order_event(event));
                row.next_step().filter(|step| already != Some(*step))
            }
        };
        let request = step.map(|step| {
            let intent = row.payment_id.as_ref().and_then(|id| id.strip_prefix("pi_")?.parse().ok());
            let amount = row.charge.as_ref().map_or(0, |charge| charge.amount.minor);
            self.requests.number_of(Request { step, intent, amount })
        });
        self.due.insert((payment, ahead), request);
        request
    }

    /// One intent of the inventory service; what it publishes.
    pub(crate) fn stock(&mut self, reservation: u8, event: Kind, shelf: Shelf) -> (u8, Shelf, Kinds) {
        let key = (reservation, event, shelf);
        if let Some(known) = self.stock_decisions.get(&key) {
            return *known;
        }
        let step = match event {
            Kind::Created => inventory::domain::Step::Created(lines()),
            Kind::Confirmed => inventory::domain::Step::Confirmed,
            _ => inventory::domain::Step::Cancelled,
        };
        let on_shelf =
            |product: &ProductId| (0..PRODUCTS).find(|n| *product == product_id(*n)).map(|n| stock(shelf[n]));
        let mut decision = (reservation, shelf, Kinds::default());
        let decided = inventory::domain::decide(self.reservations.get(reservation).as_ref(), &step, on_shelf);
        let kept = |new: &Decision| self.safeties.inventory_tombstone || new.reservation.status != Status::Tombstone;
        if let Some(decided) = decided.filter(kept) {
            for (product, stock) in decided.stock {
                if let Some(n) = (0..PRODUCTS).find(|n| product == product_id(*n)) {
                    decision.1[n] = [stock.available, stock.reserved, stock.committed].map(|units| units as i8);
                }
            }
            decision.2 = Kinds::of(&decided.announce.iter().map(announced).collect::<Vec<_>>());
            decision.0 = self.reservations.number_of(Some(decided.reservation));
        }
        self.stock_decisions.insert(key, decision);
        decision
    }

    pub(crate) fn end(&self, order: u8) -> Option<End> {
        ended(self.orders.get(order))
    }

    pub(crate) fn payment_state(&self, payment: u8) -> Option<State> {
        self.payments.get(payment).as_ref().map(|payment| payment.state)
    }

    pub(crate) fn reservation_status(&self, reservation: u8) -> Option<Status> {
        self.reservations.get(reservation).as_ref().map(|reservation| reservation.status)
    }
}

/// All orders here are alike, so one id serves them all: a decision about one is never shown the state of another.
fn order_id() -> OrderId {
    OrderId(uuid::Uuid::from_u128(7))
}

fn product_id(number: usize) -> ProductId {
    ProductId::new(format!("product-{number}")).unwrap()
}

fn total() -> Money {
    Money::new(TOTAL, "EUR".parse().unwrap()).unwrap()
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(ms)
}

/// One unit of each product.
fn lines() -> Vec<Item> {
    (0..PRODUCTS).map(|n| Item { product_id: product_id(n), quantity: 1 }).collect()
}

fn placed() -> OrderCreated {
    let priced =
        |item: Item| PricedItem { product_id: item.product_id, quantity: item.quantity, unit_price_minor: None };
    OrderCreated {
        order_id: order_id(),
        customer_id: "customer".parse().unwrap(),
        total: total(),
        items: lines().into_iter().map(priced).collect(),
        payment_method: Some("pm_card_visa".into()),
        contact: contracts::orders::Contact::default(),
        created_at: at(ACCEPTED),
    }
}

fn stock([available, reserved, committed]: [i8; 3]) -> Stock {
    Stock { available: available.into(), reserved: reserved.into(), committed: committed.into() }
}

fn ended(order: &Order) -> Option<End> {
    order.placed.as_ref().and_then(|placed| placed.ended).map(|(end, _)| end)
}

/// As the handlers of the order service read it.
fn fact(kind: Kind) -> Fact {
    use order::domain::{Payment, Stock};
    match kind {
        Kind::Authorized => Fact::Payment(Payment::Authorized),
        Kind::Declined | Kind::AuthorizeFailed => Fact::Payment(Payment::Declined),
        Kind::Captured => Fact::Payment(Payment::Captured),
        Kind::Voided => Fact::Payment(Payment::Voided),
        Kind::Refunded => Fact::Payment(Payment::Refunded),
        Kind::CaptureFailed => Fact::Payment(Payment::CaptureFailed),
        Kind::VoidFailed => Fact::Payment(Payment::VoidFailed),
        Kind::RefundFailed => Fact::Payment(Payment::RefundFailed),
        Kind::Reserved => Fact::Stock(Stock::Reserved),
        Kind::Rejected => Fact::Stock(Stock::Rejected),
        Kind::Committed => Fact::Stock(Stock::Committed),
        Kind::Released => Fact::Stock(Stock::Released),
        Kind::Created | Kind::Confirmed | Kind::Cancelled => Fact::Notice,
    }
}

fn order_event(kind: Kind) -> OrderEvent {
    match kind {
        Kind::Created => OrderEvent::Created(Charge { amount: total(), payment_method: "pm_card_visa".into() }),
        Kind::Confirmed => OrderEvent::Confirmed,
        _ => OrderEvent::Cancelled,
    }
}

fn spoken(heard: Heard) -> Answer {
    let refusal = Refusal { code: "refused".into(), message: "No.".into() };
    match heard {
        Heard::Done(intent) => Answer::Done { payment_id: format!("pi_{intent}") },
        Heard::Refused => Answer::Refused(refusal),
        Heard::GivenUp => Answer::GivenUp(refusal),
    }
}

fn kind_of(event: &PaymentEvent) -> Kind {
    match event {
        PaymentEvent::Authorized(_) => Kind::Authorized,
        PaymentEvent::Declined(_) => Kind::Declined,
        PaymentEvent::Captured(_) => Kind::Captured,
        PaymentEvent::Voided(_) => Kind::Voided,
        PaymentEvent::Refunded(_) => Kind::Refunded,
        PaymentEvent::Failed(failed) => Kind::failed(failed.step),
    }
}

fn announced(announcement: &Announcement) -> Kind {
    match announcement {
        Announcement::Reserved(_) => Kind::Reserved,
        Announcement::Rejected(_) => Kind::Rejected,
        Announcement::Committed(_) => Kind::Committed,
        Announcement::Released(_) => Kind::Released,
    }
}
