//! One function per consumed event. Each says what the event means for the order and what the timeline shows of it.

use std::future::Future;
use std::sync::Arc;

use contracts::inventory::{InventoryCommitted, InventoryRejected, InventoryReleased, InventoryReserved};
use contracts::notifications::{NotificationFailed, NotificationSent};
use contracts::orders::OrderCreated;
use contracts::payments::{
    PaymentAuthorized, PaymentCaptured, PaymentDeclined, PaymentFailed, PaymentRefunded, PaymentVoided, Step,
};
use contracts::topology::durables;
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

pub(crate) type Handled = Result<(), Failure>;

/// What an event of another service means for its order, and what the timeline shows of it.
struct Meaning {
    order_id: OrderId,
    fact: Fact,
    detail: Value,
}

/// All consumers of this service.
pub(crate) fn routers(handlers: &Handlers) -> Vec<Router> {
    let handlers = Arc::new(handlers.clone());
    let observing = handlers.clone();
    let mut routers = facts(move |submission| {
        let handlers = observing.clone();
        async move { handlers.observe(submission).await }
    });
    let foreign = move |event: Received<OrderCreated>| foreign_order(handlers.clone(), event);
    let of_others = Router::new(durables::ORDER_FOREIGN).of_foreign_publishers();
    routers.push(of_others.on_version::<OrderCreated, _, _>(1, foreign));
    routers
}

/// The consumers that tell this service about orders; `observe` is given what each event comes to. Live events and those
/// of the history are understood by the same functions.
pub(crate) fn facts<O, F>(observe: O) -> Vec<Router>
where
    O: Fn(Submission<Intent>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Handled> + Send + 'static,
{
    macro_rules! to {
        ($meaning:path) => {{
            let observe = observe.clone();
            move |event: Received<_>| observe(observation(&event, $meaning(&event.data)))
        }};
    }
    vec![
        Router::new(durables::ORDER_PAYMENTS)
            .on::<PaymentAuthorized, _, _>(to!(authorized))
            .on::<PaymentDeclined, _, _>(to!(declined))
            .on::<PaymentCaptured, _, _>(to!(captured))
            .on::<PaymentVoided, _, _>(to!(voided))
            .on::<PaymentRefunded, _, _>(to!(refunded))
            .on::<PaymentFailed, _, _>(to!(payment_failed)),
        Router::new(durables::ORDER_INVENTORY)
            .on::<InventoryReserved, _, _>(to!(reserved))
            .on::<InventoryRejected, _, _>(to!(rejected))
            .on::<InventoryCommitted, _, _>(to!(stock_committed))
            .on::<InventoryReleased, _, _>(to!(released)),
        Router::new(durables::ORDER_NOTIFICATIONS)
            .on::<NotificationSent, _, _>(to!(sent))
            .on::<NotificationFailed, _, _>(to!(sending_failed)),
    ]
}

fn observation<E>(event: &Received<E>, meaning: Meaning) -> Submission<Intent> {
    let (meta, Meaning { order_id, fact, detail }) = (&event.meta, meaning);
    let observed = Observed {
        event_id: meta.inbox_id(),
        event_type: meta.event_type.clone(),
        service: meta.source.strip_prefix(OWN_SOURCE_PREFIX).unwrap_or(&meta.source).to_owned(),
        at: Timestamp(meta.time),
        detail,
    };
    event.submission(Intent::Observe { order_id, fact, observed })
}

fn authorized(event: &PaymentAuthorized) -> Meaning {
    let detail = json!({ "amount": event.amount, "payment_id": event.payment_id });
    Meaning { order_id: event.order_id, fact: Fact::Payment(Payment::Authorized), detail }
}

fn declined(event: &PaymentDeclined) -> Meaning {
    let detail = json!({ "code": event.code, "message": event.message });
    Meaning { order_id: event.order_id, fact: Fact::Payment(Payment::Declined), detail }
}

fn captured(event: &PaymentCaptured) -> Meaning {
    let detail = json!({ "amount": event.amount, "payment_id": event.payment_id });
    Meaning { order_id: event.order_id, fact: Fact::Payment(Payment::Captured), detail }
}

fn voided(event: &PaymentVoided) -> Meaning {
    let detail = json!({ "payment_id": event.payment_id });
    Meaning { order_id: event.order_id, fact: Fact::Payment(Payment::Voided), detail }
}

fn refunded(event: &PaymentRefunded) -> Meaning {
    let detail = json!({ "amount": event.amount, "payment_id": event.payment_id });
    Meaning { order_id: event.order_id, fact: Fact::Payment(Payment::Refunded), detail }
}

fn payment_failed(event: &PaymentFailed) -> Meaning {
    let payment = match event.step {
        // Nothing was set aside and nothing will be: for the order the same as a refusal.
        Step::Authorize => Payment::Declined,
        Step::Capture => Payment::CaptureFailed,
        Step::Void => Payment::VoidFailed,
        Step::Refund => Payment::RefundFailed,
    };
    let detail = json!({ "step": event.step, "code": event.code, "message": event.message });
    Meaning { order_id: event.order_id, fact: Fact::Payment(payment), detail }
}

fn reserved(event: &InventoryReserved) -> Meaning {
    let detail = json!({ "items": event.items });
    Meaning { order_id: event.order_id, fact: Fact::Stock(Stock::Reserved), detail }
}

fn rejected(event: &InventoryRejected) -> Meaning {
    let detail = json!({ "shortages": event.shortages });
    Meaning { order_id: event.order_id, fact: Fact::Stock(Stock::Rejected), detail }
}

fn stock_committed(event: &InventoryCommitted) -> Meaning {
    let detail = json!({ "items": event.items });
    Meaning { order_id: event.order_id, fact: Fact::Stock(Stock::Committed), detail }
}

fn released(event: &InventoryReleased) -> Meaning {
    let detail = json!({ "items": event.items });
    Meaning { order_id: event.order_id, fact: Fact::Stock(Stock::Released), detail }
}

fn sent(event: &NotificationSent) -> Meaning {
    let detail = json!({ "notice": event.notice, "channel": event.channel });
    Meaning { order_id: event.order_id, fact: Fact::Notice, detail }
}

fn sending_failed(event: &NotificationFailed) -> Meaning {
    let detail = json!({ "notice": event.notice, "channel": event.channel, "reason": event.reason });
    Meaning { order_id: event.order_id, fact: Fact::Notice, detail }
}

/// An order that somebody else published. Without an inbox mark: taking an order on twice changes nothing, and a clash
/// has to be found again when the process dies between finding it and writing the dead letter.
async fn foreign_order(state: Arc<Handlers>, event: Received<OrderCreated>) -> Handled {
    if !event.meta.foreign {
        // Our own copy for readers of version 1, if it was not passed over already.
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
    async fn observe(&self, submission: Submission<Intent>) -> Handled {
        let Intent::Observe { order_id, .. } = submission.intent else { return Ok(()) };
        let outcome = self.writer.submit(submission).await?;
        if let Committed::Now(Outcome::Noted(Some(end))) = outcome {
            tracing::info!(order.id = %order_id, "An order is {end}.");
        }
        self.changes.announce(order_id);
        Ok(())
    }
}
