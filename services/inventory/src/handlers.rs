//! What inventory does about each event it consumes.

use std::sync::Arc;

use contracts::OrderId;
use contracts::orders::{Item, OrderCancelled, OrderConfirmed, OrderCreated};
use contracts::topology::durables;
use millrace::consumer::{Failure, Router};
use millrace::event::Received;
use millrace::store::Writer;

use crate::catalog::Catalog;
use crate::domain::Step;
use crate::model::{Intent, InventoryModel};

/// What the handlers share.
pub struct State {
    pub writer: Writer<InventoryModel>,
    pub catalog: Arc<Catalog>,
}

/// The routes of the durable consumer `inventory-orders`.
pub fn router(state: &Arc<State>) -> Router {
    let (created, confirmed, cancelled) = (state.clone(), state.clone(), state.clone());
    Router::new(durables::INVENTORY_ORDERS)
        .on::<OrderCreated, _, _>(move |event| order_created(created.clone(), event))
        .on::<OrderConfirmed, _, _>(move |event| order_confirmed(confirmed.clone(), event))
        .on::<OrderCancelled, _, _>(move |event| order_cancelled(cancelled.clone(), event))
}

/// Holds all items of the order, or none.
pub async fn order_created(state: Arc<State>, event: Received<OrderCreated>) -> Result<(), Failure> {
    state.catalog.ensure_known(&event.data.items).await?;
    let line =
        |item: &contracts::orders::PricedItem| Item { product_id: item.product_id.clone(), quantity: item.quantity };
    let lines = event.data.items.iter().map(line).collect();
    state.take(&event, event.data.order_id, Step::Created(lines)).await
}

/// The held items leave with the order.
pub async fn order_confirmed(state: Arc<State>, event: Received<OrderConfirmed>) -> Result<(), Failure> {
    state.take(&event, event.data.order_id, Step::Confirmed).await
}

/// The held items become available again.
pub async fn order_cancelled(state: Arc<State>, event: Received<OrderCancelled>) -> Result<(), Failure> {
    state.take(&event, event.data.order_id, Step::Cancelled).await
}

impl State {
    async fn take<E>(&self, event: &Received<E>, order_id: OrderId, step: Step) -> Result<(), Failure> {
        self.writer.submit(event.submission(Intent::Order { order_id, step })).await?;
        Ok(())
    }
}
