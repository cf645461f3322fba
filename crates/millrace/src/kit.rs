//! What every service is made of, started in the right order and stopped in the right order.
//!
//! Start: database (migrated), relay, writer, then topology and consumers as soon as NATS answers; until then the
//! service already accepts work. Stop: sources of work first, handlers finish what they began, the writer commits, the
//! outbox drains as far as the broker allows. Nothing accepted is lost at any point: what is left stands in the database.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{Instrument as _, error, info, warn};

use crate::connection::Connection;
use crate::consumer::{Advisories, Consumer, ConsumerSettings, Router};
use crate::dead_letters::advisories;
use crate::event::Retired;
use crate::health::Health;
use crate::outbox::{Relay, RelaySettings};
use crate::retirement;
use crate::store::{
    Database, DatabaseSettings, DatabaseUrl, Migration, Model, PostgresModel, SqliteModel, StoreError, Writer,
    WriterSettings,
};
use crate::topology::{self, Topology, TopologyError};

/// Ceilings of the random delay before a consumer's first retry and its later ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryDelays {
    pub first: Duration,
    pub most: Duration,
}

/// Limits that all services share.
#[derive(Debug, Clone)]
pub struct KitSettings {
    pub database: DatabaseSettings,
    pub writer: WriterSettings,
    pub relay: RelaySettings,
    /// `ack_wait` and `max_attempts` come from the declared consumer.
    pub consumer: ConsumerSettings,
    /// Of single consumers, by their durable name, instead of those in `consumer`.
    pub retry_delays: BTreeMap<String, RetryDelays>,
    /// Whether a service creates what is missing at the broker.
    pub topology_auto_apply: bool,
    /// Event versions that are no longer published, besides those that are [retired](crate::retirement) at the broker.
    pub retired: Retired,
}

impl Default for KitSettings {
    fn default() -> Self {
        Self {
            database: DatabaseSettings::default(),
            writer: WriterSettings::default(),
            relay: RelaySettings::default(),
            consumer: ConsumerSettings::default(),
            retry_delays: BTreeMap::new(),
            topology_auto_apply: true,
            retired: Retired::default(),
        }
    }
}

/// What a service is given.
#[derive(Clone)]
pub struct KitParts {
    /// Its name: of its database, its CloudEvents source (`/millrace/<service>`), its metrics.
    pub service: &'static str,
    pub connection: Connection,
    pub database_url: DatabaseUrl,
    pub settings: KitSettings,
    pub topology: Topology,
    pub health: Health,
    pub shutdown: CancellationToken,
}

/// Why a service could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{service}: the database could not be opened: {source}")]
    Database { service: &'static str, source: StoreError },
    #[error("{service}: {source}")]
    Topology { service: &'static str, source: TopologyError },
    #[error("{service}: {task} ended unexpectedly: {reason}")]
    Task { service: &'static str, task: &'static str, reason: String },
    /// Nothing went wrong: there was no time to start.
    #[error("{service}: it was told to stop before it had started")]
    StoppedBeforeStart { service: &'static str },
    #[error("{service}: no consumer {durable} is declared in the topology")]
    UndeclaredConsumer { service: &'static str, durable: String },
}

/// What a source of work may end with.
pub type SourceResult = Result<(), Box<dyn StdError + Send + Sync>>;

/// A service's running parts.
pub struct Kit<M: Model> {
    parts: KitParts,
    database: Database,
    writer: OwnWriter<M>,
    writer_task: JoinHandle<()>,
    relay_task: JoinHandle<()>,
    relay_stop: DropGuard,
    sources: JoinSet<(&'static str, SourceResult)>,
    consumers: JoinSet<()>,
    topology: watch::Receiver<Option<Result<(), TopologyError>>>,
}

/// Ends the writer with the kit, and like the guard of the relay also with one that is dropped without having run:
/// nothing goes on behind its back.
struct OwnWriter<M: Model>(Writer<M>);

impl<M: Model> Drop for OwnWriter<M> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Pause before a read without which a service cannot start is tried again.
const READ_AGAIN: Duration = Duration::from_millis(200);
/// How often readiness asks the database.
const PING_EVERY: Duration = Duration::from_secs(2);
/// How long sources and handlers may take to end what they began. Kubernetes kills after 30 s; what was cut off before
/// is delivered again, and the time left is for the commits.
const FINISH_WITHIN: Duration = Duration::from_secs(15);
/// How long the outbox may take to drain, and then the writer to commit. What is left stands in the database.
const DRAIN_WITHIN: Duration = Duration::from_secs(6);

impl<M: SqliteModel + PostgresModel> Kit<M> {
    /// Opens the database and starts what writes and publishes. Waits for a PostgreSQL server that is not there yet.
    pub async fn start(parts: KitParts, model: M, migrations: &'static [Migration]) -> Result<Self, Error> {
        Self::start_publishing_when(parts, model, migrations, watch::channel(true).1).await
    }

    /// As [`start`](Self::start), but nothing is published until `gate` is true; what is committed before waits in the
    /// outbox.
    pub async fn start_publishing_when(
        parts: KitParts,
        model: M,
        migrations: &'static [Migration],
        gate: watch::Receiver<bool>,
    ) -> Result<Self, Error> {
        let service = parts.service;
        let component = parts.health.component("database");
        component.not_ready("opening");
        let failed = |source| match source {
            StoreError::Stopped => Error::StoppedBeforeStart { service },
            source => Error::Database { service, source },
        };
        let database =
            Database::open(&parts.database_url, service, &parts.settings.database, migrations, &parts.shutdown)
                .await
                .map_err(failed)?;
        component.ready();
        let retired = watch::Sender::new(parts.settings.retired.clone());
        let (relay, sender) = Relay::new(parts.connection.clone(), database.clone(), parts.settings.relay.clone());
        let (writer, writer_task) = Writer::start(
            &database,
            model,
            &format!("{}{service}", crate::consumer::OWN_SOURCE_PREFIX),
            retired.subscribe(),
            parts.settings.writer.clone(),
            sender,
        )
        .map_err(failed)?;
        let relay_stop = CancellationToken::new();
        let relay_task = tokio::spawn(relay.publish_when(gate).run(writer.clone(), relay_stop.clone()));
        let relay_stop = relay_stop.drop_guard();
        tokio::spawn(watch_database(database.clone(), component, parts.shutdown.clone()).in_current_span());
        let topology = ensure_in_background(&parts);
        follow_retirement(&parts, retired, topology.clone());
        Ok(Self {
            parts,
            database,
            writer: OwnWriter(writer),
            writer_task,
            relay_task,
            relay_stop,
            sources: JoinSet::new(),
            consumers: JoinSet::new(),
            topology,
        })
    }
}

impl<M: Model> Kit<M> {
    pub fn writer(&self) -> Writer<M> {
        self.writer.0.clone()
    }

    pub fn database(&self) -> Database {
        self.database.clone()
    }

    /// What a service has to know before it can start: asked until the database answers, which may go away again right
    /// after it was opened.
    pub async fn read_first<T, F>(&self, read: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let service = self.parts.service;
        loop {
            match read().await {
                Ok(read) => return Ok(read),
                Err(StoreError::Unavailable(reason)) if !self.parts.shutdown.is_cancelled() => {
                    warn!(service, reason, "what the service has to know first cannot be read yet, trying again");
                }
                Err(StoreError::Unavailable(_)) => return Err(Error::StoppedBeforeStart { service }),
                Err(source) => return Err(Error::Database { service, source }),
            }
            tokio::select! {
                () = tokio::time::sleep(READ_AGAIN) => {}
                () = self.parts.shutdown.cancelled() => {}
            }
        }
    }

    pub fn connection(&self) -> &Connection {
        &self.parts.connection
    }

    pub fn health(&self) -> &Health {
        &self.parts.health
    }

    /// Cancelled when sources of work have to end.
    pub fn shutdown(&self) -> CancellationToken {
        self.parts.shutdown.clone()
    }

    /// Starts a declared consumer as soon as the topology stands. It pulls only while every gate is open. With it starts
    /// whoever makes dead letters of what it never answers, if the topology was declared
    /// [with dead letters](Topology::with_dead_letters).
    pub fn consume(&mut self, router: Router, gates: Vec<watch::Receiver<bool>>) -> Result<(), Error> {
        let durable = router.durable().to_owned();
        let Some(spec) = self.parts.topology.consumers.iter().find(|spec| spec.durable == durable).cloned() else {
            return Err(Error::UndeclaredConsumer { service: self.parts.service, durable });
        };
        let mut settings = ConsumerSettings {
            ack_wait: spec.ack_wait,
            max_attempts: spec.max_deliver,
            ..self.parts.settings.consumer.clone()
        };
        if let Some(RetryDelays { first, most }) = self.parts.settings.retry_delays.get(&durable).copied() {
            (settings.retry_first, settings.retry_most) = (first, most);
        }
        let parts = self.parts.clone();
        let restore: crate::consumer::Restore = Arc::new(move || {
            let parts = parts.clone();
            Box::pin(async move {
                if let Err(reason) = ensure(&parts).await {
                    warn!(service = parts.service, reason = %reason, "the topology could not be put back yet");
                }
            })
        });
        let connection = self.parts.connection.clone();
        let catcher = advisories::durable(&durable);
        if self.parts.topology.consumers.iter().any(|spec| spec.durable == catcher) {
            let listener = Advisories::new(
                connection.clone(),
                &spec.stream,
                &durable,
                restore.clone(),
                Some(self.writer.0.keeper()),
            );
            self.when_topology_stands(|stop| listener.run(stop));
        } else {
            warn!(
                service = self.parts.service,
                consumer = durable,
                "no consumer {catcher} is declared: a message that is never answered will not become a dead letter"
            );
        }
        let consumer =
            Consumer::new(connection, &spec.stream, router, settings, gates, restore, Some(self.writer.0.keeper()));
        self.when_topology_stands(|stop| consumer.run(stop));
        Ok(())
    }

    /// Ends when streams and consumers stand as they are declared.
    pub fn topology_stands(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut topology = self.topology.clone();
        async move {
            if topology.wait_for(|state| matches!(state, Some(Ok(())))).await.is_err() {
                std::future::pending().await
            }
        }
    }

    fn when_topology_stands<F>(&mut self, consume: impl FnOnce(CancellationToken) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, mut topology) = (self.parts.shutdown.clone(), self.topology.clone());
        let consuming = async move {
            tokio::select! {
                stands = topology.wait_for(|state| matches!(state, Some(Ok(())))) => if stands.is_err() { return },
                () = stop.cancelled() => return,
            }
            consume(stop).await;
        };
        self.consumers.spawn(consuming.in_current_span());
    }

    /// Starts a source of work. It must end soon after [`shutdown`](Self::shutdown) is cancelled; if it ends before, the
    /// whole service stops.
    pub fn spawn(&mut self, name: &'static str, source: impl Future<Output = SourceResult> + Send + 'static) {
        self.sources.spawn(async move { (name, source.await) }.in_current_span());
    }

    /// Runs until shutdown, or until a part fails, and then stops everything in order.
    pub async fn run(mut self) -> Result<(), Error> {
        let service = self.parts.service;
        info!(service, "the service is up");
        let result = self.until_shutdown().await;
        if let Err(reason) = &result {
            error!(service, reason = %reason, "the service has to stop");
            self.parts.shutdown.cancel();
        }
        // From here on an outage of the database is not waited for; who asked is told, and the broker delivers again.
        self.writer.0.stop_waiting();
        let deadline = Instant::now() + FINISH_WITHIN;
        end_all(&mut self.sources, deadline, service, "sources of work").await;
        end_all(&mut self.consumers, deadline, service, "consumers").await;
        // From here on nobody submits: the relay finishes, tells the writer what it published, and the writer ends.
        drop(self.relay_stop);
        end(self.relay_task, service, "the outbox relay").await;
        drop(self.writer);
        end(self.writer_task, service, "the writer").await;
        info!(service, "the service has stopped, nothing is left undone that is not in its database");
        result
    }

    async fn until_shutdown(&mut self) -> Result<(), Error> {
        let service = self.parts.service;
        let task = |task, reason| Err(Error::Task { service, task, reason });
        loop {
            tokio::select! {
                () = self.parts.shutdown.cancelled() => return Ok(()),
                Some(ended) = self.sources.join_next() => {
                    if self.parts.shutdown.is_cancelled() {
                        return Ok(());
                    }
                    return match ended {
                        Ok((name, Ok(()))) => task(name, "it returned".into()),
                        Ok((name, Err(reason))) => task(name, reason.to_string()),
                        Err(panic) => task("a source of work", panic.to_string()),
                    };
                }
                Some(ended) = self.consumers.join_next() => {
                    if self.parts.shutdown.is_cancelled() {
                        return Ok(());
                    }
                    return task("a consumer", ended.err().map_or("it returned".into(), |panic| panic.to_string()));
                }
                ended = &mut self.relay_task => return task("the outbox relay", format!("{ended:?}")),
                ended = &mut self.writer_task => return task("the writer", format!("{ended:?}")),
                Ok(()) = self.topology.changed() => {
                    if let Some(Err(source)) = self.topology.borrow().clone() {
                        return Err(Error::Topology { service, source });
                    }
                }
            }
        }
    }
}

/// Waits for tasks that were told to stop, and cuts off what has not by the deadline.
async fn end_all<T: 'static>(tasks: &mut JoinSet<T>, deadline: Instant, service: &str, what: &str) {
    let ended = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout_at(deadline, ended).await.is_err() {
        warn!(
            service,
            tasks = tasks.len(),
            "{what} did not end in time and are cut off; what they had in hand is delivered again"
        );
        tasks.shutdown().await;
    }
}

async fn end(mut task: JoinHandle<()>, service: &str, what: &str) {
    // One that ended by itself has been asked already, and must not be asked twice.
    if !task.is_finished() && tokio::time::timeout(DRAIN_WITHIN, &mut task).await.is_err() {
        warn!(service, "{what} did not end in time and is cut off; what it had to do is done at the next start");
        task.abort();
    }
}

async fn ensure(parts: &KitParts) -> Result<(), TopologyError> {
    topology::ensure(&parts.connection, &parts.topology, parts.settings.topology_auto_apply, &parts.shutdown)
        .await
        .map(|_| ())
}

fn ensure_in_background(parts: &KitParts) -> watch::Receiver<Option<Result<(), TopologyError>>> {
    let (sender, receiver) = watch::channel(None);
    let parts = parts.clone();
    let component = parts.health.component("topology");
    component.not_ready("waiting for NATS");
    let ensuring = async move {
        let result = ensure(&parts).await;
        match &result {
            Ok(()) => component.ready(),
            Err(TopologyError::Cancelled) => return,
            Err(reason) => component.not_ready(reason.to_string()),
        }
        let _ = sender.send(Some(result));
        // The receivers must see the value, not the end of the sender.
        parts.shutdown.cancelled().await;
    };
    tokio::spawn(ensuring.in_current_span());
    receiver
}

/// Starts when the topology stands, and with it the bucket.
fn follow_retirement(
    parts: &KitParts,
    now: watch::Sender<Retired>,
    mut topology: watch::Receiver<Option<Result<(), TopologyError>>>,
) {
    if !parts.topology.buckets.iter().any(|bucket| bucket.name == retirement::BUCKET) {
        return;
    }
    let KitParts { connection, service, settings, shutdown, .. } = parts.clone();
    let following = async move {
        tokio::select! {
            stands = topology.wait_for(|state| matches!(state, Some(Ok(())))) => if stands.is_err() { return },
            () = shutdown.cancelled() => return,
        }
        retirement::follow(connection, service, settings.retired, now, shutdown).await;
    };
    tokio::spawn(following.in_current_span());
}

async fn watch_database(database: Database, component: crate::health::Component, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match database.ping().await {
            Ok(()) => component.ready(),
            Err(reason) => component.not_ready(reason.to_string()),
        }
        tokio::select! {
            () = tokio::time::sleep(PING_EVERY) => {}
            () = stop.cancelled() => {}
        }
    }
}
