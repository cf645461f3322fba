//! One file per command.

pub mod bench;
pub mod catalog;
pub mod dead_letters;
pub mod demo;
pub mod doctor;
pub mod events;
pub mod explain;
pub mod health;
pub mod orders;
pub mod payments;
pub mod produce;
pub mod reconcile;
pub mod replay;
pub mod schemas;
pub mod serve;
pub mod stock;
pub mod topology;
pub mod up;
pub mod verify;

use crate::cli::{Cli, Command};
use crate::failure::CommandResult;
use crate::output;
use crate::settings;
use crate::under_test;

/// What every command gets.
pub struct Context {
    pub settings: settings::Settings,
    /// Where each setting came from.
    pub effective: millrace::config::Effective,
    /// Print JSON.
    pub json: bool,
}

pub async fn run(cli: Cli) -> CommandResult {
    // Explaining must work above all when the settings are wrong.
    if let Some(Command::Explain { code }) = &cli.command {
        return explain::run(code.as_deref(), cli.json);
    }
    match &cli.command {
        Some(Command::Serve(args)) if args.under_test => under_test::arm()?,
        Some(Command::DeadLetters(command)) if command.is_under_test() => under_test::arm()?,
        _ => under_test::refuse()?,
    }
    let loaded = settings::load(cli.config.as_deref(), &cli.set)?;
    if cli.dump_config {
        output::line(&loaded.effective.dump());
        return Ok(std::process::ExitCode::SUCCESS);
    }
    let context = Context { settings: loaded.settings, effective: loaded.effective, json: cli.json };
    match cli.command.unwrap_or_else(|| Command::Up(up::Args::default())) {
        Command::Up(args) => up::run(context, args).await,
        Command::Demo(args) => demo::run(context, args).await,
        Command::Verify(args) => verify::run(context, args).await,
        Command::Bench(args) => bench::run(context, args).await,
        Command::Serve(args) => serve::run(context, args).await,
        Command::Orders(command) => orders::run(&context, command).await,
        Command::Catalog(command) => catalog::run(&context, command).await,
        Command::Stock(command) => stock::run(&context, command).await,
        Command::Events(command) => events::run(&context, command).await,
        Command::DeadLetters(command) => dead_letters::run(&context, command).await,
        Command::Payments(command) => payments::run(&context, command).await,
        Command::Reconcile(args) => reconcile::run(&context, args).await,
        Command::Replay(args) => replay::run(&context, args).await,
        Command::Topology(command) => topology::run(&context, command).await,
        Command::Schemas(command) => schemas::run(&context, command).await,
        Command::Produce(args) => produce::run(&context, args).await,
        Command::Doctor(args) => doctor::run(&context, args).await,
        Command::Health(args) => health::run(&context, args).await,
        Command::Explain { code } => explain::run(code.as_deref(), context.json),
    }
}
