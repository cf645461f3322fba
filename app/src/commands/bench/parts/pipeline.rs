//! Orders from the customer's request until they are confirmed, captured, committed and told of.

use super::super::figures::{Figure, Part, Target, latency_figures, median};
use super::super::limits::clients::{Clients, Traffic, traffic};
use super::super::orders::Taste;
use super::super::tracker::{MOST_OPEN, Times};
use super::super::usage::{Meter, Spent, per_order_us};
use super::super::world::{Broker, Outside, World};
use super::super::{Bench, count};
use super::{all_done, on_sqlite, peak_memory, processes, rates, refused, rounds, running_world, targeted};
use crate::failure::Failure;

const LIMIT: &str = "as many messages through bare clients";

pub async fn measure(bench: &mut Bench) -> Result<Part, Failure> {
    let orders = bench.sizes.pipeline;
    let world = running_world(bench, "pipeline", Outside::Servers).await?;
    let mut part = Part { name: "pipeline", ..Part::default() };
    let meter = Meter::start(world.components());
    let all = rounds(bench, &world, Taste::Spread, orders).await?;
    let spent = meter.stop(u64::from(orders) * u64::from(bench.sizes.rounds));
    let traffic = traffic(&world.connection, world.tracker.placed()).await?;
    let bare = bare(bench, &traffic).await?;
    bench.pipeline_rate = Some(median(&rates(&all)));

    let rate = Figure::new("confirmed and captured", "orders/s", rates(&all));
    part.figures.push(targeted(rate.clone(), on_sqlite(bench), Target::AtLeast(2_000.0)));
    let held = Figure { name: "the same, held against bare clients".into(), ..rate }.limit(LIMIT, bare);
    part.figures.push(targeted(held, on_sqlite(bench), Target::OfLimit(0.5)));
    let peaks = all.iter().map(|round| round.peak as f64).collect();
    part.figures.push(Figure::new("longest backlog of a consumer", "messages", peaks));
    part.figures.push(Figure::one("answers other than 202", "orders", refused(&all) as f64));
    part.figures.push(Figure::one("publishes for an order", "messages", traffic.publishes));
    part.figures.push(Figure::one("deliveries for an order", "messages", traffic.deliveries));
    part.figures.push(peak_memory("memory of the services, at most", &spent));
    part.spent.push(("at the highest rate".into(), spent));

    steady(bench, &world, &mut part).await?;
    bench.progress.step("counting");
    part.counted.push(("outside world in a process of its own".into(), count::count(&world).await?));
    world.close().await?;
    in_process(bench, &mut part).await?;
    part.what = format!(
        "Orders until confirmed, captured, committed and told of by mail; {}, gateway over HTTP and mail over SMTP in a \
         process of their own. At most {MOST_OPEN} orders are open at a time; a round ends when every event of every \
         order is handled. The limit: {:.1} messages published, {:.1} delivered and acknowledged for an order, over four \
         connections of this process, nothing done.",
        processes(bench),
        traffic.publishes,
        traffic.deliveries
    );
    Ok(part)
}

/// Latency at fixed rates, and what an order costs then.
async fn steady(bench: &Bench, world: &World, part: &mut Part) -> Result<(), Failure> {
    let mut costs = Vec::new();
    for rate in bench.sizes.rates {
        let (mut times, mut cost) = (Vec::new(), Vec::new());
        for round in 1..=bench.sizes.latency_rounds {
            bench.progress.step(format!("{rate} orders a second, round {round}"));
            let meter = Meter::start(world.components());
            let served = world.shop(Taste::Spread).open(f64::from(rate), bench.sizes.steady).await?;
            all_done(world).await?;
            times.push(world.tracker.take_times());
            let spent = meter.stop(served.accepted);
            cost.push(without_load(&spent));
            if round == bench.sizes.latency_rounds {
                part.spent.push((format!("{rate} orders/s"), spent));
            }
        }
        let name = format!("{rate} orders/s, 202 to confirmed");
        for figure in latency_figures(&name, &pick(&times, |times| times.from_answer.clone())) {
            let target = match figure.name.rsplit(' ').next() {
                Some("p50") => Some(Target::AtMost(20.0)),
                Some("p99") => Some(Target::AtMost(100.0)),
                _ => None,
            };
            part.figures.push(match target.filter(|_| rate == 500 && on_sqlite(bench)) {
                Some(target) => figure.target(target),
                None => figure,
            });
        }
        let name = format!("{rate} orders/s, intended start to confirmed");
        part.figures.extend(latency_figures(&name, &pick(&times, |times| times.from_intent.clone())));
        part.figures.push(Figure::new(format!("{rate} orders/s, processor time of an order"), "us", cost.clone()));
        costs.push((rate, median(&cost)));
    }
    if let (Some((slow, cheap)), Some((fast, dear))) = (costs.first(), costs.last())
        && *cheap > 0.0
    {
        let times = f64::from(*fast) / f64::from(*slow);
        let name = format!("processor time at {times} times the load");
        part.figures.push(Figure::one(name, "times", times * dear / cheap).target(Target::AtMost(times)));
    }
    Ok(())
}

/// What everything but the load generator took for an order.
fn without_load(spent: &[Spent]) -> f64 {
    per_order_us(spent.get(1..).unwrap_or_default())
}

fn pick<T>(times: &[Times], which: impl Fn(&Times) -> T) -> Vec<T> {
    times.iter().map(which).collect()
}

async fn bare(bench: &Bench, traffic: &Traffic) -> Result<Vec<f64>, Failure> {
    let world = World::open(bench, "bare", Broker::One, Outside::InProcess).await?;
    let clients = Clients::start(&world).await?;
    clients.round(&world, &traffic.samples, bench.sizes.warm_up, 0).await?;
    let mut rates = Vec::new();
    for round in 1..=bench.sizes.rounds {
        bench.progress.step(format!("bare clients, round {round}"));
        rates.push(clients.round(&world, &traffic.samples, bench.sizes.pipeline, round).await?);
    }
    drop(clients);
    world.close().await?;
    Ok(rates)
}

/// The same with nobody to ask outside.
async fn in_process(bench: &Bench, part: &mut Part) -> Result<(), Failure> {
    let world = running_world(bench, "in-process", Outside::InProcess).await?;
    let meter = Meter::start(world.components());
    let all = rounds(bench, &world, Taste::Spread, bench.sizes.pipeline).await?;
    let spent = meter.stop(u64::from(bench.sizes.pipeline) * u64::from(bench.sizes.rounds));
    let rate = Figure::new("outside world answered in process", "orders/s", rates(&all));
    part.figures.push(targeted(rate, on_sqlite(bench), Target::AtLeast(3_000.0)));
    part.spent.push(("outside world answered in process".into(), spent));
    part.counted.push(("outside world answered in process".into(), count::count(&world).await?));
    world.close().await
}
