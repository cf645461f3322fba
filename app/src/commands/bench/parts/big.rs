//! Databases full of past orders: how soon the services are up, and whether the new orders are slower for it.

use std::time::Instant;

use super::super::figures::{Figure, Part, Target};
use super::super::orders::Taste;
use super::super::usage::Meter;
use super::super::world::{Outside, SERVICES};
use super::super::{Bench, count, past};
use super::{on_sqlite, peak_memory, pipeline_rate, processes, rates, rounds, running_world, targeted, through};
use crate::failure::Failure;

pub async fn measure(bench: &mut Bench) -> Result<Part, Failure> {
    let pipeline = pipeline_rate(bench).await?;
    let (orders, past) = (bench.sizes.pipeline, bench.sizes.past);
    let mut world = running_world(bench, "big", Outside::Servers).await?;
    world.serve(&[]).await?;
    bench.progress.step(format!("writing {past} orders of the past"));
    let writing = Instant::now();
    past::fill(&world.database_url, past).await?;
    let writing = writing.elapsed();
    let mut part = Part { name: "big", ..Part::default() };
    for role in SERVICES {
        let mut starts = Vec::new();
        for round in 1..=bench.sizes.rounds {
            bench.progress.step(format!("start of {}, round {round}", role.name()));
            world.serve(&[]).await?;
            let begun = Instant::now();
            world.serve(&[role]).await?;
            starts.push(begun.elapsed().as_secs_f64() * 1_000.0);
        }
        let figure = Figure::new(format!("{}, from its start to ready", role.name()), "ms", starts);
        part.figures.push(figure.target(Target::AtMost(1_000.0)));
    }
    world.serve_all().await?;
    through(&world, Taste::Spread, bench.sizes.warm_up).await?;
    let meter = Meter::start(world.components());
    let all = rounds(bench, &world, Taste::Spread, orders).await?;
    let spent = meter.stop(u64::from(orders) * u64::from(bench.sizes.rounds));
    let rate = Figure::new("confirmed and captured", "orders/s", rates(&all))
        .limit("pipeline on empty databases", vec![pipeline]);
    part.figures.push(targeted(rate, on_sqlite(bench), Target::OfLimit(0.9)));
    part.figures.push(peak_memory("memory of the services, at most", &spent));
    part.spent.push(("at the highest rate".into(), spent));
    part.what = format!(
        "As pipeline, with {past} past orders in every database, their timelines, notices and inbox marks included, put \
         there by SQL in {:.0} s; {}.",
        writing.as_secs_f64(),
        processes(bench)
    );
    bench.progress.step("counting");
    part.counted.push(("the new ones".into(), count::count(&world).await?));
    world.close().await?;
    Ok(part)
}
