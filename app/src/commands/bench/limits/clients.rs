//! Bare clients that do nothing: the same messages published, delivered and acknowledged, as many for each order as the
//! pipeline needed, over the same streams, consumers and number of connections.

use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::{self, Context};
use async_nats::{Client, HeaderMap};
use axum::body::Bytes;
use contracts::topology::{TopologySettings, topology};
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use millrace::connection::Connection;
use tokio::task::JoinSet;

use super::super::broker;
use super::super::world::{SERVICES, World};
use crate::failure::Failure;

/// Streams of the events of an order.
const STREAMS: [&str; 4] = ["ORDERS", "PAYMENTS", "INVENTORY", "NOTIFICATIONS"];
/// As the outbox has: setting `outbox.max_in_flight`.
const IN_FLIGHT: usize = 256;
const BATCH: usize = 256;
const POLL: Duration = Duration::from_millis(10);
/// A round takes seconds.
const LONGEST: Duration = Duration::from_secs(600);

/// A message as it was published for an order.
#[derive(Clone)]
pub struct Sample {
    subject: String,
    headers: HeaderMap,
    body: Bytes,
    /// Index of the service that publishes it.
    publisher: usize,
}

/// What an order comes to at the broker.
pub struct Traffic {
    pub samples: Vec<Sample>,
    pub publishes: f64,
    pub deliveries: f64,
}

/// Looks at the streams after so many orders.
pub async fn traffic(connection: &Connection, orders: u64) -> Result<Traffic, Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::new(format!("the streams cannot be read: {e}"));
    let per_order = |count: u64| count as f64 / orders.max(1) as f64;
    let mut traffic = Traffic { samples: Vec::new(), publishes: 0.0, deliveries: 0.0 };
    for (publisher, name) in STREAMS.iter().enumerate() {
        let stream = connection.jetstream().get_stream(name).await.map_err(|e| failed(&e))?;
        let mut subjects = stream.info_with_subjects(">").await.map_err(|e| failed(&e))?;
        while let Some((subject, count)) = subjects.try_next().await.map_err(|e| failed(&e))? {
            traffic.publishes += per_order(count as u64);
            let last = stream.get_last_raw_message_by_subject(&subject).await.map_err(|e| failed(&e))?;
            let sample = Sample { headers: last.headers, body: last.payload, publisher, subject };
            let copies = per_order(count as u64).round() as usize;
            traffic.samples.extend(std::iter::repeat_n(sample, copies));
        }
    }
    for declared in topology(&TopologySettings::default()).consumers {
        let context = connection.jetstream();
        let found = context.get_consumer_from_stream::<pull::Config, _, _>(&declared.durable, &declared.stream).await;
        traffic.deliveries += per_order(found.map_err(|e| failed(&e))?.cached_info().delivered.consumer_sequence);
    }
    Ok(traffic)
}

/// Clients that acknowledge whatever comes, for as long as this lives.
pub struct Clients {
    connections: Vec<Client>,
    _acknowledging: JoinSet<()>,
}

impl Clients {
    /// `world` is one without services.
    pub async fn start(world: &World) -> Result<Self, Failure> {
        let failed = |e: &dyn std::fmt::Display| Failure::new(format!("bare clients: {e}"));
        let mut connections = Vec::with_capacity(SERVICES.len());
        let mut acknowledging = JoinSet::new();
        for role in SERVICES {
            let options = async_nats::ConnectOptions::new().name(format!("bare-{}", role.name()));
            let client = options.connect(world.nats_url.as_str()).await.map_err(|e| failed(&e))?;
            let prefix = format!("{}-", role.name());
            for declared in topology(&TopologySettings::default()).consumers {
                if !declared.durable.starts_with(&prefix) || !STREAMS.contains(&declared.stream.as_str()) {
                    continue;
                }
                let context = jetstream::new(client.clone());
                let found = context.get_consumer_from_stream::<pull::Config, _, _>(&declared.durable, &declared.stream);
                let found = found.await.map_err(|e| failed(&e))?;
                let messages = found.stream().max_messages_per_batch(BATCH).messages().await;
                let mut messages = messages.map_err(|e| failed(&e))?;
                acknowledging.spawn(async move {
                    while let Some(message) = messages.next().await {
                        if let Ok(message) = message {
                            let _ = message.ack().await;
                        }
                    }
                });
            }
            connections.push(client);
        }
        Ok(Self { connections, _acknowledging: acknowledging })
    }

    /// Publishes what so many orders come to, and waits until all of it is acknowledged. Orders a second.
    pub async fn round(&self, world: &World, samples: &[Sample], orders: u32, round: u32) -> Result<f64, Failure> {
        let failed = |e: String| Failure::new(format!("bare clients: {e}"));
        let begun = Instant::now();
        let mut publishing = JoinSet::new();
        for (publisher, client) in self.connections.iter().enumerate() {
            let samples = samples.iter().filter(|sample| sample.publisher == publisher).cloned();
            let (context, samples) = (jetstream::new(client.clone()), samples.collect::<Vec<_>>());
            publishing.spawn(publish(context, samples, orders, format!("{round}-{publisher}")));
        }
        while let Some(ended) = publishing.join_next().await {
            ended.map_err(|panic| failed(panic.to_string()))?.map_err(failed)?;
        }
        while broker::backlogs(&world.connection).await?.iter().sum::<u64>() > 0 {
            if begun.elapsed() > LONGEST {
                return Err(failed(format!("not done within {LONGEST:?}")));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(f64::from(orders) / begun.elapsed().as_secs_f64())
    }
}

async fn publish(context: Context, samples: Vec<Sample>, orders: u32, name: String) -> Result<(), String> {
    let mut in_flight = FuturesUnordered::new();
    for order in 0..orders {
        for (number, sample) in samples.iter().enumerate() {
            let mut headers = sample.headers.clone();
            headers.insert("Nats-Msg-Id", format!("bare-{name}-{order}-{number}"));
            let sent = context.publish_with_headers(sample.subject.clone(), headers, sample.body.clone()).await;
            in_flight.push(sent.map_err(|e| e.to_string())?.into_future());
            if in_flight.len() >= IN_FLIGHT {
                in_flight.next().await.transpose().map_err(|e| e.to_string())?;
            }
        }
    }
    while let Some(acknowledged) = in_flight.next().await {
        acknowledged.map_err(|e| e.to_string())?;
    }
    Ok(())
}
