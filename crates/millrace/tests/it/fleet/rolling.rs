//! A rolling change from version 1 to version 2, and back, under load.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use async_nats::jetstream::message::PublishMessage;
use millrace::connection::Connection;
use millrace::event::{Cause, Event, EventId, Retired, encode, encode_headers};
use millrace::store::{Database, DatabaseSettings};
use millrace::topology;
use millrace::usage::{Question, Version, look};
use tempfile::TempDir;
use testkit::{Process, TestNats, eventually};
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::process::{self, TASKS};
use super::{AskMade, MIGRATIONS, one, two};
use crate::broker;
use crate::things::{in_time, number};

/// Far longer than anything takes on a machine that does other things as well.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// Tasks that have to get through in each mixture of releases.
const EACH: i64 = 40;
/// Between two asks.
const PACE: Duration = Duration::from_millis(10);

struct Fleet {
    instances: BTreeMap<(&'static str, usize), Process>,
    databases: BTreeMap<&'static str, (String, Database)>,
    nats: TestNats,
    connection: Connection,
    _folder: TempDir,
}

fn minutes(n: i64) -> i64 {
    30 * (1 + n % 7)
}

impl Fleet {
    /// All in release one: so many instances of desk and mill, and one bystander.
    async fn start(postgres: bool, instances: usize) -> Self {
        let nats = testkit::nats().await;
        let connection = broker::connect(&nats).await;
        let folder = tempfile::tempdir().unwrap();
        let mut databases = BTreeMap::new();
        for service in ["desk", "mill", "bystander"] {
            let url = match postgres {
                true => testkit::fresh_database().await,
                false => format!("sqlite:{}/{service}.db", folder.path().display()),
            };
            let (settings, never) = (DatabaseSettings::default(), CancellationToken::new());
            let opened = Database::open(&url.parse().unwrap(), service, &settings, MIGRATIONS, &never).await;
            databases.insert(service, (url, opened.unwrap()));
        }
        in_time(connection.connected()).await.unwrap();
        let never = CancellationToken::new();
        in_time(topology::ensure(&connection, &process::topology::<one::TaskAdded>(), true, &never)).await.unwrap();
        let mut fleet = Self { instances: BTreeMap::new(), databases, nats, connection, _folder: folder };
        for n in 0..instances {
            fleet.run("desk", n, "one").await;
            fleet.run("mill", n, "one").await;
        }
        fleet.run("bystander", 0, "one").await;
        fleet
    }

    async fn run(&mut self, service: &'static str, n: usize, release: &str) {
        let (url, _) = &self.databases[service];
        let mut process = process::start(&format!("{service}-{n}-{release}"), service, release, &self.nats.url(), url);
        process.wait_for_line("ready", PATIENCE).await;
        self.instances.insert((service, n), process);
    }

    /// Ends an instance, the first of a service as a crash does it, starts one of the other release in its place, and
    /// waits until the fleet has done some work as it is now.
    async fn replace(&mut self, service: &'static str, n: usize, release: &str) {
        let mut old = self.instances.remove(&(service, n)).unwrap();
        if n == 0 {
            old.kill().await;
        } else {
            assert_eq!(old.terminate(PATIENCE).await, 0, "{service} ends in order");
        }
        self.run(service, n, release).await;
        let goal = self.acted("mill").await + EACH;
        let enough = || async {
            let acted = self.acted("mill").await;
            if acted >= goal { Ok(()) } else { Err(format!("{acted} of {goal}")) }
        };
        eventually(PATIENCE, enough, &format!("tasks to get through beside {service} in release {release}")).await;
    }

    async fn number(&self, service: &str, sql: &str) -> i64 {
        number(&self.databases[service].1, sql).await
    }

    async fn acted(&self, service: &str) -> i64 {
        self.number(service, "select count(*) from deeds").await
    }

    /// Waits until the tool that shows usage, and the outbox, say that nothing of version 2 is under way.
    async fn nothing_left_of_v2(&self) {
        let version = Version {
            event: two::TaskAdded::TYPE.into(),
            version: 2,
            subject: two::TaskAdded::SUBJECT.into(),
            newest: true,
        };
        let declared = process::topology::<two::TaskAdded>();
        let question = Question {
            declared: &declared,
            intakes: &[],
            lately: Duration::from_secs(3_600),
            idle_after: Duration::from_secs(3_600),
            monitor: None,
        };
        let drained = || async {
            let outbox = "select count(*) from outbox where published_at is null and subject = 'tasks.added.v2'";
            let waiting = self.number("desk", outbox).await;
            let usage = look(&self.connection, std::slice::from_ref(&version), &question).await.unwrap();
            let left = usage.versions[0].readers.iter().find(|r| r.name == "mill-tasks").unwrap().left;
            if (waiting, left) == (0, 0) { Ok(()) } else { Err(format!("{waiting} unpublished, {left} left")) }
        };
        eventually(PATIENCE, drained, "version 2 to be done with").await;
    }

    async fn messages(&self, stream: &str, subject: &str) -> u64 {
        use futures::TryStreamExt;
        let stream = self.connection.jetstream().get_stream(stream).await.unwrap();
        let counts: Vec<(String, usize)> =
            stream.info_with_subjects(subject).await.unwrap().try_collect().await.unwrap();
        counts.iter().map(|(_, count)| *count as u64).sum()
    }
}

/// Asks for tasks at a steady pace until it is told to end; every ask that the broker has confirmed counts.
struct Load {
    asked: Arc<AtomicI64>,
    end: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Load {
    fn start(connection: &Connection) -> Self {
        let (asked, end) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
        let (connection, counting, ending) = (connection.clone(), asked.clone(), end.clone());
        let task = tokio::spawn(async move {
            while !ending.load(Ordering::SeqCst) {
                let n = counting.load(Ordering::SeqCst);
                let ask = AskMade { task: format!("t{n}"), minutes: minutes(n) };
                let encoded = encode(&ask, &EventId::generate(), &Retired::default()).unwrap().remove(0);
                let headers =
                    encode_headers(&encoded, "/millrace/test", OffsetDateTime::now_utc(), &Cause::spontaneous());
                let message = headers.iter().fold(PublishMessage::build(), |message, (name, value)| {
                    message.header(name.as_str(), value.as_str())
                });
                let sent = connection.jetstream().send_publish(AskMade::SUBJECT, message.payload(encoded.body.into()));
                sent.await.unwrap().await.unwrap();
                counting.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(PACE).await;
            }
        });
        Self { asked, end, task }
    }

    async fn end(self) -> i64 {
        self.end.store(true, Ordering::SeqCst);
        in_time(self.task).await.unwrap();
        self.asked.load(Ordering::SeqCst)
    }
}

async fn there_and_back(postgres: bool, instances: usize) {
    let mut fleet = Fleet::start(postgres, instances).await;
    let load = Load::start(&fleet.connection);
    // Readers first: they know both versions before anybody publishes the second.
    for n in 0..instances {
        fleet.replace("mill", n, "two").await;
    }
    for n in 0..instances {
        fleet.replace("desk", n, "two").await;
    }
    // And back in the opposite order, once nothing is left that the old readers would not know.
    for n in 0..instances {
        fleet.replace("desk", n, "one").await;
    }
    fleet.nothing_left_of_v2().await;
    for n in 0..instances {
        fleet.replace("mill", n, "one").await;
    }
    let asked = load.end().await;

    for service in ["desk", "mill", "bystander"] {
        let all = || async {
            let acted = fleet.acted(service).await;
            if acted == asked { Ok(()) } else { Err(format!("{acted} of {asked}")) }
        };
        eventually(PATIENCE, all, &format!("{service} to have acted on every task")).await;
    }
    for durable in ["desk-asks", "mill-tasks", "bystander-tasks"] {
        let stream = if durable == "desk-asks" { "ASKS" } else { TASKS };
        let answered = || async {
            let stream = fleet.connection.jetstream().get_stream(stream).await.unwrap();
            let info = stream.consumer_info(durable).await.unwrap();
            let open = (info.num_pending, info.num_ack_pending);
            if open == (0, 0) { Ok(()) } else { Err(format!("(pending, unanswered) = {open:?}")) }
        };
        eventually(PATIENCE, answered, &format!("{durable} to have answered everything")).await;
    }
    let expected: i64 = (0..asked).map(minutes).sum();
    for service in ["desk", "mill", "bystander"] {
        assert_eq!(
            fleet.number(service, "select count(*) from deeds where times <> 1").await,
            0,
            "{service} acted twice"
        );
        let sum = "select cast(sum(minutes) as bigint) from deeds";
        assert_eq!(fleet.number(service, sum).await, expected, "{service} understood every task");
    }
    let by = |release: i64| format!("select count(*) from deeds where release = {release}");
    for service in ["desk", "mill"] {
        for release in [1, 2] {
            assert!(fleet.number(service, &by(release)).await >= EACH, "{service} worked in release {release}");
        }
    }
    // Version 1 went on all the time, for whoever reads it; version 2 came beside it, once for each task.
    assert_eq!(fleet.messages(TASKS, one::TaskAdded::SUBJECT).await, asked as u64);
    let in_release_two = fleet.number("desk", &by(2)).await;
    assert_eq!(fleet.messages(TASKS, two::TaskAdded::SUBJECT).await, in_release_two as u64);
    assert_eq!(fleet.messages("DEAD_LETTERS", ">").await, 0, "dead letters");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_releases_change_to_version_2_and_back_under_load_and_each_task_is_acted_on_once_on_sqlite() {
    there_and_back(false, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_releases_change_to_version_2_and_back_under_load_and_each_task_is_acted_on_once_on_postgres() {
    there_and_back(true, 2).await;
}
