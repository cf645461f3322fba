//! Reading what exists, and bringing it to what is declared.

use serde::Serialize;
use serde_json::Value;

use super::TopologyError;
use super::api::{Api, Written};
use super::compare::{self, Config, Difference};
use super::plan::{Change, Entry, Kind, Plan};
use super::spec::Topology;
use super::subjects::overlap;
use crate::connection::Connection;

/// Rounds of read, compare and write before one thing is given up as contended.
const ATTEMPTS: usize = 5;

/// What [`apply`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// Differences that were there and are removed.
    pub done: Vec<Entry>,
    /// Differences left alone: destructive ones that were not allowed, and harmless conflicts.
    pub left: Vec<Entry>,
}

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Create what is missing and mend what breaks the promise.
    Needed,
    /// Remove every difference that can be removed without losing anything.
    Safe,
    /// Remove destructive differences too.
    Destructive,
}

/// Compares what is declared with what the server has. Changes nothing.
///
/// # Errors
/// [`TopologyError::Spec`] for a wrong declaration, and whatever keeps the server from answering. Things the server
/// does not permit to look at are no error but entries of the plan.
pub async fn plan(connection: &Connection, topology: &Topology) -> Result<Plan, TopologyError> {
    topology.validate()?;
    let api = Api::new(connection);
    let mut entries = Vec::new();
    for thing in things(topology) {
        match thing.look(&api).await {
            Ok(found) => entries.extend(thing.entries(&found)),
            Err(TopologyError::Denied { subject, .. }) => {
                entries.push(Entry::new(thing.kind, &thing.name, Change::Unseen { denied: subject }, None));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Plan { entries })
}

/// Creates what is missing and changes what differs. Idempotent, and safe while others do the same.
///
/// A change that may delete messages or stop accepting a subject is made only with `allow_destructive`.
///
/// # Errors
/// [`TopologyError::Conflicts`], with nothing changed, when a difference breaks the promise and cannot be removed in
/// place. Otherwise whatever keeps the server from doing it; what was done until then stays done, and calling again
/// does the rest.
pub async fn apply(
    connection: &Connection,
    topology: &Topology,
    allow_destructive: bool,
) -> Result<Applied, TopologyError> {
    let scope = if allow_destructive { Scope::Destructive } else { Scope::Safe };
    apply_within(connection, topology, scope).await
}

pub(super) async fn apply_within(
    connection: &Connection,
    topology: &Topology,
    scope: Scope,
) -> Result<Applied, TopologyError> {
    let plan = plan(connection, topology).await?;
    let conflicts: Vec<Entry> =
        plan.broken().filter(|entry| matches!(entry.change, Change::Conflict { .. })).cloned().collect();
    if !conflicts.is_empty() {
        return Err(TopologyError::Conflicts(conflicts));
    }
    let api = Api::new(connection);
    let mut applied = Applied::default();
    for thing in things(topology) {
        thing.reconcile(&api, scope, &mut applied).await?;
    }
    tell(&applied);
    Ok(applied)
}

/// What was created in one line, since at the first start that is everything; what was changed in one line each.
fn tell(applied: &Applied) {
    let is_new = |entry: &&Entry| matches!(entry.change, Change::Create { .. });
    let (created, changed): (Vec<&Entry>, Vec<&Entry>) = applied.done.iter().partition(is_new);
    for entry in &created {
        tracing::debug!(
            topology.kind = %entry.kind,
            topology.name = entry.name,
            topology.change = entry.change_text(),
            "Created as declared."
        );
    }
    if !created.is_empty() {
        let names = |kind: Kind| {
            let names = created.iter().filter(|entry| entry.kind == kind).map(|entry| entry.name.as_str());
            Some(names.collect::<Vec<_>>().join(", ")).filter(|names| !names.is_empty())
        };
        tracing::info!(
            topology.streams = names(Kind::Stream),
            topology.consumers = names(Kind::Consumer),
            topology.buckets = names(Kind::Bucket),
            "What was missing of the topology was created as declared."
        );
    }
    for entry in &changed {
        tracing::info!(
            topology.kind = %entry.kind,
            topology.name = entry.name,
            topology.change = entry.change_text(),
            "The topology was changed as declared."
        );
    }
}

/// One declared stream, bucket or consumer.
struct Thing {
    kind: Kind,
    name: String,
    /// The stream it is or belongs to.
    stream: String,
    declared: Config,
}

/// What the server has of it.
enum Found {
    Nothing,
    /// Nothing, but another stream keeps one of its subjects.
    Taken {
        subject: String,
        by: String,
    },
    Live {
        config: Config,
        differences: Vec<Difference>,
    },
}

/// In the order of creation: consumers need their streams.
fn things(topology: &Topology) -> Vec<Thing> {
    let streams = topology.streams.iter().map(|spec| Thing {
        kind: Kind::Stream,
        name: spec.name.clone(),
        stream: spec.name.clone(),
        declared: spec.config(),
    });
    let buckets = topology.buckets.iter().map(|spec| Thing {
        kind: Kind::Bucket,
        name: spec.name.clone(),
        stream: spec.stream_name(),
        declared: spec.config(),
    });
    let consumers = topology.consumers.iter().map(|spec| Thing {
        kind: Kind::Consumer,
        name: format!("{}/{}", spec.stream, spec.durable),
        stream: spec.stream.clone(),
        declared: spec.config(),
    });
    streams.chain(buckets).chain(consumers).collect()
}

impl Thing {
    async fn look(&self, api: &Api<'_>) -> Result<Found, TopologyError> {
        if self.kind == Kind::Consumer {
            let durable = self.declared.get("durable_name").and_then(Value::as_str).unwrap_or_default();
            let Some(info) = api.consumer(&self.stream, durable).await? else { return Ok(Found::Nothing) };
            let config = info["config"].as_object().cloned().unwrap_or_default();
            let differences = compare::consumer(&self.declared, &info);
            return Ok(Found::Live { config, differences });
        }
        match api.stream(&self.stream).await? {
            None => match self.holder_of_subjects(api, &[]).await? {
                Some((subject, by)) => Ok(Found::Taken { subject, by }),
                None => Ok(Found::Nothing),
            },
            Some(config) => {
                let differences = if self.kind == Kind::Bucket {
                    compare::bucket(&self.declared, &config)
                } else {
                    compare::stream(&self.declared, &config)
                };
                Ok(Found::Live { config, differences })
            }
        }
    }

    /// Another stream that keeps one of the declared subjects, unless the server does not permit to ask.
    async fn holder_of_subjects(
        &self,
        api: &Api<'_>,
        own: &[String],
    ) -> Result<Option<(String, String)>, TopologyError> {
        let subjects = self.declared.get("subjects").and_then(Value::as_array).into_iter().flatten();
        for subject in subjects.filter_map(Value::as_str).filter(|subject| !own.iter().any(|o| overlap(o, subject))) {
            match api.stream_with(subject).await {
                Ok(Some(by)) if by != self.stream => return Ok(Some((subject.to_owned(), by))),
                Ok(_) | Err(TopologyError::Denied { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn entries(&self, found: &Found) -> Vec<Entry> {
        let entry = |change, breaks| Entry::new(self.kind, &self.name, change, breaks);
        match found {
            Found::Nothing => {
                let why = match self.kind {
                    Kind::Stream => "nothing published for it is kept",
                    Kind::Bucket => "what it should hold cannot be read",
                    Kind::Consumer => "messages expire without being delivered to it",
                };
                vec![entry(Change::Create { summary: self.summary() }, Some(why.to_owned()))]
            }
            Found::Taken { subject, by } => {
                let why = format!(
                    "a subject belongs to one stream; remove it from stream {by}, or delete that stream once what it \
                     holds is handled"
                );
                let change =
                    Change::Conflict { field: "subjects", from: format!("kept by {by}"), to: subject.clone(), why };
                vec![entry(change, Some(format!("what is published on {subject} is kept elsewhere")))]
            }
            Found::Live { differences, .. } if differences.is_empty() => vec![entry(Change::Unchanged, None)],
            Found::Live { differences, .. } => {
                differences.iter().map(|found| entry(found.change.clone(), found.breaks.clone())).collect()
            }
        }
    }

    async fn reconcile(&self, api: &Api<'_>, scope: Scope, applied: &mut Applied) -> Result<(), TopologyError> {
        for _ in 0..ATTEMPTS {
            let found = self.look(api).await?;
            let (written, chosen, left) = match &found {
                Found::Taken { .. } => return Err(TopologyError::Conflicts(self.entries(&found))),
                Found::Nothing => (self.write(api, &self.declared, false).await?, self.entries(&found), Vec::new()),
                Found::Live { config, differences } => {
                    let (chosen, left): (Vec<_>, Vec<_>) = differences.iter().partition(|found| wanted(found, scope));
                    let written = if chosen.is_empty() {
                        Written::Done
                    } else {
                        let patched = compare::patched(config, chosen.iter().copied());
                        self.write(api, &patched, true).await?
                    };
                    (written, self.entries_of(&chosen), self.entries_of(&left))
                }
            };
            if matches!(written, Written::Done) {
                applied.done.extend(chosen);
                applied.left.extend(left);
                return Ok(());
            }
        }
        Err(TopologyError::Contended { what: format!("{} {}", self.kind, self.name) })
    }

    fn entries_of(&self, differences: &[&Difference]) -> Vec<Entry> {
        differences
            .iter()
            .map(|found| Entry::new(self.kind, &self.name, found.change.clone(), found.breaks.clone()))
            .collect()
    }

    async fn write(&self, api: &Api<'_>, config: &Config, exists: bool) -> Result<Written, TopologyError> {
        match self.kind {
            Kind::Stream | Kind::Bucket => api.write_stream(config, exists).await,
            Kind::Consumer => api.write_consumer(&self.stream, config, exists).await,
        }
    }

    fn summary(&self) -> String {
        let list = |key: &str| {
            let values = self.declared.get(key).and_then(Value::as_array).into_iter().flatten();
            values.filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        };
        let number = |key: &str| self.declared.get(key).and_then(Value::as_i64).unwrap_or_default();
        if self.kind == Kind::Consumer {
            let single = self.declared.get("filter_subject").and_then(Value::as_str).unwrap_or_default();
            let filter = if single.is_empty() { list("filter_subjects") } else { single.to_owned() };
            let filter = if filter.is_empty() { "all subjects".to_owned() } else { filter };
            let wait = compare::duration(number("ack_wait"));
            return format!("{filter}; ack wait {wait}, {} deliveries", number("max_deliver"));
        }
        let age = match number("max_age") {
            0 => "for ever".to_owned(),
            nanos => format!("for {}", compare::duration(nanos)),
        };
        format!("{}; kept {age}, replicas {}", list("subjects"), number("num_replicas"))
    }
}

fn wanted(difference: &Difference, scope: Scope) -> bool {
    match (&difference.change, scope) {
        (Change::Update { .. }, Scope::Needed) => difference.breaks.is_some(),
        (Change::Update { narrows, .. }, Scope::Safe) => !narrows,
        (Change::Update { .. }, Scope::Destructive) => true,
        _ => false,
    }
}
