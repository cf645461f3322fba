//! A nats-server on this machine.

use std::net::TcpListener;
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use millrace::local::{LocalError, NatsServer, SyncInterval, free_port};
use testkit::{TestNats, eventually, wait_for_http};

const SOON: Duration = Duration::from_secs(20);

async fn publish(nats: &TestNats, count: u64) {
    let jetstream = jetstream::new(nats.client().await);
    let config = stream::Config { name: "KEPT".into(), subjects: vec!["kept.>".into()], ..Default::default() };
    jetstream.get_or_create_stream(config).await.expect("a stream");
    for number in 0..count {
        let ack = jetstream.publish("kept.one", number.to_string().into()).await.expect("published");
        ack.await.expect("acknowledged");
    }
}

async fn stored(nats: &TestNats) -> u64 {
    let jetstream = jetstream::new(nats.client().await);
    let read = || async { jetstream.get_stream("KEPT").await.map(|stream| stream.cached_info().state.messages) };
    eventually(SOON, read, "the stream to be there").await
}

#[tokio::test]
async fn streams_survive_kill_and_restart_on_the_same_port() {
    let mut nats = testkit::nats().await;
    let (url, first) = (nats.url(), nats.pid());
    publish(&nats, 100).await;

    nats.kill().await;
    assert!(!nats.is_running());
    async_nats::connect(&url).await.expect_err("nobody answers on the port of a killed server");
    nats.start().await.expect("it starts again");
    assert_eq!(stored(&nats).await, 100);

    publish(&nats, 10).await;
    nats.restart().await.expect("it stops and starts");
    assert_eq!(nats.url(), url);
    assert_ne!(nats.pid(), first);
    assert_eq!(stored(&nats).await, 110);
}

#[tokio::test]
async fn a_paused_server_answers_nothing_until_it_is_resumed() {
    let mut nats = testkit::nats().await;
    let client = nats.client().await;
    client.flush().await.expect("it answers");
    nats.pause().await.expect("it runs");
    let asked = jetstream::new(client.clone());
    let answer = tokio::time::timeout(Duration::from_millis(300), asked.query_account()).await;
    assert!(answer.is_err(), "a paused server answered");
    assert!(nats.is_running());
    nats.resume().expect("it runs");
    eventually(SOON, || asked.query_account(), "the server to answer again").await;
}

#[tokio::test]
async fn a_paused_server_can_be_stopped() {
    let mut nats = testkit::nats().await;
    nats.pause().await.expect("it runs");
    tokio::time::timeout(SOON, nats.stop()).await.expect("stopped in time");
    assert!(!nats.is_running());
    nats.pause().await.expect_err("nothing to pause");
}

#[tokio::test]
async fn the_monitoring_view_answers_where_it_is_asked_for() {
    let nats = testkit::nats_with(|server| server.monitor_port(0).sync_interval(SyncInterval::Always)).await;
    let port = nats.monitor_port().expect("asked for");
    wait_for_http(&format!("http://127.0.0.1:{port}/healthz"), SOON).await;
    publish(&nats, 1).await;
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_purpose() {
    let program = testkit::nats_server_program().await;
    let folder = tempfile::tempdir().expect("a folder");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();

    let error = NatsServer::builder(&program, folder.path()).client_port(port).start().await.expect_err("taken");
    assert!(matches!(error, LocalError::PortTaken { port: p, purpose: "client", .. } if p == port), "{error}");
    assert!(error.to_string().contains(&port.to_string()), "{error}");

    let error = NatsServer::builder(&program, folder.path()).monitor_port(port).start().await.expect_err("taken");
    assert!(matches!(error, LocalError::PortTaken { port: p, purpose: "monitoring", .. } if p == port), "{error}");
}

#[tokio::test]
async fn a_port_taken_while_the_server_was_down_is_named() {
    let mut nats = testkit::nats().await;
    nats.stop().await;
    let _squatter = TcpListener::bind(("127.0.0.1", nats.client_port())).expect("free after stop");
    let error = nats.start().await.expect_err("taken");
    assert!(matches!(error, LocalError::PortTaken { port, .. } if port == nats.client_port()), "{error}");
}

#[tokio::test]
async fn a_server_that_refuses_its_configuration_is_quoted() {
    let program = testkit::nats_server_program().await;
    let folder = tempfile::tempdir().expect("a folder");
    let broken = NatsServer::builder(program, folder.path()).extra_config("no_such_setting: 1");
    let error = broken.start().await.expect_err("refused");
    assert!(matches!(error, LocalError::Exited { .. }), "{error}");
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[tokio::test]
async fn a_server_name_with_white_space_is_refused() {
    let error = NatsServer::builder("/bin/true", "/nowhere").server_name("two words").start().await;
    assert!(matches!(error, Err(LocalError::BadSetting { field: "server_name", .. })), "{error:?}");
}

#[tokio::test]
async fn data_folders_with_unusual_names_work() {
    let program = testkit::nats_server_program().await;
    let folder = tempfile::tempdir().expect("a folder");
    let odd = folder.path().join("it's \"mine\" $HOME #1");
    let mut server = NatsServer::builder(program, &odd).start().await.expect("it starts");
    assert!(odd.join("jetstream").is_dir(), "{:?}", std::fs::read_dir(&odd).map(|all| all.count()));
    server.stop().await;
}

#[test]
fn a_free_port_can_be_bound() {
    let port = free_port().expect("one of thousands");
    TcpListener::bind(("127.0.0.1", port)).expect("free");
}
