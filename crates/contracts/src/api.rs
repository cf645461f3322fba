//! Request/reply messages, on the NATS services framework.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Money, OrderId, ProductId, Timestamp, examples};

/// Subjects of the endpoints.
pub mod subjects {
    /// Drive an order's payment onwards now and say where it stands.
    pub const PAYMENT_PROCESS: &str = "api.payment.process";
    /// Payments that are not finished, or one payment, as they stand in the payment service's database.
    pub const PAYMENT_LIST: &str = "api.payment.list";
    /// An operator's ways out of a step that failed for good; subjects of their own, so that permissions can tell them
    /// from what is harmless.
    pub const PAYMENT_RETRY: &str = "api.payment.retry";
    pub const PAYMENT_SETTLE: &str = "api.payment.settle";
    pub const PAYMENT_RELEASE: &str = "api.payment.release";
    /// Stock of one product or of all; adjust is a separate subject so that permissions can tell them apart.
    pub const INVENTORY_STOCK: &str = "api.inventory.stock";
    pub const INVENTORY_ADJUST: &str = "api.inventory.adjust";
    pub const ORDERS_GET: &str = "api.orders.get";
    /// Rebuild a read model from the streams; the answer says where to ask how it is going.
    pub const ORDERS_REPLAY: &str = "api.orders.replay";
}

/// Asks about one order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "A question about one order", example = examples::order_query())]
pub struct OrderQuery {
    /// The order asked about.
    pub order_id: OrderId,
}

/// Where an order's payment stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Answer of api.payment.process", example = examples::payment_status())]
pub struct PaymentStatus {
    /// The order that is paid for.
    pub order_id: OrderId,
    /// Where the payment stands: `authorized`, `declined`, `captured`, `voided`, `refunded`, `capture_failed`, ...
    pub status: String,
    /// The gateway's name for this payment.
    pub payment_id: Option<String>,
    /// What is to be paid, or was.
    pub amount: Option<Money>,
    /// Why, where a step failed or was declined.
    pub detail: Option<String>,
}

/// Asks for payments: one, or those that are not finished.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentQuery {
    #[serde(default)]
    pub order_id: Option<OrderId>,
    /// Only those that nothing but an operator can bring to an end.
    #[serde(default)]
    pub needs_operator: bool,
    /// How many at most; `None` means as many as one answer takes.
    #[serde(default)]
    pub limit: Option<u32>,
}

/// A payment as its service knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentRecord {
    pub order_id: OrderId,
    /// `authorized`, `captured`, `capture_failed`, ...
    pub state: String,
    pub needs_operator: bool,
    /// What the order service said of the order.
    pub confirmed: bool,
    pub cancelled: bool,
    pub amount: Option<Money>,
    /// The gateway's name for the payment.
    pub payment_id: Option<String>,
    /// Why the card was declined, or the last step failed or got no answer.
    pub problem: Option<String>,
    /// Calls for the due step that got no answer, or retries of a failed one that were refused.
    pub attempts: u32,
    /// When the step that is due is seen to at the latest.
    pub due_at: Option<Timestamp>,
    pub created_at: Timestamp,
    /// When it came to where it stands.
    pub updated_at: Timestamp,
}

/// All payments that were asked for, the longest waiting first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentRecords {
    pub payments: Vec<PaymentRecord>,
}

/// How an operator found a payment settled that its service could not settle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settled {
    Captured,
    Voided,
    Refunded,
}

/// Puts on record how a payment was settled outside of the payment service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentSettlement {
    pub order_id: OrderId,
    pub settled: Settled,
}

/// Releases a hold at the gateway that is on no record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentRelease {
    pub order_id: OrderId,
    /// The gateway's name for the payment that holds the money.
    pub payment_id: String,
    /// The payment service never heard of the order, and nobody else knows it either.
    #[serde(default)]
    pub order_is_unknown: bool,
}

/// Asks for stock levels; no product means all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Question of api.inventory.stock", example = examples::stock_query())]
pub struct StockQuery {
    /// The product asked about; without one, all.
    #[serde(default)]
    pub product_id: Option<ProductId>,
}

/// Stock of one product: `available + reserved + committed` is what ever came in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Answer of api.inventory.adjust", example = examples::stock_level())]
pub struct StockLevel {
    /// Which product.
    pub product_id: ProductId,
    /// How many can be ordered.
    pub available: i64,
    /// How many are held for orders that are not decided yet.
    pub reserved: i64,
    /// How many left for good.
    pub committed: i64,
}

/// All stock that was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Answer of api.inventory.stock", example = examples::stock_levels())]
pub struct StockLevels {
    /// One entry for each product.
    pub levels: Vec<StockLevel>,
}

/// Adds to (or takes from) what is available. The id makes a repeated request count once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Question of api.inventory.adjust", example = examples::stock_adjustment())]
pub struct StockAdjustment {
    /// The same in each repetition of this request.
    pub adjustment_id: uuid::Uuid,
    /// Which product.
    pub product_id: ProductId,
    /// How many are added; less than 0 takes away.
    pub delta: i64,
    /// Why, for the record.
    pub reason: String,
}

/// Asks for a read model to be rebuilt from the history that the streams hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayRequest {
    /// `timeline`
    pub view: String,
    /// Only this order.
    #[serde(default)]
    pub order_id: Option<OrderId>,
    /// Change nothing, only say what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// A rebuild has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayStarted {
    pub replay_id: uuid::Uuid,
    /// Where this instance says how it is going, asked with a [`ReplayQuery`].
    pub status_subject: String,
}

/// Asks how a rebuild is going.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayQuery {
    pub replay_id: uuid::Uuid,
}

/// What a rebuild is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayPhase {
    /// For live events that were stored before it began.
    Waiting,
    Reading,
    /// For entries that no event explains.
    Checking,
    Done,
    Failed,
}

impl ReplayPhase {
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

/// How a rebuild is going.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayStatus {
    pub replay_id: uuid::Uuid,
    pub phase: ReplayPhase,
    /// Messages read so far, of how many.
    pub read: u64,
    pub total: u64,
    pub found: ReplayFindings,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a rebuild found and, unless it was a dry run, put right.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayFindings {
    /// Events that belong on the view, and the orders they are about.
    pub events: u64,
    pub orders: u64,
    /// Events that were not on it.
    pub missing: u64,
    /// Entries that said something else than their event.
    pub altered: u64,
    /// Entries without an event, of orders whose whole history the streams hold.
    pub stray: u64,
    /// Since when the streams hold everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete_since: Option<Timestamp>,
    /// Entries without an event that stay, and their orders: the streams do not reach back to where those began.
    pub older_entries: u64,
    pub older_orders: u64,
    /// Events about orders that the service does not know; they are on no view.
    pub unknown_orders: u64,
    /// Messages that cannot be understood.
    pub unreadable: u64,
    /// Orders whose view was wrong, a few of them.
    pub examples: Vec<OrderId>,
}

impl ReplayFindings {
    /// How many entries were, or would be, put right.
    pub fn changes(&self) -> u64 {
        self.missing + self.altered + self.stray
    }
}
