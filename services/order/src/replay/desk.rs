use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use contracts::api::{ReplayFindings, ReplayPhase, ReplayRequest, ReplayStatus};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::TIMELINE;

/// Where rebuilds are asked for, one at a time, and where it is told how the latest is going.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    requests: mpsc::Sender<ReplayRequest>,
    latest: Arc<Mutex<Option<ReplayStatus>>>,
}

/// Why a rebuild was not begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{0:?} is not a view of this service, which has {TIMELINE:?}")]
    UnknownView(String),
    #[error("a rebuild is going on already, at {read} of {total} messages; ask again when it has ended")]
    Busy { read: u64, total: u64 },
    #[error("the service is stopping")]
    Stopping,
}

impl Desk {
    /// The receiver is for whoever does the work.
    pub(crate) fn open() -> (Self, mpsc::Receiver<ReplayRequest>) {
        let (requests, received) = mpsc::channel(1);
        (Self { requests, latest: Arc::default() }, received)
    }

    pub(crate) fn begin(&self, request: ReplayRequest) -> Result<Uuid, Refused> {
        if request.view != TIMELINE {
            return Err(Refused::UnknownView(request.view));
        }
        let mut latest = self.latest();
        if let Some(going_on) = latest.as_ref().filter(|status| !status.phase.is_over()) {
            return Err(Refused::Busy { read: going_on.read, total: going_on.total });
        }
        self.requests.try_send(request).map_err(|_| Refused::Stopping)?;
        let replay_id = Uuid::now_v7();
        let (read, total, found, error) = (0, 0, ReplayFindings::default(), None);
        *latest = Some(ReplayStatus { replay_id, phase: ReplayPhase::Waiting, read, total, found, error });
        Ok(replay_id)
    }

    /// `None` for one that this instance, since it was started, knows nothing of.
    pub(crate) fn status(&self, replay_id: Uuid) -> Option<ReplayStatus> {
        self.latest().clone().filter(|status| status.replay_id == replay_id)
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut ReplayStatus)) {
        if let Some(status) = self.latest().as_mut() {
            change(status);
        }
    }

    fn latest(&self) -> MutexGuard<'_, Option<ReplayStatus>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
