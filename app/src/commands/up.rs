//! `millrace up`: everything on this machine, to stay.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use contracts::notifications::NotificationSent;
use contracts::orders::{OrderCancelled, OrderConfirmed, OrderCreated};
use indicatif::{ProgressBar, ProgressStyle};
use millrace::config::Origin;
use millrace::event::Event;
use millrace::telemetry::{self, LogTarget};
use serde_json::json;
use std::io::IsTerminal;

use super::Context;
use super::produce::{self, Produced};
use crate::failure::{CommandResult, Failure};
use crate::output;
use crate::stack::{LocalOptions, LocalStack};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Demo orders a second; 0 for none
    #[arg(long, default_value_t = 1.0)]
    rate: f64,
    /// Where streams, databases and logs are kept
    #[arg(long, default_value = "millrace-data", value_name = "FOLDER")]
    data_dir: PathBuf,
    /// Port of nats-server
    #[arg(long, default_value_t = 4222)]
    nats_port: u16,
    /// Port of nats-server's monitoring
    #[arg(long, default_value_t = 8222)]
    nats_monitor_port: u16,
}

impl Default for Args {
    fn default() -> Self {
        Self { rate: 1.0, data_dir: "millrace-data".into(), nats_port: 4222, nats_monitor_port: 8222 }
    }
}

pub async fn run(mut context: Context, args: Args) -> CommandResult {
    produce::check_rate(args.rate)?;
    let started = Instant::now();
    let built_in = |setting: &str| matches!(context.effective.origin(setting), None | Some(Origin::BuiltIn));
    let external_nats = !built_in("nats.url");
    if built_in("database.url") {
        context.settings.database.url = format!("sqlite:{}/{{service}}.db", args.data_dir.display());
    }
    let live = std::io::stderr().is_terminal() && !context.json;
    if built_in("telemetry.log_file") {
        context.settings.telemetry.log_file = Some(args.data_dir.join("millrace.log"));
        // A person watches the status line, a program or a pipe gets the log.
        context.settings.telemetry.log_to = if live || context.json { LogTarget::None } else { LogTarget::Stdout };
    }
    let guard = telemetry::init(&context.settings.telemetry).map_err(|e| Failure::new(e.to_string()).usage())?;
    let shutdown = millrace::shutdown::on_signal().map_err(|e| Failure::new(e.to_string()))?;
    let as_json = context.json;
    let options = LocalOptions {
        data_dir: args.data_dir.clone(),
        external_nats,
        nats_port: args.nats_port,
        nats_monitor_port: args.nats_monitor_port,
    };
    let starting = LocalStack::start(context.settings, options, shutdown.clone(), move |text| {
        if !as_json {
            output::note(text);
        }
    });
    let mut stack = starting.await?;
    welcome(&stack, &args, as_json, started.elapsed());

    let produced = Arc::new(Produced::default());
    let producing =
        tokio::spawn(produce::place_orders(stack.api.clone(), args.rate, produced.clone(), shutdown.clone()));
    let status = tokio::spawn(show_status(live, produced, shutdown.clone()));
    let ended = tokio::select! {
        ended = stack.ended() => Some(ended),
        () = shutdown.cancelled() => None,
    };
    shutdown.cancel();
    let _ = tokio::join!(producing, status);
    if !as_json {
        output::note("Stopping: finishing what was begun.");
    }
    let result = match ended {
        Some(result) => {
            if let Some(nats) = &mut stack.nats {
                nats.stop().await;
            }
            result
        }
        None => stack.stop().await,
    };
    guard.shutdown().await;
    result?;
    if !as_json {
        output::note(&format!(
            "Stopped. Everything is kept in {}; `millrace up` goes on from there.",
            args.data_dir.display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn welcome(stack: &LocalStack, args: &Args, as_json: bool, took: Duration) {
    let settings = &stack.settings;
    let api = &stack.api_url;
    if as_json {
        output::json_line(&json!({
            "api": api, "ops": format!("http://{}", settings.ops.listen), "nats": settings.nats.url,
            "gateway": settings.payment.gateway.url, "mail": format!("http://{}", settings.simulators.mail_listen),
            "data": args.data_dir, "ready_after_ms": took.as_millis() as u64,
        }));
        return;
    }
    let nats = match &stack.nats {
        Some(server) => format!("{}, monitoring http://127.0.0.1:{}", server.url(), server.monitor_port().unwrap_or(0)),
        None => millrace::config::mask_url(&settings.nats.url),
    };
    let lines = [
        format!("Millrace is up after {:.1} s.", took.as_secs_f64()),
        String::new(),
        format!("  Orders         {api}          <- open it in a browser and watch"),
        format!("  Operations     http://{}/health   /readyz   /metrics", settings.ops.listen),
        format!("  Payments       {}/_control/ledger   what the simulated gateway saw", settings.payment.gateway.url),
        format!("  Mail           http://{}/messages   what customers were sent", settings.simulators.mail_listen),
        format!("  NATS           {nats}"),
        format!("  Data, log      {}", args.data_dir.display()),
        String::new(),
        "  Place an order:".to_owned(),
        format!("    curl -i {api}/orders -H 'Content-Type: application/json' \\"),
        r#"      -d '{"customer_id":"you","payment_method":"pm_card_visa","items":[{"product_id":"espresso-cup","quantity":2}]}'"#.to_owned(),
        String::new(),
        format!("  {} demo orders a second (--rate). Ctrl-C stops everything.", args.rate),
        String::new(),
    ];
    lines.iter().for_each(|line| output::line(line));
}

/// Keeps one line up to date until `stop`.
async fn show_status(live: bool, produced: Arc<Produced>, stop: tokio_util::sync::CancellationToken) {
    if !live {
        stop.cancelled().await;
        return;
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    while !stop.is_cancelled() {
        let counts = Counts::read();
        let refused = produced.refused.load(Ordering::Relaxed);
        bar.set_message(format!(
            "accepted {}   confirmed {}   cancelled {}   mails {}   retries {}   dead letters {}   refused {refused}",
            counts.created, counts.confirmed, counts.cancelled, counts.mails, counts.retries, counts.dead_letters
        ));
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
            () = stop.cancelled() => {}
        }
    }
    bar.finish();
}

/// What this process has done since it started, read from its own metrics.
#[derive(Debug, Default)]
struct Counts {
    created: u64,
    confirmed: u64,
    cancelled: u64,
    mails: u64,
    retries: u64,
    dead_letters: u64,
}

impl Counts {
    fn read() -> Self {
        let mut counts = Self::default();
        for line in telemetry::metrics::render().lines() {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let value = value.parse::<f64>().unwrap_or(0.0) as u64;
            let published = |subject: &str| {
                series.starts_with(telemetry::metrics::PUBLISHED) && series.contains(&format!("subject=\"{subject}\""))
            };
            if published(OrderCreated::SUBJECT) {
                counts.created += value;
            } else if published(OrderConfirmed::SUBJECT) {
                counts.confirmed += value;
            } else if published(OrderCancelled::SUBJECT) {
                counts.cancelled += value;
            } else if published(NotificationSent::SUBJECT) {
                counts.mails += value;
            } else if series.starts_with(telemetry::metrics::RETRIES) {
                counts.retries += value;
            } else if series.starts_with(telemetry::metrics::DEAD_LETTERS) {
                counts.dead_letters += value;
            }
        }
        counts
    }
}
