//! What a service made with the kit promises.

use std::time::{Duration, Instant};

use millrace::connection::{Connection, NatsSettings};
use millrace::consumer::{ConsumerSettings, Router};
use millrace::event::Received;
use millrace::health::Health;
use millrace::kit::{self, Kit, KitParts, KitSettings};
use millrace::outbox::RelaySettings;
use millrace::store::StoreError;
use testkit::eventually;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, DURABLE, STREAM, topology};
use crate::things::{Counters, Home, Intent, LIMIT, MIGRATIONS, ThingHappened, in_time, number, unmarked};

fn parts(connection: &Connection, home: &Home) -> KitParts {
    KitParts {
        service: "counters",
        connection: connection.clone(),
        database_url: home.url.parse().unwrap(),
        settings: KitSettings {
            relay: RelaySettings { sweep_every: Duration::from_secs(3_600), ..RelaySettings::default() },
            consumer: ConsumerSettings { workers: 8, ..ConsumerSettings::default() },
            ..KitSettings::default()
        },
        topology: topology(Duration::from_secs(30)),
        health: Health::default(),
        shutdown: CancellationToken::new(),
    }
}

async fn start(connection: &Connection, home: &Home) -> Kit<Counters> {
    in_time(Kit::start(parts(connection, home), Counters::default(), MIGRATIONS)).await.unwrap()
}

/// Counts under another name each thing that is not such a count itself.
fn echo(kit: &Kit<Counters>) -> Router {
    let writer = kit.writer();
    Router::new(DURABLE).on::<ThingHappened, _, _>(move |event: Received<ThingHappened>| {
        let writer = writer.clone();
        async move {
            if !event.data.counter.starts_with("echo") {
                let intent = Intent::count(&format!("echo-{}", event.data.counter));
                writer.submit(event.submission(intent)).await?;
            }
            Ok(())
        }
    })
}

/// Runs a kit in the background; a source of work waits for the end, as a server would.
fn run(mut kit: Kit<Counters>) -> JoinHandle<Result<(), kit::Error>> {
    let shutdown = kit.shutdown();
    kit.spawn("source", async move {
        shutdown.cancelled().await;
        Ok(())
    });
    tokio::spawn(kit.run())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_works_before_nats_is_there_and_consumes_once_it_is() {
    let mut nats = testkit::nats().await;
    nats.kill().await;
    let connection = crate::broker::connect(&nats).await;
    let home = Home::sqlite().await;
    let mut kit = start(&connection, &home).await;
    let router = echo(&kit);
    kit.consume(router, Vec::new()).unwrap();
    let (writer, database, shutdown) = (kit.writer(), kit.database(), kit.shutdown());
    let running = run(kit);
    for _ in 0..5 {
        in_time(writer.submit(unmarked(Intent::count("a")))).await.unwrap();
    }
    nats.start().await.unwrap();
    let echoed = || async {
        let value =
            number(&database, "select value from counters where name = 'echo-a' union all select 0 limit 1").await;
        if value == 5 { Ok(()) } else { Err(value.to_string()) }
    };
    eventually(LIMIT, echoed, "what was committed before to be published and consumed").await;
    shutdown.cancel();
    in_time(running).await.unwrap().unwrap();
    assert_eq!(number(&database, "select count(*) from outbox where published_at is null").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_service_stops_within_a_second_though_somebody_still_holds_its_writer() {
    let broker = Broker::start().await;
    let home = Home::sqlite().await;
    let mut kit = start(&broker.connection, &home).await;
    let router = echo(&kit);
    kit.consume(router, Vec::new()).unwrap();
    let (writer, shutdown) = (kit.writer(), kit.shutdown());
    let running = run(kit);
    in_time(writer.submit(unmarked(Intent::count("a")))).await.unwrap();
    eventually(LIMIT, || async { broker.count(STREAM).await == 2 }, "the event and its echo").await;
    let begun = Instant::now();
    shutdown.cancel();
    in_time(running).await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
    let late = in_time(writer.submit(unmarked(Intent::count("a")))).await;
    assert!(matches!(late, Err(StoreError::Stopped)), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_while_the_service_stops_is_published_before_it_ends() {
    let broker = Broker::start().await;
    let home = Home::sqlite().await;
    let mut kit = start(&broker.connection, &home).await;
    let (writer, database, shutdown) = (kit.writer(), kit.database(), kit.shutdown());
    let stopping = shutdown.clone();
    kit.spawn("source", async move {
        stopping.cancelled().await;
        // A server that answers its last requests.
        let last = (0..500).map(|n| writer.submit(unmarked(Intent::count(&format!("c{n}")))));
        futures::future::try_join_all(last).await?;
        Ok(())
    });
    let running = tokio::spawn(kit.run());
    shutdown.cancel();
    in_time(running).await.unwrap().unwrap();
    assert_eq!(broker.count(STREAM).await, 500);
    assert_eq!(number(&database, "select count(*) from outbox where published_at is not null").await, 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_an_absent_database_nor_an_absent_broker_keeps_a_service_from_stopping() {
    let mut server = testkit::private_postgres().await;
    let mut broker = Broker::start().await;
    let home = Home::at(server.database_url("counters"));
    let mut kit = start(&broker.connection, &home).await;
    let router = echo(&kit);
    kit.consume(router, Vec::new()).unwrap();
    let (writer, shutdown) = (kit.writer(), kit.shutdown());
    let running = run(kit);
    in_time(writer.submit(unmarked(Intent::count("a")))).await.unwrap();
    eventually(LIMIT, || async { broker.count(STREAM).await == 2 }, "the event and its echo").await;
    server.kill().await;
    // A message whose handler now waits for the database.
    let thing = br#"{"counter":"b","value":1}"#;
    let sent = broker.connection.jetstream().publish("things.happened", thing.as_slice().into());
    in_time(in_time(sent).await.unwrap().into_future()).await.unwrap();
    let in_hand = || async { broker.consumer().await.num_ack_pending == 1 };
    eventually(LIMIT, in_hand, "the handler to wait").await;
    broker.nats.kill().await;
    let begun = Instant::now();
    shutdown.cancel();
    in_time(running).await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
}

/// Otherwise an orchestrator that changes its mind sees a service that failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_told_to_stop_while_it_waits_for_its_database_has_not_failed() {
    let settings = NatsSettings { url: "nats://127.0.0.1:1".into(), ..NatsSettings::default() };
    let connection = Connection::open(&settings, "counters", |_| {}).await.unwrap();
    let parts = parts(&connection, &Home::at("postgres://nobody@127.0.0.1:1/nothing".into()));
    parts.shutdown.cancel();
    let started = in_time(Kit::start(parts, Counters::default(), MIGRATIONS)).await.map(|_| ());
    assert!(matches!(started, Err(kit::Error::StoppedBeforeStart { .. })), "{started:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_fails_stops_the_service_and_is_named() {
    let nowhere = NatsSettings { url: "nats://127.0.0.1:1".into(), ..NatsSettings::default() };
    let connection = Connection::open(&nowhere, "test", |_| {}).await.unwrap();
    let home = Home::sqlite().await;
    let mut kit = start(&connection, &home).await;
    let shutdown = kit.shutdown();
    kit.spawn("http", async { Err("the listener is gone".into()) });
    let error = in_time(kit.run()).await.unwrap_err();
    assert_eq!(error.to_string(), "counters: http ended unexpectedly: the listener is gone");
    assert!(shutdown.is_cancelled());

    let kit = start(&connection, &home).await;
    kit.writer().close();
    let error = in_time(kit.run()).await.unwrap_err();
    assert!(error.to_string().contains("the writer ended unexpectedly"), "{error}");

    let mut kit = start(&connection, &home).await;
    let closing = connection.clone();
    let router = echo(&kit);
    kit.consume(router, Vec::new()).unwrap();
    let undeclared = kit.consume(Router::new("nobody"), Vec::new()).unwrap_err();
    assert!(undeclared.to_string().contains("no consumer nobody is declared"), "{undeclared}");
    // A kit that never runs leaves nothing behind.
    let writer = kit.writer();
    drop(kit);
    drop(closing);
    let gone = || async { matches!(writer.submit(unmarked(Intent::count("a"))).await, Err(StoreError::Stopped)) };
    eventually(LIMIT, gone, "the writer of a dropped kit to stop").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_never_ends_does_not_keep_the_service_for_ever() {
    let broker = Broker::start().await;
    let home = Home::sqlite().await;
    let mut kit = start(&broker.connection, &home).await;
    let router = Router::new(DURABLE).on::<ThingHappened, _, _>(|_| std::future::pending::<Result<(), _>>());
    kit.consume(router, Vec::new()).unwrap();
    let (writer, shutdown) = (kit.writer(), kit.shutdown());
    let running = run(kit);
    in_time(writer.submit(unmarked(Intent::count("a")))).await.unwrap();
    let in_hand = || async { broker.consumer().await.num_ack_pending == 1 };
    eventually(LIMIT, in_hand, "the handler to begin").await;
    shutdown.cancel();
    in_time(running).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_away_right_after_it_was_opened_does_not_end_the_service() {
    let broker = Broker::start().await;
    let home = Home::sqlite().await;
    let kit = start(&broker.connection, &home).await;
    let away = || StoreError::Unavailable("the server is being restarted".into());
    let asked = std::sync::atomic::AtomicU32::new(0);
    let ask = || async {
        let before = asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        if before < 3 { Err(away()) } else { Ok(before) }
    };
    assert_eq!(in_time(kit.read_first(ask)).await.unwrap(), 3);
    // What waiting cannot mend is told at once, and so is everything once the service is to stop.
    let refused = || async { Err::<(), _>(StoreError::Failed("no such table".into())) };
    assert!(matches!(in_time(kit.read_first(refused)).await, Err(kit::Error::Database { .. })));
    kit.shutdown().cancel();
    assert!(in_time(kit.read_first(|| async { Err::<(), _>(away()) })).await.is_err());
    in_time(run(kit)).await.unwrap().unwrap();
}
