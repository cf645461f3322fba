//! What is explored, and how far.
//!
//! Nothing bounds how often an event is delivered, a process crashes, or the gateway stays silent: these add no states
//! of their own, so "any number of times" is what is explored. The bounds are:
//!
//! - one order, or two that are alike, of one unit of each of two products. Two orders have to do with each other only
//!   through the stock, so of a third they would see nothing they do not see of the second;
//! - calls to the gateway that go on at the same time for an order: [`Scenario::calls`]. A handler that finds no room for
//!   its call behaves as if it had crashed before it, which the sweep makes up for;
//! - a card is put on hold at most twice, which is one more than is promised.
//!
//! What a crash leaves behind is what is in a database, on a stream, or at the gateway. So a crash between two steps of a
//! handler is a call that vanishes, an event that is delivered again, or one that stays in an outbox.

use contracts::payments::Step;

use crate::services::PRODUCTS;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    /// One or two.
    pub(crate) orders: usize,
    /// Units of each product at the beginning.
    pub(crate) shelf: [i8; PRODUCTS],
    /// Calls to the gateway for one order at the same time: handlers of several instances, the sweep, the API.
    pub(crate) calls: usize,
    /// Steps that the gateway may refuse.
    pub(crate) refusals: &'static [Step],
    /// Requests may be held up in the network and reach the gateway when nobody waits for them any more.
    pub(crate) held_up: bool,
    /// An authorization may get no answer for so long that payment gives up.
    pub(crate) gives_up: bool,
    /// Events wait in the outbox until they are published, and the broker may forget them again. Without this they are
    /// on their stream as soon as they are committed: whoever reads them cannot tell that from a late delivery.
    pub(crate) outbox: bool,
    /// The order service also hears of what follows its decision. Without this such facts stay undelivered; with it, it
    /// is shown that they change nothing that anybody else sees.
    pub(crate) epilogue: bool,
    /// An order that is processing reaches its deadline sooner or later. Without this it may or may not: then nothing may
    /// be left to the deadline, which has to be needed for the sake of time alone.
    pub(crate) deadline_comes: bool,
    pub(crate) safeties: Safeties,
}

/// What keeps the promises, besides the domains' own rules. In production none of these can be switched off.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Safeties {
    /// An event that was handled is recognised.
    pub(crate) inbox: bool,
    /// Taking effect twice is itself a broken promise. Off: only what comes of it counts.
    pub(crate) watch_inbox: bool,
    /// Events survive a crash between commit and publishing.
    pub(crate) outbox: bool,
    /// A cancellation that comes before the order is remembered.
    pub(crate) payment_tombstone: bool,
    pub(crate) inventory_tombstone: bool,
    /// A repeated call to the gateway has the key of the first.
    pub(crate) idempotency_key: bool,
    /// An event is acknowledged only when its effect is committed.
    pub(crate) commit_before_ack: bool,
    /// An order is on record before the gateway is asked to put money on hold.
    pub(crate) record_before_authorize: bool,
}

impl Safeties {
    pub(crate) const ALL: Self = Self {
        inbox: true,
        watch_inbox: true,
        outbox: true,
        payment_tombstone: true,
        inventory_tombstone: true,
        idempotency_key: true,
        commit_before_ack: true,
        record_before_authorize: true,
    };
}

/// One order, and everything that can go wrong with it at the gateway.
pub(crate) const ONE_ORDER: Scenario = Scenario {
    orders: 1,
    shelf: [1, 1],
    calls: 2,
    refusals: &[Step::Authorize, Step::Capture, Step::Void, Step::Refund],
    held_up: true,
    gives_up: true,
    outbox: false,
    epilogue: true,
    deadline_comes: false,
    safeties: Safeties::ALL,
};

/// One order, and everything that can go wrong with its events.
pub(crate) const ONE_ORDER_IN_OUTBOXES: Scenario = Scenario { calls: 1, outbox: true, ..ONE_ORDER };

/// Two orders and one unit too few. What either of them goes through alone is seen above.
pub(crate) const TWO_ORDERS: Scenario = Scenario {
    orders: 2,
    shelf: [2, 1],
    calls: 1,
    refusals: &[Step::Authorize],
    held_up: false,
    gives_up: false,
    epilogue: false,
    ..ONE_ORDER
};
