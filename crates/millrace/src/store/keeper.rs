//! Messages that went to the broker first and are kept in the outbox afterwards: dead letters. They need no state change to
//! go with, and an original must not wait for a relay before it ends. From then on they are rows like all others: should the
//! broker lose one in a power cut, it is published again.

use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::session::{Session, SessionError};
use crate::outbox::{Confirmation, NewRow, Place};

/// Requests that may wait for the writer. Dead letters are rare, and whoever makes one waits.
pub(super) const KEEPING: usize = 16;

/// A message to be kept, where the broker has it, and whom to tell.
pub(super) struct Keeping {
    pub(super) message: NewRow,
    pub(super) place: Place,
    /// Its stream was missing at first: whatever else was on it is gone.
    pub(super) stream_was_missing: bool,
    pub(super) kept: oneshot::Sender<Result<(), StoreError>>,
}

/// A handle to the writer for messages that the broker has already.
#[derive(Debug, Clone)]
pub struct Keeper(pub(super) mpsc::Sender<Keeping>);

impl Keeper {
    /// Keeps a message, unless it is kept already.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the database did not take it now; the other errors as for an intent.
    pub(crate) async fn keep(&self, message: NewRow, place: Place, stream_was_missing: bool) -> Result<(), StoreError> {
        let (kept, answer) = oneshot::channel();
        self.0.send(Keeping { message, place, stream_was_missing, kept }).await.map_err(|_| StoreError::Stopped)?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }
}

/// One transaction, from its beginning to its commit.
pub(super) async fn keep<M: super::Model>(
    session: &mut impl Session<M>,
    message: &NewRow,
    place: &Place,
    now_ms: i64,
) -> Result<(), SessionError> {
    session.begin().await?;
    if !session.has_message(&message.message_id).await? {
        let ids = session.insert_outbox(std::slice::from_ref(message), now_ms).await?;
        let confirmed = ids.into_iter().map(|row_id| Confirmation { row_id, place: Some(place.clone()) });
        session.confirm(&confirmed.collect::<Vec<_>>()).await?;
    }
    session.commit().await
}
