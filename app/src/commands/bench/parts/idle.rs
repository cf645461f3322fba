//! What it takes to do nothing.

use super::super::Bench;
use super::super::count;
use super::super::figures::{Figure, Part, Target};
use super::super::usage::{Meter, Spent};
use super::super::world::Outside;
use super::{of_services, processes, running_world};
use crate::failure::Failure;

pub async fn measure(bench: &Bench) -> Result<Part, Failure> {
    let world = running_world(bench, "idle", Outside::Servers).await?;
    bench.progress.step("resting");
    // What the last order has left behind is seen to meanwhile: outbox rows are marked, timers run out.
    tokio::time::sleep(bench.sizes.rest / 2).await;
    let meter = Meter::start(world.components());
    tokio::time::sleep(bench.sizes.rest).await;
    let spent = meter.stop(0);
    let share = |spent: &Spent| spent.cpu.as_secs_f64() / bench.sizes.rest.as_secs_f64() * 100.0;
    let services = of_services(&spent).map(share).sum();
    let broker = spent.iter().filter(|spent| spent.name == "nats-server").map(share).sum();
    let memory = of_services(&spent).map(|spent| spent.rss_mb).sum();
    let counted = count::count(&world).await?;
    world.close().await?;
    Ok(Part {
        name: "idle",
        what: format!(
            "{} after the last of {} orders, for {:?}; {}.",
            "Nothing to do",
            bench.sizes.warm_up,
            bench.sizes.rest,
            processes(bench)
        ),
        figures: vec![
            Figure::one("processor time of the services", "% of a core", services).target(Target::AtMost(1.0)),
            Figure::one("processor time of nats-server", "% of a core", broker),
            Figure::one("memory of the services", "MB", memory),
        ],
        spent: vec![("at rest".into(), spent)],
        counted: vec![("all of them".into(), counted)],
    })
}
