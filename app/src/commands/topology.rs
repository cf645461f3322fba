//! `millrace topology`: shows and makes the difference between what is declared and what the broker has.

mod rewind;

use std::process::ExitCode;

use millrace::topology::{self, Plan, TopologyError};
use serde_json::json;

use super::Context;
use crate::failure::{CommandResult, Failure};
use crate::{output, stack};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show what differs; exit code 3 when something does
    Plan,
    /// Make what is declared, without deleting anything
    Apply {
        /// Also make changes that may delete messages, such as a shorter max_age
        #[arg(long)]
        allow_destructive: bool,
    },
    /// Have consumers be given again what they were given since some time: after a database was restored from an older copy
    Rewind(rewind::Args),
}

/// Something differs: for scripts, as `diff` and `terraform plan` do it.
const DIFFERS: u8 = 3;

pub async fn run(context: &Context, command: Command) -> CommandResult {
    let connection = stack::connect(&context.settings, "topology").await?;
    let declared = context.settings.declared_topology();
    match command {
        Command::Plan => {
            let plan = topology::plan(&connection, &declared).await.map_err(failed)?;
            show(context, &plan);
            Ok(if plan.is_unchanged() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERS) })
        }
        Command::Apply { allow_destructive } => {
            let applied = topology::apply(&connection, &declared, allow_destructive).await.map_err(failed)?;
            let left = topology::plan(&connection, &declared).await.map_err(failed)?;
            if context.json {
                output::json(&json!({ "applied": applied, "plan": left }));
            } else {
                show(context, &left);
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Rewind(args) => rewind::run(context, &connection, args).await,
    }
}

fn show(context: &Context, plan: &Plan) {
    if context.json {
        output::json(plan);
        return;
    }
    plan.lines().iter().for_each(|line| output::line(line));
    if plan.is_unchanged() {
        output::note("Everything is as declared.");
    }
}

fn failed(error: TopologyError) -> Failure {
    Failure::new(error.to_string())
}
