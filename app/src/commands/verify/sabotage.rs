//! `--focus` and `--sabotage`: a run that breaks above all what one safety is there for, with the safety and without.

use std::time::Duration;

use millrace::crash::{self, Point};
use simulators::control::Behaviour;

use super::faults::{Injection, Kind, Kinds, Manner, VICTIMS};
use super::setup;
use crate::stack::Role;

/// What keeps orders from being lost or doubled, by the name of what its absence is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Safety {
    /// Which events were handled is looked up. Without: each is handled as often as it comes
    Inbox,
    /// Events are kept until the broker has confirmed them. Without: published from memory alone
    Outbox,
    /// A cancellation that comes before its order is remembered. Without: it leaves nothing
    Tombstone,
    /// A call to the gateway is repeated under the same key. Without: a new key each time
    IdempotencyKey,
    /// Messages are acknowledged after the commit. Without: on receipt
    AckBeforeCommit,
}

/// Long enough that a crowd of customers falls into it.
const FREEZE_MS: std::ops::RangeInclusive<u64> = 1_500..=2_500;
/// When the broker delivers again what a killed service had in hand: not before it is back, on the slowest machine.
/// Otherwise the order comes before its cancellation all the same.
const ACK_WAIT: &str = "20s";
const DOWN_MS: std::ops::RangeInclusive<u64> = 50..=150;
const GATEWAY_MS: std::ops::RangeInclusive<u64> = 1_500..=3_000;

impl Safety {
    /// As on the command line and in `MILLRACE_SABOTAGE`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inbox => millrace::sabotage::INBOX.name(),
            Self::Outbox => millrace::sabotage::OUTBOX.name(),
            Self::Tombstone => payment::under_test::TOMBSTONE.name(),
            Self::IdempotencyKey => payment::under_test::IDEMPOTENCY_KEY.name(),
            Self::AckBeforeCommit => millrace::sabotage::ACK_BEFORE_COMMIT.name(),
        }
    }

    /// What every service is told besides its settings.
    pub fn variables(self, is_off: bool) -> Vec<(String, String)> {
        let mut told = Vec::new();
        if self == Self::Tombstone {
            told.push((setup::variable("topology.ack_wait"), ACK_WAIT.to_owned()));
        }
        if is_off {
            told.push((millrace::sabotage::VARIABLE.to_owned(), self.name().to_owned()));
        }
        told
    }

    /// The faults of [`deck`](Self::deck).
    pub fn kinds(self) -> Kinds {
        Kinds(match self {
            Self::IdempotencyKey => vec![Kind::Kill, Kind::Gateway],
            Self::Inbox | Self::Outbox | Self::Tombstone | Self::AckBeforeCommit => vec![Kind::Kill],
        })
    }

    /// What this safety is there for. All of it happens in a run with all faults, too, only less often.
    pub fn deck(self, rng: &mut fastrand::Rng) -> Vec<Injection> {
        let mut millis = |range| Duration::from_millis(rng.u64(range));
        let mut kill = |service, manner| Injection::Kill { service, manner, down: millis(DOWN_MS) };
        let mut kill_all = |point: &'static Point| {
            VICTIMS.map(|service| kill(service, Manner::At { point: point.name(), nth: 2 })).to_vec()
        };
        match self {
            Self::Inbox => kill_all(&crash::AFTER_EFFECT_BEFORE_ACK),
            Self::Outbox => kill_all(&crash::AFTER_COMMIT),
            Self::AckBeforeCommit => [kill_all(&crash::BEFORE_EFFECT), kill_all(&crash::BEFORE_COMMIT)].concat(),
            Self::Tombstone => [Role::Payment, Role::Inventory]
                .map(|service| {
                    let manner = Manner::Frozen(millis(FREEZE_MS));
                    Injection::Kill { service, manner, down: millis(DOWN_MS) }
                })
                .to_vec(),
            Self::IdempotencyKey => vec![
                Injection::Gateway { mode: Behaviour::LoseAnswers, during: millis(GATEWAY_MS) },
                Injection::Kill {
                    service: Role::Payment,
                    manner: Manner::At { point: payment::under_test::AFTER_GATEWAY_ANSWER.name(), nth: 2 },
                    down: millis(DOWN_MS),
                },
                Injection::Gateway { mode: Behaviour::Timeout, during: millis(GATEWAY_MS) },
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn a_safety_has_one_name_everywhere() {
        for safety in Safety::value_variants() {
            assert_eq!(safety.to_possible_value().unwrap().get_name(), safety.name());
        }
    }
}
