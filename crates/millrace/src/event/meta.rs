use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::telemetry::trace::TraceContext;

/// CloudEvents `id`. Ours are UUIDv7; a foreign publisher may use any text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(String);

impl EventId {
    /// A new id that sorts by time.
    pub fn generate() -> Self {
        Self(Uuid::now_v7().to_string())
    }

    /// The same id for the same name, for events that must be recognised when they are derived twice.
    pub fn derived(name: &str) -> Self {
        Self(Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).to_string())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for EventId {
    fn from(id: String) -> Self {
        Self(id)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything about an event that is not its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    pub id: EventId,
    /// CloudEvents `source`: `/millrace/order`.
    pub source: String,
    pub event_type: String,
    pub version: u32,
    pub subject: String,
    /// What the event is about; empty when a foreign publisher did not say.
    pub key: String,
    pub time: OffsetDateTime,
    pub correlation_id: String,
    pub causation_id: Option<String>,
    pub trace: Option<TraceContext>,
    /// Not published by one of ours: its body was checked against the schema.
    pub foreign: bool,
}

impl Meta {
    /// What the inbox remembers: the business event's id, the same in every version, so that a consumer that sees
    /// several versions acts once. CloudEvents makes only `source` + `id` unique, so ids of foreign publishers are told
    /// apart by source, unless they are UUIDs: those are unique by themselves, and whoever passes the event on in another
    /// version keeps them.
    pub fn inbox_id(&self) -> String {
        if self.foreign && Uuid::parse_str(self.id.as_str()).is_err() {
            return format!("{}#{}", self.source, self.id);
        }
        self.id.to_string()
    }

    /// The cause to hand to whatever this event makes happen.
    pub fn cause(&self) -> Cause {
        Cause {
            correlation_id: self.correlation_id.clone(),
            causation_id: Some(self.id.to_string()),
            trace: TraceContext::current().or_else(|| self.trace.clone()),
        }
    }
}

/// Why something happens: travels from a request or an event into every event that follows from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cause {
    pub correlation_id: String,
    pub causation_id: Option<String>,
    pub trace: Option<TraceContext>,
}

impl Cause {
    /// For what starts by itself: a timer, an operator's command.
    pub fn spontaneous() -> Self {
        Self { correlation_id: Uuid::now_v7().to_string(), causation_id: None, trace: TraceContext::current() }
    }
}
