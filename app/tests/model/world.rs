//! The whole system around one or two orders: three services, their databases, the streams between them, the gateway.

use std::collections::HashMap;

use contracts::payments::Step;

use crate::explorer::{Model, Quick};
use crate::gateway::{Heard, Ledger};
use crate::intern::Numbered;
use crate::kinds::{Kind, Kinds, Service};
use crate::moves::{Move, What};
use crate::promises;
use crate::scenario::Scenario;
use crate::services::{Answered, Input, PRODUCTS, Services, Shelf};

/// Calls at the same time that a state has room for.
const ROOM: usize = 3;

/// Everything about one order. Numbers stand for states of services, see [`Services`]; 0 is "nothing yet".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Life {
    pub(crate) order: u8,
    pub(crate) payment: u8,
    pub(crate) reservation: u8,
    pub(crate) ledger: u8,
    /// Requests on their way to the gateway that nobody waits for; a bit each.
    pub(crate) held_up: u8,
    /// Calls going on, sorted; 0 is none.
    pub(crate) calls: [u8; ROOM],
    /// Committed, but not on a stream.
    pub(crate) outbox: Kinds,
    /// On a stream.
    pub(crate) sent: Kinds,
    /// Marked in the inbox of order, payment, inventory.
    pub(crate) seen: [Kinds; 3],
    pub(crate) alarm: Option<Alarm>,
}

/// What a single state does not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Alarm {
    EndChanged,
    SaidTwice,
    HandledTwice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) shelf: Shelf,
    pub(crate) lives: [Life; 2],
}

/// Somebody in payment, on the way to the gateway and back: a handler, the sweep or the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Call {
    request: u8,
    /// The event this call is made ahead of recording.
    ahead: Option<Kind>,
    /// The answer, once it is there.
    heard: Option<Heard>,
}

pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) services: Services,
    pub(crate) ledgers: Numbered<Ledger>,
    calls: Numbered<Option<Call>>,
    /// What came of asking, by ledger, request and willingness: the ledger after it, and what is heard.
    asked: HashMap<(u8, u8, bool), (u8, Heard), Quick>,
}

impl World {
    pub(crate) fn new(scenario: Scenario) -> Self {
        assert!(scenario.calls <= ROOM && (1..=2).contains(&scenario.orders));
        Self {
            scenario,
            services: Services::new(scenario.safeties),
            ledgers: Numbered::starting_with(Ledger::default()),
            calls: Numbered::starting_with(None),
            asked: HashMap::default(),
        }
    }

    /// The order service decides something.
    fn order(&mut self, life: Life, input: Input) -> Life {
        let (order, said) = self.services.order(life.order, input);
        let before = self.services.end(life.order);
        let changed = before.is_some() && self.services.end(order) != before;
        let alarm = if changed { Some(Alarm::EndChanged) } else { life.alarm };
        self.say(Life { order, alarm, ..life }, said)
    }

    /// Events are committed together with what they tell.
    fn say(&self, life: Life, said: Kinds) -> Life {
        let alarm = if said.meets(life.outbox.and(life.sent)) { Some(Alarm::SaidTwice) } else { life.alarm };
        if self.scenario.outbox {
            Life { outbox: life.outbox.and(said), alarm, ..life }
        } else {
            Life { sent: life.sent.and(said), alarm, ..life }
        }
    }

    /// A service handles an event up to its commit, in payment with the answer of a call made ahead.
    fn handle(&mut self, at: Place<'_>, service: Service, kind: Kind, answer: Option<Answered>) -> State {
        let mut after = *at.state;
        let mut life = at.life();
        let seen = &mut life.seen[service as usize];
        let again = seen.has(kind);
        if again && self.scenario.safeties.inbox {
            return after;
        }
        *seen = seen.with(kind);
        if again && self.scenario.safeties.watch_inbox {
            life.alarm = Some(Alarm::HandledTwice);
        }
        after.lives[at.number] = match service {
            Service::Order => self.order(life, Input::Event(kind)),
            Service::Payment => {
                let (payment, said) = self.services.payment(life.payment, Some(kind), answer);
                self.say(Life { payment, ..life }, said)
            }
            Service::Inventory => {
                let (reservation, shelf, said) = self.services.stock(life.reservation, kind, after.shelf);
                after.shelf = shelf;
                self.say(Life { reservation, ..life }, said)
            }
        };
        after
    }

    fn order_moves(&mut self, at: Place<'_>, into: &mut Next) {
        let life = at.life();
        at.to(What::Place, self.order(life, Input::Place), into);
        if life.order != 0 {
            at.to(What::Cancel, self.order(life, Input::Cancel), into);
            let certain = self.scenario.deadline_comes;
            at.to(What::Expire { certain }, self.order(life, Input::Expire), into);
        }
    }

    fn broker_moves(&self, at: Place<'_>, into: &mut Next) {
        let life = at.life();
        for kind in life.outbox.iter() {
            let outbox = life.outbox.without(kind);
            at.to(What::Publish(kind), Life { outbox, sent: life.sent.with(kind), ..life }, into);
            if !self.scenario.safeties.outbox {
                let service = kind.publisher();
                let lost = life.outbox.iter().filter(|kind| kind.publisher() == service);
                let outbox = lost.fold(life.outbox, Kinds::without);
                at.to(What::LoseUnpublished(service), Life { outbox, ..life }, into);
            }
        }
        // What nobody kept cannot be published again.
        if self.scenario.outbox && self.scenario.safeties.outbox {
            for kind in life.sent.iter() {
                let outbox = life.outbox.with(kind);
                at.to(What::Forget(kind), Life { outbox, sent: life.sent.without(kind), ..life }, into);
            }
        }
    }

    fn handler_moves(&mut self, at: Place<'_>, into: &mut Next) {
        let life = at.life();
        for kind in life.sent.iter() {
            for &service in kind.readers() {
                if service == Service::Order && !self.scenario.epilogue && self.services.end(life.order).is_some() {
                    continue;
                }
                let again = life.seen[service as usize].has(kind);
                let after = self.handle(at, service, kind, None);
                into.push((at.step(What::Handle { service, kind, again }), after));
                if !self.scenario.safeties.commit_before_ack && !again {
                    let mut life = life;
                    life.seen[service as usize] = life.seen[service as usize].with(kind);
                    at.to(What::AckThenCrash { service, kind }, life, into);
                }
            }
        }
    }

    /// A handler, the sweep or the API reads the row and is about to call the gateway. Handlers do so after their commit
    /// too; that is the same as doing it at any other time.
    fn setting_out(&mut self, at: Place<'_>, into: &mut Next) {
        let life = at.life();
        if life.calls[ROOM - self.scenario.calls] != 0 {
            return;
        }
        if let Some(request) = self.services.due(life.payment, None) {
            let step = self.services.requests.get(request).step;
            at.to(What::SetOut(step), self.with_call(life, Call { request, ahead: None, heard: None }), into);
            if self.scenario.gives_up && step == Step::Authorize {
                let call = Call { request, ahead: None, heard: Some(Heard::GivenUp) };
                at.to(What::GiveUp, self.with_call(life, call), into);
            }
        }
        for kind in [Kind::Created, Kind::Confirmed, Kind::Cancelled] {
            let careful = self.scenario.safeties.record_before_authorize;
            if !life.sent.has(kind) || (careful && (life.payment == 0 || kind == Kind::Created)) {
                continue;
            }
            let Some(request) = self.services.due(life.payment, Some(kind)) else { continue };
            let step = self.services.requests.get(request).step;
            if step != Step::Authorize || !careful {
                let call = Call { request, ahead: Some(kind), heard: None };
                let again = life.seen[Service::Payment as usize].has(kind);
                at.to(What::SetOutAhead { step, kind, again }, self.with_call(life, call), into);
            }
        }
    }

    fn call_moves(&mut self, at: Place<'_>, into: &mut Next) {
        let life = at.life();
        for place in 0..ROOM {
            let Some(call) = *self.calls.get(life.calls[place]) else { continue };
            if place > 0 && life.calls[place - 1] == life.calls[place] {
                continue;
            }
            let step = self.services.requests.get(call.request).step;
            let mut without = life;
            without.calls[place] = 0;
            without.calls.sort_unstable();
            at.to(What::Crash(step), without, into);
            match call.heard {
                None => {
                    if self.scenario.held_up {
                        let held_up = without.held_up | 1 << call.request;
                        at.to(What::HoldUp(step), Life { held_up, ..without }, into);
                    }
                    for (ledger, heard) in self.answers(life.ledger, call.request) {
                        let done = heard != Heard::Refused;
                        at.to(What::AnswerLost(step, done), Life { ledger, ..without }, into);
                        let call = Call { heard: Some(heard), ..call };
                        let after = self.with_call(Life { ledger, ..without }, call);
                        at.to(What::Answer(step, done), after, into);
                    }
                }
                Some(heard) => {
                    let answer = Some((call.request, heard));
                    let mut after = *at.state;
                    after.lives[at.number] = without;
                    let after = match call.ahead {
                        Some(kind) => self.handle(Place { state: &after, ..at }, Service::Payment, kind, answer),
                        None => {
                            let (payment, said) = self.services.payment(life.payment, None, answer);
                            after.lives[at.number] = self.say(Life { payment, ..without }, said);
                            after
                        }
                    };
                    into.push((at.step(What::Record(step, call.ahead)), after));
                }
            }
        }
        for request in (0..8).filter(|n| life.held_up & 1 << n != 0) {
            let step = self.services.requests.get(request).step;
            for (ledger, heard) in self.answers(life.ledger, request) {
                let held_up = life.held_up & !(1 << request);
                at.to(What::Arrive(step, heard != Heard::Refused), Life { ledger, held_up, ..life }, into);
            }
        }
    }

    /// What may come of a request that reaches the gateway.
    fn answers(&mut self, ledger: u8, request: u8) -> impl Iterator<Item = (u8, Heard)> + use<> {
        assert!(request < 8, "more requests for one order than a state has bits for");
        let step = self.services.requests.get(request).step;
        let yes = self.ask(ledger, request, true);
        let no = self.scenario.refusals.contains(&step).then(|| self.ask(ledger, request, false));
        std::iter::once(yes).chain(no.filter(|no| *no != yes))
    }

    fn ask(&mut self, ledger: u8, request: u8, willing: bool) -> (u8, Heard) {
        if let Some(known) = self.asked.get(&(ledger, request, willing)) {
            return *known;
        }
        let fresh_key = !self.scenario.safeties.idempotency_key;
        let (after, heard) = self.ledgers.get(ledger).ask(*self.services.requests.get(request), willing, fresh_key);
        let result = (self.ledgers.number_of(after), heard);
        self.asked.insert((ledger, request, willing), result);
        result
    }

    fn with_call(&mut self, life: Life, call: Call) -> Life {
        let mut calls = life.calls;
        calls[0] = self.calls.number_of(Some(call));
        calls.sort_unstable();
        Life { calls, ..life }
    }
}

type Next = Vec<(Move, State)>;

/// One order in a state.
#[derive(Clone, Copy)]
struct Place<'a> {
    state: &'a State,
    number: usize,
    /// Whether there are two.
    named: bool,
}

impl Place<'_> {
    fn life(self) -> Life {
        self.state.lives[self.number]
    }

    fn step(self, what: What) -> Move {
        Move { order: self.named.then_some(self.number), what }
    }

    fn to(self, what: What, life: Life, into: &mut Next) {
        let mut after = *self.state;
        after.lives[self.number] = life;
        into.push((self.step(what), after));
    }
}

impl Model for World {
    type State = State;
    type Step = Move;

    fn initial(&self) -> State {
        let mut shelf = [[0; 3]; PRODUCTS];
        for (product, units) in shelf.iter_mut().zip(self.scenario.shelf) {
            product[0] = units;
        }
        State { shelf, lives: [Life::default(); 2] }
    }

    fn steps(&mut self, from: &State, into: &mut Next) {
        for number in 0..self.scenario.orders {
            let at = Place { state: from, number, named: self.scenario.orders > 1 };
            self.order_moves(at, into);
            self.broker_moves(at, into);
            self.handler_moves(at, into);
            self.setting_out(at, into);
            self.call_moves(at, into);
        }
    }

    fn is_progress(step: &Move) -> bool {
        step.what.is_progress()
    }

    /// The orders are alike, so it does not matter which is which.
    fn representative(&self, state: &State) -> State {
        let [a, b] = state.lives;
        if self.scenario.orders == 2 && b < a { State { lives: [b, a], ..*state } } else { *state }
    }

    fn broken(&mut self, state: &State) -> Option<String> {
        promises::broken(self, state)
    }

    fn broken_at_rest(&mut self, state: &State) -> Option<String> {
        promises::broken_at_rest(self, state)
    }
}
