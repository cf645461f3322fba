//! Rebuilds timelines from the history on the streams, while the service goes on.
//!
//! The history is read by subject and understood by the functions that understand live events; what it comes to is
//! compared with the timelines, and differences alone are written, through the one writer. So a healthy timeline is not
//! touched, a reader never sees less of an order than before, and a rebuild that is cut off leaves each entry as it was or
//! put right, and can be begun again. The state of orders is not touched: a timeline is a view.
//!
//! | where | what |
//! | --- | --- |
//! | `desk` | who asks, and what they are told |
//! | `fold` | from a message of the history to an entry |
//! | `rebuild` | one rebuild from beginning to end |
//! | `strays` | entries that no event explains |

mod desk;
mod fold;
mod rebuild;
mod strays;

pub(crate) use desk::{Desk, Refused};

use contracts::api::{ReplayPhase, ReplayRequest};
use millrace::connection::Connection;
use millrace::history::HistoryError;
use millrace::store::{StoreError, Writer};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::rebuild::Rebuild;
use crate::changes::Changes;
use crate::model::OrderModel;
use crate::store::Reads;

/// The only view there is.
pub(crate) const TIMELINE: &str = "timeline";

/// Does what is asked for at the desk, one rebuild after the other.
pub(crate) struct Rebuilder {
    pub(crate) connection: Connection,
    pub(crate) reads: Reads,
    pub(crate) writer: Writer<OrderModel>,
    pub(crate) changes: Changes,
    pub(crate) desk: Desk,
}

/// Why a rebuild ended early. What it has put right by then stays right.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error("timelines: {0}")]
    Store(#[from] StoreError),
    #[error("NATS was away meanwhile, so nothing can be said about entries without an event, and none was removed")]
    Interrupted,
}

impl Rebuilder {
    pub(crate) async fn run(self, mut requests: mpsc::Receiver<ReplayRequest>, shutdown: CancellationToken) {
        let rebuilding = async {
            while let Some(request) = requests.recv().await {
                self.rebuild(request).await;
            }
        };
        tokio::select! {
            () = rebuilding => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn rebuild(&self, request: ReplayRequest) {
        let dry_run = request.dry_run;
        info!(dry_run, "the timelines are compared with the history of the streams");
        match Rebuild::new(self, request).run().await {
            Ok(found) => {
                info!(
                    dry_run,
                    events = found.events,
                    missing = found.missing,
                    altered = found.altered,
                    stray = found.stray,
                    "the timelines have been compared with the history of the streams"
                );
                self.desk.update(|status| {
                    status.found = found;
                    status.phase = ReplayPhase::Done;
                });
            }
            Err(error) => {
                warn!(reason = %error, "the timelines could not be rebuilt to the end");
                self.desk.update(|status| {
                    status.error = Some(error.to_string());
                    status.phase = ReplayPhase::Failed;
                });
            }
        }
    }
}
