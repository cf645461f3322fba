//! The payment gateway, as much of it as matters: money by intent, answers by idempotency key. Behaves like the
//! simulator in `services/simulators`, and a caller hears what the client in `services/payment/src/gateway.rs` makes of it.

use contracts::payments::Step;

/// What payment asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) step: Step,
    /// The intent it is about; none yet for an authorization.
    pub(crate) intent: Option<u8>,
    /// Minor units.
    pub(crate) amount: i64,
}

/// What payment hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Heard {
    /// It is done, for this intent.
    Done(u8),
    Refused,
    /// Nothing was heard for so long that asking again is not safe any more. Said by payment to itself.
    GivenUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Held,
    Taken,
    Released,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Intent {
    pub(crate) status: Status,
    /// Minor units.
    pub(crate) amount: i64,
    pub(crate) captured: i64,
    pub(crate) captures: u8,
    pub(crate) refunded: i64,
}

/// One order's money at the gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) intents: Vec<Intent>,
    /// Answers by key, which is the step: orders have ledgers of their own.
    answers: Vec<(Step, Heard)>,
}

impl Ledger {
    /// More holds on one card than any promise allows; a model with the safety off needs no further ones.
    const MOST_INTENTS: usize = 2;

    /// Carries a request out. `willing`: what bank and gateway think of it, asked only when it is up to them.
    /// `fresh_key`: payment made up a new idempotency key for this attempt.
    pub(crate) fn ask(&self, request: Request, willing: bool, fresh_key: bool) -> (Self, Heard) {
        let mut after = self.clone();
        if let Some((_, heard)) = self.answers.iter().find(|(step, _)| !fresh_key && *step == request.step) {
            return (after, *heard);
        }
        let heard = after.carry_out(request, willing);
        if !fresh_key {
            after.answers.push((request.step, heard));
        }
        (after, heard)
    }

    fn carry_out(&mut self, request: Request, willing: bool) -> Heard {
        if request.step == Step::Authorize {
            if !willing || self.intents.len() >= Self::MOST_INTENTS {
                return Heard::Refused;
            }
            let amount = request.amount;
            self.intents.push(Intent { status: Status::Held, amount, captured: 0, captures: 0, refunded: 0 });
            return Heard::Done(self.intents.len() as u8 - 1);
        }
        let Some(number) = request.intent else { return Heard::Refused };
        let Some(intent) = self.intents.get_mut(usize::from(number)) else { return Heard::Refused };
        match (request.step, intent.status) {
            (Step::Capture | Step::Void, Status::Held) | (Step::Refund, Status::Taken) if !willing => Heard::Refused,
            (Step::Capture, Status::Held) => {
                intent.status = Status::Taken;
                intent.captured += intent.amount;
                intent.captures += 1;
                Heard::Done(number)
            }
            (Step::Void, Status::Held) => {
                intent.status = Status::Released;
                Heard::Done(number)
            }
            (Step::Refund, Status::Taken) if intent.refunded + request.amount <= intent.captured => {
                intent.refunded += request.amount;
                Heard::Done(number)
            }
            // The client takes a payment that is where it should be for done.
            (Step::Capture, Status::Taken) | (Step::Void, Status::Released) => Heard::Done(number),
            _ => Heard::Refused,
        }
    }

    /// Minor units taken and not given back.
    pub(crate) fn kept(&self) -> i64 {
        self.intents.iter().map(|intent| intent.captured - intent.refunded).sum()
    }

    pub(crate) fn captures(&self) -> u8 {
        self.intents.iter().map(|intent| intent.captures).sum()
    }

    /// Whether money waits to be taken or released.
    pub(crate) fn holds(&self) -> bool {
        self.intents.iter().any(|intent| intent.status == Status::Held)
    }
}
