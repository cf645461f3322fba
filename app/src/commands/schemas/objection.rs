//! What speaks against retiring a version.

use std::process::ExitCode;

use millrace::usage::{Evidence, Kind, Reader, Version, Whose};
use serde_json::json;

use super::super::Context;
use super::usage;
use super::versions::{self, Looking};
use crate::output;

pub struct Objection<'a> {
    /// Those for whose sake the version is still published.
    readers: Vec<&'a Reader>,
    /// Why others may read it, of whom nothing is seen.
    unseen: Option<String>,
}

impl<'a> Objection<'a> {
    pub fn to(evidence: &'a Evidence, ignore_idle: bool, ignore_unseen: bool) -> Option<Self> {
        let all = evidence.versions.iter().flat_map(|usage| &usage.readers);
        let readers: Vec<_> =
            all.filter(|reader| reader.whose != Whose::Intake && !(ignore_idle && reader.idle)).collect();
        let unseen = evidence.core_subscribers.unseen().filter(|_| !ignore_unseen);
        (!readers.is_empty() || unseen.is_some()).then_some(Self { readers, unseen })
    }

    pub fn refuse(&self, context: &Context, version: &Version, looking: &Looking) -> ExitCode {
        let name = format!("{} v{}", version.event, version.version);
        let newest = versions::of(&version.event).ok().and_then(|all| all.into_iter().find(|version| version.newest));
        let newest = newest.map_or_else(String::new, |newest| newest.subject);
        if context.json {
            let readers: Vec<_> = self
                .readers
                .iter()
                .map(|reader| json!({ "reader": reader, "advice": advice(reader, &newest) }))
                .collect();
            output::json(&json!({
                "event": version.event, "version": version.version, "state": "published", "refused": true,
                "readers": readers, "unseen": self.unseen,
            }));
            return ExitCode::FAILURE;
        }
        if !self.readers.is_empty() {
            output::note(&format!("error: {name} is still read, so it is published on:"));
            usage::table(&self.readers.iter().map(|reader| (*reader).clone()).collect::<Vec<_>>(), looking);
            self.readers
                .iter()
                .for_each(|reader| output::note(&format!("  {}: {}", reader.name, advice(reader, &newest))));
        }
        if let Some(why) = &self.unseen {
            output::note(&format!("error: subscribers without JetStream may read {name}: {why}"));
            output::note(
                "  try: --monitor http://HOST:8222 (of a cluster, every server, separated by commas); or, once you know \
                 that there are none, --ignore-unseen",
            );
        }
        ExitCode::FAILURE
    }
}

/// What has to happen before the version can go.
fn advice(reader: &Reader, newest: &str) -> String {
    let stream = reader.stream.as_deref().unwrap_or_default();
    match (reader.kind, reader.whose) {
        (Kind::Durable, Whose::Ours | Whose::Intake) => {
            "ours: deploy the release that reads the newest, and then `millrace topology apply --allow-destructive`"
                .into()
        }
        (Kind::Durable, Whose::Others) if reader.idle => format!(
            "it is idle: ask its owner; if it is gone for good, `nats consumer rm {stream} {}`, or --ignore-idle",
            reader.name
        ),
        (Kind::Durable, Whose::Others) => {
            format!(
                "its owner moves it to {newest}; once it is not needed, `nats consumer rm {stream} {}`",
                reader.name
            )
        }
        (Kind::Ephemeral, _) => format!("somebody reads it at this moment: end that, or move it to {newest}"),
        (Kind::Core, _) => format!("its owner subscribes to {newest} instead"),
    }
}
