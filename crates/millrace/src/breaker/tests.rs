use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use tokio::time::{Instant, advance, sleep};

use super::*;

const OPEN_FOR: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Error {
    /// The other side is in trouble.
    Outage,
    /// The other side is well and said no.
    Declined,
}

fn is_outage(error: &Error) -> bool {
    *error == Error::Outage
}

fn breaker(failure_threshold: u32, success_threshold: u32) -> Breaker {
    Breaker::new("test", Settings { failure_threshold, open_for: OPEN_FOR, success_threshold })
}

async fn attempt(breaker: &Breaker, outcome: Result<(), Error>) -> Result<(), CallError<Error>> {
    breaker.try_call(|| async { outcome }, is_outage).await
}

async fn open(breaker: &Breaker) {
    while breaker.state() != State::Open {
        let _ = attempt(breaker, Err(Error::Outage)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn it_opens_after_the_threshold_of_failures_in_a_row_and_then_fails_fast() {
    let breaker = breaker(3, 1);
    for outcome in
        [Err(Error::Outage), Err(Error::Outage), Err(Error::Declined), Err(Error::Outage), Err(Error::Outage)]
    {
        assert!(!matches!(attempt(&breaker, outcome).await, Err(CallError::Open { .. })));
        assert_eq!(breaker.state(), State::Closed);
    }
    assert_eq!(attempt(&breaker, Err(Error::Outage)).await, Err(CallError::Failed(Error::Outage)));
    assert_eq!(breaker.state(), State::Open);
    advance(Duration::from_secs(4)).await;
    let refused = attempt(&breaker, Ok(())).await;
    assert_eq!(refused, Err(CallError::Open { breaker: "test".into(), retry_after: Duration::from_secs(6) }));
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_out_the_outage_and_spends_no_error() {
    let breaker = breaker(2, 1);
    let (started, tries) = (Instant::now(), AtomicU32::new(0));
    let healthy_again = started + Duration::from_secs(25);
    let op = || async {
        tries.fetch_add(1, Ordering::Relaxed);
        if Instant::now() < healthy_again { Err(Error::Outage) } else { Ok("charged") }
    };
    // The first failure is below the threshold and belongs to the caller.
    assert_eq!(breaker.call(op, is_outage).await, Err(Error::Outage));
    assert_eq!(breaker.call(op, is_outage).await, Ok("charged"));
    assert_eq!(started.elapsed(), Duration::from_secs(30));
    // One below the threshold, one that opened it, probes at 10 s, 20 s and 30 s.
    assert_eq!(tries.load(Ordering::Relaxed), 5);
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn watchers_see_half_open_without_anybody_calling() {
    let breaker = breaker(1, 1);
    let mut states = breaker.subscribe();
    open(&breaker).await;
    states.wait_for(|state| *state == State::Open).await.unwrap();
    tokio::time::timeout(OPEN_FOR + Duration::from_secs(1), states.wait_for(|state| *state == State::HalfOpen))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn half_open_lets_one_probe_through_at_a_time() {
    let breaker = breaker(1, 3);
    open(&breaker).await;
    let (running, most, done) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    let op = || async {
        // Once closed, all the others may run together.
        let half_open = done.load(Ordering::SeqCst) < 3;
        let now = running.fetch_add(1, Ordering::SeqCst) + 1;
        if half_open {
            most.fetch_max(now, Ordering::SeqCst);
        }
        sleep(Duration::from_secs(1)).await;
        running.fetch_sub(1, Ordering::SeqCst);
        done.fetch_add(1, Ordering::SeqCst);
        Ok::<_, Error>(())
    };
    let calls = (0..20).map(|_| breaker.call(op, is_outage));
    for outcome in futures::future::join_all(calls).await {
        outcome.unwrap();
    }
    assert_eq!(most.load(Ordering::SeqCst), 1);
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_probe_makes_room_for_the_next() {
    let breaker = breaker(1, 1);
    open(&breaker).await;
    advance(OPEN_FOR).await;
    let hanging = breaker.call(std::future::pending::<Result<(), Error>>, is_outage);
    assert!(tokio::time::timeout(Duration::from_secs(1), hanging).await.is_err());
    assert_eq!(breaker.state(), State::HalfOpen);
    assert_eq!(attempt(&breaker, Ok(())).await, Ok(()));
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_is_woken_when_the_probe_before_it_is_dropped() {
    let breaker = breaker(1, 1);
    open(&breaker).await;
    advance(OPEN_FOR).await;
    let hanging = tokio::spawn({
        let breaker = breaker.clone();
        async move { breaker.call(std::future::pending::<Result<(), Error>>, is_outage).await }
    });
    tokio::task::yield_now().await;
    assert!(matches!(attempt(&breaker, Ok(())).await, Err(CallError::Open { .. })), "a probe is out");
    let waiting = tokio::spawn({
        let breaker = breaker.clone();
        async move { breaker.call(|| async { Ok::<_, Error>(7) }, is_outage).await }
    });
    tokio::task::yield_now().await;
    hanging.abort();
    let outcome = tokio::time::timeout(Duration::from_secs(1), waiting).await.unwrap().unwrap();
    assert_eq!(outcome, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn a_panicking_probe_makes_room_for_the_next() {
    let breaker = breaker(1, 1);
    open(&breaker).await;
    advance(OPEN_FOR).await;
    let panicking = tokio::spawn({
        let breaker = breaker.clone();
        async move { breaker.call(|| async { panic!("on purpose") as Result<(), Error> }, is_outage).await }
    });
    assert!(panicking.await.is_err());
    assert_eq!(attempt(&breaker, Ok(())).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_from_before_the_outage_says_nothing_about_now() {
    for (late, expected) in [(Ok(()), State::HalfOpen), (Err(Error::Outage), State::HalfOpen)] {
        let breaker = breaker(1, 1);
        let slow = breaker.try_call(
            || async {
                sleep(OPEN_FOR * 2).await;
                late
            },
            is_outage,
        );
        let meanwhile = async {
            sleep(Duration::from_secs(1)).await;
            open(&breaker).await;
        };
        let _ = tokio::join!(slow, meanwhile);
        assert_eq!(breaker.state(), expected);
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Succeed,
    Fail,
    Decline,
    /// A call that is given up before it has an outcome.
    Drop,
    Wait(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Succeed),
        4 => Just(Step::Fail),
        1 => Just(Step::Decline),
        2 => Just(Step::Drop),
        3 => (1_u8..12).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..60)
}

/// The textbook's state machine, for one caller at a time.
struct Model {
    state: State,
    count: u32,
    opened: Instant,
}

impl Model {
    fn refresh(&mut self) {
        if self.state == State::Open && self.opened.elapsed() >= OPEN_FOR {
            (self.state, self.count) = (State::HalfOpen, 0);
        }
    }

    fn apply(&mut self, failed: bool, failure_threshold: u32, success_threshold: u32) {
        match (self.state, failed) {
            (State::Closed, false) => self.count = 0,
            (State::Closed, true) => {
                self.count += 1;
                if self.count >= failure_threshold {
                    (self.state, self.opened) = (State::Open, Instant::now());
                }
            }
            (State::HalfOpen, false) => {
                self.count += 1;
                if self.count >= success_threshold {
                    (self.state, self.count) = (State::Closed, 0);
                }
            }
            (State::HalfOpen, true) => (self.state, self.opened) = (State::Open, Instant::now()),
            (State::Open, _) => unreachable!("nothing passes an open breaker"),
        }
    }
}

fn paused_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

proptest! {
    #[test]
    fn one_caller_sees_the_textbook_state_machine(steps in steps(), failures in 1_u32..4, successes in 1_u32..4) {
        paused_runtime().block_on(async {
            let breaker = breaker(failures, successes);
            let mut model = Model { state: State::Closed, count: 0, opened: Instant::now() };
            for step in steps {
                model.refresh();
                let outcome = match step {
                    Step::Wait(seconds) => {
                        advance(Duration::from_secs(seconds.into())).await;
                        continue;
                    }
                    Step::Drop => {
                        let hanging = breaker.try_call(std::future::pending::<Result<(), Error>>, is_outage);
                        let _ = futures::FutureExt::now_or_never(hanging);
                        prop_assert_eq!(breaker.state(), model.state);
                        continue;
                    }
                    Step::Succeed => Ok(()),
                    Step::Fail => Err(Error::Outage),
                    Step::Decline => Err(Error::Declined),
                };
                let result = attempt(&breaker, outcome).await;
                prop_assert_eq!(matches!(result, Err(CallError::Open { .. })), model.state == State::Open);
                if model.state != State::Open {
                    model.apply(outcome == Err(Error::Outage), failures, successes);
                }
                prop_assert_eq!(breaker.state(), model.state);
                prop_assert_eq!(*breaker.subscribe().borrow(), model.state);
            }
            Ok(())
        })?;
    }

    /// Whatever mixture of callers fails, succeeds and gives up: everyone who stays gets through once the other side is
    /// well, and half-open never has two probes out.
    #[test]
    fn nobody_is_stuck_once_the_other_side_is_well(
        callers in prop::collection::vec((0_u64..40, 1_u64..8, prop::option::of(1_u64..20)), 1..25),
        sick_until in 0_u64..30,
        failures in 1_u32..4,
        successes in 1_u32..4,
    ) {
        paused_runtime().block_on(async {
            let breaker = breaker(failures, successes);
            let started = Instant::now();
            let probes = AtomicU32::new(0);
            let call = async |(start, takes, patience): (u64, u64, Option<u64>)| {
                sleep(Duration::from_secs(start)).await;
                let op = || async {
                    let _probe = (breaker.state() == State::HalfOpen).then(|| Probe::new(&probes));
                    sleep(Duration::from_secs(takes)).await;
                    if started.elapsed().as_secs() < sick_until { Err(Error::Outage) } else { Ok(()) }
                };
                let persistent = async { while breaker.call(op, is_outage).await.is_err() {} };
                match patience {
                    Some(seconds) => drop(tokio::time::timeout(Duration::from_secs(seconds), persistent).await),
                    None => persistent.await,
                }
            };
            let all = futures::future::join_all(callers.into_iter().map(call));
            prop_assert!(tokio::time::timeout(Duration::from_secs(3600), all).await.is_ok(), "somebody is stuck");
            Ok(())
        })?;
    }
}

/// Counts probes that are out; two at once are a defect.
struct Probe<'a>(&'a AtomicU32);

impl<'a> Probe<'a> {
    fn new(out: &'a AtomicU32) -> Self {
        assert_eq!(out.fetch_add(1, Ordering::SeqCst), 0, "two probes at once");
        Self(out)
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
