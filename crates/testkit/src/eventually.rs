//! Waiting for a condition with a deadline, in place of sleeping for luck.

use std::fmt::Display;
use std::future::Future;
use std::panic::Location;
use std::time::{Duration, Instant};

/// Looks soon at first and less often later: quick tests stay quick, slow ones do not burn the processor.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// What a check may return: `bool`, `Option<T>`, or `Result<T, E>`, whose last error the failure then quotes.
pub trait Condition {
    /// What a fulfilled condition yields.
    type Value;

    /// The value, or what was seen instead.
    fn outcome(self) -> Result<Self::Value, String>;
}

impl Condition for bool {
    type Value = ();

    fn outcome(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("false".to_owned()) }
    }
}

impl<T> Condition for Option<T> {
    type Value = T;

    fn outcome(self) -> Result<T, String> {
        self.ok_or_else(|| "None".to_owned())
    }
}

impl<T, E: Display> Condition for Result<T, E> {
    type Value = T;

    fn outcome(self) -> Result<T, String> {
        self.map_err(|error| error.to_string())
    }
}

/// Repeats `check` until it is fulfilled and returns its value.
///
/// # Panics
/// When `limit` has passed; the message names `what` was waited for and what the last check saw, at the caller's line.
/// A check that hangs is cut off at the limit, too.
#[track_caller]
pub fn eventually<C: Condition, F: Future<Output = C>>(
    limit: Duration,
    mut check: impl FnMut() -> F,
    what: &str,
) -> impl Future<Output = C::Value> {
    let caller = Location::caller();
    async move {
        let deadline = Instant::now() + limit;
        let mut pause = FIRST_PAUSE;
        let mut seen = "no check has ended".to_owned();
        loop {
            match tokio::time::timeout_at(deadline.into(), check()).await.map(Condition::outcome) {
                Ok(Ok(value)) => return value,
                Ok(Err(instead)) => seen = instead,
                Err(_hung) => {}
            }
            assert!(Instant::now() < deadline, "{caller}: waited {limit:?} for {what}; last seen: {seen}");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
