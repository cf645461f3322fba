//! `millrace schemas retire|restore`.
//!
//! Retiring means that our services stop publishing the version. What others publish in it is taken in as before.

use std::process::ExitCode;

use millrace::connection::Connection;
use millrace::dead_letters::audit::operator;
use millrace::retirement::{self, Decision, State};
use millrace::usage::{Evidence, Version, Whose};
use serde_json::json;
use time::OffsetDateTime;

use super::super::Context;
use super::objection::Objection;
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
    /// Retire it although subscribers without JetStream cannot be seen, or not all of them
    #[arg(long)]
    ignore_unseen: bool,
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
    // What this command's own settings say about it is not what the services were told.
    let decision = Standings::read(context, &connection).await?.of(&version).decision;
    if decision.is_some_and(|decision| decision.state == State::Retired) {
        return told(context, &version, "retired", "was retired before", &json!([]));
    }
    let evidence = args.looking.look(context, &connection, std::slice::from_ref(&version)).await?;
    if let Some(objection) = Objection::to(&evidence, args.ignore_idle, args.ignore_unseen) {
        return Ok(objection.refuse(context, &version, &args.looking));
    }
    decide(&connection, &version, State::Retired, &args.who).await?;
    // Somebody may have begun to read it between the look and the decision.
    let evidence = match args.looking.look(context, &connection, std::slice::from_ref(&version)).await {
        Ok(evidence) => evidence,
        Err(failure) => return Err(taken_back(&connection, &version, &args.who, failure).await),
    };
    if let Some(objection) = Objection::to(&evidence, args.ignore_idle, args.ignore_unseen) {
        decide(&connection, &version, State::Published, &args.who).await?;
        return Ok(objection.refuse(context, &version, &args.looking));
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

/// A decision whose effect could not be looked at does not stand.
async fn taken_back(connection: &Connection, version: &Version, who: &Who, failure: Failure) -> Failure {
    let name = format!("{} v{}", version.event, version.version);
    match decide(connection, version, State::Published, who).await {
        Ok(()) => Failure {
            message: format!("{name} is not retired, since its readers cannot be looked at: {}", failure.message),
            ..failure
        },
        Err(error) => Failure::new(format!(
            "{name} is retired, but its readers could not be looked at again ({}), nor the decision taken back ({})",
            failure.message, error.message
        ))
        .remedy(format!(
            "millrace schemas usage {}; if somebody reads it, millrace schemas restore {name}",
            version.event
        )),
    }
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
    if let Some(why) = evidence.core_subscribers.unseen() {
        output::note(&format!("Subscribers without JetStream may still read it: {why}."));
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
