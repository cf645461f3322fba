//! The declaration: what a service needs of JetStream.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::subjects::overlap;

/// Everything a service, or a whole system, needs of JetStream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Topology {
    /// Streams that keep events.
    pub streams: Vec<StreamSpec>,
    /// Durable pull consumers with explicit acknowledgement. Their streams may be declared elsewhere.
    pub consumers: Vec<ConsumerSpec>,
    /// Key-value buckets.
    pub buckets: Vec<BucketSpec>,
}

/// A stream, always with file storage and limits retention: memory forgets, and the other retentions delete a message
/// before everybody who may need it has seen it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamSpec {
    /// Name, in capitals by custom; without dots, spaces, wildcards and slashes.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// Subjects it keeps, wildcards allowed. No two streams may share a subject.
    pub subjects: Vec<String>,
    /// How long a message is kept, in milliseconds; 0 is for ever. The longest a consumer may be down.
    #[serde(with = "millis", rename = "max_age_ms")]
    pub max_age: Duration,
    /// How far back the server recognises a repeated `Nats-Msg-Id`, in milliseconds.
    #[serde(with = "millis", rename = "duplicate_window_ms")]
    pub duplicate_window: Duration,
    /// Servers that keep a copy: 1, 3 or 5.
    pub replicas: usize,
    /// Size in bytes beyond which `discard` acts; `None` for no limit.
    #[serde(default)]
    pub max_bytes: Option<u64>,
    /// Number of messages beyond which `discard` acts; `None` for no limit.
    #[serde(default)]
    pub max_messages: Option<u64>,
    /// Largest message accepted, in bytes; `None` for the server's own limit.
    #[serde(default)]
    pub max_message_bytes: Option<u32>,
    /// What happens at `max_bytes` or `max_messages`.
    #[serde(default)]
    pub discard: Discard,
}

/// What a full stream does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Discard {
    /// Refuses new messages; the publisher keeps them and tries again. Loses nothing.
    #[default]
    New,
    /// Drops the oldest. Only for what may be lost, such as advisories and logs.
    Old,
}

impl StreamSpec {
    /// A stream with 7 days of age, 2 minutes of duplicate window, one replica and no limit of size.
    pub fn new(name: impl Into<String>, subjects: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            name: name.into(),
            description: String::new(),
            subjects: subjects.into_iter().map(Into::into).collect(),
            max_age: Duration::from_secs(7 * 24 * 60 * 60),
            duplicate_window: Duration::from_secs(2 * 60),
            replicas: 1,
            max_bytes: None,
            max_messages: None,
            max_message_bytes: None,
            discard: Discard::New,
        }
    }

    /// Sets the description.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// Sets the number of copies.
    #[must_use]
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// Sets how long a message is kept.
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = max_age;
        self
    }

    pub(super) fn config(&self) -> Map<String, Value> {
        object(json!({
            "name": self.name,
            "description": self.description,
            "subjects": self.subjects,
            "retention": "limits",
            "storage": "file",
            "discard": match self.discard { Discard::New => "new", Discard::Old => "old" },
            "max_age": nanos(self.max_age),
            "duplicate_window": nanos(self.duplicate_window),
            "num_replicas": self.replicas,
            "max_bytes": limit(self.max_bytes),
            "max_msgs": limit(self.max_messages),
            "max_msgs_per_subject": -1,
            "max_msg_size": limit(self.max_message_bytes.map(u64::from)),
            "max_consumers": -1,
            "allow_direct": true,
        }))
    }
}

/// Where a new consumer begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliverPolicy {
    /// With the oldest message the stream still has.
    #[default]
    All,
    /// With what is published after its creation.
    New,
}

/// A durable pull consumer, always with explicit acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsumerSpec {
    /// The stream it reads.
    pub stream: String,
    /// Its name, which all instances of a service share.
    pub durable: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// Subjects it receives; none for all of the stream.
    #[serde(default)]
    pub filter_subjects: Vec<String>,
    /// How long a message may be worked on without a sign of life before it is delivered again, in milliseconds.
    #[serde(with = "millis", rename = "ack_wait_ms")]
    pub ack_wait: Duration,
    /// How often a message is delivered at most. One more than the attempts of the retry policy leaves the server as
    /// the safety net for a process that crashes on it.
    pub max_deliver: u32,
    /// Messages that may be unacknowledged at once over all instances, those waiting for a delayed retry included.
    pub max_ack_pending: u32,
    /// Where a new consumer begins.
    #[serde(default)]
    pub deliver_policy: DeliverPolicy,
}

impl ConsumerSpec {
    /// A consumer of the whole stream from its beginning: 30 s to acknowledge, 5 deliveries, 1,000 unacknowledged.
    pub fn new(stream: impl Into<String>, durable: impl Into<String>) -> Self {
        Self {
            stream: stream.into(),
            durable: durable.into(),
            description: String::new(),
            filter_subjects: Vec::new(),
            ack_wait: Duration::from_secs(30),
            max_deliver: 5,
            max_ack_pending: 1_000,
            deliver_policy: DeliverPolicy::All,
        }
    }

    /// Sets the description.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// Sets the subjects it receives.
    #[must_use]
    pub fn filter(mut self, subjects: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.filter_subjects = subjects.into_iter().map(Into::into).collect();
        self
    }

    pub(super) fn config(&self) -> Map<String, Value> {
        let mut config = object(json!({
            "durable_name": self.durable,
            "name": self.durable,
            "description": self.description,
            "deliver_policy": match self.deliver_policy { DeliverPolicy::All => "all", DeliverPolicy::New => "new" },
            "ack_policy": "explicit",
            "replay_policy": "instant",
            "ack_wait": nanos(self.ack_wait),
            "max_deliver": self.max_deliver,
            "max_ack_pending": self.max_ack_pending,
            // As many copies as the stream has.
            "num_replicas": 0,
        }));
        super::compare::set_filters(&mut config, &self.filter_subjects);
        config
    }
}

/// A key-value bucket, always on file storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketSpec {
    /// Name: letters, digits, dashes and underscores.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// Values kept of each key, 1 to 64.
    pub history: u8,
    /// How long a value is kept, in milliseconds; 0 is for ever.
    #[serde(with = "millis", rename = "max_age_ms")]
    pub max_age: Duration,
    /// Servers that keep a copy: 1, 3 or 5.
    pub replicas: usize,
    /// Size in bytes beyond which writes are refused; `None` for no limit.
    #[serde(default)]
    pub max_bytes: Option<u64>,
}

impl BucketSpec {
    /// A bucket that keeps one value of each key for ever, in one copy.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            description: String::new(),
            history: 1,
            max_age: Duration::ZERO,
            replicas: 1,
            max_bytes: None,
        }
    }

    /// Sets the description.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// Sets the number of copies.
    #[must_use]
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    pub(super) fn stream_name(&self) -> String {
        format!("KV_{}", self.name)
    }

    /// The stream behind the bucket, as the NATS design record ADR-8 lays it down.
    pub(super) fn config(&self) -> Map<String, Value> {
        let two_minutes = Duration::from_secs(120);
        let window = if self.max_age.is_zero() { two_minutes } else { self.max_age.min(two_minutes) };
        object(json!({
            "name": self.stream_name(),
            "description": self.description,
            "subjects": [format!("$KV.{}.>", self.name)],
            "retention": "limits",
            "storage": "file",
            "discard": "new",
            "max_age": nanos(self.max_age),
            "duplicate_window": nanos(window),
            "num_replicas": self.replicas,
            "max_bytes": limit(self.max_bytes),
            "max_msgs": -1,
            "max_msgs_per_subject": self.history,
            "max_msg_size": -1,
            "max_consumers": -1,
            "allow_direct": true,
            "allow_rollup_hdrs": true,
            "deny_delete": true,
        }))
    }
}

/// A declaration that no server would accept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the declared {what} is wrong in {field}: {problem}")]
pub struct SpecError {
    /// Such as `stream ORDERS`.
    pub what: String,
    /// The field of the declaration.
    pub field: &'static str,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl Topology {
    /// Checks the declaration by itself.
    ///
    /// # Errors
    /// The first field no server would accept.
    pub fn validate(&self) -> Result<(), SpecError> {
        let mut seen = BTreeSet::new();
        for stream in &self.streams {
            let what = format!("stream {}", stream.name);
            let wrong =
                |field, problem: &str| Err(SpecError { what: what.clone(), field, problem: problem.to_owned() });
            name(&what, "name", &stream.name)?;
            if !seen.insert(stream.name.clone()) {
                return wrong("name", "it is declared twice");
            }
            if stream.subjects.is_empty() {
                return wrong("subjects", "it names no subject");
            }
            replicas(&what, stream.replicas)?;
            if !stream.max_age.is_zero() && stream.duplicate_window > stream.max_age {
                return wrong("duplicate_window", "it is longer than max_age; a server refuses that");
            }
        }
        for (i, a) in self.streams.iter().enumerate() {
            for b in &self.streams[i + 1..] {
                let shared = a.subjects.iter().find(|x| b.subjects.iter().any(|y| overlap(x, y)));
                if let Some(subject) = shared {
                    return Err(SpecError {
                        what: format!("stream {}", b.name),
                        field: "subjects",
                        problem: format!("it shares {subject} with stream {}; a subject belongs to one stream", a.name),
                    });
                }
            }
        }
        for consumer in &self.consumers {
            let what = format!("consumer {}/{}", consumer.stream, consumer.durable);
            name(&what, "stream", &consumer.stream)?;
            name(&what, "durable", &consumer.durable)?;
            let wrong =
                |field, problem: &str| Err(SpecError { what: what.clone(), field, problem: problem.to_owned() });
            if !seen.insert(what.clone()) {
                return wrong("durable", "it is declared twice");
            }
            for (field, zero) in [
                ("ack_wait", consumer.ack_wait.is_zero()),
                ("max_deliver", consumer.max_deliver == 0),
                ("max_ack_pending", consumer.max_ack_pending == 0),
            ] {
                if zero {
                    return wrong(field, "it is 0; use more");
                }
            }
        }
        for bucket in &self.buckets {
            let what = format!("bucket {}", bucket.name);
            name(&what, "name", &bucket.name)?;
            replicas(&what, bucket.replicas)?;
            let wrong =
                |field, problem: &str| Err(SpecError { what: what.clone(), field, problem: problem.to_owned() });
            if !seen.insert(what.clone()) {
                return wrong("name", "it is declared twice");
            }
            if !(1..=64).contains(&bucket.history) {
                return wrong("history", "a server keeps 1 to 64 values of a key");
            }
        }
        Ok(())
    }
}

fn name(what: &str, field: &'static str, name: &str) -> Result<(), SpecError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(allowed) {
        return Ok(());
    }
    let problem = "use letters, digits, dashes and underscores".to_owned();
    Err(SpecError { what: what.to_owned(), field, problem })
}

fn replicas(what: &str, replicas: usize) -> Result<(), SpecError> {
    if (1..=5).contains(&replicas) {
        return Ok(());
    }
    let problem = format!("{replicas} copies are not possible; use 1, 3 or 5");
    Err(SpecError { what: what.to_owned(), field: "replicas", problem })
}

/// JetStream counts time in nanoseconds, in a signed 64-bit number.
fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// JetStream writes "no limit" as -1.
fn limit(limit: Option<u64>) -> i64 {
    limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declaration_survives_json() {
        let topology = Topology {
            streams: vec![StreamSpec::new("ORDERS", ["orders.>"]).description("what happens to orders").replicas(3)],
            consumers: vec![ConsumerSpec::new("ORDERS", "payment-orders").filter(["orders.created.v2"])],
            buckets: vec![BucketSpec::new("catalog")],
        };
        topology.validate().unwrap();
        let json = serde_json::to_string(&topology).unwrap();
        assert_eq!(serde_json::from_str::<Topology>(&json).unwrap(), topology);
    }

    #[test]
    fn a_declaration_no_server_accepts_is_refused_by_field() {
        let stream = |change: fn(&mut StreamSpec)| {
            let mut spec = StreamSpec::new("A", ["a.>"]);
            change(&mut spec);
            Topology { streams: vec![spec], ..Topology::default() }
        };
        let consumer = |change: fn(&mut ConsumerSpec)| {
            let mut spec = ConsumerSpec::new("A", "c");
            change(&mut spec);
            Topology { consumers: vec![spec], ..Topology::default() }
        };
        let shared = Topology {
            streams: vec![StreamSpec::new("A", ["a.>"]), StreamSpec::new("B", ["a.b"])],
            ..Topology::default()
        };
        let history =
            Topology { buckets: vec![BucketSpec { history: 65, ..BucketSpec::new("b") }], ..Topology::default() };
        for (topology, field) in [
            (stream(|s| s.name = "a.b".into()), "name"),
            (stream(|s| s.subjects.clear()), "subjects"),
            (stream(|s| s.replicas = 0), "replicas"),
            (stream(|s| s.max_age = Duration::from_secs(1)), "duplicate_window"),
            (consumer(|c| c.durable = String::new()), "durable"),
            (consumer(|c| c.max_deliver = 0), "max_deliver"),
            (shared, "subjects"),
            (history, "history"),
        ] {
            assert_eq!(topology.validate().unwrap_err().field, field);
        }
    }
}
