//! `millrace verify --target`: orders at a system that is deployed already, used by others too, and the checks of what
//! became of these orders. Nothing is broken, and only what this run has ordered is judged.
//!
//! | where | what |
//! | --- | --- |
//! | `reach` | what of the system can be looked at from here, and why the rest cannot |
//! | `gather`, `books` | evidence about the orders of this run, from whatever can be looked at |
//! | `judge` | which invariants that is enough for |

mod books;
mod gather;
mod judge;
mod reach;

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use order::api::view::CatalogView;
use tokio_util::sync::CancellationToken;

use self::gather::Gatherer;
use self::reach::Reach;
use super::checks::Finding;
use super::customers::Customers;
use super::evidence::Evidence;
use super::report::{self, Place, Report, Requests};
use super::stories::{self, Ware};
use super::{Args, EXIT_INTERRUPTED};
use crate::api_client::ApiClient;
use crate::commands::Context;
use crate::failure::{CommandResult, Failure};
use crate::output;

#[derive(Debug, clap::Args)]
pub struct Target {
    /// Place the orders at a system that is deployed: addresses of its order API, used in turn. Its NATS, databases and
    /// gateway are looked at as far as the settings lead there. Its cards exist at test gateways alone
    #[arg(long = "target", value_name = "URL", num_args = 1.., value_delimiter = ',')]
    urls: Vec<String>,
    /// Where the simulated gateway of the target shows its ledger [default: payment.gateway.url]
    #[arg(long, value_name = "URL", requires = "urls")]
    ledger: Option<String>,
    /// Where the simulated mail server of the target shows its mail [default: simulators.mail_listen]
    #[arg(long, value_name = "URL", requires = "urls")]
    mailbox: Option<String>,
    /// How long the target may take until all that follows from the last order has happened
    #[arg(long, value_name = "DURATION", default_value = "2m", requires = "urls")]
    settle: millrace::config::HumanDuration,
}

impl Target {
    pub fn is_given(&self) -> bool {
        !self.urls.is_empty()
    }
}

/// Different products that are ordered.
const WARES: usize = 12;
/// How long a customer tries, after the last order was begun.
const LAST_TRIES: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What holds has to hold twice: something may still be on its way.
const TWICE: u32 = 2;
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What is done, and at what.
struct Trial {
    urls: Vec<String>,
    seed: u64,
    orders: u32,
    every: Duration,
    /// Tells the orders of this run from those of every other.
    name: String,
    settle: Duration,
    quiet: bool,
}

impl Trial {
    fn of(context: &Context, args: &Args) -> Result<Self, Failure> {
        if args.faults.as_ref().is_some_and(|kinds| !kinds.0.is_empty()) {
            let wrong = Failure::new("--faults breaks what it has started itself, and nothing of a --target");
            return Err(wrong.remedy("leave --faults out, or --faults none").usage());
        }
        let key = &context.settings.payment.gateway.secret_key;
        if ["sk_live_", "rk_live_"].iter().any(|live| key.starts_with(live)) {
            let wrong = Failure::new("payment.gateway.secret_key is a live key: there is real money behind the target");
            return Err(wrong.remedy("verify a system whose gateway is a test account or the simulator").usage());
        }
        let mut urls = Vec::new();
        for url in &args.target.urls {
            let parsed = reqwest::Url::parse(url).ok().filter(|url| url.has_host() && url.scheme().starts_with("http"));
            let Some(parsed) = parsed else {
                let wrong = Failure::new(format!("--target {url} is not the address of an order API"));
                return Err(wrong.remedy("for example --target http://127.0.0.1:8080").usage());
            };
            urls.push(parsed.as_str().trim_end_matches('/').to_owned());
        }
        let (orders, rate) = args.load()?;
        Ok(Self {
            urls,
            seed: args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000)),
            orders,
            every: Duration::from_secs_f64(rate.recip()),
            name: format!("verify-{}", uuid::Uuid::now_v7().simple()),
            settle: args.target.settle.get(),
            quiet: context.json,
        })
    }

    fn command(&self) -> String {
        let Self { seed, orders, every, urls, .. } = self;
        let rate = every.as_secs_f64().recip();
        format!("millrace verify --target {} --seed {seed} --orders {orders} --rate {rate}", urls.join(","))
    }

    fn say(&self, text: &str) {
        if !self.quiet {
            output::note(text);
        }
    }
}

pub async fn run(context: Context, args: Args) -> CommandResult {
    let trial = Trial::of(&context, &args)?;
    let shutdown = millrace::shutdown::on_signal().map_err(|e| Failure::new(e.to_string()))?;
    let report = tokio::select! {
        report = perform(&context, &args, &trial) => report?,
        () = shutdown.cancelled() => return Err(Failure { exit: EXIT_INTERRUPTED, ..Failure::new("interrupted") }),
    };
    if context.json {
        output::json(&report.to_json());
    } else {
        report.print();
    }
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn perform(context: &Context, args: &Args, trial: &Trial) -> Result<Report, Failure> {
    let started = Instant::now();
    let wares = wares(&trial.urls).await?;
    let reach = Reach::probe(&context.settings, args.target.ledger.as_deref(), args.target.mailbox.as_deref()).await;
    trial.say(&format!("Seed {}: {} orders of {} at {}", trial.seed, trial.orders, trial.name, trial.urls.join(", ")));
    reach.lines().iter().for_each(|line| trial.say(line));
    let gatherer = Gatherer::new(reach, &trial.urls).await.map_err(Failure::new)?;

    let give_up = CancellationToken::new();
    let limit = trial.every * trial.orders + LAST_TRIES;
    let customers = Customers::new(
        trial.urls.clone(),
        None,
        trial.name.clone(),
        context.settings.order.deadline.get(),
        false,
        give_up.clone(),
    );
    let customers = std::sync::Arc::new(customers.await?);
    let stories = stories::modest_stories(trial.seed, trial.orders, &trial.name, &wares, gatherer.is_simulated());
    let begun = Instant::now();
    let mut evidence = Evidence::default();
    let giving_up = async {
        tokio::time::sleep(limit).await;
        give_up.cancel();
        std::future::pending::<()>().await;
    };
    let telling = async {
        loop {
            tokio::time::sleep(TELL_EVERY).await;
            let accepted = customers.counts.accepted.load(Ordering::Relaxed);
            trial.say(&format!("{accepted} of {} orders accepted", trial.orders));
        }
    };
    evidence.wishes = tokio::select! {
        wishes = customers.order(stories, trial.every) => wishes,
        () = giving_up => Vec::new(),
        () = telling => Vec::new(),
    };
    // In a system of others any product can be sold out at any time.
    evidence.wishes.iter_mut().for_each(|wish| wish.wants_scarce = true);
    let placing = begun.elapsed();
    trial.say("Waiting until everything that follows from them has happened.");
    let settling = Instant::now();
    let (findings, evidence) = settle(&gatherer, evidence, trial.settle).await.map_err(Failure::new)?;
    let mut problems = Vec::new();
    if !evidence.orders.values().any(|order| order.status == "confirmed") {
        problems
            .push("no order was confirmed, so this run shows little: is there stock, and a test gateway?".to_owned());
    }
    Ok(Report {
        seed: trial.seed,
        place: Place::Target(trial.urls.clone()),
        without: None,
        again: trial.command(),
        orders: trial.orders,
        placing,
        settling: settling.elapsed(),
        took: started.elapsed(),
        faults: Default::default(),
        requests: Requests::of(&customers.counts),
        examples: report::examples(&findings, &evidence),
        findings,
        unsettled: Vec::new(),
        problems,
        folder: None,
    })
}

/// Looks until nothing is wrong any more, or there is no more time.
async fn settle(gatherer: &Gatherer, placed: Evidence, limit: Duration) -> Result<(Vec<Finding>, Evidence), String> {
    let deadline = Instant::now() + limit;
    let mut held = 0;
    loop {
        let gathered = match gatherer.gather(placed.clone()).await {
            Ok(gathered) => gathered,
            // An instance may be restarting.
            Err(_) if Instant::now() < deadline => {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            Err(reason) => return Err(reason),
        };
        let (findings, evidence) = judge::judge(gathered);
        let holds = findings.iter().all(|finding| finding.violations.is_empty());
        held = if holds { held + 1 } else { 0 };
        if held >= TWICE || (!holds && Instant::now() >= deadline) {
            return Ok((findings, evidence));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Some of what the target sells, of one currency.
async fn wares(urls: &[String]) -> Result<Vec<Ware>, Failure> {
    let mut wares: Option<Vec<Ware>> = None;
    // Each address has to be one of an order API.
    for url in urls {
        let catalog = ApiClient::new(url)?.get("/catalog").await?.success()?;
        let catalog: CatalogView = serde_json::from_value(catalog).map_err(|e| {
            Failure::new(format!("{url}/catalog is not the catalog of an order API: {e}")).remedy("check --target")
        })?;
        let sold: Vec<_> = catalog.products.into_iter().filter(|product| product.unit_price.minor > 0).collect();
        let Some(currency) = sold.first().map(|product| product.unit_price.currency) else {
            let empty = Failure::new(format!("the catalog of {url} has nothing to sell"));
            return Err(empty.remedy("millrace catalog import"));
        };
        let of_one = sold.into_iter().filter(|product| product.unit_price.currency == currency).take(WARES);
        let ware = |product: order::api::view::ProductView| Ware {
            id: product.product_id.to_string(),
            price: product.unit_price.minor,
            opening: 0,
        };
        wares.get_or_insert_with(|| of_one.map(ware).collect());
    }
    Ok(wares.unwrap_or_default())
}
