//! `millrace verify`: orders through separate processes that are killed, stopped and cut off from each other, and then a
//! check that nothing was lost, nothing doubled and nothing is stuck.
//!
//! | where | what |
//! | --- | --- |
//! | `stories` | what customers want, drawn from the seed |
//! | `customers` | who wants it, and what they were told: the log of every answer |
//! | `warehouse` | looks at the stock meanwhile |
//! | `faults`, `inject` | what is broken when, drawn from the seed; and who does it |
//! | `sabotage` | what one safety is there for, to see what happens without it |
//! | `fleet`, `setup` | the processes, the wires between them, their settings |
//! | `gather` | reads databases, streams and the outside world's ledgers |
//! | `evidence` | what was gathered, as plain data |
//! | `checks/` | one invariant each: pure functions over the evidence |
//! | `report`, `progress` | what it comes to, and what is going on |
//! | `target/` | the same orders and checks against a system that is deployed already |

mod checks;
mod customers;
mod evidence;
mod faults;
mod fleet;
mod gather;
mod inject;
mod progress;
mod report;
mod sabotage;
pub(super) mod setup;
mod stories;
mod target;
mod warehouse;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace::config::HumanDuration;
use millrace::telemetry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::customers::Customers;
use self::evidence::{Evidence, Samples};
use self::faults::{Kind, Kinds};
use self::fleet::Fleet;
use self::gather::Gatherer;
use self::inject::Injector;
use self::progress::Watched;
use self::report::{Place, Report, Requests};
use self::sabotage::Safety;
use self::setup::Folder;
use self::stories::Ware;
use super::{Context, catalog};
use crate::failure::{CommandResult, Failure};
use crate::{output, stack};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many orders are placed
    #[arg(long, default_value_t = 1_000, value_name = "N", conflicts_with = "duration")]
    orders: u32,
    /// Place orders for so long instead of a number of them
    #[arg(long, value_name = "DURATION")]
    duration: Option<HumanDuration>,
    /// Orders a second
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// Repeats the orders and faults of an earlier run [default: a random one, which is shown]
    #[arg(long)]
    seed: Option<u64>,
    /// Where the services keep their data
    #[arg(long, value_enum, default_value_t = Backend::Sqlite, conflicts_with = "urls")]
    backend: Backend,
    /// What is broken: all, none, or some of kill, kill-nats, kill-postgres, pause, pause-nats, network, gateway, mail,
    /// power-loss [default: all]
    #[arg(long, value_name = "KINDS")]
    faults: Option<Kinds>,
    /// Break above all what this safety is there for
    #[arg(long, value_enum, value_name = "SAFETY", conflicts_with_all = ["faults", "urls"])]
    focus: Option<Safety>,
    /// As --focus, and switch the safety off: the run has to fail, and to name what broke; exit code 3 if nobody noticed
    #[arg(long, value_enum, value_name = "SAFETY", conflicts_with_all = ["faults", "focus", "urls"])]
    sabotage: Option<Safety>,
    /// Keep the folder with databases, streams and logs. It is kept anyway when an invariant does not hold
    #[arg(long, conflicts_with = "urls")]
    keep: bool,
    #[command(flatten)]
    target: target::Target,
}

/// Where the services keep their data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    Sqlite,
    /// A PostgreSQL of the run's own, found or installed once
    Postgres,
}

impl Backend {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        })
    }
}

/// What a shell reports for a process ended by Ctrl-C.
const EXIT_INTERRUPTED: u8 = 130;
/// However few orders there are, each of them should meet a fault.
const SHORTEST: Duration = Duration::from_secs(20);
/// More than this in a second measures the client.
const MAX_RATE: f64 = 1_000.0;
/// More would not fit the ledgers of the simulators.
const MAX_ORDERS: u32 = 30_000;
/// How long the system may take, after the last fault, until every request is answered and nothing is going on any more.
/// Orders that were held up may have to wait for their deadline.
const SETTLE_LIMIT: Duration = Duration::from_secs(180);
/// Without a safety it may never settle: then it is over when nothing has changed for so long.
const STUCK_AFTER: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Products must have arrived in order and inventory before the first order.
const STOCKING_LIMIT: Duration = Duration::from_secs(20);

/// What is to be done.
struct Plan {
    seed: u64,
    orders: u32,
    every: Duration,
    length: Duration,
    kinds: Kinds,
    backend: Backend,
    focus: Option<Safety>,
    without: Option<Safety>,
}

impl Args {
    fn kinds(&self) -> Result<Kinds, Failure> {
        self.faults.clone().map_or_else(|| "all".parse().map_err(Failure::new), Ok)
    }

    /// How many orders, and how many a second.
    fn load(&self) -> Result<(u32, f64), Failure> {
        let args = self;
        if !args.rate.is_finite() || args.rate <= 0.0 || args.rate > MAX_RATE {
            let wrong = Failure::new(format!("--rate {} is not a rate", args.rate));
            return Err(wrong.remedy(format!("a number above 0, at most {MAX_RATE}")).usage());
        }
        let orders = match args.duration {
            Some(duration) => (duration.get().as_secs_f64() * args.rate).ceil() as u32,
            None => args.orders,
        };
        if !(1..=MAX_ORDERS).contains(&orders) {
            let wrong = Failure::new(format!("{orders} orders cannot be placed"));
            return Err(wrong.remedy(format!("1 to {MAX_ORDERS}: --orders, or --duration times --rate")).usage());
        }
        Ok((orders, args.rate))
    }
}

impl Plan {
    fn of(args: &Args) -> Result<Self, Failure> {
        let (orders, rate) = args.load()?;
        let kinds = args.kinds()?;
        if args.backend == Backend::Sqlite && kinds.0 == [Kind::KillPostgres] {
            let wrong = Failure::new("--faults kill-postgres breaks nothing on SQLite, which has no server");
            return Err(wrong.remedy("--backend postgres").usage());
        }
        let every = Duration::from_secs_f64(1.0 / rate).max(SHORTEST.mul_f64(f64::from(orders).recip()));
        let focus = args.sabotage.or(args.focus);
        Ok(Self {
            seed: args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000)),
            orders,
            every,
            length: every * orders,
            kinds: focus.map_or(kinds, Safety::kinds),
            backend: args.backend,
            focus,
            without: args.sabotage,
        })
    }

    /// What every service is told besides its settings.
    fn told(&self) -> Vec<(String, String)> {
        self.focus.map(|safety| safety.variables(self.without.is_some())).unwrap_or_default()
    }

    fn stuck_after(&self) -> Duration {
        if self.without.is_some() { STUCK_AFTER } else { SETTLE_LIMIT }
    }

    /// The command that does the same again. How far it gets between two faults is up to the machine.
    fn command(&self) -> String {
        let Self { seed, orders, every, kinds, backend, .. } = self;
        let rate = every.as_secs_f64().recip();
        let broken = match (self.without, self.focus) {
            (Some(safety), _) => format!("--sabotage {}", safety.name()),
            (None, Some(safety)) => format!("--focus {}", safety.name()),
            (None, None) => format!("--faults {kinds}"),
        };
        let backend = backend.name();
        format!("millrace verify --seed {seed} --orders {orders} --rate {rate} --backend {backend} {broken}")
    }
}

pub async fn run(context: Context, args: Args) -> CommandResult {
    if args.target.is_given() {
        return target::run(context, args).await;
    }
    let started = Instant::now();
    let plan = Plan::of(&args)?;
    let settings = setup::settings()?;
    let guard = telemetry::init(&settings.telemetry).map_err(|e| Failure::new(e.to_string()).usage())?;
    let shutdown = millrace::shutdown::on_signal().map_err(|e| Failure::new(e.to_string()))?;
    let folder = Folder::create()?;
    let quiet = context.json;
    if !quiet {
        introduce(&plan, &folder);
    }
    let phase = watch::channel("starting").0;
    let say = move |text: &str| {
        if !quiet {
            output::note(text);
        }
    };
    say("Starting nats-server, the services and the simulators.");
    let told = plan.told();
    let interrupted = || Failure { exit: EXIT_INTERRUPTED, ..Failure::new("interrupted") };
    let fleet = tokio::select! {
        fleet = Fleet::start(plan.backend, &told, &folder, say) => fleet.map(Arc::new),
        () = shutdown.cancelled() => return Err(interrupted()),
    };
    let outcome = match &fleet {
        Ok(fleet) => {
            let outcome = tokio::select! {
                outcome = perform(&plan, &folder, fleet, &phase, quiet) => outcome,
                () = shutdown.cancelled() => Err(interrupted()),
            };
            // Whatever came of it: what still runs would write into a folder that is being removed.
            let stopped = if outcome.is_ok() { fleet.stop().await } else { fleet.kill().await };
            outcome.map(|mut report| {
                report.problems.extend(stopped);
                report
            })
        }
        Err(failure) => Err(failure.clone()),
    };
    guard.shutdown().await;
    let mut report = match outcome {
        Ok(report) => report,
        Err(failure) if failure.exit == EXIT_INTERRUPTED && !args.keep => return Err(failure),
        Err(failure) => {
            return Err(failure.remedy(format!("read the logs in {}", folder.keep().join("logs").display())));
        }
    };
    report.took = started.elapsed();
    if args.keep || !report.passed() {
        report.folder = Some(folder.keep());
    }
    if context.json {
        output::json(&report.to_json());
    } else {
        report.print();
    }
    Ok(report.exit_code())
}

fn introduce(plan: &Plan, folder: &Folder) {
    let Plan { seed, orders, backend, length, .. } = plan;
    output::note(&format!(
        "Seed {seed}: {orders} orders in {:.0} s on {backend}, in {}",
        length.as_secs_f64(),
        folder.path().display()
    ));
    if let Some(safety) = plan.without {
        output::note(&format!("Without {}: this run has to fail.", safety.name()));
    }
    output::note("Settings made shorter than in real life, so that what breaks is mended within seconds:");
    let shortened: Vec<_> = setup::SHORTENED.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    shortened.chunks(4).for_each(|some| output::note(&format!("    {}", some.join("   "))));
}

/// Starts everything, lets it happen, waits until it is over, and looks.
async fn perform(
    plan: &Plan,
    folder: &Folder,
    fleet: &Arc<Fleet>,
    phase: &watch::Sender<&'static str>,
    quiet: bool,
) -> Result<Report, Failure> {
    let mut settings = setup::settings()?;
    settings.nats.url = fleet.nats_url.clone();
    let connection = stack::connect(&settings, "verify").await?;
    let gatherer = Arc::new(Gatherer::new(fleet, connection.clone()).map_err(Failure::new)?);
    let wares = stories::wares(plan.orders);
    stock_up(&connection, fleet, &wares).await?;

    let http = millrace::http_client::http_client(Duration::from_secs(5), Duration::from_secs(5))
        .map_err(|e| Failure::new(e.to_string()))?;
    let injector = Arc::new(Injector::new(fleet.clone(), http));
    let give_up = CancellationToken::new();
    let api = fleet.wire(faults::Link::Customers).map(|wire| format!("http://{}", wire.address())).unwrap_or_default();
    let forgets = plan.kinds.0.contains(&Kind::PowerLoss);
    let deadline = settings.order.deadline.get();
    let (apis, run, nats_url) = (vec![api], plan.seed.to_string(), Some(fleet.nats_url.as_str()));
    let customers = Customers::new(apis, nats_url, run, deadline, forgets, give_up.clone()).await?;
    let customers = Arc::new(customers);
    let watched = Watched {
        orders: plan.orders,
        customers: customers.clone(),
        injector: injector.clone(),
        gatherer: gatherer.clone(),
    };

    let over = CancellationToken::new();
    // Also when this is dropped half-way.
    let _over = over.clone().drop_guard();
    phase.send_replace("breaking");
    let watching = tokio::spawn({
        let (fleet, over) = (fleet.clone(), over.clone());
        async move { fleet.watch(over).await }
    });
    let telling = tokio::spawn(progress::tell(watched, phase.subscribe(), quiet, over.clone()));
    let opening: BTreeMap<String, i64> = wares.iter().map(|ware| (ware.id.clone(), ware.opening)).collect();
    let mut evidence = Evidence { opening, adjustments: stories::deliveries(plan.orders), ..Evidence::default() };
    let sampling = tokio::spawn({
        let (connection, over) = (connection.clone(), over.clone());
        let (opening, adjustments) = (evidence.opening.clone(), evidence.adjustments.clone());
        async move { warehouse::watch(&connection, &opening, &adjustments, over).await }
    });

    // What happens.
    let begun = Instant::now();
    let schedule = faults::schedule(plan.seed, plan.length, &plan.kinds, plan.backend, plan.focus);
    let breaking = async {
        injector.follow(schedule, &give_up).await;
        // From here on nothing is broken any more.
        let limit = give_up.clone();
        tokio::spawn(async move {
            tokio::time::sleep(SETTLE_LIMIT).await;
            limit.cancel();
        });
    };
    let adjusting = async {
        tokio::time::sleep(plan.length / 2).await;
        warehouse::adjust(&connection, &evidence.adjustments, &give_up).await
    };
    let poison = stories::poison(plan.seed, plan.orders);
    let (wishes, mut poisoned, (), unbooked) = tokio::join!(
        customers.order(stories::stories(plan.seed, plan.orders, plan.focus), plan.every),
        customers.poison(poison.clone(), plan.length),
        breaking,
        adjusting,
    );
    if forgets {
        for (mark, again) in customers.poison(poison, Duration::ZERO).await {
            poisoned.entry(mark).or_default().published += again.published;
        }
    }
    let placing = begun.elapsed();
    (evidence.wishes, evidence.poison) = (wishes, poisoned);
    unbooked.into_iter().for_each(|what| fleet.problem(what));

    // Until it is over.
    phase.send_replace("settling");
    let settling = Instant::now();
    let unsettled = settle(&gatherer, forgets, plan.stuck_after()).await;
    let settling = settling.elapsed();
    over.cancel();
    let _ = tokio::join!(telling, watching);
    evidence.samples = sampling.await.unwrap_or_else(|_| Samples::default());

    // And what it left behind.
    gatherer.gather(&mut evidence).await.map_err(Failure::new)?;
    let log: String = customers.log().iter().map(|answer| format!("{answer}\n")).collect();
    let _ = std::fs::write(folder.path().join("answers.jsonl"), log);
    let findings = checks::all(&evidence);
    let report = Report {
        seed: plan.seed,
        place: Place::Own(plan.backend),
        without: plan.without,
        again: plan.command(),
        orders: plan.orders,
        placing,
        settling,
        took: Duration::ZERO,
        faults: injector.counts(),
        requests: Requests::of(&customers.counts),
        examples: report::examples(&findings, &evidence),
        findings,
        unsettled,
        problems: fleet.problems(),
        folder: None,
    };
    let _ = connection.close(Duration::from_secs(1)).await;
    Ok(report)
}

/// Puts the products on sale and waits until everybody knows.
async fn stock_up(connection: &millrace::connection::Connection, fleet: &Fleet, wares: &[Ware]) -> Result<(), Failure> {
    let products = wares.iter().map(Ware::product).collect::<Result<Vec<_>, _>>()?;
    catalog::import(connection, &products, false).await?;
    let api = crate::api_client::ApiClient::new(&format!("http://{}", fleet.places.api))?;
    let known = async {
        loop {
            let sold = api.get("/catalog").await.map(|answer| answer.body).unwrap_or_default();
            let sold = sold.get("products").and_then(|products| products.as_array()).map_or(0, Vec::len);
            let stocked = contracts::api::StockQuery::default();
            let subject = contracts::api::subjects::INVENTORY_STOCK;
            let stocked: Result<contracts::api::StockLevels, _> =
                millrace::request_reply::request_json(connection, subject, &stocked, Duration::from_secs(2)).await;
            if sold == wares.len() && stocked.is_ok_and(|stock| stock.levels.len() == wares.len()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let known = tokio::time::timeout(STOCKING_LIMIT, known).await;
    known.map_err(|_| Failure::new(format!("the products were not on sale within {STOCKING_LIMIT:?}")))
}

/// Waits until nothing is going on; what still is when there is no more time.
async fn settle(gatherer: &Gatherer, broker_forgets: bool, stuck_after: Duration) -> Vec<String> {
    let deadline = Instant::now() + SETTLE_LIMIT;
    // More than once, because what moves from one to the next is in neither for a moment; and longer where somebody has
    // to find out first that the broker has forgotten something.
    let enough = if broker_forgets { 8 } else { 2 };
    let mut quiet = 0;
    let (mut last, mut since) = (Vec::new(), Instant::now());
    loop {
        let open = gatherer.unsettled().await.unwrap_or_else(|reason| vec![reason]);
        quiet = if open.is_empty() { quiet + 1 } else { 0 };
        if quiet >= enough {
            return Vec::new();
        }
        // A message that the broker has yet to deliver again will change something.
        if open != last || gather::waits_for_messages(&open) {
            (last, since) = (open.clone(), Instant::now());
        }
        if Instant::now() >= deadline || since.elapsed() >= stuck_after {
            return open;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
