//! A second instance of one service on the same PostgreSQL database.

use super::super::figures::{Figure, Part, Target};
use super::super::orders::Taste;
use super::super::usage::Meter;
use super::super::world::Outside;
use super::super::{Bench, count};
use super::{processes, rates, running_world, through};
use crate::failure::Failure;
use crate::stack::Role;

/// Both share two cores here, so nothing can be won; what this is about is that they do not get in each other's way. Less
/// than this between two medians is noise.
const NOT_LOWER: f64 = 0.95;

pub async fn measure(bench: &mut Bench) -> Result<Part, Failure> {
    let orders = bench.sizes.pipeline;
    let mut world = running_world(bench, "scale", Outside::Servers).await?;
    let (mut one, mut two, mut spent) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=bench.sizes.rounds {
        bench.progress.step(format!("round {round} of {}, one inventory", bench.sizes.rounds));
        one.push(through(&world, Taste::Spread, orders).await?);
        bench.progress.step(format!("round {round} of {}, two", bench.sizes.rounds));
        world.double(Role::Inventory).await?;
        let meter = Meter::start(world.components());
        two.push(through(&world, Taste::Spread, orders).await?);
        spent = meter.stop(u64::from(orders));
        world.halve(Role::Inventory).await?;
    }
    let counted = count::count(&world).await?;
    world.close().await?;
    let rate = Figure::new("confirmed and captured", "orders/s", rates(&two)).limit("one inventory", rates(&one));
    Ok(Part {
        name: "scale",
        what: format!(
            "As pipeline, {}, in turn with one inventory service and with two on the same database.",
            processes(bench)
        ),
        figures: vec![rate.target(Target::OfLimit(NOT_LOWER))],
        spent: vec![("last round with two".into(), spent)],
        counted: vec![("all of them".into(), counted)],
    })
}
