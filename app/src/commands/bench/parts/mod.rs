//! What is measured, and what the parts have in common.

mod accept;
mod big;
mod cluster;
mod drain;
mod hot;
mod idle;
mod pipeline;
mod scale;

use std::time::{Duration, Instant};

use super::Bench;
use super::broker::{self, Peak};
use super::figures::{Figure, Part, median};
use super::orders::Taste;
use super::shoppers::{Backlog, Until};
use super::usage::Spent;
use super::world::{Broker, Layout, Outside, SERVICES, World};
use crate::commands::verify::Backend;
use crate::failure::Failure;

/// The parts, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Name {
    /// POST /orders
    Accept,
    /// Orders to confirmed and captured
    Pipeline,
    /// Orders that waited while consumers were down
    Drain,
    /// All orders for one product
    Hot,
    /// A database full of past orders
    Big,
    /// Nothing to do
    Idle,
    /// Three nats-servers that sync every message
    Cluster,
    /// Two inventory services instead of one; on PostgreSQL alone
    Scale,
}

impl Name {
    /// Those that can be measured with it.
    pub fn all(backend: Backend) -> Vec<Self> {
        let mut all = vec![
            Self::Accept,
            Self::Pipeline,
            Self::Drain,
            Self::Hot,
            Self::Big,
            Self::Idle,
            Self::Cluster,
            Self::Scale,
        ];
        all.retain(|name| name.works_with(backend));
        all
    }

    /// A database in a file has one owner.
    pub fn works_with(self, backend: Backend) -> bool {
        self != Self::Scale || backend == Backend::Postgres
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Pipeline => "pipeline",
            Self::Drain => "drain",
            Self::Hot => "hot",
            Self::Big => "big",
            Self::Idle => "idle",
            Self::Cluster => "cluster",
            Self::Scale => "scale",
        }
    }
}

pub async fn measure(bench: &mut Bench, name: Name) -> Result<Part, Failure> {
    match name {
        Name::Accept => accept::measure(bench).await,
        Name::Pipeline => pipeline::measure(bench).await,
        Name::Drain => drain::measure(bench).await,
        Name::Hot => hot::measure(bench).await,
        Name::Big => big::measure(bench).await,
        Name::Idle => idle::measure(bench).await,
        Name::Cluster => cluster::measure(bench).await,
        Name::Scale => scale::measure(bench).await,
    }
}

/// Nothing moves for so long: something is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// A round through the whole pipeline.
#[derive(Debug)]
struct Through {
    /// Orders a second, from the first request until every event of every order is handled.
    rate: f64,
    /// The longest backlog of any consumer, in messages.
    peak: u64,
    refused: u64,
}

/// Places orders as fast as they are captured, with so many open at most, and waits until all is done.
async fn through(world: &World, taste: Taste, orders: u32) -> Result<Through, Failure> {
    let (begun, peak) = (Instant::now(), Peak::watch(&world.connection));
    let served = world.shop(taste).closed(Until::Orders(orders), Backlog::Bounded).await?;
    all_done(world).await?;
    let rate = served.accepted as f64 / begun.elapsed().as_secs_f64();
    // How long they took is looked at elsewhere.
    drop(world.tracker.take_times());
    Ok(Through { rate, peak: peak.most(), refused: served.refused })
}

/// Waits until every order has ended and every event is handled.
async fn all_done(world: &World) -> Result<(), Failure> {
    let mut before = 0;
    while let Err(none_has_ended) = world.tracker.all_ended(PATIENCE).await {
        // Of many orders that wait, all are authorized before the first is captured.
        let published = broker::published(&world.connection).await?;
        if std::mem::replace(&mut before, published) == published {
            return Err(none_has_ended);
        }
    }
    broker::settled(&world.connection, world.tracker.placed()).await?;
    match world.tracker.unfortunate() {
        0 => Ok(()),
        some => Err(Failure::new(format!("{some} orders were cancelled, and every one should be confirmed"))),
    }
}

/// Everything up and warm.
async fn running_world(bench: &Bench, name: &str, outside: Outside) -> Result<World, Failure> {
    let mut world = World::open(bench, name, Broker::One, outside).await?;
    bench.progress.step("starting services");
    world.serve_all().await?;
    bench.progress.step("warming up");
    through(&world, Taste::Spread, bench.sizes.warm_up).await?;
    Ok(world)
}

/// Rounds through the pipeline; their rates.
async fn rounds(bench: &Bench, world: &World, taste: Taste, orders: u32) -> Result<Vec<Through>, Failure> {
    let mut all = Vec::with_capacity(bench.sizes.rounds as usize);
    for round in 1..=bench.sizes.rounds {
        bench.progress.step(format!("round {round} of {}", bench.sizes.rounds));
        all.push(through(world, taste, orders).await?);
    }
    Ok(all)
}

fn rates(rounds: &[Through]) -> Vec<f64> {
    rounds.iter().map(|round| round.rate).collect()
}

fn refused(rounds: &[Through]) -> u64 {
    rounds.iter().map(|round| round.refused).sum()
}

/// The rate of the pipeline in this run, which other parts are held against.
async fn pipeline_rate(bench: &mut Bench) -> Result<f64, Failure> {
    if let Some(rate) = bench.pipeline_rate {
        return Ok(rate);
    }
    let world = running_world(bench, "reference", Outside::Servers).await?;
    let all = rounds(bench, &world, Taste::Spread, bench.sizes.pipeline).await?;
    world.close().await?;
    let rate = median(&rates(&all));
    bench.pipeline_rate = Some(rate);
    Ok(rate)
}

/// What the processes of the four services have together.
fn of_services(spent: &[Spent]) -> impl Iterator<Item = &Spent> {
    let is_service = |name: &str| name.split('+').any(|part| SERVICES.iter().any(|role| role.name() == part));
    spent.iter().filter(move |spent| is_service(&spent.name))
}

fn peak_memory(name: &str, spent: &[Spent]) -> Figure {
    Figure::one(name, "MB", of_services(spent).map(|spent| spent.peak_mb).sum())
}

/// Targets are set for SQLite.
fn on_sqlite(bench: &Bench) -> bool {
    bench.backend == Backend::Sqlite
}

fn processes(bench: &Bench) -> &'static str {
    match bench.layout {
        Layout::Apart => "a process for each service",
        Layout::Together => "one process for the four services",
    }
}

/// Sets the target if it was set for what this run measures.
fn targeted(figure: Figure, applies: bool, target: super::figures::Target) -> Figure {
    if applies { figure.target(target) } else { figure }
}
