//! A real nats-server with a stream of things, and what tests ask it.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::{self, stream::Stream};
use futures::StreamExt;
use millrace::connection::{Connection, NatsSettings};
use millrace::dead_letter;
use millrace::topology::{self, ConsumerSpec, StreamSpec, Topology};
use testkit::TestNats;
use tokio_util::sync::CancellationToken;

use crate::things::in_time;

pub(crate) const STREAM: &str = "THINGS";
pub(crate) const DURABLE: &str = "counter-things";

/// The stream of things, that of dead letters, and one durable consumer.
pub(crate) fn topology(ack_wait: Duration) -> Topology {
    let mut consumer = ConsumerSpec::new(STREAM, DURABLE);
    consumer.ack_wait = ack_wait;
    let dead = format!("{}.>", dead_letter::SUBJECT_PREFIX);
    let streams = vec![StreamSpec::new(STREAM, ["things.>"]), StreamSpec::new(dead_letter::STREAM, [dead])];
    Topology { streams, consumers: vec![consumer], buckets: Vec::new() }
}

pub(crate) struct Broker {
    pub(crate) nats: TestNats,
    pub(crate) connection: Connection,
    pub(crate) topology: Topology,
}

impl Broker {
    pub(crate) async fn start() -> Self {
        Self::with_ack_wait(Duration::from_secs(30)).await
    }

    pub(crate) async fn with_ack_wait(ack_wait: Duration) -> Self {
        let nats = testkit::nats().await;
        let connection = connect(&nats).await;
        let topology = topology(ack_wait);
        let broker = Self { nats, connection, topology };
        in_time(broker.connection.connected()).await.unwrap();
        broker.ensure().await;
        broker
    }

    pub(crate) async fn ensure(&self) {
        let never = CancellationToken::new();
        in_time(topology::ensure(&self.connection, &self.topology, true, &never)).await.unwrap();
    }

    pub(crate) async fn stream(&self, name: &str) -> Stream {
        in_time(self.connection.jetstream().get_stream(name)).await.unwrap()
    }

    /// Messages of a stream, oldest first.
    pub(crate) async fn messages(&self, name: &str) -> Vec<jetstream::Message> {
        let stream = self.stream(name).await;
        let many = stream.cached_info().state.messages as usize;
        let config = jetstream::consumer::pull::OrderedConfig::default();
        let messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
        in_time(messages.take(many).map(Result::unwrap).collect()).await
    }

    /// How many messages a stream has.
    pub(crate) async fn count(&self, name: &str) -> u64 {
        self.stream(name).await.cached_info().state.messages
    }

    /// What the broker knows of the durable consumer.
    pub(crate) async fn consumer(&self) -> jetstream::consumer::Info {
        let found = self.connection.jetstream().get_consumer_from_stream(DURABLE, STREAM);
        let consumer: jetstream::consumer::PullConsumer = in_time(found).await.unwrap();
        consumer.cached_info().clone()
    }
}

pub(crate) async fn connect(nats: &TestNats) -> Connection {
    let settings = NatsSettings {
        url: nats.url(),
        reconnect_base_ms: 10,
        reconnect_max_ms: 100,
        request_timeout_ms: 1_000,
        ..NatsSettings::default()
    };
    Connection::open(&settings, "test", |_| {}).await.unwrap()
}

pub(crate) fn header<'a>(message: &'a jetstream::Message, name: &str) -> &'a str {
    message.headers.as_ref().and_then(|headers| headers.get(name)).map_or("", |value| value.as_str())
}

/// The counters' values in the order in which they stand in the stream.
pub(crate) fn values_by_counter(messages: &[jetstream::Message]) -> BTreeMap<String, Vec<i64>> {
    let mut values: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for message in messages {
        let thing: crate::things::ThingHappened = serde_json::from_slice(&message.payload).unwrap();
        values.entry(thing.counter).or_default().push(thing.value);
    }
    values
}
