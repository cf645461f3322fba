//! `millrace produce`: demo orders at a steady rate, over the HTTP API like any customer.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millrace::health::Health;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Context;
use crate::api_client::ApiClient;
use crate::failure::{CommandResult, Failure};
use crate::output;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Orders a second; 0 places none
    #[arg(long, default_value_t = 1.0)]
    rate: f64,
    /// Address of the order API [default: http.listen on this machine]
    #[arg(long, env = "MILLRACE_URL")]
    url: Option<String>,
    /// Serve /readyz and /metrics here, for a container's health check
    #[arg(long)]
    ops_listen: Option<SocketAddr>,
}

/// What a producer has done so far.
#[derive(Debug, Default)]
pub struct Produced {
    pub accepted: AtomicU64,
    pub refused: AtomicU64,
}

/// Faster than this the producer would measure itself; `millrace bench` is for that.
const MAX_RATE: f64 = 1_000.0;
/// Orders that may be on their way at once; beyond that the API is slower than the rate, and ticks are left out.
const MAX_IN_FLIGHT: usize = 64;

pub async fn run(context: &Context, args: Args) -> CommandResult {
    check_rate(args.rate)?;
    let shutdown = millrace::shutdown::on_signal().map_err(|e| Failure::new(e.to_string()))?;
    let url = args.url.unwrap_or_else(|| format!("http://127.0.0.1:{}", context.settings.http.listen.port()));
    let health = Health::default();
    health.component("producer").ready();
    if let Some(address) = args.ops_listen {
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .map_err(|e| Failure::new(format!("--ops-listen {address}: {e}")).usage())?;
        tokio::spawn(millrace::ops::serve(listener, health, shutdown.clone()));
    }
    let produced = Arc::new(Produced::default());
    let reporting = report(context.json, produced.clone(), shutdown.clone());
    tokio::join!(place_orders(ApiClient::new(&url)?, args.rate, produced, shutdown), reporting);
    Ok(ExitCode::SUCCESS)
}

pub fn check_rate(rate: f64) -> Result<(), Failure> {
    if rate.is_finite() && (0.0..=MAX_RATE).contains(&rate) {
        return Ok(());
    }
    Err(Failure::new(format!("--rate {rate} is not a rate")).remedy(format!("a number from 0 to {MAX_RATE}")).usage())
}

/// Places orders until `stop`; an API that is away is waited for.
pub async fn place_orders(api: ApiClient, rate: f64, produced: Arc<Produced>, stop: CancellationToken) {
    if rate <= 0.0 {
        stop.cancelled().await;
        return;
    }
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut on_their_way = tokio::task::JoinSet::new();
    for number in 0_u64.. {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => break,
        }
        while on_their_way.try_join_next().is_some() {}
        if on_their_way.len() >= MAX_IN_FLIGHT {
            continue;
        }
        let (api, produced) = (api.clone(), produced.clone());
        on_their_way.spawn(async move {
            let accepted = api.place(&demo_order(number), None).await.is_ok_and(|answer| answer.status == 202);
            let counter = if accepted { &produced.accepted } else { &produced.refused };
            counter.fetch_add(1, Ordering::Relaxed);
        });
    }
    while on_their_way.join_next().await.is_some() {}
}

/// Mostly good orders, and now and then one that cannot work, so that every path of the pipeline is seen.
fn demo_order(number: u64) -> Value {
    let products = ["coffee-beans-1kg", "espresso-cup", "grinder", "espresso-machine"];
    let product = |n: u64| products[(n % products.len() as u64) as usize];
    let payment_method = if number % 10 == 7 { "pm_card_chargeDeclined" } else { "pm_card_visa" };
    let mut items = vec![json!({ "product_id": product(number), "quantity": 1 + number % 3 })];
    if number % 10 == 4 {
        items = vec![json!({ "product_id": "signed-poster", "quantity": 1 })];
    } else if number.is_multiple_of(3) {
        items.push(json!({ "product_id": product(number + 1), "quantity": 1 }));
    }
    json!({
        "customer_id": format!("demo-customer-{}", number % 25),
        "email": format!("customer{}@example.org", number % 25),
        "payment_method": payment_method,
        "items": items,
    })
}

async fn report(as_json: bool, produced: Arc<Produced>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(10)) => {}
            () = stop.cancelled() => {}
        }
        let (accepted, refused) = (produced.accepted.load(Ordering::Relaxed), produced.refused.load(Ordering::Relaxed));
        if as_json {
            output::json_line(&json!({ "accepted": accepted, "refused": refused }));
        } else {
            output::line(&format!("{accepted} orders accepted, {refused} refused or unanswered"));
        }
        if stop.is_cancelled() {
            return;
        }
    }
}
