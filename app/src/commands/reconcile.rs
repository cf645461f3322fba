//! `millrace reconcile`: holds against each other what order, payment, inventory, notification, the gateway and the streams
//! say about each order. Safe to run while everything runs, and twice.

mod compare;
pub mod database;
mod facts;
mod fix;
mod judge;
mod report;
mod scratch;
mod sources;

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use contracts::OrderId;
use indicatif::{ProgressBar, ProgressStyle};
use millrace::config::HumanDuration;
use payment::gateway::Gateway;
use time::OffsetDateTime;

use self::compare::{Compared, Scope, Sides};
use self::fix::Done;
use self::judge::{Disagreement, Moment};
use self::report::Report;
use super::Context;
use crate::failure::{CommandResult, Failure};
use crate::stack;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Apply what is safe: deliver events again to whom never handled them, publish again what the broker has lost, have
    /// holds released that are on no record
    #[arg(long)]
    fix: bool,
    /// Only this order
    #[arg(long, value_name = "ORDER_ID", conflicts_with = "since")]
    order: Option<OrderId>,
    /// Only orders to which something happened within this time: 90s, 1h, 7d
    #[arg(long, value_name = "DURATION")]
    since: Option<HumanDuration>,
    /// Leave alone orders to which something happened more recently: it may be under way
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    older_than: HumanDuration,
    /// How long to wait after --fix for the services to have done what they were told
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    wait: HumanDuration,
    /// Compare without the payment gateway
    #[arg(long)]
    skip_gateway: bool,
}

/// How often it is looked whether fixes have had their effect.
const LOOK_EVERY: Duration = Duration::from_millis(300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

pub async fn run(context: &Context, args: Args) -> CommandResult {
    let settings = &context.settings;
    // Fixed once: what happens while this runs must not be taken for settled.
    let began_ms = now_ms();
    let settled_before = began_ms - millis(args.older_than.get());
    let gateway = if args.skip_gateway { None } else { Some(gateway(settings)?) };
    let connection = stack::connect(settings, "reconcile").await?;
    let scope = Scope {
        order: args.order.map(|order| order.to_string()),
        since: args.since.map(|since| OffsetDateTime::now_utc() - since.get()),
        began_ms,
    };
    let moment = Moment {
        settled_before,
        overdue_before: settled_before,
        keys_known_since: began_ms - millis(settings.payment.authorize_within.get()),
    };
    let mut sides = Sides::open(settings, connection, gateway, scope).await?;
    let bar = bar(context);
    sides.refresh(|text| bar.set_message(text.to_owned())).await?;
    let compared = sides
        .all(moment, |orders, found| {
            bar.set_message(format!("{orders} orders compared, {found} disagreements"));
        })
        .await?;
    let mut report = Report::of(compared);
    if args.fix {
        report = mend(&mut sides, report, moment, args.wait.get(), &bar).await?;
    }
    bar.finish_and_clear();
    report.show(context.json, args.fix);
    Ok(if report.disagreements.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Applies every safe fix once, and waits until what they were for agrees, or for as long as that may take.
async fn mend(
    sides: &mut Sides,
    before: Report,
    moment: Moment,
    wait: Duration,
    bar: &ProgressBar,
) -> Result<Report, Failure> {
    let mut wanted = BTreeSet::new();
    for one in &before.disagreements {
        if let Some(order) = &one.order_id {
            wanted.extend(one.fixes.iter().map(|fix| (order.clone(), fix.clone())));
        }
    }
    if wanted.is_empty() {
        return Ok(before);
    }
    let mut done: Vec<Done> = Vec::with_capacity(wanted.len());
    for (order, fix) in &wanted {
        done.push(fix::apply(sides, order, fix).await);
        bar.set_message(format!("{} of {} fixes applied", done.len(), wanted.len()));
    }
    let touched: BTreeSet<String> = wanted.into_iter().map(|(order, _)| order).collect();
    let began = Instant::now();
    let now = loop {
        sides.refresh(|_| {}).await?;
        // What was just mended is not left alone for being recent.
        let now = sides.again(&touched, Moment { settled_before: i64::MAX, ..moment }).await?;
        let hopeless = now.found.iter().all(|one| one.fixes.is_empty()) && began.elapsed() > LOOK_EVERY;
        if now.found.is_empty() || (hopeless && is_quiet(&now, &before)) || began.elapsed() >= wait {
            break now;
        }
        bar.set_message(format!("waiting for {} fixes to have their effect", done.len()));
        tokio::time::sleep(LOOK_EVERY).await;
    };
    Ok(before.after(now, &touched, done))
}

/// Whether whatever is left was there before: nothing that a fix has set going is still under way.
fn is_quiet(now: &Compared, before: &Report) -> bool {
    let known = |one: &Disagreement| before.disagreements.iter().any(|was| was.is_same(one));
    now.found.iter().all(known)
}

fn gateway(settings: &crate::settings::Settings) -> Result<Gateway, Failure> {
    let settings = &settings.payment.gateway;
    let client = millrace::http_client::http_client(Duration::from_millis(settings.timeout_ms), CONNECT_TIMEOUT)
        .map_err(|e| Failure::new(e.to_string()))?;
    Gateway::new(client, settings).map_err(|e| Failure::new(e.to_string()).usage())
}

/// Shown on a terminal alone.
fn bar(context: &Context) -> ProgressBar {
    if context.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(100));
    match ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn now_ms() -> i64 {
    (OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000) as i64
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
