//! The memory of a simulator: the newest entries up to a limit, and an honest count of what it forgot.

use std::collections::VecDeque;

/// Keeps the last `limit` entries. What falls out is counted, so that a reader never takes a part for the whole.
pub(crate) struct BoundedLog<T> {
    entries: VecDeque<T>,
    limit: usize,
    dropped: u64,
}

impl<T> BoundedLog<T> {
    pub(crate) fn new(limit: usize) -> Self {
        Self { entries: VecDeque::new(), limit, dropped: 0 }
    }

    /// Appends an entry and returns the oldest one when that had to make room.
    pub(crate) fn push(&mut self, entry: T) -> Option<T> {
        self.entries.push_back(entry);
        if self.entries.len() <= self.limit {
            return None;
        }
        self.dropped += 1;
        self.entries.pop_front()
    }

    /// Oldest first; reverse it to read the newest first.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.entries.iter()
    }

    /// How many entries were forgotten since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::BoundedLog;

    #[test]
    fn keeps_the_newest_and_counts_what_it_forgot() {
        let mut log = BoundedLog::new(2);
        assert_eq!(log.push('a'), None);
        assert_eq!(log.push('b'), None);
        assert_eq!(log.push('c'), Some('a'));
        assert_eq!(log.iter().collect::<String>(), "bc");
        assert_eq!(log.dropped(), 1);
    }

    #[test]
    fn a_limit_of_zero_keeps_nothing_and_says_so() {
        let mut log = BoundedLog::new(0);
        assert_eq!(log.push('a'), Some('a'));
        assert_eq!((log.iter().count(), log.dropped()), (0, 1));
    }
}
