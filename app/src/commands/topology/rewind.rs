//! `millrace topology rewind`: the step of a database's restoration that the broker takes part in.

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use millrace::config::HumanDuration;
use millrace::connection::Connection;
use millrace::topology::{self, Rewound, Since};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::Context;
use super::failed;
use crate::failure::{CommandResult, Failure};
use crate::output;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Such as payment-orders; `millrace topology plan --json` names all
    #[arg(required = true, value_name = "CONSUMER")]
    consumers: Vec<String>,
    /// How far back: a time (2026-11-25T18:00:00Z), so long ago (90m, 2h, 7d), or start. Further back than needed does no
    /// harm: what the database knows is recognised
    #[arg(long, value_name = "WHEN")]
    to: When,
}

/// A point in time as an operator writes it.
#[derive(Debug, Clone, Copy)]
enum When {
    Start,
    At(OffsetDateTime),
    Ago(Duration),
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "start" {
            return Ok(Self::Start);
        }
        if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
            return Ok(Self::At(at));
        }
        text.parse::<HumanDuration>()
            .map(|ago| Self::Ago(ago.get()))
            .map_err(|_| "not a time such as 2026-11-25T18:00:00Z, not a duration such as 2h, and not start".to_owned())
    }
}

pub async fn run(context: &Context, connection: &Connection, args: Args) -> CommandResult {
    let since = match args.to {
        When::Start => Since::Start,
        When::At(at) => Since::Time(at),
        When::Ago(ago) => Since::Time(OffsetDateTime::now_utc() - ago),
    };
    let declared = context.settings.declared_topology();
    // A name that is wrong must not leave the others set back.
    for consumer in &args.consumers {
        if !declared.consumers.iter().any(|spec| spec.durable == *consumer) {
            let known: Vec<_> = declared.consumers.iter().map(|spec| spec.durable.as_str()).collect();
            let unknown = Failure::new(format!("no consumer is called {consumer}"));
            return Err(unknown.remedy(format!("one of {}", known.join(", "))).usage());
        }
    }
    let mut rewound = Vec::new();
    for consumer in &args.consumers {
        rewound.push(topology::rewind(connection, &declared, consumer, since).await.map_err(failed)?);
    }
    if context.json {
        output::json(&json!({ "rewound": rewound }));
    } else {
        rewound.iter().for_each(|one| output::line(&told(one)));
    }
    Ok(ExitCode::SUCCESS)
}

fn told(one: &Rewound) -> String {
    let Rewound { stream, consumer, next_seq, was_at_seq, messages } = one;
    if next_seq == was_at_seq {
        return format!(
            "{consumer} stays at {next_seq} of {stream}, {messages} messages to come: it had not come further"
        );
    }
    format!("{consumer} goes on from {next_seq} of {stream} instead of {was_at_seq}, {messages} messages to come")
}
