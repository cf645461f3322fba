//! Settings with a unit in their value: "15s", "64KiB".

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration written with its unit: `250ms`, `15s`, `15m`, `12h`, `7d`, or several: `1m30s`. Whole milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HumanDuration(Duration);

/// A number of bytes written with its unit: `512B`, `64KiB`, `1MiB`, `2GiB`, or in powers of ten `10MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(u64);

/// A text that is not a duration or a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot be read, expected {1}")]
pub struct UnitError(String, &'static str);

const DURATION: &str = "a duration with its unit, such as \"250ms\", \"15s\", \"15m\", \"12h\" or \"7d\"";
const BYTES: &str = "a size with its unit, such as \"512B\", \"64KiB\" or \"10MiB\"";

/// Longest first where one ends like another.
const DURATION_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const BYTE_UNITS: [(&str, u64); 8] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

impl HumanDuration {
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    pub const fn get(self) -> Duration {
        self.0
    }
}

impl ByteSize {
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    /// For limits on what is held in memory; the largest `usize` when it does not fit.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Deref for HumanDuration {
    type Target = Duration;

    fn deref(&self) -> &Duration {
        &self.0
    }
}

impl From<HumanDuration> for Duration {
    fn from(duration: HumanDuration) -> Self {
        duration.0
    }
}

impl From<Duration> for HumanDuration {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl FromStr for HumanDuration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        sum_of_parts(text, &DURATION_UNITS).map(Self::from_millis).ok_or_else(|| UnitError(text.to_owned(), DURATION))
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        sum_of_parts(text, &BYTE_UNITS).map(Self).ok_or_else(|| UnitError(text.to_owned(), BYTES))
    }
}

/// `None` when it is empty, has no unit, an unknown one, or overflows.
fn sum_of_parts(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let mut rest = text.trim();
    let mut sum = None;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let tail = tail.trim_start();
        let end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
        let part = number.parse::<u64>().ok()?.checked_mul(*factor)?;
        sum = Some(sum.unwrap_or(0_u64).checked_add(part)?);
        rest = tail.trim_start();
    }
    sum
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        largest_unit(f, millis, &DURATION_UNITS, "s")
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        largest_unit(f, self.0, &BYTE_UNITS, "B")
    }
}

/// In the largest unit that loses nothing.
fn largest_unit(f: &mut fmt::Formatter<'_>, number: u64, units: &[(&str, u64)], of_zero: &str) -> fmt::Result {
    match units.iter().find(|(_, factor)| number >= *factor && number.is_multiple_of(*factor)) {
        Some((unit, factor)) => write!(f, "{}{unit}", number / factor),
        None => write!(f, "0{of_zero}"),
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, DURATION)?.parse().map_err(|e: UnitError| D::Error::custom(e))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, BYTES)?.parse().map_err(|e: UnitError| D::Error::custom(e))
    }
}

/// A bare number has no unit; saying so is kinder than guessing one.
fn text<'de, D: Deserializer<'de>>(deserializer: D, expected: &'static str) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Text(String),
        Other(serde_json::Value),
    }
    match Given::deserialize(deserializer)? {
        Given::Text(text) => Ok(text),
        Given::Other(other) => Err(D::Error::custom(UnitError(other.to_string(), expected))),
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        for (text, millis) in [
            ("250ms", 250),
            ("15s", 15_000),
            ("15m", 900_000),
            ("7d", 604_800_000),
            ("1m30s", 90_000),
            ("0s", 0),
            (" 5 s ", 5_000),
        ] {
            assert_eq!(text.parse::<HumanDuration>().unwrap(), HumanDuration::from_millis(millis), "{text}");
        }
        for bad in ["", "15", "s", "15 parsecs", "-1s", "1.5s", "99999999999999999999d", "213503982334602d"] {
            assert!(bad.parse::<HumanDuration>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in [("512B", 512), ("64KiB", 65_536), ("10MB", 10_000_000), ("1GiB", 1 << 30)] {
            assert_eq!(text.parse::<ByteSize>().unwrap().get(), bytes, "{text}");
        }
        assert!("64".parse::<ByteSize>().is_err());
    }

    #[test]
    fn a_number_without_unit_is_refused_with_examples() {
        let error = serde_json::from_str::<HumanDuration>("15").unwrap_err().to_string();
        assert!(error.contains("15 cannot be read") || error.contains("\"15\" cannot be read"), "{error}");
        assert!(error.contains("\"15s\""), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 0_u64..10_000_000_000, bytes: u64) {
            let duration = HumanDuration::from_millis(millis);
            prop_assert_eq!(duration.to_string().parse::<HumanDuration>().unwrap(), duration);
            let size = ByteSize::new(bytes);
            prop_assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size);
        }
    }
}
