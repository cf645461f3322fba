//! All orders for one product: every reservation changes the same row.

use super::super::figures::{Figure, Part, Target};
use super::super::orders::Taste;
use super::super::usage::Meter;
use super::super::world::Outside;
use super::super::{Bench, count};
use super::{on_sqlite, pipeline_rate, processes, rates, rounds, running_world, targeted};
use crate::failure::Failure;

pub async fn measure(bench: &mut Bench) -> Result<Part, Failure> {
    let pipeline = pipeline_rate(bench).await?;
    let orders = bench.sizes.pipeline;
    let world = running_world(bench, "hot", Outside::Servers).await?;
    let meter = Meter::start(world.components());
    let all = rounds(bench, &world, Taste::Hot, orders).await?;
    let spent = meter.stop(u64::from(orders) * u64::from(bench.sizes.rounds));
    let rate = Figure::new("confirmed and captured", "orders/s", rates(&all)).limit("pipeline", vec![pipeline]);
    let counted = count::count(&world).await?;
    world.close().await?;
    Ok(Part {
        name: "hot",
        what: format!("As pipeline, but all orders want the same product; {}.", processes(bench)),
        figures: vec![targeted(rate, on_sqlite(bench), Target::OfLimit(0.7))],
        spent: vec![("at the highest rate".into(), spent)],
        counted: vec![("all of them".into(), counted)],
    })
}
