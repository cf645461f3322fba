//! `millrace schemas`: the contracts between services, as JSON Schema and as documents made from them; who reads which
//! version of them, and when one is retired.

mod asyncapi;
mod baseline;
mod check;
mod export;
mod list;
mod objection;
mod retire;
mod usage;
mod versions;

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
    /// Compare the contracts with what they were: exit code 1 when one was broken
    ///
    /// A change of a version that is in use is fine if it breaks nobody: new readers must read what was written before
    /// (it is still in the streams), and old readers what is written from now on (they are still running). Of every
    /// difference it is said whom it breaks, where and why. What cannot be judged counts as a break. New events and new
    /// versions are fine; a version that is gone is a break, unless --retired or the file retired.txt beside the contracts
    /// names it.
    ///
    /// One assumption is made: nobody used the name of a new optional field before it was declared, since writers send
    /// only declared fields. --strict does without it.
    ///
    /// In CI, before a merge, compare with what is about to be merged into, and with every release whose events are still
    /// in the streams: a name that one release dropped and the next took up for something else breaks only the two together.
    ///
    ///   git fetch --depth 1 origin main && millrace schemas check --against FETCH_HEAD
    ///   millrace schemas check --against v1.4.0 --against v1.5.0
    ///
    /// Exit codes: 0 nothing is broken, 1 something is, 2 there was nothing to compare with.
    #[command(verbatim_doc_comment)]
    Check(Check),
    /// Write the contracts as files, or as one document for other tools
    Export(Export),
    /// Show who reads and who publishes each version of an event now
    Usage(usage::Args),
    /// Stop publishing an older version that nobody reads any more; running services follow at once
    Retire(retire::Retire),
    /// Publish a retired version again
    Restore(retire::Restore),
}

#[derive(Debug, clap::Args)]
pub struct Check {
    /// A folder with files named like orders.created.v2.json, or a git revision; may be given several times
    #[arg(long, value_name = "FOLDER|REVISION", required = true)]
    against: Vec<String>,
    /// Where the files are in a git revision, from the current folder
    #[arg(long, value_name = "FOLDER", default_value = "schemas")]
    folder: PathBuf,
    /// Judge the files in this folder instead of the contracts of this binary
    #[arg(long, value_name = "FOLDER")]
    current: Option<PathBuf>,
    /// What must go on working: `readers`, that new readers read old data, is enough where all readers are upgraded before
    /// any writer; `writers`, that old readers read new data, where writers go first and nothing old is read again
    #[arg(long, value_enum, default_value_t = Direction::Both)]
    direction: Direction,
    /// A version that may be gone, since nobody reads it any more ("orders.created v1"); may be given several times, and
    /// be written into retired.txt beside the contracts. `millrace schemas usage` shows who reads which
    #[arg(long, value_name = "NAME vN")]
    retired: Vec<String>,
    /// Assume nothing of names that were not declared: they may have been used with any value
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Both,
    Readers,
    Writers,
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub struct Export {
    /// Write one JSON Schema file per event and version into this folder, and remove what belongs to no contract
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
    /// Print all that travels on NATS as AsyncAPI 3.0: channels, messages, who sends and who receives
    #[arg(long)]
    asyncapi: bool,
    /// Print the HTTP API as OpenAPI 3.1
    #[arg(long)]
    openapi: bool,
}

pub async fn run(context: &Context, command: Command) -> CommandResult {
    match command {
        Command::List => list::list(context),
        Command::Show { event, version } => list::show(&event, version),
        Command::Check(args) => check::run(context, &args),
        Command::Export(args) => export::run(context, &args),
        Command::Usage(args) => usage::run(context, args).await,
        Command::Retire(args) => retire::retire(context, args).await,
        Command::Restore(args) => retire::restore(context, args).await,
    }
}
