//! What the outbox promises.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures::future::join_all;
use millrace::local::copy_folder;
use millrace::outbox::{Relay, RelaySettings};
use millrace::store::{Database, WriterSettings};
use testkit::eventually;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, STREAM, header, values_by_counter};
use crate::things::{Home, Intent, LIMIT, Writing, in_time, number, unmarked};

/// A writer with its relay.
struct Publishing {
    writing: Writing,
    relay: JoinHandle<()>,
    stop: CancellationToken,
}

/// Nothing happens by the clock, so what is published was published for another reason.
fn without_sweeps() -> RelaySettings {
    RelaySettings { sweep_every: Duration::from_secs(3_600), ..RelaySettings::default() }
}

impl Publishing {
    async fn start(home: &Home, broker: &Broker, settings: RelaySettings) -> Self {
        Self::on(&home.open().await, broker, settings)
    }

    fn on(database: &Database, broker: &Broker, settings: RelaySettings) -> Self {
        Self::keeping(database, broker, settings, WriterSettings::default())
    }

    fn keeping(database: &Database, broker: &Broker, settings: RelaySettings, writer: WriterSettings) -> Self {
        let (relay, sender) = Relay::new(broker.connection.clone(), database.clone(), settings);
        let writing = Writing::start(database, writer, sender);
        let stop = CancellationToken::new();
        let relay = tokio::spawn(relay.run(writing.writer.clone(), stop.clone()));
        Self { writing, relay, stop }
    }

    async fn submit(&self, intent: Intent) {
        in_time(self.writing.writer.submit(unmarked(intent))).await.unwrap();
    }

    /// Counts `each` more in every one of `counters` counters, concurrently.
    async fn count(&self, counters: usize, each: usize) {
        let one = |counter: usize| async move {
            for _ in 0..each {
                self.submit(Intent::count(&format!("c{counter}"))).await;
            }
        };
        join_all((0..counters).map(one)).await;
    }

    async fn all_confirmed(&self) {
        let unpublished = || async { self.unpublished().await == 0 };
        eventually(LIMIT, unpublished, "every row to be confirmed").await;
    }

    async fn unpublished(&self) -> i64 {
        self.writing.number("select count(*) from outbox where published_at is null").await
    }

    async fn stop(self) {
        self.stop.cancel();
        in_time(self.relay).await.unwrap();
    }
}

/// Every message is in the stream once, and those of each counter are in commit order.
async fn expect_in_order(broker: &Broker, counters: usize, each: usize) {
    let messages = broker.messages(STREAM).await;
    let ids: HashSet<&str> = messages.iter().map(|message| header(message, "Nats-Msg-Id")).collect();
    assert_eq!((messages.len(), ids.len()), (counters * each, counters * each));
    let expected: Vec<i64> = (1..=each as i64).collect();
    let values = values_by_counter(&messages);
    assert_eq!(values.len(), counters);
    for (counter, values) in values {
        assert_eq!(values, expected, "{counter}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_published_right_after_its_commit_and_its_place_is_remembered() {
    for home in [Home::sqlite().await, Home::postgres().await] {
        let broker = Broker::start().await;
        let publishing = Publishing::start(&home, &broker, without_sweeps()).await;
        let begun = Instant::now();
        publishing.count(1, 3).await;
        let published = || async { broker.count(STREAM).await == 3 };
        eventually(LIMIT, published, "the events").await;
        assert!(begun.elapsed() < Duration::from_secs(2), "it took {:?}", begun.elapsed());
        publishing.all_confirmed().await;
        expect_in_order(&broker, 1, 3).await;
        let places = "select sum(stream_seq)::bigint from outbox where stream = 'THINGS'";
        let places = if home.url.starts_with("sqlite") { &places.replace("::bigint", "") } else { places };
        assert_eq!(publishing.writing.number(places).await, 6);
        publishing.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_while_nats_is_away_is_published_in_order_when_it_returns() {
    let mut broker = Broker::start().await;
    let home = Home::sqlite().await;
    let publishing = Publishing::start(&home, &broker, RelaySettings::default()).await;
    publishing.count(5, 4).await;
    broker.nats.kill().await;
    publishing.count(5, 20).await;
    broker.nats.start().await.unwrap();
    publishing.all_confirmed().await;
    expect_in_order(&broker, 5, 24).await;
    publishing.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_comes_and_goes_neither_loses_nor_doubles_nor_reorders() {
    let mut broker = Broker::start().await;
    let home = Home::sqlite().await;
    let publishing = Publishing::start(&home, &broker, RelaySettings::default()).await;
    let disturb = async {
        for round in 0..2 {
            let before = broker.count(STREAM).await;
            let works = || async { broker.count(STREAM).await >= before + 50 };
            eventually(LIMIT, works, "events to flow").await;
            if round % 2 == 0 {
                broker.nats.kill().await
            } else {
                broker.nats.stop().await
            }
            broker.nats.start().await.unwrap();
        }
    };
    futures::future::join(publishing.count(20, 200), disturb).await;
    publishing.all_confirmed().await;
    expect_in_order(&broker, 20, 200).await;
    publishing.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_memory_holds_is_published_in_order() {
    for home in [Home::sqlite().await, Home::postgres().await] {
        let mut broker = Broker::start().await;
        let settings = RelaySettings { max_pending: 20, ..without_sweeps() };
        let publishing = Publishing::start(&home, &broker, settings).await;
        broker.nats.kill().await;
        publishing.count(10, 60).await;
        broker.nats.start().await.unwrap();
        publishing.count(10, 10).await;
        publishing.all_confirmed().await;
        expect_in_order(&broker, 10, 70).await;
        publishing.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_left_behind_is_published_at_the_next_start_before_anything_newer() {
    let home = Home::sqlite().await;
    let crashed = home.writer().await;
    for _ in 0..700 {
        in_time(crashed.writer.submit(unmarked(Intent::count("c0")))).await.unwrap();
    }
    crashed.writer.close();
    in_time(crashed.task).await.unwrap();
    let broker = Broker::start().await;
    let publishing = Publishing::on(&crashed.database, &broker, without_sweeps());
    publishing.count(1, 20).await;
    publishing.all_confirmed().await;
    expect_in_order(&broker, 1, 720).await;
    publishing.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_broker_refuses_for_ever_holds_up_neither_the_others_nor_the_end() {
    let broker = Broker::start().await;
    let settings =
        RelaySettings { max_pending: 20, sweep_every: Duration::from_millis(200), ..RelaySettings::default() };
    let home = Home::sqlite().await;
    let publishing = Publishing::start(&home, &broker, settings).await;
    // More than memory holds, each in a lane of its own; and one in front of a lane that has others behind it.
    for n in 0..60 {
        publishing.submit(Intent::PublishLost(format!("lost-{n}"))).await;
    }
    publishing.submit(Intent::PublishLost("c9".into())).await;
    publishing.submit(Intent::count("c9")).await;
    publishing.count(5, 20).await;
    let others = || async { publishing.unpublished().await == 62 };
    eventually(LIMIT, others, "everything else to be published").await;
    expect_in_order(&broker, 5, 20).await;

    // Once there is a stream for them they leave, too.
    let mut wider = broker.topology.clone();
    wider.streams[0].subjects.push("lost.>".into());
    let applied = millrace::topology::apply(&broker.connection, &wider, false).await;
    applied.unwrap();
    publishing.all_confirmed().await;
    let begun = Instant::now();
    publishing.submit(Intent::count("last")).await;
    publishing.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_stopped_at_once_publishes_what_was_committed_first() {
    let broker = Broker::start().await;
    let home = Home::sqlite().await;
    let database = home.open().await;
    // More than memory holds, and stopped before the table can have been read.
    let publishing = Publishing::on(&database, &broker, RelaySettings { max_pending: 20, ..without_sweeps() });
    publishing.count(30, 20).await;
    publishing.stop().await;
    expect_in_order(&broker, 30, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_stopped_while_rows_are_refused_or_nats_is_away_ends_soon() {
    let mut broker = Broker::start().await;
    let home = Home::sqlite().await;
    let database = home.open().await;
    let publishing = Publishing::on(&database, &broker, RelaySettings::default());
    publishing.submit(Intent::PublishLost("lost".into())).await;
    publishing.submit(Intent::count("a")).await;
    let begun = Instant::now();
    let writer = publishing.writing.writer.clone();
    publishing.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(3), "with a refused row it took {:?}", begun.elapsed());
    // What was published before the end is confirmed by the end.
    writer.close();
    let confirmed = || async { number(&database, "select count(*) from outbox where published_at is null").await == 1 };
    eventually(LIMIT, confirmed, "the confirmation of what was published").await;

    broker.nats.kill().await;
    let publishing = Publishing::on(&database, &broker, RelaySettings::default());
    publishing.submit(Intent::count("a")).await;
    let begun = Instant::now();
    publishing.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(3), "without NATS it took {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_a_commit_whose_answer_was_lost_are_published_before_later_ones() {
    let home = Home::postgres().await;
    home.open().await;
    let broker = Broker::start().await;
    let proxy = crate::proxy::Proxy::before(&home.url).await;
    let publishing = Publishing::start(&Home::at(proxy.url.clone()), &broker, without_sweeps()).await;
    publishing.count(1, 1).await;
    publishing.all_confirmed().await;
    for _ in 0..5 {
        proxy.lose_next_commit();
        publishing.count(1, 4).await;
    }
    publishing.all_confirmed().await;
    expect_in_order(&broker, 1, 21).await;
    publishing.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_with_a_line_break_in_it_is_published_like_any_other() {
    let broker = Broker::start().await;
    let home = Home::sqlite().await;
    let publishing = Publishing::start(&home, &broker, without_sweeps()).await;
    publishing.submit(Intent::count("line\r\nbreak")).await;
    publishing.all_confirmed().await;
    let messages = broker.messages(STREAM).await;
    assert_eq!(header(&messages[0], "ce-subject"), "line%0D%0Abreak");
    publishing.stop().await;
}

/// What a power cut does to a broker that acknowledges before it flushes: its store is as it was a while ago.
struct Snapshot {
    store: std::path::PathBuf,
    copy: tempfile::TempDir,
}

impl Snapshot {
    async fn take(broker: &mut Broker) -> Self {
        let store = broker.nats.data_dir().join("jetstream");
        let copy = tempfile::tempdir().unwrap();
        // Stopped, so that the copy is whole.
        broker.nats.stop().await;
        copy_folder(&store, copy.path()).unwrap();
        broker.nats.start().await.unwrap();
        Self { store, copy }
    }

    async fn cut_the_power(&self, broker: &mut Broker) {
        broker.nats.kill().await;
        copy_folder(self.copy.path(), &self.store).unwrap();
        broker.nats.start().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_broker_acknowledged_and_then_lost_is_published_again() {
    for home in [Home::sqlite().await, Home::postgres().await] {
        let mut broker = Broker::start().await;
        let publishing = Publishing::start(&home, &broker, without_sweeps()).await;
        publishing.count(10, 4).await;
        publishing.all_confirmed().await;
        let snapshot = Snapshot::take(&mut broker).await;
        // More than a page of comparing, and more than were there before.
        publishing.count(10, 36).await;
        publishing.all_confirmed().await;

        snapshot.cut_the_power(&mut broker).await;
        // New events come in at once, at the places of the lost ones.
        publishing.count(10, 5).await;
        let back = || async { broker.count(STREAM).await == 450 };
        eventually(LIMIT, back, "the lost events to be in the stream again").await;
        publishing.all_confirmed().await;
        let messages = broker.messages(STREAM).await;
        let ids: HashSet<&str> = messages.iter().map(|message| header(message, "Nats-Msg-Id")).collect();
        assert_eq!(ids.len(), 450);
        publishing.stop().await;
    }
}

/// However long an outage takes: what is not known to be at the broker is not removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_removed_from_the_outbox_while_the_broker_may_have_lost_it() {
    let (home, mut broker) = (Home::sqlite().await, Broker::start().await);
    let snapshot = Snapshot::take(&mut broker).await;
    let database = home.open().await;
    let keeping = WriterSettings {
        keep_published: Duration::from_millis(500),
        prune_every: Duration::from_millis(100),
        ..WriterSettings::default()
    };
    let publishing = Publishing::keeping(&database, &broker, without_sweeps(), keeping);
    publishing.count(5, 4).await;
    publishing.all_confirmed().await;
    broker.nats.kill().await;
    let away = || async { !broker.connection.is_connected() };
    eventually(LIMIT, away, "the connection to be gone").await;
    // Far longer than published rows are kept, with many rounds of removing.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    snapshot.cut_the_power(&mut broker).await;
    let back = || async { broker.count(STREAM).await == 20 };
    eventually(LIMIT, back, "the lost events to be in the stream again").await;
    let removed = || async { publishing.writing.number("select count(*) from outbox").await == 0 };
    eventually(LIMIT, removed, "old rows to be removed once the broker has them").await;
    publishing.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_broker_lost_while_the_service_was_down_is_published_again_at_its_start() {
    let home = Home::sqlite().await;
    let mut broker = Broker::start().await;
    let snapshot = Snapshot::take(&mut broker).await;
    let publishing = Publishing::start(&home, &broker, without_sweeps()).await;
    publishing.count(5, 6).await;
    publishing.all_confirmed().await;
    publishing.stop().await;

    snapshot.cut_the_power(&mut broker).await;
    let publishing = Publishing::start(&home, &broker, without_sweeps()).await;
    let back = || async { broker.count(STREAM).await == 30 };
    eventually(LIMIT, back, "the lost events to be in the stream again").await;
    publishing.all_confirmed().await;
    expect_in_order(&broker, 5, 6).await;
    publishing.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_is_found_behind_everything_that_was_published_since() {
    for home in [Home::sqlite().await, Home::postgres().await] {
        let mut broker = Broker::start().await;
        // Compares only when its confirmations are stored by the clock, that is never.
        let never = RelaySettings { confirm_every: Duration::from_secs(3_600), ..without_sweeps() };
        let publishing = Publishing::start(&home, &broker, without_sweeps()).await;
        publishing.count(10, 4).await;
        publishing.all_confirmed().await;
        let snapshot = Snapshot::take(&mut broker).await;
        publishing.count(10, 3).await;
        publishing.all_confirmed().await;
        publishing.stop().await;

        snapshot.cut_the_power(&mut broker).await;
        // A service that publishes more than a page, at the places of the lost ones, and dies before it has compared.
        let publishing = Publishing::start(&home, &broker, never).await;
        publishing.count(10, 60).await;
        let confirmed = || async { publishing.unpublished().await < 300 };
        eventually(LIMIT, confirmed, "more than a page of new rows to be confirmed").await;
        publishing.relay.abort();
        drop(publishing);

        let publishing = Publishing::start(&home, &broker, without_sweeps()).await;
        let back = || async { broker.count(STREAM).await == 670 };
        eventually(LIMIT, back, "the lost events to be in the stream again").await;
        publishing.all_confirmed().await;
        publishing.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_in_a_stream_that_somebody_deleted_is_published_again_once_it_is_back() {
    for home in [Home::sqlite().await, Home::postgres().await] {
        let broker = Broker::start().await;
        let publishing = Publishing::start(&home, &broker, without_sweeps()).await;
        publishing.count(5, 4).await;
        publishing.all_confirmed().await;
        broker.connection.jetstream().delete_stream(STREAM).await.unwrap();
        publishing.count(5, 2).await;
        broker.ensure().await;
        let back = || async { broker.count(STREAM).await == 30 };
        eventually(LIMIT, back, "all events to be in the new stream").await;
        publishing.all_confirmed().await;
        let messages = broker.messages(STREAM).await;
        let ids: HashSet<&str> = messages.iter().map(|message| header(message, "Nats-Msg-Id")).collect();
        assert_eq!(ids.len(), 30);
        publishing.stop().await;
    }
}

/// Nobody found the stream missing; but the new one gives its places a second time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_in_a_stream_that_was_deleted_and_made_anew_between_two_events_is_published_again() {
    let (home, broker) = (Home::sqlite().await, Broker::start().await);
    let publishing = Publishing::start(&home, &broker, without_sweeps()).await;
    publishing.count(5, 4).await;
    publishing.all_confirmed().await;
    broker.connection.jetstream().delete_stream(STREAM).await.unwrap();
    broker.ensure().await;
    publishing.count(1, 1).await;
    let back = || async { broker.count(STREAM).await == 21 };
    eventually(LIMIT, back, "all events to be in the new stream").await;
    publishing.all_confirmed().await;
    publishing.stop().await;
}

/// Nobody who saw the places it gave lives any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_in_a_stream_that_was_deleted_and_made_anew_while_its_owner_was_down_is_published_again() {
    for home in [Home::sqlite().await, Home::postgres().await] {
        let broker = Broker::start().await;
        let publishing = Publishing::start(&home, &broker, without_sweeps()).await;
        publishing.count(5, 4).await;
        publishing.all_confirmed().await;
        publishing.stop().await;
        broker.connection.jetstream().delete_stream(STREAM).await.unwrap();
        broker.ensure().await;
        let publishing = Publishing::start(&home, &broker, without_sweeps()).await;
        let back = || async { broker.count(STREAM).await == 20 };
        eventually(LIMIT, back, "all events to be in the new stream").await;
        publishing.all_confirmed().await;
        publishing.stop().await;
    }
}

/// There is no event that would be given a place for the second time, and no new connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_in_a_stream_that_others_deleted_and_made_anew_is_published_again_after_a_while() {
    let (home, broker) = (Home::sqlite().await, Broker::start().await);
    let settings = RelaySettings { look_every: Duration::from_millis(500), ..without_sweeps() };
    let publishing = Publishing::start(&home, &broker, settings).await;
    publishing.count(5, 4).await;
    publishing.all_confirmed().await;
    broker.connection.jetstream().delete_stream(STREAM).await.unwrap();
    broker.ensure().await;
    let back = || async { broker.count(STREAM).await == 20 };
    eventually(LIMIT, back, "all events to be in the new stream").await;
    publishing.all_confirmed().await;
    publishing.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_lost_nothing_is_sent_nothing_again() {
    let home = Home::sqlite().await;
    let mut broker = Broker::start().await;
    let publishing = Publishing::start(&home, &broker, without_sweeps()).await;
    publishing.count(3, 5).await;
    publishing.all_confirmed().await;
    broker.nats.restart().await.unwrap();
    publishing.count(3, 1).await;
    publishing.all_confirmed().await;
    assert_eq!(broker.count(STREAM).await, 18);
    // Sequences would have moved on had anything been published again.
    let highest = publishing.writing.number("select max(stream_seq) from outbox").await;
    assert_eq!(highest, 18);
    publishing.stop().await;
}
