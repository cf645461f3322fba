//! A dead letter with its history, and what that adds up to.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use time::OffsetDateTime;

use super::audit::{Entry, What};
use crate::dead_letter::{DeadLetter, Reason};

/// A dead letter and everything that was done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its sequence in the stream of dead letters.
    pub id: u64,
    pub stored_at: OffsetDateTime,
    pub about: DeadLetter,
    /// Size of the body in bytes.
    pub size: usize,
    /// Empty in a list.
    pub body: Bytes,
    /// Oldest first.
    pub history: Vec<Entry>,
    pub state: State,
}

/// What became of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Nobody has decided yet, or a replay did not leave.
    Waiting,
    /// On its way to the consumer.
    BeingReplayed,
    /// Replayed, and nothing was heard of it since: whoever replayed it was cut off before it left, its service does not
    /// run, or the audit could not be written. It waits for somebody as before; a replay that comes twice has one effect.
    ReplayUnanswered,
    /// Replayed, and handled.
    Handled,
    /// Replayed, and failed again: the new dead letter waits in its place.
    FailedAgain {
        dead_letter: u64,
    },
    Discarded {
        reason: String,
    },
}

/// After this time a replay of which nothing was heard waits for somebody again: longer than all of a consumer's attempts
/// take as they are by default, five times half a minute.
pub const REPLAY_ANSWERED_WITHIN: Duration = Duration::from_secs(5 * 60);

impl State {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::BeingReplayed => "being_replayed",
            Self::ReplayUnanswered => "replay_unanswered",
            Self::Handled => "handled",
            Self::FailedAgain { .. } => "failed_again",
            Self::Discarded { .. } => "discarded",
        }
    }

    /// Whether it is for somebody to decide what becomes of the letter.
    pub fn waits(&self) -> bool {
        matches!(self, Self::Waiting | Self::ReplayUnanswered)
    }

    /// From a letter's entries. Only the latest replay counts, whatever order its end and its beginning were written in.
    pub(super) fn of(history: &[Entry], now: OffsetDateTime) -> Self {
        let decided = history.iter().rev().find(|e| matches!(e.what, What::Replayed { .. } | What::Discarded { .. }));
        let (replay_id, sent_at) = match decided.map(|entry| (&entry.what, entry.at)) {
            Some((What::Discarded { reason, .. }, _)) => return Self::Discarded { reason: reason.clone() },
            Some((What::Replayed { replay_id, .. }, at)) => (replay_id, at),
            _ => return Self::Waiting,
        };
        let ends = || history.iter().filter(|entry| entry.what.replay_id() == Some(replay_id));
        // It may have been handled after all when sending it only seemed to fail.
        if ends().any(|entry| matches!(entry.what, What::Handled { .. })) {
            return Self::Handled;
        }
        ends()
            .find_map(|entry| match entry.what {
                What::FailedAgain { dead_letter, .. } => Some(Self::FailedAgain { dead_letter }),
                _ => None,
            })
            .or_else(|| ends().any(|e| matches!(e.what, What::NotSent { .. })).then_some(Self::Waiting))
            .unwrap_or(if now < sent_at + REPLAY_ANSWERED_WITHIN {
                Self::BeingReplayed
            } else {
                Self::ReplayUnanswered
            })
    }
}

/// The entries that are about this letter, and not about another that had the number before the stream was made anew.
pub(super) fn history_of(stored_at: OffsetDateTime, entries: &[Entry]) -> Vec<Entry> {
    let mut replays = Vec::new();
    for entry in entries {
        if let What::Replayed { replay_id, letter_stored_at, .. } = &entry.what
            && *letter_stored_at == stored_at
        {
            replays.push(replay_id.as_str());
        }
    }
    let ours = |entry: &&Entry| match &entry.what {
        What::Discarded { letter_stored_at, .. } => *letter_stored_at == stored_at,
        other => other.replay_id().is_some_and(|id| replays.contains(&id)),
    };
    entries.iter().filter(ours).cloned().collect()
}

/// Letters that have consumer, subject and reason in common: one cause often explains them all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    pub consumer: String,
    pub subject: String,
    pub reason: Reason,
    pub count: usize,
    #[serde(with = "time::serde::rfc3339")]
    pub oldest: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub newest: OffsetDateTime,
    /// The last error, outermost.
    pub error: String,
    pub ids: Vec<u64>,
}

/// Largest group first.
pub fn group(letters: &[Letter]) -> Vec<Group> {
    let mut groups: BTreeMap<(&str, &str, &str), Group> = BTreeMap::new();
    for letter in letters {
        let about = &letter.about;
        let at = about.last_failed_at;
        let key = (about.consumer.as_str(), about.subject.as_str(), about.reason.as_str());
        let group = groups.entry(key).or_insert_with(|| Group {
            consumer: about.consumer.clone(),
            subject: about.subject.clone(),
            reason: about.reason,
            count: 0,
            oldest: at,
            newest: at,
            error: String::new(),
            ids: Vec::new(),
        });
        group.count += 1;
        group.ids.push(letter.id);
        group.oldest = group.oldest.min(at);
        if group.newest <= at {
            group.newest = at;
            group.error = about.errors.first().cloned().unwrap_or_default();
        }
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn entry(what: What) -> Entry {
        Entry { at: AT, who: "me@here".into(), letter: 1, what }
    }

    fn replayed(id: &str) -> Entry {
        entry(What::Replayed { replay_id: id.into(), letter_stored_at: AT, corrected: false })
    }

    fn handled(id: &str) -> Entry {
        entry(What::Handled { replay_id: id.into() })
    }

    fn failed(id: &str) -> Entry {
        entry(What::FailedAgain { replay_id: id.into(), dead_letter: 9 })
    }

    fn not_sent(id: &str) -> Entry {
        entry(What::NotSent { replay_id: id.into(), error: "no".into() })
    }

    #[test]
    fn the_latest_decision_and_its_end_make_the_state() {
        let discarded = || entry(What::Discarded { letter_stored_at: AT, reason: "a test".into() });
        for (history, expected) in [
            (vec![], State::Waiting),
            (vec![replayed("a")], State::BeingReplayed),
            (vec![replayed("a"), not_sent("a")], State::Waiting),
            (vec![replayed("a"), not_sent("a"), handled("a")], State::Handled),
            (vec![handled("a"), replayed("a")], State::Handled),
            (vec![replayed("a"), failed("a")], State::FailedAgain { dead_letter: 9 }),
            (vec![replayed("a"), failed("a"), replayed("b")], State::BeingReplayed),
            (vec![replayed("a"), replayed("b"), handled("b"), failed("a")], State::Handled),
            (vec![discarded()], State::Discarded { reason: "a test".into() }),
            (vec![discarded(), replayed("a"), handled("a")], State::Handled),
        ] {
            assert_eq!(State::of(&history, AT), expected, "{history:?}");
        }
        let later = AT + REPLAY_ANSWERED_WITHIN;
        assert_eq!(State::of(&[replayed("a")], later), State::ReplayUnanswered);
        assert_eq!(State::of(&[replayed("a"), handled("a")], later), State::Handled);
    }

    #[test]
    fn what_was_said_about_an_earlier_letter_of_the_same_number_does_not_count() {
        let before =
            [replayed("a"), handled("a"), entry(What::Discarded { letter_stored_at: AT, reason: String::new() })];
        assert_eq!(history_of(AT, &before), before);
        assert_eq!(history_of(AT + time::Duration::SECOND, &before), []);
    }
}
