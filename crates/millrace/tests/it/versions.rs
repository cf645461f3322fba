//! What versions of an event promise to those who publish and read them.

use async_nats::jetstream::message::PublishMessage;
use millrace::connection::Connection;
use millrace::dead_letter::Reason;
use millrace::dead_letters::{DeadLetters, Filter, Letter, Options};
use millrace::event::{
    Cause, Encoded, Event, EventId, HeaderPairs, Retired, encode, encode_headers, faults_of_versions,
};
use millrace::kit::{self, Kit};
use millrace::retirement::{self, Decision, State};
use millrace::store::{Database, Writer};
use millrace::topology;
use testkit::{TestNats, eventually};
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::broker;
use crate::fleet::{self, Intent, Ledger, MIGRATIONS, TASKS, Task, one, two};
use crate::things::{Home, LIMIT, in_time, number, unmarked_as};

/// A service that reads everything about tasks, in release two unless it is said otherwise.
struct Mill<E: Task = two::TaskAdded> {
    nats: TestNats,
    connection: Connection,
    database: Database,
    writer: Writer<Ledger<E>>,
    stop: CancellationToken,
    running: JoinHandle<Result<(), kit::Error>>,
    home: Home,
}

impl Mill {
    async fn start() -> Self {
        Self::on(testkit::nats().await, Home::sqlite().await).await
    }
}

impl<E: Task> Mill<E> {
    async fn on(nats: TestNats, home: Home) -> Self {
        let connection = broker::connect(&nats).await;
        let mut parts = fleet::parts::<E>("mill", connection.clone(), &home.url, CancellationToken::new());
        // Everything about tasks, so that what nobody knows arrives too.
        for consumer in parts.topology.consumers.iter_mut().filter(|consumer| consumer.durable == "mill-tasks") {
            consumer.filter_subjects.retain(|subject| subject != E::SUBJECT);
            consumer.filter_subjects.push("tasks.>".into());
            consumer.max_deliver = 3;
        }
        let (health, stop) = (parts.health.clone(), parts.shutdown.clone());
        let mut kit = in_time(Kit::start(parts, Ledger::default(), MIGRATIONS)).await.unwrap();
        let router = fleet::router::<E>("mill", kit.writer());
        kit.consume(router, Vec::new()).unwrap();
        let (database, writer) = (kit.database(), kit.writer());
        let running = tokio::spawn(kit.run());
        eventually(LIMIT, || async { health.readiness().ready }, "the service to be ready").await;
        Self { nats, connection, database, writer, stop, running, home }
    }

    async fn publish(&self, encoded: &Encoded) {
        let pairs = encode_headers(encoded, "/millrace/desk", OffsetDateTime::now_utc(), &Cause::spontaneous());
        self.publish_raw(encoded.subject, &pairs, encoded.body.clone()).await;
    }

    async fn publish_raw(&self, subject: &str, headers: &[(String, String)], body: Vec<u8>) {
        let message = headers
            .iter()
            .fold(PublishMessage::build(), |message, (name, value)| message.header(name.as_str(), value.as_str()));
        let sent = self.connection.jetstream().send_publish(subject.to_owned(), message.payload(body.into()));
        in_time(in_time(sent).await.unwrap().into_future()).await.unwrap();
    }

    /// Waits until every message is answered.
    async fn settled(&self) {
        let settled = || async {
            let stream = self.connection.jetstream().get_stream(TASKS).await.unwrap();
            let info = stream.consumer_info("mill-tasks").await.unwrap();
            let open = (info.num_pending, info.num_ack_pending);
            if open == (0, 0) { Ok(()) } else { Err(format!("(pending, unanswered) = {open:?}")) }
        };
        eventually(LIMIT, settled, "every message to be answered").await;
    }

    async fn times(&self, task: &str) -> i64 {
        let sql = format!("select times from deeds where task = '{task}' union all select 0 limit 1");
        number(&self.database, &sql).await
    }

    async fn letters(&self, count: usize) -> Vec<Letter> {
        let operator = DeadLetters::new(self.connection.clone(), "operator@desk");
        let all = || async {
            let letters = operator.list(&Filter::default()).await.unwrap().letters;
            if letters.len() == count { Ok(letters) } else { Err(format!("{} letters", letters.len())) }
        };
        let listed = eventually(LIMIT, all, &format!("{count} dead letters")).await;
        // A list has no bodies.
        let mut whole = Vec::new();
        for letter in listed {
            whole.push(operator.get(letter.id).await.unwrap());
        }
        whole
    }

    async fn count(&self, subject: &str) -> usize {
        use futures::TryStreamExt;
        let stream = self.connection.jetstream().get_stream(TASKS).await.unwrap();
        let counts: Vec<(String, usize)> =
            stream.info_with_subjects(subject).await.unwrap().try_collect().await.unwrap();
        counts.iter().map(|(_, count)| count).sum()
    }

    async fn decide(&self, state: State) {
        let decision = Decision {
            event: one::TaskAdded::TYPE.into(),
            version: 1,
            state,
            by: "operator@desk".into(),
            at: OffsetDateTime::now_utc(),
            because: None,
        };
        in_time(retirement::decide(&self.connection, &decision)).await.unwrap();
    }

    /// Gives back what another release can go on with.
    async fn stop(self) -> (TestNats, Home) {
        self.stop.cancel();
        in_time(self.running).await.unwrap().unwrap();
        (self.nats, self.home)
    }
}

fn task(name: &str) -> two::TaskAdded {
    two::TaskAdded { task: name.into(), minutes: 90, note: Some("soon".into()) }
}

#[test]
fn a_wrong_declaration_of_versions_is_named_in_every_respect() {
    assert_eq!(faults_of_versions(&[task("a")]), Vec::<String>::new());
    // No sample with a note: nobody can tell whether it is lost.
    let silent = two::TaskAdded { note: None, ..task("a") };
    assert_eq!(faults_of_versions(&[silent]), ["tasks.added v1 says it loses /note, and no sample shows it"]);
    let uneven = two::TaskAdded { minutes: -7, ..task("a") };
    let faults = faults_of_versions(&[uneven]);
    assert!(faults.iter().any(|fault| fault.contains("tasks.added v2 at /minutes")), "{faults:?}");
    assert!(faults.iter().any(|fault| fault.contains("tasks.added v1 at /hours")), "{faults:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_sees_both_versions_acts_once_whichever_comes_first() {
    let mill = Mill::start().await;
    for (name, newest_first) in [("new-old", true), ("old-new", false)] {
        let mut versions = encode(&task(name), &EventId::generate(), &Retired::default()).unwrap();
        assert_eq!(versions.len(), 2);
        if !newest_first {
            versions.reverse();
        }
        for version in &versions {
            mill.publish(version).await;
            // One after the other, not side by side in one transaction.
            mill.settled().await;
        }
        assert_eq!(mill.times(name).await, 1, "{name}");
    }
    // Also in one transaction, and many.
    for n in 0..50 {
        for version in encode(&task(&format!("both-{n}")), &EventId::generate(), &Retired::default()).unwrap() {
            mill.publish(&version).await;
        }
    }
    mill.settled().await;
    assert_eq!(number(&mill.database, "select count(*) from deeds where times = 1").await, 52);
    assert_eq!(number(&mill.database, "select count(*) from deeds where minutes = 90").await, 52, "upcast");
    mill.letters(0).await;
    mill.stop().await;
}

/// The version that is passed on keeps the publisher's id, so that who reads both recognises it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_event_that_is_passed_on_in_the_newest_version_is_still_the_same_event() {
    let mill = Mill::start().await;
    let id = EventId::generate();
    let headers = [("ce-id".to_owned(), id.to_string()), ("ce-source".to_owned(), "/somebody/else".to_owned())];
    mill.publish_raw("tasks.added", &headers, br#"{"task":"foreign","hours":1.5}"#.to_vec()).await;
    let passed_on = encode(&task("foreign"), &id, &Retired::default()).unwrap().remove(0);
    mill.publish(&passed_on).await;
    mill.settled().await;
    assert_eq!(mill.times("foreign").await, 1);
    mill.letters(0).await;
    mill.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_version_or_an_invalid_body_becomes_a_dead_letter_that_says_where() {
    let mill = Mill::start().await;
    let ours =
        |id: &str| vec![("ce-id".to_owned(), id.to_owned()), ("ce-source".to_owned(), "/millrace/desk".to_owned())];
    let cases: [(&str, HeaderPairs, &str, &str); 6] = [
        (
            "tasks.added.v3",
            ours("a"),
            r#"{"task":"a","seconds":1}"#,
            "tasks.added v3 is a version this release does not know; it knows v1, v2",
        ),
        ("tasks.renamed", ours("b"), r#"{"task":"b"}"#, "no handler knows the subject tasks.renamed"),
        // Of others, by the schema; of ours, by the type.
        ("tasks.added", Vec::new(), r#"{"task":"c","hours":-1}"#, "the schema of tasks.added v1 at /hours"),
        (
            "tasks.added",
            Vec::new(),
            r#"{"task":"d","hours":0.12345}"#,
            "tasks.added v1 at /hours: 0.12345 are no whole minutes",
        ),
        ("tasks.added.v2", ours("e"), r#"{"task":"e","minutes":"ten"}"#, "tasks.added v2 at /minutes"),
        ("tasks.added.v2", ours("f"), r#"{"task":"f""#, "not valid JSON for tasks.added v2"),
    ];
    for (subject, headers, body, _) in &cases {
        mill.publish_raw(subject, headers, body.as_bytes().to_vec()).await;
    }
    let letters = mill.letters(cases.len()).await;
    for (subject, _, body, error) in &cases {
        let found = letters.iter().find(|letter| &letter.body[..] == body.as_bytes());
        let found = found.unwrap_or_else(|| panic!("{body} is lost: {letters:#?}"));
        assert_eq!((found.about.subject.as_str(), found.about.reason), (*subject, Reason::Undecodable));
        assert!(found.about.errors[0].contains(error), "{error}: {:?}", found.about.errors);
        // Another instance may be of a release that knows the version; an invalid body is invalid everywhere.
        let attempts = if subject.ends_with("v3") { 3 } else { 1 };
        assert_eq!(found.about.attempts, attempts, "{subject} {body}");
    }
    mill.settled().await;
    assert_eq!(number(&mill.database, "select count(*) from deeds").await, 0);
    mill.stop().await;
}

/// Publishers changed before their readers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_reader_acts_on_the_old_version_and_a_replay_of_the_new_one_changes_nothing() {
    let old = Mill::<one::TaskAdded>::on(testkit::nats().await, Home::sqlite().await).await;
    for name in ["a", "b"] {
        for version in encode(&task(name), &EventId::generate(), &Retired::default()).unwrap() {
            old.publish(&version).await;
        }
    }
    let letters = old.letters(2).await;
    assert!(letters.iter().all(|letter| letter.about.subject == "tasks.added.v2"), "{letters:#?}");
    old.settled().await;
    assert_eq!((old.times("a").await, old.times("b").await), (1, 1));
    let (nats, home) = old.stop().await;

    let new = Mill::<two::TaskAdded>::on(nats, home).await;
    let operator = DeadLetters::new(new.connection.clone(), "operator@desk");
    let ids: Vec<u64> = letters.iter().map(|letter| letter.id).collect();
    let report = in_time(operator.replay(&ids, &Options::default(), |_| {})).await.unwrap();
    assert!(report.all_handled(), "{report:?}");
    assert_eq!((new.times("a").await, new.times("b").await), (1, 1));
    new.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_is_retired_and_restored_while_the_service_runs() {
    let mill = Mill::start().await;
    let mut added = 0;
    let mut add = async || {
        added += 1;
        let (name, before) =
            (format!("t{added}"), (mill.count("tasks.added").await, mill.count("tasks.added.v2").await));
        let intent = Intent::Add { task: name.clone(), minutes: 30 };
        in_time(mill.writer.submit(unmarked_as(intent))).await.unwrap();
        // The relay publishes a batch in the order of its rows, version 1 with it, and confirms it.
        let published = || async {
            let sql = "select count(*) from outbox where published_at is null";
            number(&mill.database, sql).await == 0 && mill.count("tasks.added.v2").await > before.1
        };
        eventually(LIMIT, published, "the event to be published").await;
        mill.count("tasks.added").await - before.0
    };
    assert_eq!(add().await, 1, "version 1 is published beside the newest");
    mill.decide(State::Retired).await;
    let mut tries = 0;
    while add().await == 1 {
        tries += 1;
        assert!(tries < 200, "the service does not follow the decision");
    }
    for _ in 0..5 {
        assert_eq!(add().await, 0);
    }
    let decisions = in_time(retirement::decisions(&mill.connection)).await.unwrap();
    assert!(
        matches!(&decisions[..], [one] if one.state == State::Retired && one.by == "operator@desk"),
        "{decisions:?}"
    );
    mill.decide(State::Published).await;
    let mut tries = 0;
    while add().await == 0 {
        tries += 1;
        assert!(tries < 200, "the service does not follow the decision");
    }
    let history = in_time(retirement::history(&mill.connection, "tasks.added", 1)).await.unwrap();
    assert_eq!(history.iter().map(|d| d.state).collect::<Vec<_>>(), [State::Retired, State::Published]);
    mill.stop().await;
}

/// Every service ensures the whole topology, and an old instance may start again at any moment of the change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_release_takes_a_version_from_the_readers_of_the_other_when_it_starts() {
    let nats = testkit::nats().await;
    let connection = broker::connect(&nats).await;
    in_time(connection.connected()).await.unwrap();
    let never = CancellationToken::new();
    let (first, second) = (fleet::topology::<one::TaskAdded>(), fleet::topology::<two::TaskAdded>());
    for release in [&first, &second, &first, &second] {
        in_time(topology::ensure(&connection, release, true, &never)).await.unwrap();
    }
    let stream = connection.jetstream().get_stream(TASKS).await.unwrap();
    let mut filter = in_time(stream.consumer_info("mill-tasks")).await.unwrap().config.filter_subjects;
    filter.sort();
    assert_eq!(filter, ["replays.mill-tasks.>", "tasks.added", "tasks.added.v2"]);
}
