//! Whether the broker still has what it acknowledged, as far as it is known.

use std::collections::HashSet;

/// How much of what it acknowledged the broker may have lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Extent {
    /// It was connected to: what earlier runs of the server acknowledged.
    EarlierRuns,
    /// A stream was missing or has gone back: what the present run acknowledged too.
    PresentRunToo,
}

/// The doubts that wait for a comparison, and the one that is being looked into. One that comes up while others are looked
/// into is not answered by their comparison, which may have passed by where it has to look.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    waiting: Option<Extent>,
    looked_into: Option<Extent>,
    /// Subjects that no stream takes.
    without_stream: HashSet<String>,
}

impl Doubt {
    pub(super) fn raise(&mut self, extent: Extent) {
        self.waiting = self.waiting.max(Some(extent));
    }

    /// No stream took a message. Tried again, the same says nothing new: a subject that no stream is going to take must not
    /// have everything compared for ever.
    pub(super) fn no_stream_takes(&mut self, subject: &str) {
        if self.without_stream.insert(subject.to_owned()) {
            self.raise(Extent::PresentRunToo);
        }
    }

    pub(super) fn a_stream_took(&mut self, subject: &str) {
        if !self.without_stream.is_empty() {
            self.without_stream.remove(subject);
        }
    }

    /// Whether a comparison has to be begun, now or when the one that is under way has ended.
    pub(super) fn waits(&self) -> bool {
        self.waiting.is_some()
    }

    pub(super) fn is_none(&self) -> bool {
        self.waiting.is_none() && self.looked_into.is_none()
    }

    /// How far a comparison has to look that begins now. `None` when there is nothing to look for, or one is under way.
    pub(super) fn look_into(&mut self) -> Option<Extent> {
        if self.looked_into.is_some() {
            return None;
        }
        self.looked_into = self.waiting.take();
        self.looked_into
    }

    /// The comparison has ended. Without a loss it has answered what it was begun for; otherwise there may be more.
    pub(super) fn ended(&mut self, nothing_lost: bool) {
        let looked_into = self.looked_into.take();
        if !nothing_lost {
            self.waiting = self.waiting.max(looked_into);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Extent::{EarlierRuns, PresentRunToo};

    #[test]
    fn what_comes_up_during_a_comparison_is_looked_into_after_it() {
        for (first, second) in
            [(EarlierRuns, PresentRunToo), (PresentRunToo, PresentRunToo), (PresentRunToo, EarlierRuns)]
        {
            let mut doubt = Doubt::default();
            doubt.raise(first);
            assert_eq!(doubt.look_into(), Some(first));
            doubt.raise(second);
            assert_eq!(doubt.look_into(), None, "one at a time");
            doubt.ended(true);
            assert!(doubt.waits() && !doubt.is_none());
            assert_eq!(doubt.look_into(), Some(second));
            doubt.ended(true);
            assert!(doubt.is_none());
        }
    }

    #[test]
    fn a_stream_that_is_missing_is_a_reason_once_until_it_was_there_again() {
        let mut doubt = Doubt::default();
        for again in [false, true] {
            doubt.no_stream_takes("a");
            assert_eq!(doubt.look_into(), Some(PresentRunToo), "{again}");
            doubt.ended(true);
            doubt.no_stream_takes("a");
            assert!(doubt.is_none());
            doubt.no_stream_takes("b");
            assert_eq!(doubt.look_into().is_some(), !again, "another stream may be missing");
            doubt.ended(true);
            doubt.a_stream_took("a");
        }
    }

    #[test]
    fn it_lasts_until_a_comparison_finds_nothing_lost() {
        let mut doubt = Doubt::default();
        assert!(doubt.is_none() && doubt.look_into().is_none());
        doubt.raise(PresentRunToo);
        doubt.raise(EarlierRuns);
        for _ in 0..2 {
            assert_eq!(doubt.look_into(), Some(PresentRunToo));
            assert!(!doubt.is_none() && !doubt.waits());
            doubt.ended(false);
        }
        doubt.look_into();
        doubt.ended(true);
        assert!(doubt.is_none());
    }
}
