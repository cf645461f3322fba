//! What the timeline shows of this service's own events. The other services' are in `handlers.rs`. Pure, so that the same
//! entry comes of an event when it happens and when it is read from the history.

use contracts::Timestamp;
use contracts::orders::{OrderCancelled, OrderConfirmed, OrderCreated};
use millrace::event::{Event, EventId};
use serde_json::{Value, json};

use crate::model::{Observed, SERVICE};

/// `foreign`: it came in as another system's event, and not through the API.
pub(crate) fn created(event_id: &EventId, at: Timestamp, order: &OrderCreated, foreign: bool) -> Observed {
    let detail = json!({ "total": order.total, "items": order.items.len(), "foreign": foreign });
    own::<OrderCreated>(event_id, at, detail)
}

pub(crate) fn confirmed(event_id: &EventId, at: Timestamp, event: &OrderConfirmed) -> Observed {
    own::<OrderConfirmed>(event_id, at, json!({ "total": event.total }))
}

pub(crate) fn cancelled(event_id: &EventId, at: Timestamp, event: &OrderCancelled) -> Observed {
    own::<OrderCancelled>(event_id, at, json!({ "reason": event.reason }))
}

fn own<E: Event>(event_id: &EventId, at: Timestamp, detail: Value) -> Observed {
    Observed { event_id: event_id.to_string(), event_type: E::TYPE.to_owned(), service: SERVICE.to_owned(), at, detail }
}
