//! Waiting for conditions.

use std::cell::Cell;
use std::time::{Duration, Instant};

use testkit::eventually;

const BRIEF: Duration = Duration::from_millis(60);

#[tokio::test]
async fn a_condition_that_comes_true_yields_its_value() {
    let calls = Cell::new(0);
    let third = || async {
        calls.set(calls.get() + 1);
        (calls.get() == 3).then_some("third")
    };
    assert_eq!(eventually(Duration::from_secs(10), third, "the third call").await, "third");
}

#[tokio::test]
#[should_panic(expected = "waited 60ms for a miracle; last seen: not today")]
async fn a_condition_that_stays_false_says_what_was_seen() {
    eventually(BRIEF, || async { Err::<(), _>("not today") }, "a miracle").await;
}

#[tokio::test]
#[should_panic(expected = "waiting.rs:")]
async fn a_failed_wait_points_at_the_line_of_the_test() {
    eventually(BRIEF, || async { false }, "nothing").await;
}

#[tokio::test]
async fn a_check_that_hangs_is_cut_off() {
    let started = Instant::now();
    let waiting = tokio::spawn(eventually(BRIEF, std::future::pending::<bool>, "an answer"));
    waiting.await.expect_err("the wait fails");
    assert!(started.elapsed() < Duration::from_secs(5));
}
