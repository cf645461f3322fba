//! Carries out what is safe: telling a service again what it was told before. Every such thing stands in the audit.

use async_nats::HeaderMap;
use async_nats::jetstream::message::PublishMessage;
use contracts::api::{PaymentRecord, PaymentRelease, subjects};
use millrace::dead_letters::{audit, redeliver};
use millrace::outbox::header_text;
use millrace::request_reply::request_json;
use serde::Serialize;
use serde_json::json;
use std::time::Duration;

use super::compare::Sides;
use super::database::{maybe, text};
use super::judge::Fix;
use crate::audit as record;

/// How long the payment service may take to release a hold.
const PATIENCE: Duration = Duration::from_secs(15);

/// What was done, and what is known of it at once.
#[derive(Debug, Clone, Serialize)]
pub struct Done {
    pub order_id: String,
    #[serde(flatten)]
    pub fix: Fix,
    pub ok: bool,
    pub what: String,
}

/// Applies one fix. What goes wrong stands in the result.
pub async fn apply(sides: &Sides, order_id: &str, fix: &Fix) -> Done {
    let done = match fix {
        Fix::Redeliver { durable, stream, seq } => redeliver(&sides.connection, stream, *seq, durable)
            .await
            .map(|()| format!("message {seq} of {stream} was delivered to {durable} again"))
            .map_err(|e| e.to_string()),
        Fix::Republish { service, row } => republish(sides, service, *row).await,
        Fix::Release { payment_id } => release(sides, order_id, payment_id).await,
    };
    let ok = done.is_ok();
    let what = done.unwrap_or_else(|why| why);
    let entry = record::Entry::new(audit::operator(), "reconciled", json!({ "fix": fix, "ok": ok, "what": what }));
    let what = match record::write(&sides.connection, order_id, &entry).await {
        Ok(()) => what,
        Err(why) => format!("{what} (the audit could not be written: {why})"),
    };
    Done { order_id: order_id.to_owned(), fix: fix.clone(), ok, what }
}

/// Publishes an outbox row as it is: under the id it always had, so that whoever has it already does nothing.
async fn republish(sides: &Sides, service: &str, row: i64) -> Result<String, String> {
    let database = sides.databases.get(service).ok_or_else(|| format!("{service} has no database"))?;
    // As hexadecimal text, which both databases can show without loss.
    let sql = match database.is_sqlite() {
        true => format!("select subject, headers, hex(body) from outbox where id = {row}"),
        false => format!("select subject, headers, encode(body, 'hex') from outbox where id = {row}"),
    };
    let rows = database.rows(sql).await.map_err(|failure| failure.message)?;
    let Some(found) = rows.first() else { return Err("its outbox has forgotten it meanwhile".into()) };
    let subject = text(found, 0);
    let pairs = header_text::read(&text(found, 1)).map_err(|e| e.to_string())?;
    let body = maybe(found, 2).and_then(|hex| from_hex(&hex)).ok_or("its body cannot be read")?;
    let mut headers = HeaderMap::new();
    for (name, value) in &pairs {
        let invalid = |e: &dyn std::fmt::Display| format!("the header {name} cannot be sent: {e}");
        let parsed: async_nats::HeaderName = name.parse().map_err(|e| invalid(&e))?;
        headers.insert(parsed, value.parse::<async_nats::HeaderValue>().map_err(|e| invalid(&e))?);
    }
    let message = PublishMessage::build().payload(body.into()).headers(headers);
    let sent = sides.connection.jetstream().send_publish(subject.clone(), message).await.map_err(|e| e.to_string())?;
    let ack = sent.await.map_err(|e| e.to_string())?;
    if ack.duplicate {
        // The broker remembers ids for a while also of messages that somebody deleted.
        return Err(format!(
            "{} takes {subject} for a repetition; try again when topology.duplicate_window is over",
            ack.stream
        ));
    }
    Ok(format!("{subject} was published again, as message {} of {}", ack.sequence, ack.stream))
}

async fn release(sides: &Sides, order_id: &str, payment_id: &str) -> Result<String, String> {
    let order_id = order_id.parse().map_err(|e| format!("{order_id}: {e}"))?;
    let wish = PaymentRelease { order_id, payment_id: payment_id.to_owned(), order_is_unknown: false };
    let asked = request_json(&sides.connection, subjects::PAYMENT_RELEASE, &wish, PATIENCE).await;
    let now: PaymentRecord = asked.map_err(|e| e.to_string())?;
    Ok(format!("the payment service took {payment_id} on record, it is {} now", now.state))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    if digits.len() % 2 == 1 {
        return None;
    }
    digits.chunks(2).map(byte).collect()
}
