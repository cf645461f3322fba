use std::fmt;

use crate::store::StoreError;

/// Why a handler could not finish, by what helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Trying again later may help: a time-out, a conflict, something that is away.
    #[error("{0}")]
    Transient(String),
    /// Trying again cannot help: the message becomes a dead letter at once.
    #[error("{0}")]
    Permanent(String),
}

impl Failure {
    pub fn transient(reason: impl fmt::Display) -> Self {
        Self::Transient(reason.to_string())
    }

    pub fn permanent(reason: impl fmt::Display) -> Self {
        Self::Permanent(reason.to_string())
    }
}

impl From<StoreError> for Failure {
    /// Even a refused intent is worth another try: most refusals are a full disk or a schema about to be migrated.
    fn from(error: StoreError) -> Self {
        Self::Transient(error.to_string())
    }
}
