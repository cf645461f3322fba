//! A service with one handler that fails as told, another consumer of the same stream that only looks on, and an
//! operator.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream::message::PublishMessage;
use millrace::connection::Connection;
use millrace::consumer::{ConsumerSettings, Failure, Router};
use millrace::dead_letters::audit::{Entry, What};
use millrace::dead_letters::{DeadLetters, Filter, Letter, Options, Report, Wanted};
use millrace::event::{Cause, Event, EventId, Received, Retired, encode, encode_headers};
use millrace::health::Health;
use millrace::kit::{self, Kit, KitParts, KitSettings, RetryDelays};
use millrace::outbox::RelaySettings;
use millrace::store::Database;
use millrace::topology::{ConsumerSpec, StreamSpec, Topology};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use testkit::{TestNats, eventually};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::broker;
use crate::things::{Counters, Home, Intent, LIMIT, MIGRATIONS, in_time, number};

pub(super) const JOBS: &str = "JOBS";
pub(super) const WORKER: &str = "worker-jobs";
pub(super) const ONLOOKER: &str = "onlooker-jobs";
pub(super) const ATTEMPTS: u32 = 3;
const QUICK: RetryDelays = RetryDelays { first: Duration::from_millis(100), most: Duration::from_millis(200) };

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(super) struct JobCreated {
    pub(super) name: String,
}

impl Event for JobCreated {
    const TYPE: &'static str = "jobs.created";
    const VERSION: u32 = 1;
    const SUBJECT: &'static str = "jobs.created";

    fn key(&self) -> String {
        self.name.clone()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Transient,
    Permanent,
    /// Does the work, and then says that it failed.
    FailAfterwards,
}

#[derive(Debug, thiserror::Error)]
#[error("the tool broke")]
struct Broken(#[source] std::num::ParseIntError);

/// Deliveries in their order, and how to treat each job.
#[derive(Clone, Default)]
pub(super) struct Handling {
    moods: Arc<Mutex<HashMap<String, Mood>>>,
    seen: Arc<Mutex<Vec<(&'static str, String)>>>,
}

impl Handling {
    pub(super) fn set(&self, job: &str, mood: Mood) {
        self.moods.lock().unwrap().insert(job.into(), mood);
    }

    pub(super) fn repair(&self) {
        self.moods.lock().unwrap().clear();
    }

    pub(super) fn seen_by(&self, durable: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|(by, _)| *by == durable).count()
    }

    fn see(&self, by: &'static str, event: &Received<JobCreated>) -> Option<Mood> {
        self.seen.lock().unwrap().push((by, event.data.name.clone()));
        self.moods.lock().unwrap().get(&event.data.name).copied()
    }
}

pub(super) struct World {
    pub(super) nats: TestNats,
    pub(super) connection: Connection,
    pub(super) handling: Handling,
    pub(super) operator: DeadLetters,
    pub(super) database: Database,
    gate: watch::Sender<bool>,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), kit::Error>>,
    home: Home,
}

/// Without what dead letters need.
pub(super) fn bare_topology() -> Topology {
    let consumer = |durable: &str| {
        let mut spec = ConsumerSpec::new(JOBS, durable);
        (spec.ack_wait, spec.max_deliver) = (Duration::from_secs(1), ATTEMPTS);
        spec
    };
    Topology {
        streams: vec![StreamSpec::new(JOBS, ["jobs.>"]), StreamSpec::new("THINGS", ["things.>"])],
        // One with a filter and one without.
        consumers: vec![consumer(WORKER).filter(["jobs.created"]), consumer(ONLOOKER)],
        buckets: Vec::new(),
    }
}

impl World {
    pub(super) async fn start() -> Self {
        Self::on(testkit::nats().await).await
    }

    pub(super) async fn on(nats: TestNats) -> Self {
        Self::relaying(nats, RelaySettings::default()).await
    }

    pub(super) async fn relaying(nats: TestNats, relay: RelaySettings) -> Self {
        let connection = broker::connect(&nats).await;
        let home = Home::sqlite().await;
        let parts = KitParts {
            service: "jobs",
            connection: connection.clone(),
            database_url: home.url.parse().unwrap(),
            settings: KitSettings {
                consumer: ConsumerSettings {
                    workers: 32,
                    // So long that a test that waits for an attempt fails, unless the consumer has its own.
                    retry_first: Duration::from_secs(3600),
                    retry_most: Duration::from_secs(3600),
                    ..ConsumerSettings::default()
                },
                relay,
                retry_delays: [(WORKER.to_owned(), QUICK)].into(),
                ..KitSettings::default()
            },
            topology: bare_topology().with_dead_letters(),
            health: Health::default(),
            shutdown: CancellationToken::new(),
        };
        let health = parts.health.clone();
        let mut kit = in_time(Kit::start(parts, Counters::default(), MIGRATIONS)).await.unwrap();
        let (handling, gate) = (Handling::default(), watch::Sender::new(true));
        kit.consume(worker(&kit, handling.clone()), vec![gate.subscribe()]).unwrap();
        kit.consume(onlooker(handling.clone()), Vec::new()).unwrap();
        let (shutdown, database) = (kit.shutdown(), kit.database());
        let running = tokio::spawn(kit.run());
        eventually(LIMIT, || async { health.readiness().ready }, "the service to be ready").await;
        let operator = DeadLetters::new(connection.clone(), "operator@desk");
        Self { nats, connection, handling, operator, database, gate, shutdown, running, home }
    }

    /// Stops the worker from taking messages, and only that.
    pub(super) async fn close_gate(&self) {
        self.gate.send_replace(false);
        // What it asked for before may still come.
        let idle = || async { self.consumer(WORKER).await.num_waiting == 0 };
        eventually(LIMIT, idle, "the worker to ask for nothing").await;
    }

    pub(super) fn open_gate(&self) {
        self.gate.send_replace(true);
    }

    pub(super) async fn consumer(&self, durable: &str) -> async_nats::jetstream::consumer::Info {
        let found = self.connection.jetstream().get_consumer_from_stream(durable, JOBS);
        let mut consumer: async_nats::jetstream::consumer::PullConsumer = in_time(found).await.unwrap();
        in_time(consumer.info()).await.unwrap().clone()
    }

    /// Publishes a job as one of ours.
    pub(super) async fn publish(&self, name: &str) {
        let job = JobCreated { name: name.into() };
        let encoded = encode(&job, &EventId::generate(), &Retired::default()).unwrap().remove(0);
        let headers = encode_headers(&encoded, "/millrace/test", OffsetDateTime::now_utc(), &Cause::spontaneous());
        self.publish_raw(&headers, encoded.body).await;
    }

    pub(super) async fn publish_raw(&self, headers: &[(String, String)], body: Vec<u8>) {
        let message = headers
            .iter()
            .fold(PublishMessage::build(), |message, (name, value)| message.header(name.as_str(), value.as_str()));
        let sent = self.connection.jetstream().send_publish("jobs.created", message.payload(body.into()));
        in_time(in_time(sent).await.unwrap().into_future()).await.unwrap();
    }

    pub(super) fn database_file(&self) -> &str {
        self.home.url.strip_prefix("sqlite:").unwrap()
    }

    /// How often the work of a job was done.
    pub(super) async fn done(&self, job: &str) -> i64 {
        number(&self.database, &format!("select value from counters where name = '{job}' union all select 0 limit 1"))
            .await
    }

    pub(super) async fn letters(&self, state: Wanted) -> Vec<Letter> {
        let listing = in_time(self.operator.list(&Filter { state, ..Filter::default() })).await.unwrap();
        assert!(listing.unreadable.is_empty(), "{listing:?}");
        listing.letters
    }

    /// Waits for so many letters that nobody decided about.
    pub(super) async fn waiting(&self, count: usize) -> Vec<Letter> {
        let waiting = || async {
            let letters = self.letters(Wanted::Waiting).await;
            if letters.len() == count { Ok(letters) } else { Err(format!("{} letters", letters.len())) }
        };
        eventually(LIMIT, waiting, &format!("{count} waiting letters")).await
    }

    pub(super) async fn replay(&self, ids: &[u64], options: &Options) -> Report {
        in_time(self.operator.replay(ids, options, |_| {})).await.unwrap()
    }

    /// Writes down that somebody replayed a letter, an hour ago.
    pub(super) async fn replayed_long_ago(&self, letter: &Letter) {
        let what = What::Replayed { replay_id: "r-1".into(), letter_stored_at: letter.stored_at, corrected: false };
        let at = OffsetDateTime::now_utc() - Duration::from_secs(3600);
        let entry = Entry { at, who: "somebody@else".into(), letter: letter.id, what };
        let subject = format!("audit.dead_letters.{WORKER}.{}", letter.id);
        let sent = self.connection.jetstream().publish(subject, serde_json::to_vec(&entry).unwrap().into());
        in_time(in_time(sent).await.unwrap().into_future()).await.unwrap();
    }

    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        in_time(self.running).await.unwrap().unwrap();
    }
}

fn worker(kit: &Kit<Counters>, handling: Handling) -> Router {
    let writer = kit.writer();
    Router::new(WORKER).on::<JobCreated, _, _>(move |event: Received<JobCreated>| {
        let (writer, handling) = (writer.clone(), handling.clone());
        async move {
            let mood = handling.see(WORKER, &event);
            let broken = || Broken("x".parse::<u8>().unwrap_err());
            match mood {
                Some(Mood::Transient) => return Err(Failure::transient_error(&broken())),
                Some(Mood::Permanent) => return Err(Failure::permanent_error(&broken())),
                Some(Mood::FailAfterwards) | None => {}
            }
            writer.submit(event.submission(Intent::count(&event.data.name))).await?;
            if mood.is_some() { Err(Failure::permanent("said so")) } else { Ok(()) }
        }
    })
}

fn onlooker(handling: Handling) -> Router {
    Router::new(ONLOOKER).on::<JobCreated, _, _>(move |event: Received<JobCreated>| {
        handling.see(ONLOOKER, &event);
        async { Ok(()) }
    })
}
