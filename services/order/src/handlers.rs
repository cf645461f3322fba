//! One function per consumed event. Each says what the event means for the order and what the timeline shows of it.

use std::sync::Arc;

use contracts::inventory::{InventoryCommitted, InventoryRejected, InventoryReleased, InventoryReserved};
use contracts::notifications::{NotificationFailed, NotificationSent};
use contracts::orders::OrderCreated;
use contracts::payments::{
    PaymentAuthorized, PaymentCaptured, PaymentDeclined, PaymentFailed, PaymentRefunded, PaymentVoided, Step,
};
use contracts::{OrderId, Timestamp};
use millrace::consumer::{Failure, OWN_SOURCE_PREFIX, Router};
use millrace::event::{EventId, Meta, Received};
use millrace::store::{Committed, Submission, Writer};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::changes::Changes;
use crate::domain::{Fact, Payment, Placement, Stock};
use crate::model::{Intent, Observed, OrderModel, Outcome};

/// What handlers need.
#[derive(Clone)]
pub(crate) struct Handlers {
    pub(crate) writer: Writer<OrderModel>,
    pub(crate) changes: Changes,
}

type Handled = Result<(), Failure>;

/// All consumers of this service.
pub(crate) fn routers(handlers: &Handlers) -> Vec<Router> {
    let handlers = Arc::new(handlers.clone());
    macro_rules! to {
        ($handler:path) => {{
            let handlers = handlers.clone();
            move |event: Received<_>| $handler(handlers.clone(), event)
        }};
    }
    vec![
        Router::new("order-payments")
            .on::<PaymentAuthorized, _, _>(to!(authorized))
            .on::<PaymentDeclined, _, _>(to!(declined))
            .on::<PaymentCaptured, _, _>(to!(captured))
            .on::<PaymentVoided, _, _>(to!(voided))
            .on::<PaymentRefunded, _, _>(to!(refunded))
            .on::<PaymentFailed, _, _>(to!(payment_failed)),
        Router::new("order-inventory")
            .on::<InventoryReserved, _, _>(to!(reserved))
            .on::<InventoryRejected, _, _>(to!(rejected))
            .on::<InventoryCommitted, _, _>(to!(stock_committed))
            .on::<InventoryReleased, _, _>(to!(released)),
        Router::new("order-notifications")
            .on::<NotificationSent, _, _>(to!(sent))
            .on::<NotificationFailed, _, _>(to!(sending_failed)),
        Router::new("order-foreign").on_version::<OrderCreated, _, _>(1, to!(foreign_order)),
    ]
}

async fn authorized(state: Arc<Handlers>, event: Received<PaymentAuthorized>) -> Handled {
    let detail = json!({ "amount": event.data.amount, "payment_id": event.data.payment_id });
    state.observe(&event, event.data.order_id, Fact::Payment(Payment::Authorized), detail).await
}

async fn declined(state: Arc<Handlers>, event: Received<PaymentDeclined>) -> Handled {
    let detail = json!({ "code": event.data.code, "message": event.data.message });
    state.observe(&event, event.data.order_id, Fact::Payment(Payment::Declined), detail).await
}

async fn captured(state: Arc<Handlers>, event: Received<PaymentCaptured>) -> Handled {
    let detail = json!({ "amount": event.data.amount, "payment_id": event.data.payment_id });
    state.observe(&event, event.data.order_id, Fact::Payment(Payment::Captured), detail).await
}

async fn voided(state: Arc<Handlers>, event: Received<PaymentVoided>) -> Handled {
    let detail = json!({ "payment_id": event.data.payment_id });
    state.observe(&event, event.data.order_id, Fact::Payment(Payment::Voided), detail).await
}

async fn refunded(state: Arc<Handlers>, event: Received<PaymentRefunded>) -> Handled {
    let detail = json!({ "amount": event.data.amount, "payment_id": event.data.payment_id });
    state.observe(&event, event.data.order_id, Fact::Payment(Payment::Refunded), detail).await
}

async fn payment_failed(state: Arc<Handlers>, event: Received<PaymentFailed>) -> Handled {
    let fact = match event.data.step {
        // Nothing was set aside and nothing will be: for the order the same as a refusal.
        Step::Authorize => Payment::Declined,
        Step::Capture => Payment::CaptureFailed,
        Step::Void => Payment::VoidFailed,
        Step::Refund => Payment::RefundFailed,
    };
    let detail = json!({ "step": event.data.step, "code": event.data.code, "message": event.data.message });
    state.observe(&event, event.data.order_id, Fact::Payment(fact), detail).await
}

async fn reserved(state: Arc<Handlers>, event: Received<InventoryReserved>) -> Handled {
    let detail = json!({ "items": event.data.items });
    state.observe(&event, event.data.order_id, Fact::Stock(Stock::Reserved), detail).await
}

async fn rejected(state: Arc<Handlers>, event: Received<InventoryRejected>) -> Handled {
    let detail = json!({ "shortages": event.data.shortages });
    state.observe(&event, event.data.order_id, Fact::Stock(Stock::Rejected), detail).await
}

async fn stock_committed(state: Arc<Handlers>, event: Received<InventoryCommitted>) -> Handled {
    let detail = json!({ "items": event.data.items });
    state.observe(&event, event.data.order_id, Fact::Stock(Stock::Committed), detail).await
}

async fn released(state: Arc<Handlers>, event: Received<InventoryReleased>) -> Handled {
    let detail = json!({ "items": event.data.items });
    state.observe(&event, event.data.order_id, Fact::Stock(Stock::Released), detail).await
}

async fn sent(state: Arc<Handlers>, event: Received<NotificationSent>) -> Handled {
    let detail = json!({ "notice": event.data.notice, "channel": event.data.channel });
    state.observe(&event, event.data.order_id, Fact::Notice, detail).await
}

async fn sending_failed(state: Arc<Handlers>, event: Received<NotificationFailed>) -> Handled {
    let data = &event.data;
    let detail = json!({ "notice": data.notice, "channel": data.channel, "reason": data.reason });
    state.observe(&event, data.order_id, Fact::Notice, detail).await
}

/// An order that somebody else published. Without an inbox mark: taking an order on twice changes nothing, and a clash
/// has to be found again when the process dies between finding it and writing the dead letter.
async fn foreign_order(state: Arc<Handlers>, event: Received<OrderCreated>) -> Handled {
    if !event.meta.foreign {
        // Our own copy for readers of version 1.
        return Ok(());
    }
    let order_id = event.data.order_id;
    let event_id = foreign_event_id(&event.meta, order_id);
    let intent = Intent::AcceptForeign { order: Box::new(event.data), event_id };
    let submission = Submission { intent, cause: event.meta.cause(), mark: None };
    match state.writer.submit(submission).await? {
        Committed::Now(Outcome::Foreign(Placement::Clash)) => Err(Failure::permanent(format!(
            "there is another order with the id {order_id} already: /order_id must be new for each order"
        ))),
        _ => {
            state.changes.announce(order_id);
            Ok(())
        }
    }
}

/// The id the order is published under again: the publisher's own where it is a UUID, so that whoever sees both versions
/// recognises one event. Otherwise one derived from everything that makes the event unique.
fn foreign_event_id(meta: &Meta, order_id: OrderId) -> EventId {
    match Uuid::parse_str(meta.id.as_str()) {
        Ok(_) => meta.id.clone(),
        Err(_) => EventId::derived(&format!("{}/{order_id}", meta.inbox_id())),
    }
}

impl Handlers {
    async fn observe<E>(&self, event: &Received<E>, order_id: OrderId, fact: Fact, detail: Value) -> Handled {
        let meta = &event.meta;
        let observed = Observed {
            event_id: meta.inbox_id(),
            event_type: meta.event_type.clone(),
            service: meta.source.strip_prefix(OWN_SOURCE_PREFIX).unwrap_or(&meta.source).to_owned(),
            at: Timestamp(meta.time),
            detail,
        };
        let outcome = self.writer.submit(event.submission(Intent::Observe { order_id, fact, observed })).await?;
        if let Committed::Now(Outcome::Noted(Some(end))) = outcome {
            tracing::info!(order.id = %order_id, "An order is {end}.");
        }
        self.changes.announce(order_id);
        Ok(())
    }
}
