//! One instance of a service in one release, as a process of its own: the test program runs itself again.

use std::time::Duration;

use millrace::connection::Connection;
use millrace::consumer::{ConsumerSettings, Router};
use millrace::event::{Event, Received};
use millrace::health::Health;
use millrace::kit::{Kit, KitParts, KitSettings};
use millrace::outbox::RelaySettings;
use millrace::retirement;
use millrace::store::Writer;
use millrace::topology::{ConsumerSpec, StreamSpec, Topology};
use millrace::{connection::NatsSettings, shutdown};
use testkit::{Process, eventually};
use tokio_util::sync::CancellationToken;

use super::rolling::PATIENCE;
use super::{AskMade, Intent, Ledger, MIGRATIONS, Task, one, two};

pub(crate) const TASKS: &str = "TASKS";

/// As a release declares it: all services, each reading the version that is newest then.
pub(crate) fn topology<E: Task>() -> Topology {
    let consumer = |stream: &str, durable: &str, subject: &str| {
        let mut spec = ConsumerSpec::new(stream, durable).filter([subject]);
        spec.ack_wait = Duration::from_secs(3);
        spec
    };
    Topology {
        streams: vec![StreamSpec::new("ASKS", ["asks.>"]), StreamSpec::new(TASKS, ["tasks.>"])],
        consumers: vec![
            consumer("ASKS", "desk-asks", AskMade::SUBJECT),
            consumer(TASKS, "mill-tasks", E::SUBJECT),
            consumer(TASKS, "bystander-tasks", one::TaskAdded::SUBJECT),
        ],
        buckets: vec![retirement::bucket()],
    }
    .with_dead_letters()
}

pub(crate) fn parts<E: Task>(
    service: &'static str,
    connection: Connection,
    database: &str,
    stop: CancellationToken,
) -> KitParts {
    KitParts {
        service,
        connection,
        database_url: database.parse().unwrap(),
        settings: KitSettings {
            relay: RelaySettings {
                sweep_every: Duration::from_millis(500),
                sweep_after: Duration::from_secs(1),
                ..RelaySettings::default()
            },
            consumer: ConsumerSettings {
                workers: 16,
                retry_first: Duration::from_millis(100),
                retry_most: Duration::from_millis(400),
                ..ConsumerSettings::default()
            },
            ..KitSettings::default()
        },
        topology: topology::<E>(),
        health: Health::default(),
        shutdown: stop,
    }
}

/// What the service does with what it gets.
pub(crate) fn router<E: Task>(service: &str, writer: Writer<Ledger<E>>) -> Router {
    let act = {
        let writer = writer.clone();
        move |event: Received<E>| {
            let writer = writer.clone();
            async move {
                let intent = Intent::Act { task: event.data.key(), minutes: event.data.minutes() };
                writer.submit(event.submission(intent)).await?;
                Ok(())
            }
        }
    };
    match service {
        "desk" => Router::new("desk-asks").on::<AskMade, _, _>(move |event: Received<AskMade>| {
            let writer = writer.clone();
            async move {
                let AskMade { task, minutes } = event.data.clone();
                writer.submit(event.submission(Intent::Add { task, minutes })).await?;
                Ok(())
            }
        }),
        "mill" => Router::new("mill-tasks").on::<E, _, _>(act),
        _ => Router::new("bystander-tasks").on::<E, _, _>(act),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is one process of the tests of a mixed fleet, which start it"]
async fn instance() {
    // Somebody runs all ignored tests.
    let Ok(service) = std::env::var("FLEET_SERVICE") else { return };
    let service = ["desk", "mill", "bystander"].into_iter().find(|known| *known == service).unwrap();
    match std::env::var("FLEET_RELEASE").unwrap().as_str() {
        "one" => run::<one::TaskAdded>(service).await,
        _ => run::<two::TaskAdded>(service).await,
    }
}

#[expect(clippy::print_stdout, reason = "whoever started the process waits for the line")]
async fn run<E: Task>(service: &'static str) {
    let stop = shutdown::on_signal().unwrap();
    let variable = |name: &str| std::env::var(name).unwrap();
    let nats = NatsSettings { url: variable("FLEET_NATS"), ..NatsSettings::default() };
    let connection = Connection::open(&nats, service, |_| {}).await.unwrap();
    let parts = parts::<E>(service, connection, &variable("FLEET_DATABASE"), stop);
    let health = parts.health.clone();
    let mut kit = Kit::start(parts, Ledger::<E>::default(), MIGRATIONS).await.unwrap();
    let router = router::<E>(service, kit.writer());
    kit.consume(router, Vec::new()).unwrap();
    tokio::spawn(async move {
        eventually(PATIENCE, || async { health.readiness().ready }, "the instance to be ready").await;
        println!("ready");
    });
    kit.run().await.unwrap();
}

/// Starts an instance.
pub(super) fn start(name: &str, service: &str, release: &str, nats: &str, database: &str) -> Process {
    Process::builder(name, std::env::current_exe().unwrap())
        .args(["fleet::process::instance", "--exact", "--ignored", "--nocapture"])
        .env("FLEET_SERVICE", service)
        .env("FLEET_RELEASE", release)
        .env("FLEET_NATS", nats)
        .env("FLEET_DATABASE", database)
        .start()
}
