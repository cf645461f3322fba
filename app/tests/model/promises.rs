//! What has to hold: in every state, and in every state in which nothing goes on by itself any more.

use inventory::domain::Status;
use order::domain::End;
use payment::domain::State as PaymentState;

use crate::kinds::Kind;
use crate::services::TOTAL;
use crate::world::{Alarm, Life, State, World};

/// The promise that this state breaks.
pub(crate) fn broken(world: &World, state: &State) -> Option<String> {
    let lives = &state.lives[..world.scenario.orders];
    lives.iter().find_map(|life| alarm(life).or_else(|| money(world, life))).or_else(|| goods(world, state, lives))
}

fn alarm(life: &Life) -> Option<String> {
    let said = life.outbox.and(life.sent);
    if said.has(Kind::Confirmed) && said.has(Kind::Cancelled) {
        return Some("an order is confirmed or cancelled, never both".into());
    }
    life.alarm.map(|alarm| match alarm {
        Alarm::EndChanged => "the end of an order never changes".into(),
        Alarm::SaidTwice => "a service says a thing of an order once".into(),
        Alarm::HandledTwice => "an event takes effect once in each service".into(),
    })
}

fn money(world: &World, life: &Life) -> Option<String> {
    let ledger = world.ledgers.get(life.ledger);
    if ledger.intents.is_empty() {
        return None;
    }
    let confirmed = world.services.end(life.order) == Some(End::Confirmed);
    let broken = if ledger.intents.len() > 1 {
        "a card is put on hold once for an order"
    } else if ledger.captures() > 1 {
        "money is taken once for an order"
    } else if ledger.captures() > 0 && !confirmed {
        "money is taken for confirmed orders only"
    } else if ledger.captures() > 0 && ledger.kept() != TOTAL {
        "the money taken is what the order costs"
    } else if world.services.payment_state(life.payment) == Some(PaymentState::Cancelled) {
        "the gateway is not asked for an order that was cancelled before it was known"
    } else {
        return None;
    };
    Some(broken.into())
}

fn goods(world: &World, state: &State, lives: &[Life]) -> Option<String> {
    let with = |wanted| {
        let is = |life: &&Life| world.services.reservation_status(life.reservation) == Some(wanted);
        lives.iter().filter(is).count() as i8
    };
    let (held, committed) = (with(Status::Held), with(Status::Committed));
    for (units, opening) in state.shelf.iter().zip(world.scenario.shelf) {
        let broken = if units.iter().any(|count| *count < 0) {
            "no count of units is below zero"
        } else if units.iter().sum::<i8>() != opening {
            "available, reserved and committed units add up to those there were"
        } else if units[1] != held {
            "the units reserved are those of the orders that hold them"
        } else if units[2] != committed {
            "the units committed are those of confirmed orders"
        } else {
            continue;
        };
        return Some(format!("{broken} ({units:?})"));
    }
    None
}

/// The promise that this state breaks, if it is the last.
pub(crate) fn broken_at_rest(world: &World, state: &State) -> Option<String> {
    state.lives[..world.scenario.orders].iter().find_map(|life| ended(world, life))
}

fn ended(world: &World, life: &Life) -> Option<String> {
    let payment = world.services.payment_state(life.payment);
    let reservation = world.services.reservation_status(life.reservation);
    let ledger = world.ledgers.get(life.ledger);
    let broken = match world.services.end(life.order) {
        None => "every order comes to an end",
        Some(End::Confirmed) => match payment {
            Some(PaymentState::Captured) if ledger.kept() != TOTAL || ledger.holds() => {
                "a confirmed order is charged what it costs"
            }
            // The gateway refused for good; an operator sees it.
            Some(PaymentState::CaptureFailed) if ledger.kept() != 0 => "what is not captured is not charged",
            Some(PaymentState::Captured | PaymentState::CaptureFailed) if reservation != Some(Status::Committed) => {
                "the units of a confirmed order are committed"
            }
            Some(PaymentState::Captured | PaymentState::CaptureFailed) => return None,
            _ => "a confirmed order is captured, or an operator sees why not",
        },
        Some(End::Cancelled(_)) => match payment {
            _ if ledger.kept() != 0 => "no money is kept for a cancelled order",
            _ if matches!(reservation, Some(Status::Held | Status::Committed | Status::Expected)) => {
                "nothing stays reserved for a cancelled order"
            }
            // The gateway refused for good or was never heard; an operator sees it.
            Some(PaymentState::VoidFailed | PaymentState::AuthorizeUnknown) => return None,
            _ if ledger.holds() => "no money stays on hold for a cancelled order",
            None | Some(PaymentState::Declined | PaymentState::Voided | PaymentState::Cancelled) => return None,
            Some(_) => "the payment of a cancelled order comes to an end",
        },
    };
    Some(format!("{broken} (payment: {payment:?}, stock: {reservation:?})"))
}
