//! Which versions there are, and which of them a user means.

use contracts::topology::durables;
use millrace::connection::Connection;
use millrace::retirement::{self, Decision, State};
use millrace::topology::Topology;
use millrace::usage::{Evidence, Question, Version, look};

use super::super::Context;
use crate::failure::Failure;
use crate::settings::Settings;

/// nats-server's usual monitoring port.
const MONITOR_PORT: u16 = 8222;

/// Every version of every event, the newest of an event first.
pub fn all() -> Vec<Version> {
    let schemas = contracts::all_schemas();
    let newest = |event: &str| schemas.iter().filter(|s| s.event_type == event).map(|s| s.version).max();
    schemas
        .iter()
        .map(|schema| Version {
            event: schema.event_type.to_owned(),
            version: schema.version,
            subject: schema.subject.to_owned(),
            newest: newest(schema.event_type) == Some(schema.version),
        })
        .collect()
}

/// The versions of one event.
pub fn of(event: &str) -> Result<Vec<Version>, Failure> {
    let versions: Vec<Version> = all().into_iter().filter(|version| version.event == event).collect();
    if versions.is_empty() {
        let mut known: Vec<String> = all().into_iter().map(|version| version.event).collect();
        known.dedup();
        return Err(Failure::new(format!("there is no event {event}"))
            .remedy(format!("one of {}", known.join(", ")))
            .usage());
    }
    Ok(versions)
}

/// `orders.created v1`, as two arguments.
pub fn one(event: &str, version: &str) -> Result<Version, Failure> {
    let versions = of(event)?;
    let wanted = version.strip_prefix('v').unwrap_or(version).parse::<u32>().ok();
    let found = versions.iter().find(|known| Some(known.version) == wanted).cloned();
    found.ok_or_else(|| {
        let known: Vec<String> = versions.iter().map(|version| format!("v{}", version.version)).collect();
        Failure::new(format!("{event} has no version {version}")).remedy(format!("one of {}", known.join(", "))).usage()
    })
}

/// What a question about usage needs of the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct Looking {
    /// What counts as lately: 90s, 24h, 7d
    #[arg(long, default_value = "24h", value_name = "DURATION")]
    pub lately: millrace::config::HumanDuration,
    /// A reader without a sign of life for longer is idle
    #[arg(long, default_value = "7d", value_name = "DURATION")]
    pub idle: millrace::config::HumanDuration,
    /// nats-server's monitoring, where subscribers without JetStream can be seen; of a cluster that of every server,
    /// separated by commas [default: port 8222 of nats.url]
    #[arg(long, value_name = "URL")]
    pub monitor: Option<String>,
}

impl Looking {
    pub async fn look(
        &self,
        context: &Context,
        connection: &Connection,
        versions: &[Version],
    ) -> Result<Evidence, Failure> {
        let declared: Topology = context.settings.declared_topology();
        let monitor = self.monitor.clone().or_else(|| usual_monitor(&context.settings));
        let question = Question {
            declared: &declared,
            intakes: durables::INTAKES,
            lately: self.lately.get(),
            idle_after: self.idle.get(),
            monitor: monitor.as_deref(),
        };
        look(connection, versions, &question).await.map_err(|e| Failure::new(e.to_string()))
    }
}

fn usual_monitor(settings: &Settings) -> Option<String> {
    let first = settings.nats.url.split(',').next()?.trim();
    let url = if first.contains("://") { first.to_owned() } else { format!("nats://{first}") };
    let host = reqwest::Url::parse(&url).ok()?.host_str()?.to_owned();
    Some(format!("http://{host}:{MONITOR_PORT}"))
}

/// What was decided about a version, by an operator or by the settings of this command.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Standing {
    pub retired: bool,
    /// It stands in `contracts.retired`.
    pub by_settings: bool,
    pub decision: Option<Decision>,
}

/// How each version stands.
pub struct Standings {
    decisions: Vec<Decision>,
    settings: millrace::event::Retired,
}

impl Standings {
    /// A bucket that is not there yet has no decisions.
    pub async fn read(context: &Context, connection: &Connection) -> Result<Self, Failure> {
        let decisions = match retirement::decisions(connection).await {
            Ok(decisions) => decisions,
            Err(retirement::Error::NoBucket) => Vec::new(),
            Err(error) => return Err(Failure::new(error.to_string())),
        };
        Ok(Self { decisions, settings: context.settings.kit().retired })
    }

    pub fn of(&self, version: &Version) -> Standing {
        let decision =
            self.decisions.iter().find(|d| d.event == version.event && d.version == version.version).cloned();
        let by_settings = self.settings.contains(&version.event, version.version);
        let retired = by_settings || decision.as_ref().is_some_and(|decision| decision.state == State::Retired);
        Standing { retired, by_settings, decision }
    }
}
