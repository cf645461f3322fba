//! The `millrace` binary: reads the command line and the settings, and hands over to a command.

#![allow(unreachable_pub, reason = "nothing is outside of a binary")]

mod api_client;
mod audit;
mod cli;
mod commands;
mod failure;
mod output;
mod settings;
mod stack;
mod under_test;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;

/// A fifth of an order's instructions went into the C library's allocator (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.json;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure::report(&failure::Failure::new(format!("cannot start: {error}")), json),
    };
    match runtime.block_on(commands::run(cli)) {
        Ok(code) => code,
        Err(failure) => failure::report(&failure, json),
    }
}
