use std::time::Duration;

use async_nats::jetstream::{consumer, kv, stream};
use futures::StreamExt;
use millrace::connection::Connection;
use millrace::topology::{
    BucketSpec, Change, ConsumerSpec, DeliverPolicy, Entry, Plan, Since, StreamSpec, Topology, TopologyError, apply,
    ensure, plan, rewind, verify,
};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::support::{configured, connect, login, open, settings, stopped, within};

fn declared() -> Topology {
    Topology {
        streams: vec![
            StreamSpec::new("ORDERS", ["orders.>"]).description("what happens to orders"),
            StreamSpec::new("PAYMENTS", ["payments.>"]),
        ],
        consumers: vec![
            ConsumerSpec::new("ORDERS", "payment-orders").filter(["orders.created.v2"]).description("authorizes"),
            ConsumerSpec::new("ORDERS", "inventory-orders").filter(["orders.created.v2", "orders.confirmed"]),
            ConsumerSpec { deliver_policy: DeliverPolicy::New, ..ConsumerSpec::new("PAYMENTS", "order-payments") },
        ],
        buckets: vec![BucketSpec::new("catalog").description("products")],
    }
}

fn fields(entries: &[Entry]) -> Vec<&'static str> {
    entries
        .iter()
        .map(|entry| match &entry.change {
            Change::Update { field, .. } | Change::Conflict { field, .. } => *field,
            Change::Create { .. } => "create",
            Change::Unchanged => "unchanged",
            Change::Unseen { .. } => "unseen",
        })
        .collect()
}

fn all_created(plan: &Plan) -> bool {
    plan.entries.iter().all(|entry| matches!(entry.change, Change::Create { .. }))
}

#[tokio::test]
async fn applying_creates_what_is_missing_and_applying_again_changes_nothing() {
    let server = testkit::nats().await;
    let connection = connect(&server).await;
    let before = within(plan(&connection, &declared())).await.unwrap();
    assert!(all_created(&before), "{before}");
    assert!(matches!(within(verify(&connection, &declared())).await, Err(TopologyError::Broken(_))));

    let applied = within(apply(&connection, &declared(), false)).await.unwrap();
    assert_eq!((applied.done.len(), applied.left.len()), (6, 0));
    let after = within(plan(&connection, &declared())).await.unwrap();
    assert!(after.is_unchanged(), "{after}");
    let again = within(apply(&connection, &declared(), true)).await.unwrap();
    assert_eq!(again.done, []);
    assert_eq!(within(verify(&connection, &declared())).await.unwrap(), []);
}

#[tokio::test]
async fn many_instances_may_apply_at_once() {
    let server = testkit::nats().await;
    let mut instances = Vec::new();
    for _ in 0..8 {
        let connection = connect(&server).await;
        instances.push(tokio::spawn(async move { apply(&connection, &declared(), false).await }));
    }
    for instance in instances {
        within(instance).await.unwrap().unwrap();
    }
    let after = within(plan(&connect(&server).await, &declared())).await.unwrap();
    assert!(after.is_unchanged(), "{after}");
}

#[tokio::test]
async fn instances_of_two_versions_may_apply_at_once() {
    let server = testkit::nats().await;
    let mut instances = Vec::new();
    for i in 0..8 {
        let connection = connect(&server).await;
        let mut topology = declared();
        for consumer in &mut topology.consumers {
            consumer.max_ack_pending = 100 + i % 2;
        }
        for stream in &mut topology.streams {
            stream.description = format!("version {}", i % 2);
        }
        instances.push(tokio::spawn(async move { apply(&connection, &topology, false).await }));
    }
    for instance in instances {
        within(instance).await.unwrap().unwrap();
    }
    assert_eq!(within(verify(&connect(&server).await, &declared())).await.map(|_| ()), Ok(()));
}

#[tokio::test]
async fn a_work_queue_is_refused_by_field_and_nothing_is_changed() {
    let server = testkit::nats().await;
    let connection = connect(&server).await;
    let queue = stream::Config {
        name: "ORDERS".into(),
        subjects: vec!["orders.>".into()],
        retention: stream::RetentionPolicy::WorkQueue,
        ..stream::Config::default()
    };
    connection.jetstream().create_stream(queue).await.unwrap();
    let error = within(apply(&connection, &declared(), true)).await.unwrap_err();
    assert!(error.to_string().contains("stream ORDERS: retention is workqueue, declared is limits"), "{error}");
    connection.jetstream().get_stream("PAYMENTS").await.unwrap_err();

    let cancel = CancellationToken::new();
    let error = within(ensure(&connection, &declared(), true, &cancel)).await.unwrap_err();
    assert!(matches!(&error, TopologyError::Conflicts(entries) if fields(entries).contains(&"retention")), "{error}");
}

#[tokio::test]
async fn memory_storage_is_refused_by_field() {
    let server = testkit::nats().await;
    let connection = connect(&server).await;
    let memory = stream::Config {
        name: "PAYMENTS".into(),
        subjects: vec!["payments.>".into()],
        storage: stream::StorageType::Memory,
        ..stream::Config::default()
    };
    connection.jetstream().create_stream(memory).await.unwrap();
    let error = within(apply(&connection, &declared(), false)).await.unwrap_err();
    assert!(error.to_string().contains("stream PAYMENTS: storage is memory, declared is file"), "{error}");
}

#[tokio::test]
async fn a_service_mends_what_breaks_the_promise_and_leaves_what_is_harmless() {
    let server = testkit::nats().await;
    let connection = connect(&server).await;
    within(apply(&connection, &declared(), false)).await.unwrap();
    let js = connection.jetstream();
    let mut config = js.get_stream("ORDERS").await.unwrap().cached_info().config.clone();
    config.max_age = Duration::from_secs(3_600);
    config.duplicate_window = Duration::from_secs(1);
    config.discard = stream::DiscardPolicy::Old;
    config.max_bytes = 1_000_000;
    config.description = Some("by hand".into());
    config.metadata.insert("team".into(), "orders".into());
    js.update_stream(config).await.unwrap();

    let error = within(verify(&connection, &declared())).await.unwrap_err();
    let TopologyError::Broken(entries) = &error else { panic!("{error}") };
    assert_eq!(fields(entries), ["max_age", "duplicate_window", "discard"]);

    let cancel = CancellationToken::new();
    let left = within(ensure(&connection, &declared(), true, &cancel)).await.unwrap();
    assert_eq!(fields(&left), ["max_bytes", "description"]);
    let mended = js.get_stream("ORDERS").await.unwrap().cached_info().config.clone();
    assert_eq!(mended.max_age, Duration::from_secs(7 * 86_400));
    assert_eq!(mended.metadata.get("team").map(String::as_str), Some("orders"), "what is not declared stays");

    within(apply(&connection, &declared(), false)).await.unwrap();
    assert!(within(plan(&connection, &declared())).await.unwrap().is_unchanged());
}

#[tokio::test]
async fn a_start_without_the_right_to_change_refuses_and_says_what_to_do() {
    let server = testkit::nats().await;
    let connection = connect(&server).await;
    let error = within(ensure(&connection, &declared(), false, &CancellationToken::new())).await.unwrap_err();
    assert!(error.to_string().contains("stream ORDERS: does not exist"), "{error}");
    assert!(error.to_string().contains("topology.auto_apply"), "{error}");
    connection.jetstream().get_stream("ORDERS").await.unwrap_err();
}

#[tokio::test]
async fn what_may_lose_messages_is_done_only_when_asked_for() {
    let server = testkit::nats().await;
    let connection = connect(&server).await;
    let js = connection.jetstream();
    let wide = stream::Config {
        name: "ORDERS".into(),
        subjects: vec!["orders.created".into(), "legacy.>".into()],
        max_age: Duration::from_secs(30 * 86_400),
        allow_direct: true,
        discard: stream::DiscardPolicy::New,
        ..stream::Config::default()
    };
    js.create_stream(wide).await.unwrap();
    js.publish("legacy.x", "kept".into()).await.unwrap().await.unwrap();

    let applied = within(apply(&connection, &declared(), false)).await.unwrap();
    let mut left = fields(&applied.left);
    left.sort_unstable();
    assert_eq!(left, ["max_age", "subjects"]);
    let subjects = js.get_stream("ORDERS").await.unwrap().cached_info().config.subjects.clone();
    assert_eq!(subjects, ["legacy.>", "orders.>"], "the missing subject came, the other one stayed");

    within(apply(&connection, &declared(), true)).await.unwrap();
    let info = js.get_stream("ORDERS").await.unwrap().cached_info().clone();
    assert_eq!(info.config.subjects, ["orders.>"]);
    assert_eq!(info.state.messages, 1, "no message was deleted by it");
    assert!(within(plan(&connection, &declared())).await.unwrap().is_unchanged());
}

#[tokio::test]
async fn every_difference_of_a_consumer_that_counts_as_mendable_is_mended() {
    let server = testkit::nats().await;
    let connection = connect(&server).await;
    within(apply(&connection, &declared(), false)).await.unwrap();
    let js = connection.jetstream();
    let odd = consumer::pull::Config {
        durable_name: Some("odd".into()),
        filter_subjects: vec!["orders.x".into(), "orders.y".into()],
        backoff: vec![Duration::from_secs(1), Duration::from_secs(2)],
        max_deliver: 3,
        max_ack_pending: 7,
        headers_only: true,
        inactive_threshold: Duration::from_secs(3_600),
        num_replicas: 1,
        ..consumer::pull::Config::default()
    };
    js.create_consumer_on_stream(odd, "ORDERS").await.unwrap();
    let topology = Topology {
        consumers: vec![ConsumerSpec::new("ORDERS", "odd").filter(["orders.created"]).description("odd no more")],
        ..Topology::default()
    };
    let error = within(verify(&connection, &topology)).await.unwrap_err();
    let TopologyError::Broken(entries) = &error else { panic!("{error}") };
    let mut broken = fields(entries);
    broken.sort_unstable();
    assert_eq!(broken, ["ack_wait", "backoff", "filter_subjects", "headers_only", "inactive_threshold", "max_deliver"]);
    within(apply(&connection, &topology, true)).await.unwrap();
    let after = within(plan(&connection, &topology)).await.unwrap();
    assert!(after.is_unchanged(), "{after}");
}

#[tokio::test]
async fn consumers_that_forget_or_wait_are_refused_by_field() {
    let server = testkit::nats().await;
    let connection = connect(&server).await;
    within(apply(&connection, &declared(), false)).await.unwrap();
    let js = connection.jetstream();
    let base = || consumer::Config { filter_subject: "orders.>".into(), ..consumer::Config::default() };
    for (name, config, field) in [
        (
            "ephemeral",
            consumer::Config { name: Some("ephemeral".into()), ack_policy: consumer::AckPolicy::Explicit, ..base() },
            "durable_name",
        ),
        (
            "unacknowledged",
            consumer::Config {
                durable_name: Some("unacknowledged".into()),
                ack_policy: consumer::AckPolicy::None,
                ..base()
            },
            "ack_policy",
        ),
        (
            "late",
            consumer::Config {
                durable_name: Some("late".into()),
                ack_policy: consumer::AckPolicy::Explicit,
                deliver_policy: consumer::DeliverPolicy::New,
                ..base()
            },
            "deliver_policy",
        ),
        (
            "forgetful",
            consumer::Config {
                durable_name: Some("forgetful".into()),
                ack_policy: consumer::AckPolicy::Explicit,
                memory_storage: true,
                ..base()
            },
            "mem_storage",
        ),
    ] {
        js.create_consumer_on_stream(config, "ORDERS").await.unwrap();
        let topology = Topology { consumers: vec![ConsumerSpec::new("ORDERS", name)], ..Topology::default() };
        let error = within(apply(&connection, &topology, true)).await.unwrap_err();
        assert!(matches!(&error, TopologyError::Conflicts(entries) if fields(entries).contains(&field)), "{error}");
    }
    let stream = js.get_stream("ORDERS").await.unwrap();
    let tomorrow = time::OffsetDateTime::now_utc() + Duration::from_secs(86_400);
    stream.pause_consumer("payment-orders", tomorrow).await.unwrap();
    let error = within(verify(&connection, &declared())).await.unwrap_err();
    assert!(matches!(&error, TopologyError::Broken(entries) if fields(entries) == ["pause_until"]), "{error}");
    stream.resume_consumer("payment-orders").await.unwrap();
    assert_eq!(within(verify(&connection, &declared())).await.unwrap(), []);
}

#[tokio::test]
async fn a_subject_that_another_stream_keeps_is_a_conflict_that_names_it() {
    let server = testkit::nats().await;
    let connection = connect(&server).await;
    let other =
        stream::Config { name: "OLD".into(), subjects: vec!["orders.created".into()], ..stream::Config::default() };
    connection.jetstream().create_stream(other).await.unwrap();
    let error = within(apply(&connection, &declared(), false)).await.unwrap_err();
    assert!(error.to_string().contains("kept by OLD"), "{error}");
}

#[tokio::test]
async fn a_bucket_is_the_one_the_client_would_make() {
    let server = testkit::nats().await;
    let connection = connect(&server).await;
    let js = connection.jetstream();
    let made = kv::Config {
        bucket: "made".into(),
        description: "by the client".into(),
        num_replicas: 1,
        ..kv::Config::default()
    };
    js.create_key_value(made).await.unwrap();
    let topology = Topology {
        buckets: vec![BucketSpec::new("made").description("by the client"), BucketSpec::new("ours")],
        ..Topology::default()
    };
    let before = within(plan(&connection, &topology)).await.unwrap();
    assert_eq!(before.entries[0].change, Change::Unchanged, "{before}");
    within(apply(&connection, &topology, false)).await.unwrap();
    let bucket = js.get_key_value("ours").await.unwrap();
    bucket.put("chair", "1".into()).await.unwrap();
    bucket.put("chair", "2".into()).await.unwrap();
    assert_eq!(bucket.get("chair").await.unwrap().unwrap(), "2");
    bucket.purge("chair").await.unwrap();
}

#[tokio::test]
async fn a_start_waits_for_nats_and_can_be_called_off() {
    let mut server = stopped().await;
    let connection = open(&settings(&server)).await;
    let cancel = CancellationToken::new();
    let waiting = tokio::spawn({
        let (connection, cancel) = (connection.clone(), cancel.clone());
        async move { ensure(&connection, &declared(), true, &cancel).await }
    });
    cancel.cancel();
    assert_eq!(within(waiting).await.unwrap(), Err(TopologyError::Cancelled));

    let waiting = tokio::spawn(async move { ensure(&connection, &declared(), true, &CancellationToken::new()).await });
    server.start().await.unwrap();
    assert_eq!(within(waiting).await.unwrap(), Ok(Vec::new()));
}

#[tokio::test]
async fn a_consumer_waits_for_the_stream_that_another_service_creates() {
    let server = testkit::nats().await;
    let connection = connect(&server).await;
    let whole = declared();
    let mine = Topology { consumers: whole.consumers.clone(), ..Topology::default() };
    let waiting = tokio::spawn({
        let connection = connection.clone();
        async move { ensure(&connection, &mine, true, &CancellationToken::new()).await }
    });
    let theirs = Topology { consumers: Vec::new(), ..whole };
    within(ensure(&connection, &theirs, true, &CancellationToken::new())).await.unwrap();
    assert_eq!(within(waiting).await.unwrap(), Ok(Vec::new()));
    assert!(within(plan(&connection, &declared())).await.unwrap().is_unchanged());
}

#[tokio::test]
async fn with_least_privilege_what_cannot_be_seen_is_taken_on_trust() {
    let server = configured(
        "authorization { users: [
            { user: admin, password: admin },
            { user: payment, password: payment, permissions: {
                publish: { allow: [\"payments.>\", \"$JS.API.CONSUMER.INFO.ORDERS.payment-orders\"] },
                subscribe: { allow: [\"_INBOX.>\"] } } } ] }",
    )
    .await;
    let admin = open(&login(&server, "admin", "admin")).await;
    within(ensure(&admin, &declared(), true, &CancellationToken::new())).await.unwrap();

    let payment = open(&login(&server, "payment", "payment")).await;
    let mine = Topology {
        streams: declared().streams,
        consumers: declared().consumers.into_iter().take(1).collect(),
        ..Topology::default()
    };
    let begun = std::time::Instant::now();
    let unseen = within(ensure(&payment, &mine, false, &CancellationToken::new())).await.unwrap();
    assert_eq!(fields(&unseen), ["unseen", "unseen"], "the consumer could be seen");
    let error = within(ensure(&payment, &mine, true, &CancellationToken::new())).await.unwrap_err();
    let denied = matches!(&error, TopologyError::Denied { subject, .. } if subject == "$JS.API.STREAM.INFO.ORDERS");
    assert!(denied, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(4), "a denial is noticed at once, not by a time-out");
}

#[tokio::test]
async fn without_jetstream_the_error_says_so() {
    let server = configured("jetstream: disabled").await;
    let connection = connect(&server).await;
    let error = within(plan(&connection, &declared())).await.unwrap_err();
    assert!(matches!(error, TopologyError::NoJetStream { .. }), "{error}");
}

/// Publishes orders with these numbers.
async fn order(connection: &Connection, numbers: std::ops::RangeInclusive<u32>) {
    for number in numbers {
        let published = connection.jetstream().publish("orders.created.v2", number.to_string().into()).await;
        within(published.unwrap().into_future()).await.unwrap();
    }
}

/// Takes and acknowledges so many messages of `payment-orders`, and gives their numbers.
async fn take(connection: &Connection, count: usize) -> Vec<String> {
    let found = connection.jetstream().get_consumer_from_stream("payment-orders", "ORDERS");
    let consumer: consumer::PullConsumer = within(found).await.unwrap();
    let mut messages = consumer.messages().await.unwrap().take(count);
    let mut numbers = Vec::new();
    while let Some(message) = within(messages.next()).await {
        let message = message.unwrap();
        within(message.double_ack()).await.unwrap();
        numbers.push(String::from_utf8(message.payload.to_vec()).unwrap());
    }
    numbers
}

#[tokio::test]
async fn a_consumer_that_is_set_back_is_given_again_what_came_since_and_is_as_declared() {
    let server = testkit::nats().await;
    let connection = connect(&server).await;
    within(apply(&connection, &declared(), false)).await.unwrap();
    order(&connection, 1..=4).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let since = Since::Time(OffsetDateTime::now_utc());
    order(&connection, 5..=10).await;
    assert_eq!(take(&connection, 8).await.len(), 8);

    let rewound = within(rewind(&connection, &declared(), "payment-orders", since)).await.unwrap();
    assert_eq!((rewound.next_seq, rewound.was_at_seq, rewound.messages), (5, 9, 6));
    assert_eq!(take(&connection, 6).await, ["5", "6", "7", "8", "9", "10"]);
    assert!(within(plan(&connection, &declared())).await.unwrap().is_unchanged());
    let rewound = within(rewind(&connection, &declared(), "payment-orders", Since::Start)).await.unwrap();
    assert_eq!((rewound.next_seq, rewound.was_at_seq, rewound.messages), (1, 11, 10));
}

#[tokio::test]
async fn a_consumer_is_never_set_forward_and_one_that_is_not_declared_not_at_all() {
    let server = testkit::nats().await;
    let connection = connect(&server).await;
    within(apply(&connection, &declared(), false)).await.unwrap();
    order(&connection, 1..=3).await;
    let future = Since::Time(OffsetDateTime::now_utc() + Duration::from_secs(3_600));
    let rewound = within(rewind(&connection, &declared(), "payment-orders", future)).await.unwrap();
    assert_eq!((rewound.next_seq, rewound.was_at_seq, rewound.messages), (1, 1, 3));
    assert_eq!(take(&connection, 3).await, ["1", "2", "3"]);
    let unknown = within(rewind(&connection, &declared(), "nobody", Since::Start)).await.unwrap_err();
    assert!(matches!(&unknown, TopologyError::UnknownConsumer { known, .. } if known.len() == 3), "{unknown}");
}
