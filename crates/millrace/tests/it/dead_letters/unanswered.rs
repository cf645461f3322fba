//! Consumers that take a message and never answer.

use std::time::Duration;

use async_nats::jetstream::{self, consumer::PullConsumer};
use futures::StreamExt;
use millrace::dead_letter::{self, Reason};
use millrace::dead_letters::{Options, advisories};
use testkit::eventually;

use super::world::{ATTEMPTS, JOBS, WORKER, World};
use crate::things::{LIMIT, in_time};

/// Takes every delivery of the next message, as a process that dies over it would, and answers none.
async fn crash_loop(world: &World) {
    let found = world.connection.jetstream().get_consumer_from_stream(WORKER, JOBS);
    let consumer: PullConsumer = in_time(found).await.unwrap();
    let take = async || -> Option<jetstream::Message> {
        let mut batch = consumer.fetch().max_messages(1).expires(Duration::from_secs(2)).messages().await.unwrap();
        batch.next().await.map(Result::unwrap)
    };
    for attempt in 1..=ATTEMPTS {
        let message = eventually(LIMIT, &take, "the message to be delivered again").await;
        assert_eq!(message.info().unwrap().delivered, i64::from(attempt));
    }
    // The broker notices when the next message is asked for, as every consumer that comes back does.
    assert!(take().await.is_none());
}

async fn advisories_handled(world: &World, count: u64) {
    let settled = || async {
        let found =
            world.connection.jetstream().get_consumer_from_stream(advisories::durable(WORKER), advisories::STREAM);
        let mut consumer: PullConsumer = found.await.unwrap();
        let info = consumer.info().await.unwrap();
        let seen = (info.ack_floor.consumer_sequence, info.num_pending);
        if seen == (count, 0) { Ok(()) } else { Err(format!("{info:?}")) }
    };
    eventually(LIMIT, settled, "the advisories to be handled").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_never_answered_becomes_a_dead_letter_once_and_can_be_replayed() {
    let world = World::start().await;
    world.close_gate().await;
    world.publish("a").await;
    crash_loop(&world).await;
    let letter = world.waiting(1).await.remove(0);
    let about = &letter.about;
    assert_eq!((about.reason, about.attempts), (Reason::NeverAnswered, ATTEMPTS));
    assert_eq!((about.subject.as_str(), about.consumer.as_str()), ("jobs.created", WORKER));
    assert_eq!(about.first_failed_at, None);
    assert_eq!(in_time(world.operator.get(letter.id)).await.unwrap().body, r#"{"name":"a"}"#);
    advisories_handled(&world, 1).await;

    // The broker may say the same twice.
    let stream = in_time(world.connection.jetstream().get_stream(advisories::STREAM)).await.unwrap();
    let said = in_time(stream.get_raw_message(1)).await.unwrap();
    let said_again = world.connection.jetstream().publish(said.subject, said.payload);
    in_time(in_time(said_again).await.unwrap().into_future()).await.unwrap();
    advisories_handled(&world, 2).await;
    let letters = in_time(world.connection.jetstream().get_stream(dead_letter::STREAM)).await.unwrap();
    assert_eq!(letters.cached_info().state.messages, 1);

    world.open_gate();
    assert!(world.replay(&[letter.id], &Options::default()).await.all_handled());
    assert_eq!(world.done("a").await, 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_gone_holds_up_nobody() {
    let world = World::start().await;
    world.close_gate().await;
    // Both advisories come before anybody may look.
    world.publish("gone").await;
    let stream = in_time(world.connection.jetstream().get_stream(JOBS)).await.unwrap();
    let advisory = |seq: u64| {
        serde_json::json!({
            "type": "io.nats.jetstream.advisory.v1.max_deliver", "id": "x", "timestamp": "2099-01-01T00:00:00Z",
            "stream": JOBS, "consumer": WORKER, "stream_seq": seq, "deliveries": 3,
        })
    };
    in_time(stream.delete_message(1)).await.unwrap();
    world.publish("there").await;
    let subject = format!("{}.{JOBS}.{WORKER}", advisories::MAX_DELIVERIES);
    for body in [advisory(1).to_string(), "no JSON".to_owned(), advisory(2).to_string()] {
        let sent = world.connection.jetstream().publish(subject.clone(), body.into());
        in_time(in_time(sent).await.unwrap().into_future()).await.unwrap();
    }
    let letter = world.waiting(1).await.remove(0);
    assert_eq!(letter.about.stream_seq, 2);
    advisories_handled(&world, 3).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_message_under_the_same_number_is_not_taken_for_the_one_that_was_given_up() {
    let world = World::start().await;
    world.close_gate().await;
    world.publish("innocent").await;
    let old = serde_json::json!({
        "type": "io.nats.jetstream.advisory.v1.max_deliver", "id": "x", "timestamp": "2020-01-01T00:00:00Z",
        "stream": JOBS, "consumer": WORKER, "stream_seq": 1, "deliveries": 3,
    });
    let subject = format!("{}.{JOBS}.{WORKER}", advisories::MAX_DELIVERIES);
    let sent = world.connection.jetstream().publish(subject, old.to_string().into());
    in_time(in_time(sent).await.unwrap().into_future()).await.unwrap();
    advisories_handled(&world, 1).await;
    world.waiting(0).await;
    world.open_gate();
    eventually(LIMIT, || async { world.done("innocent").await == 1 }, "the job to be done").await;
    world.stop().await;
}
