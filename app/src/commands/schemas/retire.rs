//! `millrace schemas retire|restore`.
//!
//! Retiring means that our services stop publishing the version. What others publish in it is taken in as before.

use std::process::ExitCode;

use millrace::connection::Connection;
use millrace::dead_letters::audit::operator;
use millrace::retirement::{self, Decision, State};
use millrace::usage::{Evidence, Kind, Reader, Version, Visibility, Whose};
use serde_json::json;
use time::OffsetDateTime;

use super::super::Context;
use super::usage;
use super::versions::{self, Looking, Standings};
use crate::failure::{CommandResult, Failure};
use crate::{output, stack};

#[derive(Debug, clap::Args)]
pub struct Retire {
    /// The event: orders.created
    event: String,
    /// The version: v1
    #[arg(value_name = "VERSION")]
    which: String,
    /// Retire it although idle readers are still registered
    #[arg(long)]
    ignore_idle: bool,
    #[command(flatten)]
    looking: Looking,
    #[command(flatten)]
    who: Who,
}

#[derive(Debug, clap::Args)]
pub struct Restore {
    /// The event: orders.created
    event: String,
    /// The version: v1
    #[arg(value_name = "VERSION")]
    which: String,
    #[command(flatten)]
    who: Who,
}

#[derive(Debug, clap::Args)]
struct Who {
    /// Why, for whoever asks later
    #[arg(long, value_name = "TEXT")]
    because: Option<String>,
    /// Who stands in the record [default: $USER@host]
    #[arg(long = "as", value_name = "WHO")]
    by: Option<String>,
}

pub async fn retire(context: &Context, args: Retire) -> CommandResult {
    let version = versions::one(&args.event, &args.which)?;
    if version.newest {
        return Err(Failure::new(format!(
            "{} v{} is the newest version; only older ones are retired",
            version.event, version.version
        ))
        .usage());
    }
    let connection = stack::connect(&context.settings, "schemas").await?;
    if Standings::read(context, &connection).await?.of(&version).retired {
        return told(context, &version, "retired", "was retired before", &json!([]));
    }
    let evidence = args.looking.look(context, &connection, std::slice::from_ref(&version)).await?;
    let readers = readers(&evidence, args.ignore_idle);
    if !readers.is_empty() {
        return Ok(refused(context, &version, &readers, &args.looking));
    }
    decide(&connection, &version, State::Retired, &args.who).await?;
    // Somebody may have begun to read it between the look and the decision.
    let evidence = args.looking.look(context, &connection, std::slice::from_ref(&version)).await?;
    let readers = self::readers(&evidence, args.ignore_idle);
    if !readers.is_empty() {
        decide(&connection, &version, State::Published, &args.who).await?;
        return Ok(refused(context, &version, &readers, &args.looking));
    }
    remarks(&version, &evidence);
    told(
        context,
        &version,
        "retired",
        "is retired: running services publish it no more",
        &json!(evidence.versions[0].published),
    )
}

pub async fn restore(context: &Context, args: Restore) -> CommandResult {
    let version = versions::one(&args.event, &args.which)?;
    let connection = stack::connect(&context.settings, "schemas").await?;
    let standing = Standings::read(context, &connection).await?.of(&version);
    if standing.by_settings {
        let name = format!("{} v{}", version.event, version.version);
        return Err(Failure::new(format!("{name} is retired by the setting contracts.retired"))
            .remedy("take it out of contracts.retired where the services are started, and restart them"));
    }
    if !standing.retired {
        return told(context, &version, "published", "is not retired", &json!(null));
    }
    decide(&connection, &version, State::Published, &args.who).await?;
    told(context, &version, "published", "is published again beside the newest", &json!(null))
}

/// Those for whose sake the version is still published.
fn readers(evidence: &Evidence, ignore_idle: bool) -> Vec<&Reader> {
    let all = evidence.versions.iter().flat_map(|usage| &usage.readers);
    all.filter(|reader| reader.whose != Whose::Intake && !(ignore_idle && reader.idle)).collect()
}

async fn decide(connection: &Connection, version: &Version, state: State, who: &Who) -> Result<(), Failure> {
    let decision = Decision {
        event: version.event.clone(),
        version: version.version,
        state,
        by: who.by.clone().unwrap_or_else(operator),
        at: OffsetDateTime::now_utc(),
        because: who.because.clone(),
    };
    retirement::decide(connection, &decision).await.map_err(|error| {
        let failure = Failure::new(error.to_string());
        match error {
            retirement::Error::NoBucket => {
                failure.remedy("millrace topology apply").code(millrace::codes::TOPOLOGY_MISMATCH)
            }
            _ => failure,
        }
    })
}

fn refused(context: &Context, version: &Version, readers: &[&Reader], looking: &Looking) -> ExitCode {
    let name = format!("{} v{}", version.event, version.version);
    let newest = versions::of(&version.event).ok().and_then(|all| all.into_iter().find(|version| version.newest));
    let newest = newest.map_or_else(String::new, |newest| newest.subject);
    if context.json {
        let readers: Vec<_> =
            readers.iter().map(|reader| json!({ "reader": reader, "advice": advice(reader, &newest) })).collect();
        output::json(
            &json!({ "event": version.event, "version": version.version, "state": "published", "refused": true, "readers": readers }),
        );
        return ExitCode::FAILURE;
    }
    output::note(&format!("error: {name} is still read, so it is published on:"));
    usage::table(&readers.iter().map(|reader| (*reader).clone()).collect::<Vec<_>>(), looking);
    readers.iter().for_each(|reader| output::note(&format!("  {}: {}", reader.name, advice(reader, &newest))));
    ExitCode::FAILURE
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

fn remarks(version: &Version, evidence: &Evidence) {
    for usage in &evidence.versions {
        let foreign: Vec<&str> = usage
            .published
            .sources
            .iter()
            .filter(|source| source.foreign)
            .map(|source| source.source.as_deref().unwrap_or("somebody without ce-source"))
            .collect();
        let intakes: Vec<&str> =
            usage.readers.iter().filter(|r| r.whose == Whose::Intake).map(|r| r.name.as_str()).collect();
        if !foreign.is_empty() {
            output::note(&format!(
                "{} publishes it too; {} takes that in as before.",
                foreign.join(", "),
                intakes.join(", ")
            ));
        }
    }
    if let Visibility::NotVisible { why } = &evidence.core_subscribers {
        output::note(&format!("Subscribers without JetStream were not visible: {why} (--monitor URL)."));
    }
    output::note(&format!("Undo: millrace schemas restore {} v{}", version.event, version.version));
}

fn told(
    context: &Context,
    version: &Version,
    state: &str,
    sentence: &str,
    published: &serde_json::Value,
) -> CommandResult {
    if context.json {
        output::json(
            &json!({ "event": version.event, "version": version.version, "state": state, "published": published }),
        );
    } else {
        output::line(&format!("{} v{} {sentence}.", version.event, version.version));
    }
    Ok(ExitCode::SUCCESS)
}
