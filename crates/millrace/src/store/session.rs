//! What the writer needs of a backend: one transaction at a time.

use std::collections::{BTreeSet, HashSet};
use std::future::Future;

use super::Model;
use crate::inbox::Mark;
use crate::outbox::{Confirmation, NewRow, header_text};

/// One transaction at a time against one backend. Every method but `begin` runs between `begin` and `commit`.
pub(super) trait Session<M: Model>: Send {
    fn begin(&mut self) -> impl Future<Output = Result<(), SessionError>> + Send;
    /// Whether the last `begin` was the first over a new connection to a server, which may be another one.
    fn reconnected(&mut self) -> bool {
        false
    }
    /// Whether this message stands in the outbox.
    fn has_message(&mut self, message_id: &str) -> impl Future<Output = Result<bool, SessionError>> + Send;
    /// Sets marks, in one order in all instances: two that were given the same events wait for each other in line. Returns
    /// which of them were set before.
    fn mark(
        &mut self,
        marks: &BTreeSet<&Mark>,
        now_ms: i64,
    ) -> impl Future<Output = Result<HashSet<Mark>, SessionError>> + Send;
    fn load(&mut self, model: &M, intents: &[&M::Intent])
    -> impl Future<Output = Result<M::Rows, SessionError>> + Send;
    fn save(&mut self, model: &M, rows: &M::Rows) -> impl Future<Output = Result<(), SessionError>> + Send;
    /// Returns the ids, in the order of the rows.
    fn insert_outbox(
        &mut self,
        rows: &[NewRow],
        now_ms: i64,
    ) -> impl Future<Output = Result<Vec<i64>, SessionError>> + Send;
    fn confirm(&mut self, confirmations: &[Confirmation]) -> impl Future<Output = Result<(), SessionError>> + Send;
    /// Removes old rows, a bounded number of them.
    fn prune(&mut self, what: Prune) -> impl Future<Output = Result<Pruned, SessionError>> + Send;
    fn commit(&mut self) -> impl Future<Output = Result<(), SessionError>> + Send;
    /// Never fails: a session that cannot roll back drops its connection.
    fn rollback(&mut self) -> impl Future<Output = ()> + Send;
    /// Ends the transaction without asking a server that may be gone; the next `begin` starts afresh.
    fn abandon(&mut self);
}

/// What went wrong in a transaction, by what the writer does about it.
#[derive(Debug)]
pub(super) enum SessionError {
    /// The database is away: wait for it and try the same batch again.
    Lost(String),
    /// Another instance got in between: decide again on fresh rows.
    Conflict(String),
    /// Something in this batch cannot be stored.
    Refused(String),
    /// What was committed here before is not there: it is another database, or an older state of this one.
    WentBack,
}

impl From<header_text::Unstorable> for SessionError {
    fn from(error: header_text::Unstorable) -> Self {
        Self::Refused(error.to_string())
    }
}

/// One step of removing old rows. Looks at no more than `limit` rows of each table, so that it never holds up a commit
/// for long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prune {
    /// Outbox rows published before this moment go, Unix milliseconds.
    pub(super) published_before_ms: i64,
    /// Inbox rows handled before this moment go, Unix milliseconds.
    pub(super) handled_before_ms: i64,
    /// Outbox rows up to this id were looked at in an earlier step.
    pub(super) after_id: i64,
    pub(super) limit: i64,
}

/// What is left after a step.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pruned {
    /// Where in the outbox to go on; `None` when all that is old was looked at.
    pub(super) outbox_at: Option<i64>,
    pub(super) more_in_inbox: bool,
}

impl Prune {
    /// Given the last row of the page that was looked at, when it was created, and how many there were.
    pub(super) fn after_page(&self, last_id: Option<i64>, last_created_ms: Option<i64>, rows: i64) -> Option<i64> {
        let old = last_created_ms.is_some_and(|created| created < self.published_before_ms);
        last_id.filter(|_| old && rows >= self.limit)
    }
}
