//! The command line. Each command's own arguments stand beside its code.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::commands::{
    bench, catalog, dead_letters, demo, doctor, events, health, orders, payments, produce, reconcile, replay, schemas,
    serve, stock, topology, up, verify,
};

/// Event-driven order processing on NATS JetStream.
///
/// Without a command, `millrace up`: everything on this machine, with demo orders flowing.
#[derive(Debug, Parser)]
#[command(name = "millrace", version, propagate_version = true)]
pub struct Cli {
    /// Settings file [default: millrace.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE", env = "MILLRACE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Change one setting, by its name in the settings file: --set order.deadline=1m
    #[arg(long = "set", global = true, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Print results as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Print all settings in effect, where each came from, and end
    #[arg(long, global = true)]
    pub dump_config: bool,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything on this machine: nats-server, all services, simulators, demo orders
    Up(up::Args),
    /// Run the story of this system in a temporary folder and check every outcome
    Demo(demo::Args),
    /// Break everything while orders are placed, and check that nothing was lost, doubled or stuck
    Verify(verify::Args),
    /// Measure speed on this machine, each figure beside the limit it is held against
    Bench(bench::Args),
    /// Run one or more services: order, payment, inventory, notification, simulators
    Serve(serve::Args),
    /// Place, show, list, watch and cancel orders
    #[command(subcommand)]
    Orders(orders::Command),
    /// Products and prices
    #[command(subcommand)]
    Catalog(catalog::Command),
    /// What is in stock
    #[command(subcommand)]
    Stock(stock::Command),
    /// Look at events
    #[command(subcommand)]
    Events(events::Command),
    /// Messages that could not be handled: look at them, replay them, give them up
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    /// Payments that do not go on by themselves, and the ways out
    #[command(subcommand)]
    Payments(payments::Command),
    /// Hold against each other what all services, the gateway and the streams say about each order
    Reconcile(reconcile::Args),
    /// Rebuild a read model from the history on the streams, while it serves
    Replay(replay::Args),
    /// The contracts between services: list, show, compare, export; who reads which version, and retiring one
    #[command(subcommand)]
    Schemas(schemas::Command),
    /// Streams, consumers and buckets: what is declared and what is there
    #[command(subcommand)]
    Topology(topology::Command),
    /// Place demo orders at a steady rate
    Produce(produce::Args),
    /// Check each thing a run needs, and say what to do about each failure
    Doctor(doctor::Args),
    /// Ask a running process whether it is ready; exit code 0 means yes
    Health(health::Args),
    /// Explain an error code such as MR0001
    Explain {
        /// The code; without one, all are listed
        code: Option<String>,
    },
}
