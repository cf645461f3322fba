//! Orders that waited while everybody but the order service was down.

use std::time::{Duration, Instant};

use super::super::figures::{Figure, Part, Target};
use super::super::orders::Taste;
use super::super::shoppers::{Backlog, Until};
use super::super::usage::Meter;
use super::super::world::{Outside, World};
use super::super::{Bench, broker, count};
use super::{
    PATIENCE, all_done, of_services, on_sqlite, peak_memory, pipeline_rate, processes, running_world, targeted,
};
use crate::failure::Failure;
use crate::stack::Role;

const LOOK_EVERY: Duration = Duration::from_millis(20);

pub async fn measure(bench: &mut Bench) -> Result<Part, Failure> {
    let pipeline = pipeline_rate(bench).await?;
    let orders = bench.sizes.drain;
    let mut world = running_world(bench, "drain", Outside::Servers).await?;
    bench.progress.step(format!("{orders} orders while consumers are down"));
    world.serve(&[Role::Order]).await?;
    let served = world.shop(Taste::Spread).closed(Until::Orders(orders), Backlog::Free).await?;
    // Three events for each order of before, and the two of its creation for each that waits.
    published(&world, world.tracker.placed() * 2 + world.tracker.done()).await?;

    bench.progress.step(format!("{orders} orders after consumers have come back"));
    let before = world.tracker.done();
    world.serve_all().await?;
    let meter = Meter::start(world.components());
    let (begun, early) = (Instant::now(), world.tracker.done() - before);
    let at_start = meter.stop(0);
    all_done(&world).await?;
    let took = begun.elapsed();
    let spent = meter.stop(served.accepted - early);
    let rate = (served.accepted - early) as f64 / took.as_secs_f64();

    let mut part = Part {
        name: "drain",
        what: format!(
            "{} orders were accepted while only order ran; then the others came back; {}. Counted from the moment all \
             were ready, without the {early} orders that were done by then.",
            served.accepted,
            processes(bench)
        ),
        ..Part::default()
    };
    let figure = Figure::one("confirmed and captured", "orders/s", rate).limit("pipeline", vec![pipeline]);
    part.figures.push(targeted(figure, on_sqlite(bench), Target::OfLimit(0.8)));
    let memory = |spent| of_services(spent).map(|spent| spent.rss_mb).sum();
    part.figures.push(Figure::one("memory of the services, at first", "MB", memory(&at_start)));
    part.figures.push(Figure::one("memory of the services, at the end", "MB", memory(&spent)));
    part.figures.push(peak_memory("memory of the services, at most", &spent).target(Target::AtMost(300.0)));
    part.spent.push(("draining".into(), spent));
    bench.progress.step("counting");
    part.counted.push(("all of them".into(), count::count(&world).await?));
    world.close().await?;
    Ok(part)
}

/// Waits until the order service has published what it accepted.
async fn published(world: &World, messages: u64) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stored = broker::stored(&world.connection, "ORDERS").await?;
        if stored >= messages {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Failure::new(format!(
                "{stored} of {messages} events of orders were published in {PATIENCE:?}"
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
