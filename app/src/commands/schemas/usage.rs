//! `millrace schemas usage`.

use std::process::ExitCode;

use millrace::usage::{Evidence, Kind, Published, Reader, Usage, Visibility, Whose};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::super::Context;
use super::versions::{self, Looking, Standing, Standings};
use crate::failure::CommandResult;
use crate::{output, stack};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this event: orders.created [default: events with several versions]
    event: Option<String>,
    /// Events with one version too
    #[arg(long, conflicts_with = "event")]
    all: bool,
    #[command(flatten)]
    looking: Looking,
}

pub async fn run(context: &Context, args: Args) -> CommandResult {
    let mut versions = match &args.event {
        Some(event) => versions::of(event)?,
        None => versions::all(),
    };
    if args.event.is_none() && !args.all {
        let several = |event: &str| versions::all().iter().filter(|version| version.event == event).count() > 1;
        versions.retain(|version| several(&version.event));
    }
    let connection = stack::connect(&context.settings, "schemas").await?;
    let standings = Standings::read(context, &connection).await?;
    let evidence = args.looking.look(context, &connection, &versions).await?;
    if context.json {
        output::json(&as_json(&evidence, &standings));
    } else {
        show(&evidence, &standings, &args.looking);
    }
    Ok(ExitCode::SUCCESS)
}

pub fn as_json(evidence: &Evidence, standings: &Standings) -> Value {
    let versions: Vec<Value> = evidence
        .versions
        .iter()
        .map(|usage| {
            let mut value = json!(usage);
            value["standing"] = json!(standings.of(&usage.version));
            value
        })
        .collect();
    json!({ "versions": versions, "core_subscribers": evidence.core_subscribers })
}

fn show(evidence: &Evidence, standings: &Standings, looking: &Looking) {
    for usage in &evidence.versions {
        let version = &usage.version;
        let name = format!("{} v{}", version.event, version.version);
        output::line(&format!("{name}  (subject {}; {})", version.subject, standing(usage, &standings.of(version))));
        output::line(&format!("  published: {}", published(&usage.published)));
        if usage.readers.is_empty() {
            output::line("  read by nobody");
        } else {
            table(&usage.readers, looking);
        }
        output::line("");
    }
    match &evidence.core_subscribers {
        Visibility::Visible { at, partly: None } => {
            output::note(&format!("Subscribers without JetStream are those of the server at {at}."));
        }
        Visibility::Visible { at, partly: Some(why) } => {
            output::note(&format!("Subscribers without JetStream are those seen at {at}, and not all: {why}."));
        }
        Visibility::NotVisible { why } => {
            output::note(&format!("Subscribers without JetStream are not visible: {why} (--monitor URL)."));
        }
    }
}

fn standing(usage: &Usage, standing: &Standing) -> String {
    if usage.version.newest {
        return "the newest".to_owned();
    }
    let decided = standing.decision.as_ref().filter(|_| !standing.by_settings);
    match (standing.retired, decided) {
        (true, Some(decision)) => format!("retired by {} {}", decision.by, ago(Some(decision.at))),
        (true, None) => "retired by the setting contracts.retired".to_owned(),
        (false, _) => "published beside the newest".to_owned(),
    }
}

fn published(published: &Published) -> String {
    if published.messages == 0 {
        return "nothing in the streams".to_owned();
    }
    let sources: Vec<String> = published
        .sources
        .iter()
        .map(|source| {
            let name = source.source.as_deref().unwrap_or("without ce-source");
            let whose = if source.foreign { "foreign" } else { "ours" };
            format!("{} by {name} ({whose}), last {}", source.messages, ago(Some(source.last_at)))
        })
        .collect();
    format!("{} messages in the streams, of the last: {}", published.messages, sources.join("; "))
}

/// The table of readers, indented.
pub fn table(readers: &[Reader], looking: &Looking) {
    let lately = format!("LAST {}", looking.lately);
    let header = ["", "READER", "STREAM", "KIND", "ACKNOWLEDGED", &lately, "LEFT", "LAST ACTIVE"];
    let rows = readers.iter().map(|reader| {
        let number = |number: u64| if reader.kind == Kind::Core { "-".to_owned() } else { number.to_string() };
        vec![
            String::new(),
            reader.name.clone(),
            reader.stream.clone().unwrap_or_else(|| "-".into()),
            kind(reader),
            number(reader.acknowledged),
            number(reader.acknowledged_lately),
            number(reader.left),
            activity(reader),
        ]
    });
    output::table(&header, rows);
}

pub fn kind(reader: &Reader) -> String {
    let kind = match reader.kind {
        Kind::Durable => "durable",
        Kind::Ephemeral => "ephemeral",
        Kind::Core => "without JetStream",
    };
    let whose = match reader.whose {
        Whose::Ours => ", ours",
        Whose::Intake => ", ours, takes in foreign ones",
        Whose::Others => "",
    };
    format!("{kind}{whose}")
}

pub fn activity(reader: &Reader) -> String {
    let last = match (reader.kind, reader.last_active) {
        (Kind::Core, _) => String::new(),
        (_, None) => "never".to_owned(),
        (_, at) => ago(at),
    };
    let now = if reader.connected {
        "connected"
    } else if reader.idle {
        "idle"
    } else {
        "not connected"
    };
    if last.is_empty() { now.to_owned() } else { format!("{last}, {now}") }
}

/// `3s ago`
pub fn ago(at: Option<OffsetDateTime>) -> String {
    let Some(at) = at else { return "never".to_owned() };
    let seconds = (OffsetDateTime::now_utc() - at).whole_seconds().max(0);
    let (number, unit) = match seconds {
        0..120 => (seconds, "s"),
        120..7_200 => (seconds / 60, "min"),
        7_200..172_800 => (seconds / 3_600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    format!("{number} {unit} ago")
}
