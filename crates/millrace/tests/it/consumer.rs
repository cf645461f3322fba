//! What a consumer promises.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::message::PublishMessage;
use millrace::consumer::{Consumer, ConsumerSettings, Failure, Restore, Router};
use millrace::dead_letter::{self, DeadLetter, Reason};
use millrace::event::{Cause, EventId, Received, Retired, encode, encode_headers};
use millrace::topology;
use testkit::eventually;
use time::OffsetDateTime;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, DURABLE, STREAM};
use crate::things::{LIMIT, ThingHappened, in_time};

/// What handlers saw, and when.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<(String, i64, Instant)>>>);

impl Seen {
    fn note(&self, event: &Received<ThingHappened>) {
        self.0.lock().unwrap().push((event.data.counter.clone(), event.data.value, Instant::now()));
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    async fn at_least(&self, many: usize) {
        eventually(LIMIT, || async { self.len() >= many }, &format!("{many} messages to be handled")).await;
    }

    fn values_by_counter(&self) -> BTreeMap<String, Vec<i64>> {
        let mut values: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for (counter, value, _) in self.0.lock().unwrap().iter() {
            values.entry(counter.clone()).or_default().push(*value);
        }
        values
    }

    fn times(&self) -> Vec<Instant> {
        self.0.lock().unwrap().iter().map(|(_, _, at)| *at).collect()
    }
}

/// A running consumer.
struct Consuming {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Consuming {
    fn start<F>(
        broker: &Broker,
        settings: ConsumerSettings,
        gates: Vec<watch::Receiver<bool>>,
        handler: impl Fn(Received<ThingHappened>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        Self::start_router(broker, settings, gates, Router::new(DURABLE).on::<ThingHappened, _, _>(handler))
    }

    fn start_router(
        broker: &Broker,
        settings: ConsumerSettings,
        gates: Vec<watch::Receiver<bool>>,
        router: Router,
    ) -> Self {
        let spec = &broker.topology.consumers[0];
        let settings = ConsumerSettings { ack_wait: spec.ack_wait, max_attempts: spec.max_deliver, ..settings };
        let (connection, topology) = (broker.connection.clone(), broker.topology.clone());
        let restore: Restore = Arc::new(move || {
            let (connection, topology) = (connection.clone(), topology.clone());
            Box::pin(async move {
                topology::ensure(&connection, &topology, true, &CancellationToken::new()).await.unwrap();
            })
        });
        let consumer = Consumer::new(broker.connection.clone(), STREAM, router, settings, gates, restore, None);
        let stop = CancellationToken::new();
        let task = tokio::spawn(consumer.run(stop.clone()));
        Self { stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        in_time(self.task).await.unwrap();
    }
}

/// Retries come soon, so that a test need not wait for them.
fn quick() -> ConsumerSettings {
    ConsumerSettings {
        workers: 16,
        retry_first: Duration::from_millis(100),
        retry_most: Duration::from_millis(400),
        ..ConsumerSettings::default()
    }
}

/// Publishes as the outbox would: the values of each counter in order.
async fn publish(broker: &Broker, counters: usize, values: std::ops::RangeInclusive<i64>) {
    for value in values {
        for counter in 0..counters {
            let thing = ThingHappened { counter: format!("c{counter}"), value };
            let encoded = encode(&thing, &EventId::generate(), &Retired::default()).unwrap().remove(0);
            let pairs = encode_headers(&encoded, "/millrace/test", OffsetDateTime::now_utc(), &Cause::spontaneous());
            publish_raw(broker, "things.happened", &pairs, encoded.body).await;
        }
    }
}

async fn publish_raw(broker: &Broker, subject: &str, headers: &[(String, String)], body: Vec<u8>) {
    let message = headers
        .iter()
        .fold(PublishMessage::build(), |message, (name, value)| message.header(name.as_str(), value.as_str()));
    let sent = broker.connection.jetstream().send_publish(subject.to_owned(), message.payload(body.into()));
    in_time(in_time(sent).await.unwrap().into_future()).await.unwrap();
}

fn letter(message: &jetstream::Message) -> DeadLetter {
    DeadLetter::from_headers(message.headers.as_ref()).unwrap()
}

/// Nothing is waiting, unanswered or delivered twice at the broker.
async fn expect_settled(broker: &Broker) {
    let settled = || async {
        let info = broker.consumer().await;
        let open = (info.num_pending, info.num_ack_pending);
        if open == (0, 0) { Ok(()) } else { Err(format!("(pending, unanswered) = {open:?}")) }
    };
    eventually(LIMIT, settled, "every message to be answered").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_for_foreign_publishers_acknowledges_our_own_messages_unread_and_handles_theirs() {
    let broker = Broker::start().await;
    publish(&broker, 3, 1..=2).await;
    let body = br#"{"counter":"theirs","value":7}"#.to_vec();
    let theirs = [("ce-source".to_owned(), "/somebody/else".to_owned())];
    publish_raw(&broker, "things.happened", &theirs, body.clone()).await;
    // Whoever does not say who they are is not one of ours.
    publish_raw(&broker, "things.happened", &[], body).await;
    let seen = Seen::default();
    let noting = seen.clone();
    let router = Router::new(DURABLE).of_foreign_publishers().on::<ThingHappened, _, _>(move |event| {
        noting.note(&event);
        async { Ok(()) }
    });
    let consuming = Consuming::start_router(&broker, quick(), Vec::new(), router);
    expect_settled(&broker).await;
    assert_eq!(seen.values_by_counter(), BTreeMap::from([("theirs".to_owned(), vec![7, 7])]));
    consuming.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_is_handled_once_and_those_of_one_key_one_after_the_other() {
    let broker = Broker::start().await;
    // Fewer keys than workers: messages of one key are in hand together.
    publish(&broker, 3, 1..=60).await;
    let seen = Seen::default();
    let noting = seen.clone();
    let consuming = Consuming::start(&broker, quick(), Vec::new(), move |event| {
        let noting = noting.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..5))).await;
            noting.note(&event);
            Ok(())
        }
    });
    publish(&broker, 3, 61..=80).await;
    seen.at_least(240).await;
    expect_settled(&broker).await;
    assert_eq!(broker.consumer().await.num_redelivered, 0);
    let values = seen.values_by_counter();
    assert_eq!(values.len(), 3);
    for (counter, values) in values {
        assert_eq!(values, (1..=80).collect::<Vec<_>>(), "{counter}");
    }
    consuming.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_run_side_by_side_and_never_more_than_there_are_workers() {
    let broker = Broker::start().await;
    publish(&broker, 100, 1..=3).await;
    let (seen, running, most) = (Seen::default(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (noting, counting, highest) = (seen.clone(), running.clone(), most.clone());
    let settings = ConsumerSettings { workers: 8, ..quick() };
    let consuming = Consuming::start(&broker, settings, Vec::new(), move |event| {
        let (noting, counting, highest) = (noting.clone(), counting.clone(), highest.clone());
        async move {
            highest.fetch_max(counting.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            noting.note(&event);
            counting.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    });
    seen.at_least(300).await;
    expect_settled(&broker).await;
    assert_eq!((seen.len(), most.load(Ordering::SeqCst)), (300, 8));
    consuming.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_a_slow_handler_nor_a_message_that_waits_for_it_is_delivered_twice() {
    let broker = Broker::with_ack_wait(Duration::from_secs(1)).await;
    publish(&broker, 1, 1..=3).await;
    let seen = Seen::default();
    let noting = seen.clone();
    let consuming = Consuming::start(&broker, quick(), Vec::new(), move |event| {
        let noting = noting.clone();
        async move {
            // Longer than ack-wait, twice over for the last one.
            tokio::time::sleep(Duration::from_millis(1_600)).await;
            noting.note(&event);
            Ok(())
        }
    });
    seen.at_least(3).await;
    expect_settled(&broker).await;
    assert_eq!(broker.consumer().await.delivered.consumer_sequence, 3, "something was delivered twice");
    assert_eq!(seen.len(), 3);
    consuming.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transient_failure_is_retried_with_growing_pauses_and_then_kept_whole_as_a_dead_letter() {
    let broker = Broker::start().await;
    publish(&broker, 1, 1..=1).await;
    let original = broker.messages(STREAM).await.remove(0);
    let (failed, handled) = (Seen::default(), Seen::default());
    let (failing, handling) = (failed.clone(), handled.clone());
    let settings =
        ConsumerSettings { retry_first: Duration::from_millis(150), retry_most: Duration::from_millis(600), ..quick() };
    let consuming = Consuming::start(&broker, settings, Vec::new(), move |event| {
        let (failing, handling) = (failing.clone(), handling.clone());
        async move {
            if event.data.counter == "c0" && event.data.value == 1 {
                failing.note(&event);
                return Err(Failure::transient("the gateway is away"));
            }
            handling.note(&event);
            Ok(())
        }
    });
    publish(&broker, 3, 2..=3).await;
    eventually(LIMIT, || async { broker.count(dead_letter::STREAM).await == 1 }, "a dead letter").await;
    handled.at_least(6).await;
    expect_settled(&broker).await;
    assert_eq!((failed.len(), handled.len()), (5, 6));
    for pause in failed.times().windows(2) {
        let pause = pause[1] - pause[0];
        assert!(pause >= Duration::from_millis(90), "only {pause:?} between two attempts");
    }
    let copy = broker.messages(dead_letter::STREAM).await.remove(0);
    let letter = letter(&copy);
    assert_eq!(copy.payload, original.payload);
    assert!(copy.subject.starts_with("dead_letters.counter-things"), "{}", copy.subject);
    let (mut kept, mut sent) = (letter.headers, dead_letter::header_pairs(original.headers.as_ref()));
    kept.sort();
    sent.sort();
    assert_eq!(kept, sent);
    assert_eq!((letter.reason, letter.attempts), (Reason::AttemptsExhausted, 5));
    assert_eq!(letter.errors, ["the gateway is away"]);
    assert_eq!((letter.stream.as_str(), letter.stream_seq, letter.consumer.as_str()), (STREAM, 1, DURABLE));
    consuming.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permanent_failure_is_a_dead_letter_at_once() {
    let broker = Broker::start().await;
    publish(&broker, 1, 1..=1).await;
    let seen = Seen::default();
    let noting = seen.clone();
    let consuming = Consuming::start(&broker, quick(), Vec::new(), move |event| {
        noting.note(&event);
        async { Err(Failure::permanent("no such card")) }
    });
    eventually(LIMIT, || async { broker.count(dead_letter::STREAM).await == 1 }, "a dead letter").await;
    expect_settled(&broker).await;
    let letter = letter(&broker.messages(dead_letter::STREAM).await[0]);
    assert_eq!((seen.len(), letter.reason, letter.attempts), (1, Reason::Permanent, 1));
    consuming.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_undecodable_message_among_a_thousand_harms_nobody() {
    let broker = Broker::start().await;
    publish(&broker, 10, 1..=50).await;
    let headers = [("ce-type".to_owned(), "things.happened".to_owned()), ("ce-subject".to_owned(), "c1".to_owned())];
    publish_raw(&broker, "things.happened", &headers, b"\xff not JSON".to_vec()).await;
    publish_raw(&broker, "things.unheard", &[], b"{}".to_vec()).await;
    publish(&broker, 10, 51..=100).await;
    let seen = Seen::default();
    let noting = seen.clone();
    let consuming = Consuming::start(&broker, quick(), Vec::new(), move |event| {
        noting.note(&event);
        async { Ok(()) }
    });
    seen.at_least(1_000).await;
    expect_settled(&broker).await;
    assert_eq!(seen.len(), 1_000);
    let letters = broker.messages(dead_letter::STREAM).await;
    assert_eq!(letters.len(), 2);
    let poison = letters.iter().find(|copy| letter(copy).subject == "things.happened").unwrap();
    assert_eq!(&poison.payload[..], b"\xff not JSON");
    assert_eq!((letter(poison).reason, letter(poison).attempts), (Reason::Undecodable, 1));
    consuming.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_panics_is_asked_again() {
    let broker = Broker::start().await;
    publish(&broker, 2, 1..=1).await;
    let (seen, calls) = (Seen::default(), Arc::new(AtomicUsize::new(0)));
    let (noting, calling) = (seen.clone(), calls.clone());
    // The first panic is in the handler, the second before its future exists.
    let consuming = Consuming::start(&broker, quick(), Vec::new(), move |event| {
        let call = calling.fetch_add(1, Ordering::SeqCst);
        assert_ne!(call, 1, "on purpose");
        let noting = noting.clone();
        async move {
            assert_ne!(call, 0, "on purpose");
            noting.note(&event);
            Ok(())
        }
    });
    seen.at_least(2).await;
    expect_settled(&broker).await;
    assert_eq!((seen.len(), calls.load(Ordering::SeqCst)), (2, 4));
    assert_eq!(broker.count(dead_letter::STREAM).await, 0);
    consuming.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_gate_costs_no_delivery_attempt_also_when_it_closes_while_messages_were_asked_for() {
    let broker = Broker::with_ack_wait(Duration::from_secs(1)).await;
    let (gate, open) = watch::channel(false);
    let (seen, release) = (Seen::default(), Arc::new(Semaphore::new(10)));
    let (noting, released, begun) = (seen.clone(), release.clone(), Arc::new(AtomicUsize::new(0)));
    let beginning = begun.clone();
    let consuming = Consuming::start(&broker, quick(), vec![watch::channel(true).1, open], move |event| {
        let (noting, released) = (noting.clone(), released.clone());
        beginning.fetch_add(1, Ordering::SeqCst);
        async move {
            released.acquire().await.unwrap().forget();
            noting.note(&event);
            Ok(())
        }
    });
    publish(&broker, 1, 1..=10).await;
    gate.send_replace(true);
    seen.at_least(10).await;
    expect_settled(&broker).await;
    let asks = || async { broker.consumer().await.num_waiting > 0 };
    eventually(LIMIT, asks, "the consumer to ask for more").await;

    gate.send_replace(false);
    let withdrawn = || async { broker.consumer().await.num_waiting == 0 };
    eventually(Duration::from_secs(2), withdrawn, "what was asked for to be withdrawn").await;
    publish(&broker, 1, 11..=20).await;
    // The broker counts what is pending a moment after it has acknowledged it.
    let pending = || async { broker.consumer().await.num_pending == 10 };
    eventually(LIMIT, pending, "all of them to be pending").await;
    assert_eq!(broker.consumer().await.delivered.consumer_sequence, 10);

    // Closing while one runs and others wait for it: they are kept for longer than ack-wait and not begun.
    gate.send_replace(true);
    let in_hand = || async { broker.consumer().await.num_ack_pending == 10 && begun.load(Ordering::SeqCst) == 11 };
    eventually(LIMIT, in_hand, "messages to be in hand, and one of them begun").await;
    gate.send_replace(false);
    eventually(LIMIT, withdrawn, "what was asked for to be withdrawn").await;
    release.add_permits(10);
    seen.at_least(11).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(seen.len(), 11, "a handler was started at a closed gate");
    gate.send_replace(true);
    seen.at_least(20).await;
    expect_settled(&broker).await;
    assert_eq!(seen.values_by_counter()["c0"], (1..=20).collect::<Vec<_>>());
    assert_eq!(broker.consumer().await.delivered.consumer_sequence, 20, "an attempt was spent");
    consuming.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_lets_running_handlers_finish_and_gives_the_rest_back_quickly() {
    // Ack-wait is half a minute: whoever waits for that comes too late.
    let broker = Broker::start().await;
    publish(&broker, 3, 1..=6).await;
    let (seen, release) = (Seen::default(), Arc::new(Semaphore::new(0)));
    let (noting, released) = (seen.clone(), release.clone());
    let begun = Arc::new(AtomicUsize::new(0));
    let beginning = begun.clone();
    let consuming = Consuming::start(&broker, quick(), Vec::new(), move |event| {
        let (noting, released, beginning) = (noting.clone(), released.clone(), beginning.clone());
        async move {
            beginning.fetch_add(1, Ordering::SeqCst);
            let _permit = released.acquire().await.unwrap();
            noting.note(&event);
            Ok(())
        }
    });
    let in_hand = || async { begun.load(Ordering::SeqCst) == 3 && broker.consumer().await.num_ack_pending >= 16 };
    eventually(LIMIT, in_hand, "three to run and others to wait for them").await;
    consuming.stop.cancel();
    let second = Seen::default();
    let noting = second.clone();
    let other = Consuming::start(&broker, quick(), Vec::new(), move |event| {
        noting.note(&event);
        async { Ok(()) }
    });
    let given = Instant::now();
    second.at_least(15).await;
    assert!(given.elapsed() < Duration::from_secs(5), "they came back after {:?}", given.elapsed());
    assert!(!consuming.task.is_finished(), "it did not wait for its handlers");
    release.add_permits(3);
    in_time(consuming.task).await.unwrap();
    expect_settled(&broker).await;
    assert_eq!((seen.len(), second.len()), (3, 15));
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_consumer_stops_at_once_also_without_nats() {
    let mut broker = Broker::start().await;
    for away in [false, true] {
        let consuming = Consuming::start(&broker, quick(), Vec::new(), |_| async { Ok(()) });
        let asks = || async { broker.consumer().await.num_waiting > 0 };
        eventually(LIMIT, asks, "the consumer to ask").await;
        if away {
            broker.nats.kill().await;
        }
        let begun = Instant::now();
        consuming.stop().await;
        assert!(begun.elapsed() < Duration::from_secs(1), "away: {away}, it took {:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_nats_restarts_in_the_middle() {
    let mut broker = Broker::with_ack_wait(Duration::from_secs(2)).await;
    publish(&broker, 20, 1..=50).await;
    let seen = Seen::default();
    let noting = seen.clone();
    let consuming = Consuming::start(&broker, quick(), Vec::new(), move |event| {
        let noting = noting.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            noting.note(&event);
            Ok(())
        }
    });
    for enough in [200, 500] {
        seen.at_least(enough).await;
        broker.nats.kill().await;
        broker.nats.start().await.unwrap();
    }
    publish(&broker, 1, 51..=51).await;
    let all = || async {
        let seen: HashSet<_> =
            seen.0.lock().unwrap().iter().map(|(counter, value, _)| (counter.clone(), *value)).collect();
        if seen.len() == 1_001 { Ok(()) } else { Err(format!("{} of 1001", seen.len())) }
    };
    eventually(LIMIT, all, "every message to be handled").await;
    expect_settled(&broker).await;
    assert_eq!(broker.count(dead_letter::STREAM).await, 0);
    consuming.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_long_outage_no_more_is_in_hand_than_there_are_workers() {
    let mut broker = Broker::start().await;
    let release = Arc::new(Semaphore::new(0));
    let (seen, released) = (Seen::default(), release.clone());
    let noting = seen.clone();
    let settings = ConsumerSettings { workers: 4, ..quick() };
    let consuming = Consuming::start(&broker, settings, Vec::new(), move |event| {
        let (noting, released) = (noting.clone(), released.clone());
        async move {
            released.acquire().await.unwrap().forget();
            noting.note(&event);
            Ok(())
        }
    });
    let asks = || async { broker.consumer().await.num_waiting > 0 };
    eventually(LIMIT, asks, "the consumer to ask").await;
    // Frozen, the server keeps its connections: requests that seem lost are all answered in the end.
    broker.nats.pause().await.unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    broker.nats.resume().unwrap();
    publish(&broker, 40, 1..=1).await;
    let in_hand = || async { broker.consumer().await.num_ack_pending >= 4 };
    eventually(LIMIT, in_hand, "messages to be delivered").await;
    release.add_permits(1);
    seen.at_least(1).await;
    let most = broker.consumer().await.num_ack_pending;
    assert!(most <= 4, "{most} messages are in hand of 4 workers");
    release.add_permits(39);
    seen.at_least(40).await;
    expect_settled(&broker).await;
    consuming.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_is_deleted_at_the_broker_comes_back_and_goes_on() {
    let broker = Broker::start().await;
    let seen = Seen::default();
    let noting = seen.clone();
    let consuming = Consuming::start(&broker, quick(), Vec::new(), move |event| {
        noting.note(&event);
        async { Ok(()) }
    });
    publish(&broker, 1, 1..=3).await;
    seen.at_least(3).await;
    broker.stream(STREAM).await.delete_consumer(DURABLE).await.unwrap();
    publish(&broker, 1, 4..=5).await;
    let last = || async { seen.values_by_counter()["c0"].contains(&5) };
    eventually(LIMIT, last, "what was published after the deletion").await;
    expect_settled(&broker).await;
    consuming.stop().await;
}
