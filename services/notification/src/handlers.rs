//! What notification does about each event it consumes: learn the fact, then send what it makes due.
//!
//! An event is done with when its notices are due in the database, not when they are sent: an attempt that fails is
//! repeated by the sweep ([`drive`](crate::drive)), so a mail server that is down costs no delivery attempts and makes no
//! dead letters.

use std::sync::Arc;

use contracts::OrderId;
use contracts::orders::{OrderCancelled, OrderConfirmed, OrderCreated};
use contracts::topology::durables;
use millrace::consumer::{Failure, Router};
use millrace::event::Received;
use millrace::store::Committed;

use crate::domain::{CHANNELS, Fact};
use crate::drive::Driver;
use crate::model::{Intent, Outcome};

/// The routes of the durable consumer `notification-orders`.
pub fn router(driver: &Arc<Driver>) -> Router {
    let (created, confirmed, cancelled) = (driver.clone(), driver.clone(), driver.clone());
    Router::new(durables::NOTIFICATION_ORDERS)
        .on::<OrderCreated, _, _>(move |event| order_created(created.clone(), event))
        .on::<OrderConfirmed, _, _>(move |event| order_confirmed(confirmed.clone(), event))
        .on::<OrderCancelled, _, _>(move |event| order_cancelled(cancelled.clone(), event))
}

/// The contact is known: the acknowledgement is due, and whatever waited for an address.
pub async fn order_created(driver: Arc<Driver>, event: Received<OrderCreated>) -> Result<(), Failure> {
    let fact = Fact::Placed((&event.data).into());
    driver.learn(&event, event.data.order_id, fact).await
}

/// The confirmation is due.
pub async fn order_confirmed(driver: Arc<Driver>, event: Received<OrderConfirmed>) -> Result<(), Failure> {
    driver.learn(&event, event.data.order_id, Fact::Confirmed).await
}

/// The cancellation is due, with its reason.
pub async fn order_cancelled(driver: Arc<Driver>, event: Received<OrderCancelled>) -> Result<(), Failure> {
    driver.learn(&event, event.data.order_id, Fact::Cancelled(event.data.reason)).await
}

impl Driver {
    async fn learn<E>(&self, event: &Received<E>, order_id: OrderId, fact: Fact) -> Result<(), Failure> {
        let intent = Intent::Learn { order_id, fact, correlation_id: event.meta.correlation_id.clone() };
        match self.writer.submit(event.submission(intent)).await? {
            Committed::Now(Outcome::Due(due)) => self.drive(order_id, due, event.meta.cause()).await?,
            Committed::Now(Outcome::Done) => {}
            // Delivered again: whoever had it may have died between the commit and the sending.
            Committed::Before => self.take_up(order_id, CHANNELS.to_vec()).await?,
        }
        Ok(())
    }
}
