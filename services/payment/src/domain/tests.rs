//! Every arrival order, duplication, crash and late answer, against a gateway that does each step once per key.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn charge() -> Charge {
    let amount = Money::new(1_999, "EUR".parse().unwrap()).unwrap();
    Charge { amount, payment_method: "pm_card_visa".into() }
}

fn now() -> Timestamp {
    Timestamp::from_unix_ms(1_700_000_000_000)
}

fn unknown() -> Payment {
    Payment::expected(OrderId(uuid::Uuid::from_u128(7)))
}

fn done() -> Answer {
    Answer::Done { payment_id: "pi_1".into() }
}

fn refused() -> Answer {
    Answer::Refused(Refusal { code: "card_declined".into(), message: "Your card was declined.".into() })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Said {
    Created,
    Confirmed,
    Cancelled,
}

impl Said {
    fn event(self) -> OrderEvent {
        match self {
            Self::Created => OrderEvent::Created(charge()),
            Self::Confirmed => OrderEvent::Confirmed,
            Self::Cancelled => OrderEvent::Cancelled,
        }
    }
}

/// What goes on between deliveries.
#[derive(Debug, Clone, Copy)]
enum Move {
    /// An event is delivered, for the first time or again.
    Deliver(Said),
    /// As `Deliver`, but the gateway is asked first where that is allowed, and both are recorded together.
    DeliverAsked(Said),
    /// Crash after the gateway was asked ahead of the recording of this event.
    CrashAhead(Said),
    /// The due step is carried out and its answer recorded.
    Drive,
    /// The due step is carried out, and the process dies before the answer is recorded.
    CrashAfterCall,
    /// The due step is carried out; another worker records the answer some time later.
    AnswerLater,
    /// The latest of those answers is recorded.
    RecordLate,
}

/// Whether the gateway agrees to a step.
#[derive(Debug, Clone, Copy)]
struct Fates {
    authorize: bool,
    capture: bool,
    void: bool,
    refund: bool,
}

/// The real money. Answers are kept by idempotency key, so a repeated call does nothing.
#[derive(Debug)]
struct Gateway {
    fates: Fates,
    answers: HashMap<Step, Answer>,
    on_hold: bool,
    charged: bool,
    charges: u32,
}

impl Gateway {
    fn call(&mut self, step: Step) -> Answer {
        if let Some(answer) = self.answers.get(&step) {
            return answer.clone();
        }
        let agreed = match step {
            Step::Authorize => self.fates.authorize,
            Step::Capture => self.fates.capture && self.on_hold,
            Step::Void => self.fates.void && self.on_hold,
            Step::Refund => self.fates.refund && self.charged,
        };
        if agreed {
            match step {
                Step::Authorize => self.on_hold = true,
                Step::Capture => (self.on_hold, self.charged, self.charges) = (false, true, self.charges + 1),
                Step::Void => self.on_hold = false,
                Step::Refund => self.charged = false,
            }
        }
        let answer = if agreed { done() } else { refused() };
        self.answers.insert(step, answer.clone());
        answer
    }
}

#[derive(Debug)]
struct World {
    payment: Payment,
    gateway: Gateway,
    late: Vec<(Step, Answer)>,
    told: Vec<&'static str>,
    heard: Vec<Said>,
}

impl World {
    fn new(fates: Fates) -> Self {
        let gateway = Gateway { fates, answers: HashMap::new(), on_hold: false, charged: false, charges: 0 };
        Self { payment: unknown(), gateway, late: Vec::new(), told: Vec::new(), heard: Vec::new() }
    }

    fn call(&mut self) -> Option<(Step, Answer)> {
        let step = self.payment.next_step()?;
        Some((step, self.gateway.call(step)))
    }

    fn record(&mut self, step: Step, answer: &Answer) {
        self.told.extend(self.payment.apply_answer(step, answer, now()).map(|event| match event {
            PaymentEvent::Authorized(_) => "authorized",
            PaymentEvent::Declined(_) => "declined",
            PaymentEvent::Captured(_) => "captured",
            PaymentEvent::Voided(_) => "voided",
            PaymentEvent::Refunded(_) => "refunded",
            PaymentEvent::Failed(failed) => failed.step.as_str(),
        }));
    }

    /// Asks the gateway before the event is recorded: never for an authorization, as in `handlers.rs`.
    fn ahead(&mut self, said: Said) -> Option<(Step, Answer)> {
        let mut preview = self.payment.clone();
        preview.apply_event(&said.event());
        let step = preview.next_step().filter(|step| *step != Step::Authorize)?;
        Some((step, self.gateway.call(step)))
    }

    fn play(&mut self, one: Move) {
        match one {
            Move::Deliver(said) | Move::DeliverAsked(said) => {
                let answer = if matches!(one, Move::DeliverAsked(_)) { self.ahead(said) } else { None };
                self.heard.push(said);
                self.payment.apply_event(&said.event());
                if let Some((step, answer)) = answer {
                    self.record(step, &answer);
                }
            }
            Move::CrashAhead(said) => drop(self.ahead(said)),
            Move::Drive => {
                if let Some((step, answer)) = self.call() {
                    self.record(step, &answer);
                }
            }
            Move::CrashAfterCall => drop(self.call()),
            Move::AnswerLater => {
                let answer = self.call();
                self.late.extend(answer);
            }
            Move::RecordLate => {
                if let Some((step, answer)) = self.late.pop() {
                    self.record(step, &answer);
                }
            }
        }
    }

    /// Everything is delivered in the end, late answers come in, and what is due is seen to.
    fn settle(&mut self, story: &[Said]) {
        for said in story {
            if !self.heard.contains(said) {
                self.play(Move::Deliver(*said));
            }
        }
        while self.payment.next_step().is_some() {
            self.play(Move::Drive);
        }
        while !self.late.is_empty() {
            self.play(Move::RecordLate);
        }
        assert_eq!(self.payment.next_step(), None, "a late answer made something due again");
    }

    fn heard_before_created(&self, said: Said) -> bool {
        let at = |wanted| self.heard.iter().position(|heard| *heard == wanted);
        at(said) < at(Said::Created)
    }
}

fn fates() -> impl Strategy<Value = Fates> {
    // Mostly agreeable, or refusals of later steps would hardly ever be reached.
    let mostly = || prop_oneof![3 => Just(true), 1 => Just(false)];
    (mostly(), mostly(), mostly(), mostly()).prop_map(|(authorize, capture, void, refund)| Fates {
        authorize,
        capture,
        void,
        refund,
    })
}

fn moves(story: &'static [Said]) -> impl Strategy<Value = Vec<Move>> {
    let said = || proptest::sample::select(story);
    let one = prop_oneof![
        said().prop_map(Move::Deliver),
        said().prop_map(Move::DeliverAsked),
        said().prop_map(Move::CrashAhead),
        Just(Move::Drive),
        Just(Move::CrashAfterCall),
        Just(Move::AnswerLater),
        Just(Move::RecordLate),
    ];
    proptest::collection::vec(one, 0..14)
}

fn played(story: &[Said], fates: Fates, moves: &[Move]) -> World {
    let mut world = World::new(fates);
    for one in moves {
        world.play(*one);
    }
    world.settle(story);
    let mut told = world.told.clone();
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), world.told.len(), "an event was told twice: {:?}", world.told);
    assert!(world.gateway.charges <= 1);
    world
}

const CONFIRMED: &[Said] = &[Said::Created, Said::Confirmed];
const CANCELLED: &[Said] = &[Said::Created, Said::Cancelled];
const BOTH: &[Said] = &[Said::Created, Said::Confirmed, Said::Cancelled];
const CREATED: &[Said] = &[Said::Created];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_confirmed_order_ends_the_same_however_things_arrive(fates in fates(), moves in moves(CONFIRMED)) {
        let world = played(CONFIRMED, fates, &moves);
        let (expected, told): (_, &[&str]) = match fates {
            Fates { authorize: false, .. } => (State::Declined, &["declined"]),
            Fates { capture: false, .. } => (State::CaptureFailed, &["authorized", "capture"]),
            _ => (State::Captured, &["authorized", "captured"]),
        };
        prop_assert_eq!(world.payment.state, expected);
        prop_assert_eq!(world.told, told);
        prop_assert_eq!(world.gateway.charged, expected == State::Captured);
    }

    #[test]
    fn a_cancelled_order_keeps_no_money_however_things_arrive(fates in fates(), moves in moves(CANCELLED)) {
        let world = played(CANCELLED, fates, &moves);
        let (expected, told): (_, &[&str]) = match fates {
            _ if world.heard_before_created(Said::Cancelled) => (State::Cancelled, &[]),
            Fates { authorize: false, .. } => (State::Declined, &["declined"]),
            Fates { void: false, .. } => (State::VoidFailed, &["authorized", "void"]),
            _ => (State::Voided, &["authorized", "voided"]),
        };
        prop_assert_eq!(world.payment.state, expected);
        prop_assert_eq!(world.told, told);
        prop_assert_eq!(world.gateway.charges, 0);
        prop_assert_eq!(world.gateway.on_hold, expected == State::VoidFailed);
        if expected == State::Cancelled {
            prop_assert!(world.gateway.answers.is_empty(), "the gateway was asked about a tombstone");
        }
    }

    #[test]
    fn an_undecided_order_is_never_charged(fates in fates(), moves in moves(CREATED)) {
        let world = played(CREATED, fates, &moves);
        prop_assert_eq!(world.gateway.charges, 0);
        prop_assert_eq!(world.payment.state, if fates.authorize { State::Authorized } else { State::Declined });
    }

    /// The order service never says both; if it did, the customer would be right.
    #[test]
    fn a_cancellation_beats_a_confirmation(fates in fates(), moves in moves(BOTH)) {
        let world = played(BOTH, fates, &moves);
        let money_is_held = world.gateway.on_hold || world.gateway.charged;
        prop_assert!(!money_is_held || world.payment.state.needs_operator(), "{:?}", world);
    }
}

#[test]
fn an_authorization_that_is_answered_after_a_cancellation_is_recorded_and_voided() {
    let mut payment = unknown();
    payment.apply_event(&Said::Created.event());
    payment.apply_event(&OrderEvent::Cancelled);
    assert!(matches!(payment.apply_answer(Step::Authorize, &done(), now()), Some(PaymentEvent::Authorized(_))));
    assert_eq!(payment.next_step(), Some(Step::Void));
}

#[test]
fn a_cancelled_order_that_may_have_been_authorized_is_asked_about_again() {
    let mut payment = unknown();
    payment.apply_event(&Said::Created.event());
    payment.apply_event(&OrderEvent::Cancelled);
    assert_eq!(payment.next_step(), Some(Step::Authorize));
}

#[test]
fn a_capture_that_failed_is_given_back_when_the_order_is_cancelled_after_all() {
    let mut payment = unknown();
    payment.apply_event(&Said::Created.event());
    payment.apply_answer(Step::Authorize, &done(), now());
    payment.apply_event(&OrderEvent::Confirmed);
    assert!(matches!(payment.apply_answer(Step::Capture, &refused(), now()), Some(PaymentEvent::Failed(_))));
    assert!(payment.state.needs_operator());
    assert_eq!(payment.next_step(), None);
    payment.apply_event(&OrderEvent::Cancelled);
    assert_eq!(payment.next_step(), Some(Step::Void));
}

#[test]
fn an_authorization_nobody_answered_for_ends_with_an_operator() {
    let mut payment = unknown();
    payment.apply_event(&Said::Created.event());
    let Answer::Refused(why) = refused() else { unreachable!() };
    let told = payment.apply_answer(Step::Authorize, &Answer::GivenUp(why), now());
    assert!(matches!(told, Some(PaymentEvent::Failed(PaymentFailed { step: Step::Authorize, .. }))));
    assert!(payment.state.needs_operator());
    assert_eq!(payment.next_step(), None);
}

#[test]
fn every_state_reads_back_as_itself() {
    for state in State::ALL {
        assert_eq!(state.as_str().parse(), Ok(state));
    }
    assert!("paid".parse::<State>().is_err());
}
