//! How fast orders are accepted: `POST /orders`, answered once the order and its events are on disk.

use super::super::figures::{Figure, Part, Target, latency_figures};
use super::super::orders::Taste;
use super::super::shoppers::{Backlog, Served, Shop, Until};
use super::super::sizes::CONNECTIONS;
use super::super::usage::Meter;
use super::super::world::{Broker, Outside, World};
use super::super::{Bench, count};
use super::{on_sqlite, targeted};
use crate::failure::Failure;
use crate::stack::Role;

const LIMIT: &str = "a handler that awaits one JetStream acknowledgement";

pub async fn measure(bench: &Bench) -> Result<Part, Failure> {
    let mut world = World::open(bench, "accept", Broker::One, Outside::InProcess).await?;
    world.serve(&[Role::Order]).await?;
    world.on_sale(false).await?;
    let (ours, bare) = shops(&mut world).await?;
    bench.progress.step("warming up");
    for shop in [&ours, &bare] {
        shop.closed(Until::Orders(bench.sizes.warm_up), Backlog::Free).await?;
    }
    let mut part = Part {
        name: "accept",
        what: format!(
            "POST /orders with an Idempotency-Key over {CONNECTIONS} connections. Of the services only order runs: the \
             others would take processor time for orders that wait. The limit is {LIMIT} and has no database."
        ),
        ..Part::default()
    };
    closed(bench, &world, (&ours, &bare), &mut part).await?;
    let most = part.figures.first().map_or(1.0, Figure::median);
    for (share, name) in [(1.0 / 3.0, "a third of that"), (2.0 / 3.0, "two thirds of that")] {
        let mut loads = Vec::new();
        for round in 1..=bench.sizes.rounds {
            bench.progress.step(format!("open loop at {name}, round {round}"));
            loads.push(ours.open((most * share).max(1.0), bench.sizes.open).await?);
        }
        let rate = Figure::new(format!("open loop, {name}"), "orders/s", loads.iter().map(Served::rate).collect());
        part.figures.push(rate.limit("the rate that was meant", vec![most * share]));
        let latencies: Vec<_> = loads.into_iter().map(|load| load.latency).collect();
        for figure in latency_figures(&format!("open loop, {name}"), &latencies) {
            let applies = on_sqlite(bench) && share < 0.5 && figure.name.ends_with("p99");
            part.figures.push(targeted(figure, applies, Target::AtMost(5.0)));
        }
    }
    bench.progress.step("counting");
    part.counted.push(("all of them".into(), count::count_accepted(&world).await?));
    world.close().await?;
    Ok(part)
}

/// The order API and its limit, side by side.
pub(super) async fn shops(world: &mut World) -> Result<(Shop, Shop), Failure> {
    let limit = world.serve_limit().await?;
    let ours = world.shop(Taste::Spread);
    let bare = Shop { api: limit, tracker: None, ..ours.clone() };
    Ok((ours, bare))
}

/// Rounds of both in turn, so that whatever else the machine does meets both.
pub(super) async fn closed(
    bench: &Bench,
    world: &World,
    (ours, bare): (&Shop, &Shop),
    part: &mut Part,
) -> Result<(), Failure> {
    let until = Until::Elapsed(bench.sizes.closed);
    let (mut loads, mut limits) = (Vec::new(), Vec::new());
    for round in 1..=bench.sizes.rounds {
        let last = round == bench.sizes.rounds;
        bench.progress.step(format!("closed loop, round {round}"));
        let meter = Meter::start(world.components());
        loads.push(ours.closed(until, Backlog::Free).await?);
        if let Some(load) = loads.last().filter(|_| last) {
            part.spent.push(("closed loop, last round".into(), meter.stop(load.accepted)));
        }
        bench.progress.step(format!("the limit, round {round}"));
        let meter = Meter::start(world.components());
        limits.push(bare.closed(until, Backlog::Free).await?);
        if let Some(limit) = limits.last().filter(|_| last) {
            part.spent.push(("the limit, last round".into(), meter.stop(limit.accepted)));
        }
    }
    let rates = |loads: &[Served]| loads.iter().map(Served::rate).collect::<Vec<_>>();
    let at = |loads: &[Served], percent| loads.iter().map(|load| load.latency.percentile(percent)).collect::<Vec<_>>();
    let name = format!("closed loop, {CONNECTIONS} connections");
    let rate = Figure::new(name.clone(), "orders/s", rates(&loads)).limit(LIMIT, rates(&limits));
    part.figures.push(targeted(rate, on_sqlite(bench), Target::OfLimit(0.75)));
    for percent in [50.0, 99.0] {
        let figure =
            Figure::new(format!("{name}, p{percent}"), "ms", at(&loads, percent)).limit(LIMIT, at(&limits, percent));
        part.figures.push(targeted(figure, on_sqlite(bench) && percent > 90.0, Target::AtMost(10.0)));
    }
    let refused: u64 = loads.iter().map(|load| load.refused).sum();
    part.figures.push(Figure::one("answers other than 202", "orders", refused as f64));
    Ok(())
}
