//! `millrace dead-letters`: look at what could not be handled, replay it to the consumer that failed, or give it up.

mod decide;
mod edit;
mod json_text;
mod select;
mod show;

use std::process::ExitCode;

use millrace::dead_letters::{DeadLetters, Error, audit};

use super::Context;
use crate::failure::{CommandResult, Failure};
use crate::stack;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List them, grouped by consumer, event and reason
    List(show::List),
    /// Show one whole: body, headers, errors, and what was done about it
    Show(show::One),
    /// Send them to the consumer that failed, and wait for what comes of it
    Replay(decide::Replay),
    /// Give them up, with a reason
    Discard(decide::Discard),
    /// Show who did what about dead letters, and what came of it
    Audit(show::Audit),
}

impl Command {
    /// Whether this process may be told to die.
    pub fn is_under_test(&self) -> bool {
        matches!(self, Self::Replay(args) if args.under_test)
    }
}

pub async fn run(context: &Context, command: Command) -> CommandResult {
    match command {
        Command::List(args) => show::list(context, &desk(context, None).await?, args).await,
        Command::Show(args) => show::one(context, &desk(context, None).await?, args.id).await,
        Command::Audit(args) => show::audit(context, &desk(context, None).await?, args).await,
        Command::Replay(args) => decide::replay(context, &desk(context, args.by.clone()).await?, args).await,
        Command::Discard(args) => decide::discard(context, &desk(context, args.by.clone()).await?, args).await,
    }
}

/// How many wait for a decision, for `millrace doctor`.
pub async fn waiting(context: &Context) -> Result<usize, Failure> {
    let desk = desk(context, None).await?;
    Ok(desk.list(&millrace::dead_letters::Filter::default()).await.map_err(failed)?.letters.len())
}

async fn desk(context: &Context, by: Option<String>) -> Result<DeadLetters, Failure> {
    let connection = stack::connect(&context.settings, "dead-letters").await?;
    Ok(DeadLetters::new(connection, by.unwrap_or_else(audit::operator)))
}

fn failed(error: Error) -> Failure {
    let failure = Failure::new(error.to_string());
    match error {
        Error::NoStream(_) => failure.remedy("millrace topology apply").code(millrace::codes::TOPOLOGY_MISMATCH),
        Error::NotFound(_) => failure.remedy("millrace dead-letters list --flat --state all"),
        Error::OneAtATime(_) | Error::Header { .. } => failure.usage(),
        Error::Unreadable(_) | Error::Gone { .. } | Error::Broker { .. } | Error::Closed(_) => failure,
    }
}

/// For scripts: everything that was asked for happened, or not.
fn exit_code(all_well: bool) -> ExitCode {
    if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
