//! Latencies, kept exactly enough to read a percentile off them.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Longer ones count as this long.
const LONGEST_US: u64 = 10 * 60 * 1_000_000;

/// A histogram of microseconds with three significant digits.
#[derive(Debug, Clone)]
pub struct Latency(Histogram<u64>);

impl Latency {
    #[expect(clippy::expect_used, reason = "the bounds are constants that the crate accepts")]
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_US, 3).expect("valid bounds"))
    }

    pub fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LONGEST_US));
    }

    pub fn add(&mut self, other: &Self) {
        // Both have the same bounds, and then it cannot fail.
        let _ = self.0.add(&other.0);
    }

    #[cfg(test)]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// In milliseconds.
    pub fn percentile(&self, percent: f64) -> f64 {
        self.0.value_at_percentile(percent) as f64 / 1_000.0
    }

    /// In milliseconds.
    pub fn max(&self) -> f64 {
        self.0.max() as f64 / 1_000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_read_in_milliseconds() {
        let (mut all, mut late) = (Latency::new(), Latency::new());
        for ms in 1..=99 {
            all.record(Duration::from_millis(ms));
        }
        late.record(Duration::from_secs(2));
        all.add(&late);
        assert_eq!(all.count(), 100);
        assert!((all.percentile(50.0) - 50.0).abs() < 0.1, "{}", all.percentile(50.0));
        assert!((all.max() - 2_000.0).abs() < 2.0, "{}", all.max());
    }
}
