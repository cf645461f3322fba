//! `millrace payments`: what does not go on by itself, and the ways out. Asks the payment service, over request/reply.

use std::process::ExitCode;
use std::time::Duration;

use contracts::OrderId;
use contracts::api::{
    OrderQuery, PaymentQuery, PaymentRecord, PaymentRecords, PaymentRelease, PaymentSettlement, Settled, subjects,
};
use millrace::connection::Connection;
use millrace::dead_letters::audit::operator;
use millrace::request_reply::{RequestError, request_json};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Context;
use crate::audit::{self, Entry};
use crate::failure::{CommandResult, Failure};
use crate::{output, stack};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Payments that are not finished: a step is due, or one has failed for good
    List {
        /// Only those that nothing but an operator can bring to an end
        #[arg(long)]
        needs_operator: bool,
    },
    /// One payment: where it stands, why, what to do, and what was done about it
    Show { order_id: OrderId },
    /// Have the gateway asked once more for the step that it refused for good
    Retry {
        order_id: OrderId,
        #[command(flatten)]
        by: By,
    },
    /// Put on record how a payment was settled that failed for good
    Settle {
        order_id: OrderId,
        /// Where the money is
        #[arg(long = "as", value_enum)]
        settled: Way,
        /// What was done, for whoever asks later
        #[arg(long, value_name = "TEXT")]
        note: String,
        #[command(flatten)]
        by: By,
    },
    /// Release a hold that the gateway has for an order that is off, and that is on no record
    Release {
        order_id: OrderId,
        /// The gateway's name for it: pi_...
        payment_id: String,
        /// Nobody here knows the order, and nobody else uses this account of the gateway
        #[arg(long)]
        order_is_unknown: bool,
        #[command(flatten)]
        by: By,
    },
}

#[derive(Debug, clap::Args)]
pub struct By {
    /// Who stands in the audit [default: $USER@host]
    #[arg(long, value_name = "WHO")]
    by: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// The customer was charged
    Captured,
    /// Nothing is on hold any more, and nothing was charged
    Voided,
    /// The customer has the money back
    Refunded,
}

/// Longer than one call to the gateway takes, as the service has it by default.
const PATIENCE: Duration = Duration::from_secs(15);

pub async fn run(context: &Context, command: Command) -> CommandResult {
    let connection = stack::connect(&context.settings, "payments").await?;
    match command {
        Command::List { needs_operator } => {
            let query = PaymentQuery { needs_operator, ..PaymentQuery::default() };
            let found: PaymentRecords = ask(&connection, subjects::PAYMENT_LIST, &query).await?;
            list(context, &found.payments, needs_operator);
        }
        Command::Show { order_id } => show(context, &connection, order_id).await?,
        Command::Retry { order_id, by } => {
            let question = OrderQuery { order_id };
            let done = act(&connection, subjects::PAYMENT_RETRY, &question, order_id, by, "retried", json!({})).await?;
            tell(context, &done);
            return Ok(if done.needs_operator { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
        Command::Settle { order_id, settled, note, by } => {
            if note.trim().is_empty() {
                return Err(Failure::new("--note is empty")
                    .remedy("say what was done, for whoever asks later")
                    .usage());
            }
            let settled = Settled::from(settled);
            let (question, detail) = (PaymentSettlement { order_id, settled }, json!({ "as": settled, "note": note }));
            let done = act(&connection, subjects::PAYMENT_SETTLE, &question, order_id, by, "settled", detail).await?;
            tell(context, &done);
        }
        Command::Release { order_id, payment_id, order_is_unknown, by } => {
            let detail = json!({ "payment_id": payment_id });
            let question = PaymentRelease { order_id, payment_id, order_is_unknown };
            let done = act(&connection, subjects::PAYMENT_RELEASE, &question, order_id, by, "released", detail).await?;
            tell(context, &done);
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl From<Way> for Settled {
    fn from(way: Way) -> Self {
        match way {
            Way::Captured => Self::Captured,
            Way::Voided => Self::Voided,
            Way::Refunded => Self::Refunded,
        }
    }
}

async fn ask<T: DeserializeOwned>(
    connection: &Connection,
    subject: &str,
    question: &impl Serialize,
) -> Result<T, Failure> {
    request_json(connection, subject, question, PATIENCE).await.map_err(|error| match error {
        RequestError::Service { error, .. } if error.code == 503 => Failure::new(error.description)
            .remedy("nothing was changed: see that the gateway answers, millrace doctor, and try again"),
        RequestError::Service { error, .. } => Failure::new(error.description),
        error => Failure::new(format!("the payment service: {error}"))
            .remedy("is it running? millrace serve payment, or millrace doctor"),
    })
}

/// Has something done, and writes down who wanted it and what came of it.
async fn act(
    connection: &Connection,
    subject: &str,
    question: &impl Serialize,
    order_id: OrderId,
    by: By,
    action: &str,
    mut detail: Value,
) -> Result<PaymentRecord, Failure> {
    let done: Result<PaymentRecord, Failure> = ask(connection, subject, question).await;
    detail["outcome"] = match &done {
        Ok(record) => json!(record.state),
        Err(failure) => json!(failure.message),
    };
    let entry = Entry::new(by.by.unwrap_or_else(operator), action, detail);
    if let Err(why) = audit::write(connection, &order_id.to_string(), &entry).await {
        output::note(&format!("the audit could not be written: {why}"));
    }
    done
}

fn list(context: &Context, payments: &[PaymentRecord], needs_operator: bool) {
    if context.json {
        return output::json(&json!({ "count": payments.len(), "payments": payments }));
    }
    if payments.is_empty() {
        return output::note(if needs_operator {
            "No payment needs an operator."
        } else {
            "Every payment is finished."
        });
    }
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let row = |p: &PaymentRecord| {
        let amount = p.amount.map(|amount| amount.to_string()).unwrap_or_default();
        let since = at(p.updated_at.0);
        vec![p.order_id.to_string(), p.state.clone(), since, amount, text(&p.payment_id), text(&p.problem)]
    };
    output::table(&["ORDER", "STATE", "SINCE", "AMOUNT", "AT THE GATEWAY", "PROBLEM"], payments.iter().map(row));
    if payments.iter().any(|payment| payment.needs_operator) {
        output::note("next: millrace payments show ORDER");
    }
}

async fn show(context: &Context, connection: &Connection, order_id: OrderId) -> Result<(), Failure> {
    let query = PaymentQuery { order_id: Some(order_id), ..PaymentQuery::default() };
    let found: PaymentRecords = ask(connection, subjects::PAYMENT_LIST, &query).await?;
    let history = audit::of(connection, &order_id.to_string()).await.map_err(Failure::new)?;
    let Some(payment) = found.payments.first() else {
        return Err(Failure::new(format!("no payment of the order {order_id} is known")));
    };
    if context.json {
        output::json(&json!({ "payment": payment, "what_to_do": what_to_do(payment), "history": history }));
        return Ok(());
    }
    tell(context, payment);
    for line in what_to_do(payment) {
        output::line(&format!("  -> {line}"));
    }
    if !history.is_empty() {
        output::line("what was done about it:");
    }
    for entry in &history {
        output::line(&format!("  {}  {}  {}  {}", at(entry.at), entry.who, entry.action, entry.detail));
    }
    Ok(())
}

fn tell(context: &Context, payment: &PaymentRecord) {
    if context.json {
        return output::json(payment);
    }
    let field = |name: &str, value: String| output::line(&format!("{name:<12} {value}"));
    let none = || "none".to_owned();
    field("order", payment.order_id.to_string());
    field("state", payment.state.clone());
    field("since", at(payment.updated_at.0));
    field("amount", payment.amount.map_or_else(none, |amount| amount.to_string()));
    field("gateway", payment.payment_id.clone().unwrap_or_else(none));
    let order = match (payment.cancelled, payment.confirmed) {
        (true, _) => "cancelled",
        (false, true) => "confirmed",
        (false, false) => "not ended",
    };
    field("the order is", order.to_owned());
    field("problem", payment.problem.clone().unwrap_or_else(none));
}

/// To the second.
fn at(time: OffsetDateTime) -> String {
    time.replace_nanosecond(0).unwrap_or(time).format(&Rfc3339).unwrap_or_default()
}

/// An operator's ways out, the best first.
fn what_to_do(payment: &PaymentRecord) -> Vec<String> {
    let order = payment.order_id;
    let id = payment.payment_id.as_deref().unwrap_or("the order's payment");
    let retry = format!("millrace payments retry {order}");
    let settle = |way: &str| format!("millrace payments settle {order} --as {way} --note TEXT");
    match payment.state.as_str() {
        _ if !payment.needs_operator => Vec::new(),
        "authorize_unknown" => vec![
            format!("has the gateway asked whether it holds the money, and releases it if so: {retry}"),
            format!("or, once you have seen at the gateway that nothing is on hold: {}", settle("voided")),
        ],
        "capture_failed" => vec![
            format!("look at {id} at the gateway; then have it captured: {retry}"),
            format!("or get the money otherwise, and say so: {}", settle("captured")),
            format!("or let it go, release {id} at the gateway, and say so: {}", settle("voided")),
        ],
        "void_failed" => vec![
            format!("look at {id} at the gateway; then have it released: {retry}"),
            format!("or, if it was captured there, refund it there and say so: {}", settle("refunded")),
        ],
        _ => vec![
            format!("look at {id} at the gateway; then have it refunded: {retry}"),
            format!("or pay the customer back otherwise, and say so: {}", settle("refunded")),
        ],
    }
}
