//! Dead letters stand in the outbox too, since the broker can lose what it has acknowledged.

use std::path::PathBuf;
use std::time::Duration;

use millrace::local::copy_folder;
use millrace::outbox::RelaySettings;
use testkit::eventually;
use tokio_util::sync::CancellationToken;

use super::world::{Mood, ONLOOKER, WORKER, World, bare_topology};
use crate::things::{LIMIT, in_time, number};

/// What the disk had of the stream of dead letters at one moment.
struct Flushed {
    folder: PathBuf,
    copy: tempfile::TempDir,
}

impl Flushed {
    /// Leaves the broker stopped.
    async fn now(world: &mut World) -> Self {
        world.nats.stop().await;
        let folder = world.nats.data_dir().join("jetstream/jetstream/$G/streams/DEAD_LETTERS");
        let copy = tempfile::tempdir().unwrap();
        copy_folder(&folder, copy.path()).unwrap();
        Self { folder, copy }
    }

    /// Only dead letters are lost, so that nobody is delivered their originals again.
    async fn cut_the_power(&self, world: &mut World) {
        world.nats.stop().await;
        copy_folder(self.copy.path(), &self.folder).unwrap();
        world.nats.start().await.unwrap();
    }
}

async fn settled(world: &World) {
    let settled = || async {
        let mut open = Vec::new();
        for durable in [WORKER, ONLOOKER] {
            let info = world.consumer(durable).await;
            open.push((info.num_pending, info.num_ack_pending));
        }
        if open.iter().all(|one| *one == (0, 0)) { Ok(()) } else { Err(format!("(pending, unanswered): {open:?}")) }
    };
    eventually(LIMIT, settled, "every message to be answered").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_that_the_broker_lost_in_a_power_cut_comes_back() {
    let mut world = World::start().await;
    for (job, mood) in [("a", Mood::Permanent), ("b", Mood::Permanent), ("c", Mood::Transient)] {
        world.handling.set(job, mood);
    }
    world.publish("a").await;
    world.waiting(1).await;
    settled(&world).await;
    let flushed = Flushed::now(&mut world).await;
    world.nats.start().await.unwrap();
    world.publish("b").await;
    world.publish("c").await;
    let before = world.waiting(3).await;
    settled(&world).await;
    let seen = world.handling.seen_by(WORKER);

    flushed.cut_the_power(&mut world).await;
    let after = world.waiting(3).await;
    let whole = |letters: &[millrace::dead_letters::Letter]| {
        let mut all: Vec<_> = letters.iter().map(|one| one.about.clone()).collect();
        all.sort_by_key(|about| about.stream_seq);
        all
    };
    assert_eq!(whole(&after), whole(&before));
    assert_eq!(world.handling.seen_by(WORKER), seen, "the originals came again, so nothing was shown");
    // They are letters like all others.
    world.handling.repair();
    let ids: Vec<u64> = after.iter().map(|letter| letter.id).collect();
    assert!(world.replay(&ids, &millrace::dead_letters::Options::default()).await.all_handled());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_does_not_end_before_its_letter_is_in_the_outbox() {
    let world = World::start().await;
    let db = rusqlite::Connection::open(world.database_file()).unwrap();
    db.execute_batch("begin immediate").unwrap();
    world.publish_raw(&[], b"nonsense".to_vec()).await;
    // One of the worker, one of the onlooker.
    world.waiting(2).await;
    for durable in [WORKER, ONLOOKER] {
        assert_eq!(world.consumer(durable).await.num_ack_pending, 1, "{durable}");
    }
    db.execute_batch("commit").unwrap();
    settled(&world).await;
    let kept = "select count(*) from outbox where subject like 'dead_letters.%' and published_at is not null";
    assert_eq!(number(&world.database, kept).await, 2);
    world.waiting(2).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_stream_of_dead_letters_was_deleted_it_is_put_back_with_what_was_on_it() {
    let world = World::start().await;
    world.publish_raw(&[], b"nonsense".to_vec()).await;
    world.waiting(2).await;
    settled(&world).await;
    in_time(world.connection.jetstream().delete_stream("DEAD_LETTERS")).await.unwrap();
    world.publish_raw(&[], b"more nonsense".to_vec()).await;
    let there = || async { world.connection.jetstream().get_stream("DEAD_LETTERS").await.is_ok() };
    eventually(LIMIT, there, "the stream to be put back").await;
    world.waiting(4).await;
    world.stop().await;
}

/// No letter is made that would find the stream missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_others_deleted_the_stream_of_dead_letters_and_made_it_anew_the_letters_come_back() {
    let relay = RelaySettings { look_every: Duration::from_millis(500), ..RelaySettings::default() };
    let world = World::relaying(testkit::nats().await, relay).await;
    world.publish_raw(&[], b"nonsense".to_vec()).await;
    world.waiting(2).await;
    settled(&world).await;
    // The comparison that every start begins with is over by then; it would find them as well.
    tokio::time::sleep(Duration::from_secs(1)).await;
    in_time(world.connection.jetstream().delete_stream("DEAD_LETTERS")).await.unwrap();
    let (declared, never) = (bare_topology().with_dead_letters(), CancellationToken::new());
    in_time(millrace::topology::ensure(&world.connection, &declared, true, &never)).await.unwrap();
    world.waiting(2).await;
    world.stop().await;
}
