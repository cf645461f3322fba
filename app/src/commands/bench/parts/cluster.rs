//! Three nats-servers, three copies of every stream, each message on disk before it is acknowledged: what a broker that
//! forgets nothing costs.

use super::super::figures::{Figure, Part};
use super::super::orders::Taste;
use super::super::shoppers::{Backlog, Until};
use super::super::usage::Meter;
use super::super::world::{Broker, Outside, World};
use super::super::{Bench, count};
use super::{accept, processes, rates, refused, rounds, through};
use crate::failure::Failure;
use crate::stack::Role;

pub async fn measure(bench: &Bench) -> Result<Part, Failure> {
    let mut world = World::open(bench, "cluster", Broker::Cluster, Outside::Servers).await?;
    bench.progress.step("starting services");
    world.serve_all().await?;
    through(&world, Taste::Spread, bench.sizes.warm_up).await?;
    let meter = Meter::start(world.components());
    let all = rounds(bench, &world, Taste::Spread, bench.sizes.cluster).await?;
    let spent = meter.stop(u64::from(bench.sizes.cluster) * u64::from(bench.sizes.rounds));
    bench.progress.step("counting");
    let through_all = count::count(&world).await?;

    // Last, as thousands of orders are accepted in each second of it: to see them through would take this cluster minutes,
    // and the rounds above show how it does that. As in `accept`, they are counted at the order API.
    world.serve(&[Role::Order]).await?;
    let (ours, bare) = accept::shops(&mut world).await?;
    bare.closed(Until::Orders(bench.sizes.warm_up), Backlog::Free).await?;
    let mut part = Part { name: "cluster", ..Part::default() };
    accept::closed(bench, &world, (&ours, &bare), &mut part).await?;
    for figure in &mut part.figures {
        figure.name = format!("accept, {}", figure.name);
        // The targets are those of a single server.
        figure.target = None;
    }
    part.figures.push(Figure::new("pipeline, confirmed and captured", "orders/s", rates(&all)));
    part.figures.push(Figure::one("pipeline, answers other than 202", "orders", refused(&all) as f64));
    part.spent.push(("pipeline, at the highest rate".into(), spent));
    part.what = format!(
        "accept and pipeline on three nats-servers on this machine, streams with three copies, sync_interval always; \
         the processor time of nats-server is that of all three; {}.",
        processes(bench)
    );
    bench.progress.step("counting");
    part.counted.push(("through the pipeline".into(), through_all));
    part.counted.push(("those of accept too".into(), count::count_accepted(&world).await?));
    world.close().await?;
    Ok(part)
}
