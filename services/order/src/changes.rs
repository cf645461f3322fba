//! Wakes live streams when this instance has changed an order. What other instances change is found by polling.

use contracts::OrderId;
use tokio::sync::broadcast;

/// Enough for a burst of handled events between two looks of a stream; one that falls behind looks at the database.
const CAPACITY: usize = 1_024;

/// Tells which orders changed.
#[derive(Debug, Clone)]
pub(crate) struct Changes {
    sender: broadcast::Sender<OrderId>,
}

impl Default for Changes {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(CAPACITY) }
    }
}

impl Changes {
    /// To be called after the commit.
    pub(crate) fn announce(&self, id: OrderId) {
        // Nobody listening is the normal case.
        let _ = self.sender.send(id);
    }

    pub(crate) fn watch(&self, id: OrderId) -> Watching {
        Watching { id, receiver: self.sender.subscribe() }
    }
}

/// One order being watched.
#[derive(Debug)]
pub(crate) struct Watching {
    id: OrderId,
    receiver: broadcast::Receiver<OrderId>,
}

impl Watching {
    /// Returns when the order has, or may have, changed. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        loop {
            match self.receiver.recv().await {
                Ok(id) if id == self.id => return,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => return,
                // The service is stopping; the stream learns it elsewhere.
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}
