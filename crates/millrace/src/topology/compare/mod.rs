//! The judgement: which differences matter, what each would cause, and whether it can be removed in place.
//!
//! Pure functions over the server's own JSON, so that every rule can be tested without a server.

mod consumer;
mod stream;

use serde_json::{Map, Value};

use super::plan::Change;

pub(super) use consumer::{consumer, set_filters};
pub(super) use stream::{bucket, stream};

pub(super) type Config = Map<String, Value>;

/// One difference and how to remove it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Difference {
    pub(super) change: Change,
    pub(super) breaks: Option<String>,
    /// Fields to set in the server's configuration; `null` removes one.
    pub(super) patch: Vec<(&'static str, Value)>,
}

impl Difference {
    fn update(field: &'static str, from: impl Into<String>, to: impl Into<String>) -> Self {
        let change = Change::Update { field, from: from.into(), to: to.into(), narrows: false };
        Self { change, breaks: None, patch: Vec::new() }
    }

    fn conflict(field: &'static str, from: impl Into<String>, to: impl Into<String>, why: impl Into<String>) -> Self {
        let change = Change::Conflict { field, from: from.into(), to: to.into(), why: why.into() };
        Self { change, breaks: None, patch: Vec::new() }
    }

    fn narrowing(mut self) -> Self {
        if let Change::Update { narrows, .. } = &mut self.change {
            *narrows = true;
        }
        self
    }

    fn breaks(mut self, why: impl Into<String>) -> Self {
        self.breaks = Some(why.into());
        self
    }

    fn breaks_if(self, condition: bool, why: &str) -> Self {
        if condition { self.breaks(why) } else { self }
    }

    fn patch(mut self, key: &'static str, value: Value) -> Self {
        self.patch.push((key, value));
        self
    }
}

/// The server's configuration with the given differences removed.
pub(super) fn patched<'a>(live: &Config, differences: impl IntoIterator<Item = &'a Difference>) -> Config {
    let mut config = live.clone();
    for (key, value) in differences.into_iter().flat_map(|difference| &difference.patch) {
        match value {
            Value::Null => config.remove(*key),
            value => config.insert((*key).to_owned(), value.clone()),
        };
    }
    config
}

fn text<'a>(config: &'a Config, key: &str) -> &'a str {
    config.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn number(config: &Config, key: &str) -> i64 {
    config.get(key).and_then(Value::as_i64).unwrap_or_default()
}

fn flag(config: &Config, key: &str) -> bool {
    config.get(key).and_then(Value::as_bool).unwrap_or_default()
}

/// A limit; `None` when there is none, which the server writes as 0 or -1.
fn limit(config: &Config, key: &str) -> Option<i64> {
    Some(number(config, key)).filter(|limit| *limit > 0)
}

fn list(config: &Config, key: &str) -> Vec<String> {
    let values = config.get(key).and_then(Value::as_array);
    values.into_iter().flatten().filter_map(|value| value.as_str().map(ToOwned::to_owned)).collect()
}

fn value(config: &Config, key: &str) -> Value {
    config.get(key).cloned().unwrap_or(Value::Null)
}

/// How a limit is written for people.
#[derive(Clone, Copy)]
enum Unit {
    Nanoseconds,
    Count,
}

impl Unit {
    fn show(self, limit: Option<i64>) -> String {
        match (self, limit) {
            (_, None) => "unlimited".to_owned(),
            (Self::Count, Some(count)) => count.to_string(),
            (Self::Nanoseconds, Some(nanos)) => duration(nanos),
        }
    }
}

/// Nanoseconds as people write them: `7d`, `90s`, `1500ms`.
pub(super) fn duration(nanos: i64) -> String {
    const UNITS: [(i64, &str); 5] = [
        (86_400_000_000_000, "d"),
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
    ];
    let unit = UNITS.iter().find(|(size, _)| nanos != 0 && nanos % size == 0);
    unit.map_or_else(|| format!("{nanos}ns"), |(size, name)| format!("{}{name}", nanos / size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_people_write_them() {
        for (nanos, expected) in
            [(604_800_000_000_000, "7d"), (90_000_000_000, "90s"), (1_500_000_000, "1500ms"), (7, "7ns"), (0, "0ns")]
        {
            assert_eq!(duration(nanos), expected);
        }
    }
}
