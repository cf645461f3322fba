//! Exponential backoff with full jitter: the pause is drawn evenly from zero to a bound that grows with each attempt, which
//! spreads clients that failed together better than jitter around a fixed pause does.
//! (Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.)

use std::time::Duration;

/// How long to wait before an attempt is repeated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// Bound of the first pause.
    pub base: Duration,
    /// Bound that no pause exceeds.
    pub max: Duration,
    /// What the bound is multiplied by after each attempt, at least 1.
    pub factor: f64,
}

impl Backoff {
    /// Doubling.
    pub const fn new(base: Duration, max: Duration) -> Self {
        Self { base, max, factor: 2.0 }
    }

    /// The longest pause after `attempt` failures, counted from 1.
    pub fn bound(&self, attempt: u32) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.base.as_secs_f64() * self.factor.max(1.0).powi(exponent);
        // Also when the power overflowed to infinity.
        Duration::try_from_secs_f64(seconds).map_or(self.max, |bound| bound.min(self.max))
    }

    /// A random pause after `attempt` failures, counted from 1.
    pub fn delay(&self, attempt: u32) -> Duration {
        self.bound(attempt).mul_f64(fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_maximum() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let bounds: Vec<u128> = (0..7).map(|attempt| backoff.bound(attempt).as_millis()).collect();
        assert_eq!(bounds, [100, 100, 200, 400, 800, 1000, 1000]);
    }

    proptest! {
        #[test]
        fn no_pause_exceeds_its_bound(attempt: u32, base in 0_u64..10_000, max in 0_u64..100_000, factor in 0.0_f64..10.0) {
            let backoff = Backoff { base: Duration::from_millis(base), max: Duration::from_millis(max), factor };
            prop_assert!(backoff.delay(attempt) <= backoff.bound(attempt));
            prop_assert!(backoff.bound(attempt) <= backoff.max);
        }
    }
}
