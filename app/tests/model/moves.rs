//! Everything that can happen next, in words.

use std::fmt;

use contracts::payments::Step;

use crate::kinds::{Kind, Service};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Move {
    /// Which order, when there are two.
    pub(crate) order: Option<usize>,
    pub(crate) what: What,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum What {
    Place,
    Cancel,
    /// `certain`: it comes sooner or later, as it does in production. Otherwise it may come or not.
    Expire {
        certain: bool,
    },
    Publish(Kind),
    /// The broker loses an event it had; its row in the outbox is published again later.
    Forget(Kind),
    Handle {
        service: Service,
        kind: Kind,
        again: bool,
    },
    SetOut(Step),
    SetOutAhead {
        step: Step,
        kind: Kind,
        again: bool,
    },
    GiveUp,
    /// The gateway does it or refuses, and is heard.
    Answer(Step, bool),
    AnswerLost(Step, bool),
    HoldUp(Step),
    /// A request that was held up reaches the gateway.
    Arrive(Step, bool),
    Record(Step, Option<Kind>),
    Crash(Step),
    /// Sabotage: unpublished events die with their process.
    LoseUnpublished(Service),
    /// Sabotage: the broker was told first.
    AckThenCrash {
        service: Service,
        kind: Kind,
    },
}

impl What {
    /// Not the faults, and not what customers may or may not do.
    pub(crate) fn is_progress(self) -> bool {
        match self {
            Self::Place
            | Self::Expire { certain: true }
            | Self::Publish(_)
            | Self::Handle { again: false, .. }
            | Self::SetOut(_)
            | Self::SetOutAhead { again: false, .. }
            | Self::GiveUp
            | Self::Answer(..)
            | Self::Arrive(..)
            | Self::Record(..) => true,
            Self::Cancel
            | Self::Expire { certain: false }
            | Self::Forget(_)
            | Self::Handle { again: true, .. }
            | Self::SetOutAhead { again: true, .. }
            | Self::AnswerLost(..)
            | Self::HoldUp(_)
            | Self::Crash(_)
            | Self::LoseUnpublished(_)
            | Self::AckThenCrash { .. } => false,
        }
    }
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(number) = self.order {
            write!(f, "order {}: ", number + 1)?;
        }
        self.what.fmt(f)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Place => f.write_str("the order is placed"),
            Self::Cancel => f.write_str("the customer cancels"),
            Self::Expire { .. } => f.write_str("the deadline passes"),
            Self::Publish(kind) => write!(f, "{kind} leaves the outbox"),
            Self::Forget(kind) => write!(f, "the broker forgets {kind}, which is still in the outbox"),
            Self::Handle { service, kind, again: false } => write!(f, "{service} handles {kind}"),
            Self::Handle { service, kind, again: true } => write!(f, "{service} is given {kind} once more"),
            Self::SetOut(step) => write!(f, "payment reads its row and sets out to {}", step.as_str()),
            Self::SetOutAhead { step, kind, again } => {
                let again = if again { " once more" } else { "" };
                write!(f, "payment is given {kind}{again} and sets out to {} before recording it", step.as_str())
            }
            Self::GiveUp => f.write_str("payment has waited too long for an answer to authorize and gives up"),
            Self::Answer(step, done) => write!(f, "the gateway {} and answers", does(step, done)),
            Self::AnswerLost(step, done) => {
                write!(f, "the gateway {}, and the answer is lost or payment crashes", does(step, done))
            }
            Self::HoldUp(step) => {
                write!(f, "the request to {} is held up on its way; payment stops waiting or crashes", step.as_str())
            }
            Self::Arrive(step, done) => {
                write!(f, "the request held up reaches the gateway, which {}", does(step, done))
            }
            Self::Record(step, None) => write!(f, "payment records the answer to {}", step.as_str()),
            Self::Record(step, Some(kind)) => {
                write!(f, "payment handles {kind}, with the answer to {}", step.as_str())
            }
            Self::Crash(step) => write!(f, "payment crashes on its way to {}", step.as_str()),
            Self::LoseUnpublished(service) => write!(f, "{service} crashes after its commit and before it publishes"),
            Self::AckThenCrash { service, kind } => {
                write!(f, "{service} acknowledges {kind} and crashes before its commit")
            }
        }
    }
}

fn does(step: Step, done: bool) -> &'static str {
    match (step, done) {
        (Step::Authorize, true) => "puts the money on hold",
        (Step::Capture, true) => "takes the money",
        (Step::Void, true) => "releases the money",
        (Step::Refund, true) => "gives the money back",
        (Step::Authorize, false) => "declines the card",
        (Step::Capture, false) => "refuses to capture",
        (Step::Void, false) => "refuses to void",
        (Step::Refund, false) => "refuses to refund",
    }
}
