use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use time::OffsetDateTime;

/// Messages remembered. One that another instance finishes is never forgotten here otherwise; the oldest go first.
const MOST: usize = 10_000;

/// When messages that come back failed for the first time. Known to this process only: after a restart, or on another
/// instance, the count starts with the first failure there.
#[derive(Debug, Default)]
pub(super) struct FirstFailures(Mutex<BTreeMap<Message, OffsetDateTime>>);

/// Its sequence and when it was stored: a number may be given twice.
type Message = (u64, OffsetDateTime);

impl FirstFailures {
    /// The message has failed just now. Returns when it failed first.
    pub(super) fn failed(&self, message: Message, now: OffsetDateTime) -> OffsetDateTime {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = *known.entry(message).or_insert(now);
        if known.len() > MOST {
            known.pop_first();
        }
        first
    }

    /// The message will not come back.
    pub(super) fn forget(&self, message: Message) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_keeps_the_first_time() {
        let (failures, start) = (FirstFailures::default(), OffsetDateTime::UNIX_EPOCH);
        let later = start + time::Duration::SECOND;
        assert_eq!(failures.failed((7, start), start), start);
        assert_eq!(failures.failed((7, start), later), start);
        assert_eq!(failures.failed((7, later), later), later, "another message with the same number");
        failures.forget((7, start));
        assert_eq!(failures.failed((7, start), later), later);
        for seq in 0..2 * MOST as u64 {
            failures.failed((seq, start), start);
        }
        assert_eq!(failures.0.lock().unwrap().len(), MOST);
    }
}
