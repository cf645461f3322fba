//! Reads the streams, the gateway and the outboxes into the scratch. In this order: an event is in its outbox before it
//! is on its stream, and on its stream before anybody handles it; so whatever is missing later on is really missing.

use std::collections::BTreeMap;

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::{self, OrderedConfig};
use async_nats::jetstream::{self};
use contracts::subjects;
use contracts::topology::durables;
use futures::StreamExt;
use millrace::connection::Connection;
use millrace::consumer::OWN_SOURCE_PREFIX;
use millrace::dead_letters::{DeadLetters, Filter, State, Wanted, replays};
use millrace::topology::Topology;
use payment::gateway::{Gateway, GatewayPayment};
use time::OffsetDateTime;

use super::database::{Database, int, maybe, text};
use super::facts::{Amount, Event, Intent, OutboxRow};
use super::scratch::{Message, Outgoing, Scratch};
use crate::failure::Failure;

/// The streams with events.
const STREAMS: [&str; 4] = ["ORDERS", "PAYMENTS", "INVENTORY", "NOTIFICATIONS"];
/// Rows of an outbox read at once.
const PAGE: usize = 5_000;

/// A consumer, and up to where the broker takes its stream for handled.
#[derive(Debug, Clone)]
pub struct Consumer {
    pub durable: String,
    pub service: &'static str,
    pub stream: String,
    pub subjects: Vec<String>,
    pub floor: u64,
}

/// How far the streams were read.
#[derive(Debug, Clone, Default)]
pub struct Read {
    /// Where the reading of each stream began.
    pub first: BTreeMap<String, u64>,
    /// The next message to read.
    pub next: BTreeMap<String, u64>,
}

pub fn scratch_failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(format!("the temporary file for the comparison failed: {error}"))
        .remedy("make room in the folder for temporary files, or set TMPDIR to another")
}

pub async fn outboxes(scratch: &Scratch, databases: &BTreeMap<&'static str, Database>) -> Result<u64, Failure> {
    let mut rows = 0;
    for (service, database) in databases {
        let mut after = 0;
        loop {
            let page = database
                .rows(format!(
                    "select id, message_id, subject, lane, created_at, published_at, stream, stream_seq from outbox \
                     where id > {after} order by id limit {PAGE}"
                ))
                .await?;
            scratch.begin().map_err(scratch_failed)?;
            for row in &page {
                after = int(row, 0).unwrap_or(after);
                let lane = text(row, 3);
                let place = maybe(row, 6).zip(int(row, 7).map(i64::unsigned_abs));
                let outgoing = Outgoing {
                    // Copies in older versions travel in `<order>/v1`.
                    order_id: lane.split('/').next().and_then(known_as).unwrap_or_default(),
                    message_id: text(row, 1),
                    row: OutboxRow {
                        service,
                        id: after,
                        subject: text(row, 2),
                        created_at: int(row, 4).unwrap_or(0),
                        place: place.filter(|_| maybe(row, 5).is_some()),
                        on_stream: false,
                    },
                };
                scratch.add_outgoing(&outgoing).map_err(scratch_failed)?;
            }
            scratch.commit().map_err(scratch_failed)?;
            rows += page.len() as u64;
            if page.len() < PAGE {
                break;
            }
        }
    }
    Ok(rows)
}

/// Every payment that names an order of ours, back to `since_ms`.
pub async fn payments(
    scratch: &Scratch,
    gateway: &Gateway,
    since_ms: Option<i64>,
    mut progress: impl FnMut(u64),
) -> Result<(), Failure> {
    let (mut after, mut read): (Option<String>, u64) = (None, 0);
    loop {
        let page = gateway.payments(after.as_deref()).await.map_err(gateway_failed)?;
        let mut old = false;
        scratch.begin().map_err(scratch_failed)?;
        for payment in &page.payments {
            old |= since_ms.is_some_and(|since| payment.created * 1_000 < since);
            if let (Some(order_id), false) = (payment.order_id, old) {
                scratch.put_intent(&order_id.to_string(), &intent(payment)).map_err(scratch_failed)?;
            }
        }
        scratch.commit().map_err(scratch_failed)?;
        read += page.payments.len() as u64;
        progress(read);
        after = page.payments.last().map(|payment| payment.id.clone());
        if !page.has_more || old || after.is_none() {
            return Ok(());
        }
    }
}

pub fn intent(payment: &GatewayPayment) -> Intent {
    Intent {
        id: payment.id.clone(),
        status: payment.status.clone(),
        amount: Amount { minor: payment.amount, currency: payment.currency.clone() },
        captured: payment.captured,
        refunded: payment.refunded,
        created_at: payment.created * 1_000,
    }
}

pub fn gateway_failed(error: payment::gateway::GatewayError) -> Failure {
    Failure::new(error.to_string())
        .remedy("check payment.gateway.url and payment.gateway.secret_key, or compare without it: --skip-gateway")
}

/// Every event since `since`, or since this was last called; of `order` alone if it is given.
pub async fn streams(
    scratch: &Scratch,
    connection: &Connection,
    so_far: &mut Read,
    since: Option<OffsetDateTime>,
    order: Option<&str>,
    mut progress: impl FnMut(u64),
) -> Result<(), Failure> {
    let mut read = 0;
    for stream in STREAMS {
        let failed = |e: &dyn std::fmt::Display| {
            Failure::new(format!("the stream {stream} cannot be read: {e}")).remedy("millrace topology plan")
        };
        let handle = connection.jetstream().get_stream(stream).await.map_err(|e| failed(&e))?;
        let state = handle.cached_info().state.clone();
        let deliver_policy = match (so_far.next.get(stream), since) {
            (Some(next), _) => DeliverPolicy::ByStartSequence { start_sequence: *next },
            (None, Some(start_time)) => DeliverPolicy::ByStartTime { start_time },
            (None, None) => DeliverPolicy::All,
        };
        let begun = so_far.next.contains_key(stream);
        let config = OrderedConfig {
            deliver_policy,
            headers_only: true,
            metadata: millrace::usage::onlooker(),
            ..OrderedConfig::default()
        };
        let mut consumer = handle.create_consumer(config).await.map_err(|e| failed(&e))?;
        let mut left = consumer.info().await.map_err(|e| failed(&e))?.num_pending;
        let mut messages = consumer.messages().await.map_err(|e| failed(&e))?;
        scratch.begin().map_err(scratch_failed)?;
        // Without a message to begin with, the reading begins behind the last.
        let mut first = None;
        while left > 0 {
            let next = tokio::time::timeout(connection.request_timeout(), messages.next()).await;
            let message = match next {
                Ok(Some(message)) => message.map_err(|e| failed(&e))?,
                Ok(None) => return Err(failed(&"the consumer ended")),
                Err(_) => return Err(failed(&format!("nothing came for {:?}", connection.request_timeout()))),
            };
            let info = message.info().map_err(|e| failed(&e))?;
            left = info.pending;
            first.get_or_insert(info.stream_sequence);
            so_far.next.insert(stream.to_owned(), info.stream_sequence + 1);
            let stored_at = (info.published.unix_timestamp_nanos() / 1_000_000) as i64;
            if let Some(message) = event(stream, info.stream_sequence, stored_at, &message)
                && order.is_none_or(|order| message.order_id.as_deref() == Some(order))
            {
                scratch.add_message(&message).map_err(scratch_failed)?;
            }
            read += 1;
            if read % 1_000 == 0 {
                progress(read);
            }
        }
        scratch.commit().map_err(scratch_failed)?;
        if !begun {
            so_far.next.entry(stream.to_owned()).or_insert(state.last_sequence + 1);
            // Read from the beginning, whatever is not there is missing: outboxes forget long before streams do.
            let from = if since.is_some() { first.unwrap_or(state.last_sequence + 1) } else { 0 };
            so_far.first.insert(stream.to_owned(), from);
        }
    }
    progress(read);
    Ok(())
}

/// An order's id as databases write it; `None` for what is no such id.
fn known_as(order: &str) -> Option<String> {
    uuid::Uuid::parse_str(order).ok().map(|id| id.to_string())
}

/// `None` for a replay, which is an event that stands elsewhere.
fn event(stream: &str, seq: u64, stored_at: i64, message: &jetstream::Message) -> Option<Message> {
    let subject = message.subject.to_string();
    if replays::is_replay(&subject) {
        return None;
    }
    let header = |name: &str| {
        let value = message.headers.as_ref().and_then(|headers| headers.get(name));
        value.map(|value| value.as_str().to_owned()).filter(|value| !value.is_empty())
    };
    let message_id = header("Nats-Msg-Id");
    let id = header("ce-id").or_else(|| message_id.clone());
    let source = header("ce-source").unwrap_or_else(|| format!("/foreign/{subject}"));
    let event_id = id.map(|id| if source.starts_with(OWN_SOURCE_PREFIX) { id } else { format!("{source}#{id}") });
    // Older versions are for others; ours read the newest, under the same id.
    let newest = !subjects::is_older(&subject) && event_id.is_some();
    Some(Message {
        order_id: header("ce-subject").and_then(|order| known_as(&order)),
        message_id,
        newest,
        event: Event {
            stream: stream.to_owned(),
            seq,
            subject,
            event_id: event_id.unwrap_or_default(),
            stored_at,
            handling: Vec::new(),
        },
    })
}

pub async fn dead_letters(scratch: &Scratch, connection: &Connection) -> Result<(), Failure> {
    let desk = DeadLetters::new(connection.clone(), "reconcile");
    let all = Filter { state: Wanted::All, ..Filter::default() };
    let listing = desk.list(&all).await.map_err(|e| Failure::new(e.to_string()))?;
    for letter in listing.letters {
        let about = &letter.about;
        let waiting = letter.state.waits() || letter.state == State::BeingReplayed;
        scratch
            .add_letter(&about.consumer, &about.stream, about.stream_seq, letter.id, waiting)
            .map_err(scratch_failed)?;
    }
    Ok(())
}

/// Every declared consumer that leaves marks in an inbox.
pub async fn consumers(connection: &Connection, declared: &Topology) -> Result<Vec<Consumer>, Failure> {
    let mut consumers = Vec::new();
    for spec in &declared.consumers {
        let service = crate::stack::SERVICES
            .into_iter()
            .find(|service| spec.durable.strip_prefix(service).is_some_and(|rest| rest.starts_with('-')));
        // Taking a foreign order in twice changes nothing, so its consumer leaves no marks.
        let Some(service) = service.filter(|_| spec.durable != durables::ORDER_FOREIGN) else { continue };
        let found =
            connection.jetstream().get_consumer_from_stream::<pull::Config, _, _>(&spec.durable, &spec.stream).await;
        let failed = |e: &dyn std::fmt::Display| {
            Failure::new(format!("the consumer {} of {}: {e}", spec.durable, spec.stream))
                .remedy("millrace topology plan")
        };
        let mut found = found.map_err(|e| failed(&e))?;
        let info = found.info().await.map_err(|e| failed(&e))?;
        consumers.push(Consumer {
            durable: spec.durable.clone(),
            service,
            stream: spec.stream.clone(),
            subjects: spec.filter_subjects.clone(),
            floor: info.ack_floor.stream_sequence,
        });
    }
    Ok(consumers)
}
