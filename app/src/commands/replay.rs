//! `millrace replay`: has a read model rebuilt from the history on the streams, by the service it belongs to.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use contracts::OrderId;
use contracts::api::{ReplayFindings, ReplayPhase, ReplayQuery, ReplayRequest, ReplayStarted, ReplayStatus, subjects};
use indicatif::{ProgressBar, ProgressStyle};
use millrace::connection::Connection;
use millrace::request_reply::{RequestError, request_json};
use serde_json::json;
use time::format_description::well_known::Rfc3339;

use super::Context;
use crate::failure::{CommandResult, Failure};
use crate::{output, stack};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to rebuild
    #[arg(value_enum)]
    view: View,
    /// Only this order
    #[arg(long, value_name = "ORDER_ID")]
    order: Option<OrderId>,
    /// Change nothing, only say what would change; exit code 1 when something would
    #[arg(long)]
    dry_run: bool,
}

/// What can be rebuilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum View {
    /// What happened to each order, as shown by the order API
    Timeline,
}

impl View {
    fn name(self) -> &'static str {
        match self {
            Self::Timeline => "timeline",
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
const ASK_EVERY: Duration = Duration::from_millis(150);
/// How long the service may be silent before it is given up: a broker that restarts comes back within it.
const SILENCE: Duration = Duration::from_secs(30);
/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

pub async fn run(context: &Context, args: Args) -> CommandResult {
    let connection = stack::connect(&context.settings, "replay").await?;
    let request = ReplayRequest { view: args.view.name().to_owned(), order_id: args.order, dry_run: args.dry_run };
    let asked = request_json(&connection, subjects::ORDERS_REPLAY, &request, PATIENCE).await;
    let started: ReplayStarted = asked.map_err(|error| match error {
        RequestError::Service { error, .. } => Failure::new(format!("the order service: {}", error.description)),
        error => Failure::new(format!("the order service: {error}"))
            .remedy("is it running? millrace serve order, or millrace doctor"),
    })?;
    let status = follow(&connection, &started, context.json).await?;
    if let Some(reason) = &status.error {
        return Err(Failure::new(format!("the timelines were not rebuilt to the end: {reason}"))
            .remedy("run it again: what was put right stays right, and nothing else has changed"));
    }
    if context.json {
        output::json(&json!({
            "view": args.view.name(), "order_id": args.order, "dry_run": args.dry_run,
            "changes": status.found.changes(), "messages": status.read, "found": status.found,
        }));
    } else {
        show(&status, args.dry_run);
    }
    Ok(if args.dry_run && status.found.changes() > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Asks how it is going until it is over.
async fn follow(connection: &Connection, started: &ReplayStarted, quiet: bool) -> Result<ReplayStatus, Failure> {
    let bar = (!quiet && std::io::stderr().is_terminal()).then(|| ProgressBar::new(0));
    if let (Some(bar), Ok(style)) = (&bar, ProgressStyle::with_template("{bar:40} {pos}/{len} messages  {msg}")) {
        bar.set_style(style);
    }
    let query = ReplayQuery { replay_id: started.replay_id };
    let (mut heard, mut said) = (Instant::now(), Instant::now());
    let status = loop {
        tokio::time::sleep(ASK_EVERY).await;
        let asked = request_json(connection, &started.status_subject, &query, PATIENCE).await;
        let status: ReplayStatus = match asked {
            Ok(status) => status,
            Err(RequestError::DeadlineExceeded { .. }) if heard.elapsed() < SILENCE => continue,
            Err(error) => {
                return Err(Failure::new(format!("the order service has stopped in the middle of it: {error}"))
                    .remedy("run it again: what was put right stays right, and nothing else has changed"));
            }
        };
        heard = Instant::now();
        if status.phase.is_over() {
            break status;
        }
        match &bar {
            Some(bar) => {
                bar.set_length(status.total);
                bar.set_position(status.read);
                bar.set_message(doing(status.phase));
            }
            None if !quiet && said.elapsed() >= LINE_EVERY => {
                said = Instant::now();
                output::note(&format!("{} of {} messages, {}", status.read, status.total, doing(status.phase)));
            }
            None => {}
        }
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(status)
}

fn doing(phase: ReplayPhase) -> &'static str {
    match phase {
        ReplayPhase::Waiting => "waiting for live events",
        ReplayPhase::Reading => "comparing timelines with events",
        ReplayPhase::Checking => "looking for entries without an event",
        ReplayPhase::Done | ReplayPhase::Failed => "over",
    }
}

fn show(status: &ReplayStatus, dry_run: bool) {
    let ReplayFindings { events, orders, missing, altered, stray, .. } = status.found;
    output::line(&format!("{} messages read: {events} events about {orders} orders.", status.read));
    let (added, corrected, removed) = match dry_run {
        true => ("would be added", "would be corrected", "would be removed"),
        false => ("added", "corrected", "removed"),
    };
    output::line(&match status.found.changes() {
        0 => "The timelines are the fold of the streams; nothing is to be changed.".to_owned(),
        _ => format!("{missing} entries {added}, {altered} {corrected}, {stray} without an event {removed}."),
    });
    let more = &status.found;
    if !more.examples.is_empty() {
        let examples: Vec<_> = more.examples.iter().map(ToString::to_string).collect();
        output::line(&format!("Among the orders: {}", examples.join(", ")));
    }
    if more.older_entries > 0 {
        let since = more.complete_since.and_then(|at| at.0.replace_nanosecond(0).ok()?.format(&Rfc3339).ok());
        output::line(&format!(
            "{} entries of {} orders stay as they are: the streams hold everything only since {}.",
            more.older_entries,
            more.older_orders,
            since.unwrap_or_default()
        ));
    }
    if more.unknown_orders > 0 {
        output::line(&format!(
            "{} events are about orders that the order service does not know: millrace reconcile",
            more.unknown_orders
        ));
    }
    if more.unreadable > 0 {
        output::line(&format!("{} messages cannot be understood: millrace dead-letters list", more.unreadable));
    }
}
