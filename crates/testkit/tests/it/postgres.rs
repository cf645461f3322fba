//! PostgreSQL on this machine.

use std::time::Duration;

use testkit::eventually;
use tokio_postgres::{Client, NoTls};

const SOON: Duration = Duration::from_secs(20);

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

async fn text(client: &Client, query: &str) -> String {
    client.query_one(query, &[]).await.expect("one row").get(0)
}

#[tokio::test]
async fn fresh_databases_are_empty_and_apart() {
    let (one, other) = (testkit::fresh_database().await, testkit::fresh_database().await);
    assert_ne!(one, other);
    connect(&one).await.batch_execute("CREATE TABLE only_here (id int)").await.expect("created");
    let seen = text(&connect(&other).await, "SELECT count(*)::text FROM pg_tables WHERE tablename = 'only_here'").await;
    assert_eq!(seen, "0");
}

#[tokio::test]
async fn commits_are_forced_to_disk_unless_asked_otherwise() {
    let client = connect(&testkit::fresh_database().await).await;
    assert_eq!(text(&client, "SHOW fsync").await, "on");
    assert_eq!(text(&client, "SHOW synchronous_commit").await, "on");
}

/// As root, too: the server itself refuses that, and is run as another account.
#[tokio::test]
async fn committed_rows_survive_kill_and_restart_on_the_same_port() {
    let mut postgres = testkit::private_postgres().await;
    let url = postgres.url();
    let client = connect(&url).await;
    client.batch_execute("CREATE TABLE kept (id int); INSERT INTO kept VALUES (1), (2)").await.expect("committed");

    postgres.kill().await;
    assert!(!postgres.is_running());
    eventually(SOON, || async { client.is_closed() }, "the connection to break").await;
    postgres.start().await.expect("it repairs itself and starts");
    assert_eq!(postgres.url(), url);
    assert_eq!(text(&connect(&url).await, "SELECT count(*)::text FROM kept").await, "2");

    // An open session must not delay an orderly stop.
    let _open = connect(&url).await;
    tokio::time::timeout(SOON, postgres.restart()).await.expect("in time").expect("restarted");
    assert_eq!(text(&connect(&url).await, "SELECT count(*)::text FROM kept").await, "2");
}

#[tokio::test]
async fn a_folder_closed_to_the_unprivileged_account_is_named() {
    use millrace::local::{LocalError, Postgres, run_account};
    use std::os::unix::fs::PermissionsExt;

    let programs = testkit::postgres_programs().await;
    let closed = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(closed.path(), std::fs::Permissions::from_mode(0o700)).expect("closed");
    let started = Postgres::builder(programs, closed.path().join("inside")).sync_new_data(false).start().await;
    if run_account().is_some() {
        let error = started.expect_err("root must not run PostgreSQL, and its folders are closed to others");
        assert!(matches!(&error, LocalError::Unreachable { closed: c, .. } if c == closed.path()), "{error}");
    } else {
        started.expect("one's own folders are open to oneself").stop().await;
    }
}
