//! `millrace schemas`: the contracts between services, as JSON Schema and as documents made from them.

mod export;
mod list;

use std::path::PathBuf;

use super::Context;
use crate::failure::CommandResult;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Every event and message, with its versions
    List,
    /// Print one contract
    #[command(disable_version_flag = true)]
    Show {
        /// orders.created, or the name of a message as `list` shows it
        event: String,
        /// Which version [default: the newest]
        #[arg(long, value_name = "N")]
        version: Option<u32>,
    },
    /// Write the contracts as files, or as one document for other tools
    Export(Export),
}

#[derive(Debug, clap::Args)]
pub struct Export {
    /// Write one JSON Schema file per event and version into this folder, and remove what belongs to no contract
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

pub fn run(context: &Context, command: Command) -> CommandResult {
    match command {
        Command::List => list::list(context),
        Command::Show { event, version } => list::show(&event, version),
        Command::Export(args) => export::run(context, &args),
    }
}
