//! `millrace orders`: the order API from the command line.

use std::process::ExitCode;

use clap::Args;
use futures::StreamExt;
use serde_json::{Value, json};

use super::Context;
use crate::api_client::ApiClient;
use crate::failure::{CommandResult, Failure};
use crate::output;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Place an order
    Place(Place),
    /// Show one order
    Get(One),
    /// List orders, newest first
    List(List),
    /// Follow one order's events until it has ended
    Watch(One),
    /// Ask for an order to be cancelled
    Cancel(One),
    /// Show what happened to an order, event by event
    Timeline(One),
}

#[derive(Debug, Args)]
pub struct Api {
    /// Address of the order API [default: http.listen on this machine]
    #[arg(long, env = "MILLRACE_URL")]
    url: Option<String>,
}

#[derive(Debug, Args)]
pub struct One {
    /// The order's id
    order_id: String,
    #[command(flatten)]
    api: Api,
}

#[derive(Debug, Args)]
pub struct Place {
    /// What to order: PRODUCT or PRODUCT=QUANTITY, several times for several products
    #[arg(required = true, value_name = "PRODUCT[=QUANTITY]")]
    items: Vec<String>,
    #[arg(long, default_value = "cli-customer")]
    customer: String,
    #[arg(long)]
    email: Option<String>,
    /// In international form: +4915112345678
    #[arg(long)]
    phone: Option<String>,
    /// The payment gateway's token
    #[arg(long, default_value = "pm_card_visa")]
    payment_method: String,
    /// Repeating a call with the same key does not place a second order
    #[arg(long)]
    idempotency_key: Option<String>,
    /// Follow the order until it has ended
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    api: Api,
}

#[derive(Debug, Args)]
pub struct List {
    /// processing, confirmed or cancelled
    #[arg(long)]
    status: Option<String>,
    #[arg(long)]
    customer: Option<String>,
    #[arg(long, default_value_t = 20)]
    limit: u32,
    /// Where the last page ended
    #[arg(long)]
    cursor: Option<String>,
    #[command(flatten)]
    api: Api,
}

impl Api {
    fn client(&self, context: &Context) -> Result<ApiClient, Failure> {
        let default = || format!("http://127.0.0.1:{}", context.settings.http.listen.port());
        ApiClient::new(&self.url.clone().unwrap_or_else(default))
    }
}

pub async fn run(context: &Context, command: Command) -> CommandResult {
    match command {
        Command::Place(args) => place(context, args).await,
        Command::Get(one) => {
            let order = one.api.client(context)?.get(&format!("/orders/{}", one.order_id)).await?.success()?;
            output::json(&order);
            Ok(ExitCode::SUCCESS)
        }
        Command::List(args) => list(context, args).await,
        Command::Watch(one) => watch(context, &one.api.client(context)?, &one.order_id).await,
        Command::Cancel(one) => {
            let order = one.api.client(context)?.cancel(&one.order_id).await?.success()?;
            show_order(context, &order);
            Ok(ExitCode::SUCCESS)
        }
        Command::Timeline(one) => {
            let path = format!("/orders/{}/timeline", one.order_id);
            let timeline = one.api.client(context)?.get(&path).await?.success()?;
            if context.json {
                output::json(&timeline);
            } else {
                entries(&timeline).iter().for_each(|entry| output::line(&timeline_line(entry)));
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn place(context: &Context, args: Place) -> CommandResult {
    let items = args.items.iter().map(|item| parse_item(item)).collect::<Result<Vec<_>, _>>()?;
    let mut order = json!({ "customer_id": args.customer, "payment_method": args.payment_method, "items": items });
    if let Some(email) = &args.email {
        order["email"] = json!(email);
    }
    if let Some(phone) = &args.phone {
        order["phone"] = json!(phone);
    }
    let client = args.api.client(context)?;
    let placed = client.place(&order, args.idempotency_key.as_deref()).await?.success()?;
    show_order(context, &placed);
    match placed.get("order_id").and_then(Value::as_str) {
        Some(order_id) if args.watch => watch(context, &client, order_id).await,
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn parse_item(text: &str) -> Result<Value, Failure> {
    let (product, quantity) = text.split_once('=').unwrap_or((text, "1"));
    let wrong = || {
        Failure::new(format!("{text:?} is not an item"))
            .remedy("write PRODUCT=QUANTITY, for example coffee-beans-1kg=2")
            .usage()
    };
    let quantity: u32 = quantity.parse().map_err(|_| wrong())?;
    if product.is_empty() { Err(wrong()) } else { Ok(json!({ "product_id": product, "quantity": quantity })) }
}

async fn list(context: &Context, args: List) -> CommandResult {
    let mut query = vec![format!("limit={}", args.limit)];
    let optional = [("status", &args.status), ("customer_id", &args.customer), ("cursor", &args.cursor)];
    query.extend(optional.iter().filter_map(|(name, value)| value.as_ref().map(|v| format!("{name}={v}"))));
    let page = args.api.client(context)?.get(&format!("/orders?{}", query.join("&"))).await?.success()?;
    if context.json {
        output::json(&page);
        return Ok(ExitCode::SUCCESS);
    }
    let orders = page.get("orders").and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |order: &Value, name: &str| order.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
    output::table(
        &["ORDER", "STATUS", "TOTAL", "CUSTOMER", "CREATED"],
        orders.iter().map(|order| {
            vec![
                text(order, "order_id"),
                status_of(order),
                total_of(order),
                text(order, "customer_id"),
                text(order, "created_at"),
            ]
        }),
    );
    if let Some(cursor) = page.get("next_cursor").and_then(Value::as_str) {
        output::note(&format!("more: millrace orders list --cursor {cursor}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints each event of an order as it happens. Ends when the order has ended and nothing more follows from it.
async fn watch(context: &Context, client: &ApiClient, order_id: &str) -> CommandResult {
    client.get(&format!("/orders/{order_id}")).await?.success()?;
    let response = client.stream(order_id).await?;
    let mut chunks = response.bytes_stream();
    let mut buffer = String::new();
    let mut seen = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|e| Failure::new(format!("the stream broke off: {e}")).remedy("run the command again"))?;
        buffer.push_str(&String::from_utf8_lossy(&chunk));
        while let Some(end) = buffer.find("\n\n") {
            let block: String = buffer.drain(..end + 2).collect();
            let data: String =
                block.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim_start).collect();
            let Ok(entry) = serde_json::from_str::<Value>(&data) else { continue };
            if context.json {
                output::json_line(&entry);
            } else {
                output::line(&timeline_line(&entry));
            }
            seen.extend(entry.get("event").and_then(Value::as_str).map(str::to_owned));
            if has_ended(&seen) {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether all that follows from an order's end has happened: money and stock are where they belong.
fn has_ended(events: &[String]) -> bool {
    let any = |names: &[&str]| events.iter().any(|event| names.contains(&event.as_str()));
    let money_settled =
        any(&["payments.captured", "payments.voided", "payments.refunded", "payments.declined", "payments.failed"]);
    let stock_settled = any(&["inventory.committed", "inventory.released", "inventory.rejected"]);
    any(&["orders.confirmed", "orders.cancelled"]) && money_settled && stock_settled
}

fn show_order(context: &Context, order: &Value) {
    if context.json {
        output::json(order);
        return;
    }
    let id = order.get("order_id").and_then(Value::as_str).unwrap_or("?");
    output::line(&format!("order {id}  {}  {}", status_of(order), total_of(order)));
}

fn status_of(order: &Value) -> String {
    let status = order.get("status").and_then(Value::as_str).unwrap_or("?");
    match order.get("reason").and_then(Value::as_str) {
        Some(reason) => format!("{status} ({reason})"),
        None => status.to_owned(),
    }
}

fn total_of(order: &Value) -> String {
    let money = order.get("total").and_then(|total| serde_json::from_value::<contracts::Money>(total.clone()).ok());
    money.map(|money| money.to_string()).unwrap_or_default()
}

fn entries(timeline: &Value) -> Vec<Value> {
    timeline.get("timeline").and_then(Value::as_array).cloned().unwrap_or_default()
}

/// `12:00:01.123  payments.authorized  payment`
pub fn timeline_line(entry: &Value) -> String {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or("");
    format!("{:<28} {:<26} {}", text("at"), text("event"), text("service"))
}
