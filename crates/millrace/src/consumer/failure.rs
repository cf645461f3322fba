use std::error::Error as StdError;
use std::fmt;

use crate::store::StoreError;

/// Why a handler could not finish, by what helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Trying again later may help: a time-out, a conflict, something that is away.
    #[error("{0}")]
    Transient(Causes),
    /// Trying again cannot help: the message becomes a dead letter at once.
    #[error("{0}")]
    Permanent(Causes),
}

/// What went wrong, and why, and why that: outermost first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Causes(Vec<String>);

impl Failure {
    pub fn transient(reason: impl fmt::Display) -> Self {
        Self::Transient(Causes::one(reason))
    }

    pub fn permanent(reason: impl fmt::Display) -> Self {
        Self::Permanent(Causes::one(reason))
    }

    /// As [`transient`](Self::transient), with the sources of the error: a dead letter shows each.
    pub fn transient_error(error: &(dyn StdError + 'static)) -> Self {
        Self::Transient(Causes::of(error))
    }

    /// As [`permanent`](Self::permanent), with the sources of the error: a dead letter shows each.
    pub fn permanent_error(error: &(dyn StdError + 'static)) -> Self {
        Self::Permanent(Causes::of(error))
    }

    /// Says what was being done when it went wrong.
    #[must_use]
    pub fn while_doing(mut self, what: impl fmt::Display) -> Self {
        let (Self::Transient(causes) | Self::Permanent(causes)) = &mut self;
        causes.0.insert(0, what.to_string());
        self
    }
}

impl Causes {
    fn one(reason: impl fmt::Display) -> Self {
        Self(vec![reason.to_string()])
    }

    fn of(error: &(dyn StdError + 'static)) -> Self {
        let mut texts = vec![error.to_string()];
        let mut source = error.source();
        while let Some(error) = source {
            texts.push(error.to_string());
            source = error.source();
        }
        Self(texts)
    }

    /// Outermost first.
    pub fn into_vec(self) -> Vec<String> {
        self.0
    }
}

impl fmt::Display for Causes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(": "))
    }
}

impl From<StoreError> for Failure {
    /// Even a refused intent is worth another try: most refusals are a full disk or a schema about to be migrated.
    fn from(error: StoreError) -> Self {
        Self::transient_error(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the order could not be read")]
    struct Outer(#[source] std::num::ParseIntError);

    #[test]
    fn a_failure_keeps_every_error_behind_it() {
        let outer = || Outer("x".parse::<u8>().unwrap_err());
        let failure = Failure::permanent_error(&outer()).while_doing("taking in an order");
        assert_eq!(
            failure.to_string(),
            "taking in an order: the order could not be read: invalid digit found in string"
        );
        let Failure::Permanent(causes) = failure else { panic!("{failure:?}") };
        assert_eq!(causes.into_vec().len(), 3);
        assert_eq!(Failure::transient(outer()).to_string(), "the order could not be read");
    }
}
