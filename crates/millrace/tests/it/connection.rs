use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use millrace::connection::{Closed, Connection, Denied, FlushError, NatsSettings, Operation, State};

use crate::support::{PATIENCE, configured, connect, connect_with, login, open, settings, state, stopped, within};

fn last_error(state: &State) -> &str {
    match state {
        State::Disconnected { last_error: Some(error), .. } => error,
        _ => "",
    }
}

#[tokio::test]
async fn opens_while_no_server_runs_and_connects_once_one_does() {
    let mut server = stopped().await;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let sink = heard.clone();
    let begun = Instant::now();
    let connection =
        Connection::open(&settings(&server), "test", move |state| sink.lock().unwrap().push(state.clone()))
            .await
            .unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "opening waited for the server");
    let address = format!("127.0.0.1:{}", server.client_port());
    let away = state(&connection, |state| last_error(state).contains(&address)).await;
    assert!(last_error(&away).contains("refused"), "{away:?}");
    assert_eq!(*connection.reconnects().borrow(), 0);

    server.start().await.unwrap();
    within(connection.connected()).await.unwrap();
    assert!(connection.is_connected());
    within(connection.reconnects().wait_for(|count| *count == 1)).await.unwrap();
    let connected = || async { matches!(heard.lock().unwrap().last(), Some(State::Connected { .. })) };
    testkit::eventually(PATIENCE, connected, "the news of the connection").await;
    assert!(matches!(heard.lock().unwrap().first(), Some(State::Disconnected { last_error: None, .. })));
}

#[tokio::test]
async fn a_restart_of_the_server_counts_as_one_more_connection() {
    let mut server = testkit::nats().await;
    let connection = connect(&server).await;
    let mut reconnects = connection.reconnects();
    within(reconnects.wait_for(|count| *count == 1)).await.unwrap();

    server.kill().await;
    state(&connection, |state| matches!(state, State::Disconnected { .. })).await;
    server.start().await.unwrap();
    within(reconnects.wait_for(|count| *count == 2)).await.unwrap();
    assert!(connection.is_connected(), "whoever hears of a reconnection finds it connected");
    within(connection.jetstream().query_account()).await.unwrap();
}

#[tokio::test]
async fn a_wrong_password_shows_in_the_state() {
    let server = configured("authorization { user: app, password: right }").await;
    let refused = open(&login(&server, "app", "wrong")).await;
    let seen = state(&refused, |state| last_error(state).to_lowercase().contains("authorization violation")).await;
    assert!(!last_error(&seen).contains("wrong"), "{seen:?}");
    connect_with(&login(&server, "app", "right")).await;

    let url = format!("nats://app:right@127.0.0.1:{}", server.client_port());
    connect_with(&NatsSettings { url, ..settings(&server) }).await;
}

#[tokio::test]
async fn an_nkey_and_a_token_log_in() {
    // The pair of keys that the documentation of NATS uses as its example.
    let (public, seed) = (
        "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4",
        "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY",
    );
    let server = configured(&format!("authorization {{ users: [ {{ nkey: {public} }} ] }}")).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{seed}\n")).unwrap();
    connect_with(&NatsSettings { nkey_seed_file: Some(file.path().into()), ..settings(&server) }).await;

    let server = configured("authorization { token: abc }").await;
    connect_with(&NatsSettings { token: Some("abc".into()), ..settings(&server) }).await;
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named_with_its_setting() {
    let missing = Some("/does/not/exist".into());
    let cases = [
        (NatsSettings { nkey_seed_file: missing.clone(), ..NatsSettings::default() }, "nats.nkey_seed_file"),
        (NatsSettings { credentials_file: missing.clone(), ..NatsSettings::default() }, "nats.credentials_file"),
        (NatsSettings { tls_ca_file: missing, ..NatsSettings::default() }, "nats.tls_ca_file"),
        (
            NatsSettings { credentials_file: Some("/dev/null".into()), ..NatsSettings::default() },
            "nats.credentials_file",
        ),
        (NatsSettings { nkey_seed_file: Some("/dev/null".into()), ..NatsSettings::default() }, "nats.nkey_seed_file"),
    ];
    for (settings, name) in cases {
        assert_eq!(Connection::open(&settings, "test", |_| {}).await.unwrap_err().setting, name);
    }
}

#[tokio::test]
async fn one_living_server_of_several_is_enough() {
    let (dead, alive) = (stopped().await, testkit::nats().await);
    let url = format!("{},{}", dead.url(), alive.url());
    connect_with(&NatsSettings { url, ..settings(&alive) }).await;
}

#[tokio::test]
async fn nothing_hangs_while_the_server_is_away() {
    let server = stopped().await;
    let connection = open(&NatsSettings { request_timeout_ms: 200, ..settings(&server) }).await;
    let error = within(connection.jetstream().query_account()).await.unwrap_err();
    assert!(format!("{error:?}").contains("TimedOut"), "{error:?}");
    let publish = async { connection.jetstream().publish("a", "b".into()).await?.await };
    within(publish).await.unwrap_err();
    assert_eq!(within(connection.flush(PATIENCE)).await, Err(FlushError::Disconnected));
    assert_eq!(within(connection.close(PATIENCE)).await, Err(FlushError::Disconnected));
    assert_eq!(within(connection.connected()).await, Err(Closed));
}

#[tokio::test]
async fn a_denied_publish_and_a_denied_subscription_are_reported_with_their_subject() {
    let server = configured(
        "authorization { users: [ { user: a, password: b, permissions: {
            publish: { allow: [\"allowed.>\"] }, subscribe: { allow: [\"_INBOX.>\"] } } } ] }",
    )
    .await;
    let connection = connect_with(&login(&server, "a", "b")).await;
    let mut denials = connection.denials();
    connection.client().publish("secret.Thing", "x".into()).await.unwrap();
    let denied = within(denials.recv()).await.unwrap();
    assert_eq!(denied, Denied { operation: Operation::Publish, subject: "secret.Thing".into() });
    let _subscription = connection.client().queue_subscribe("secret.>", "q".into()).await.unwrap();
    let denied = within(denials.recv()).await.unwrap();
    assert_eq!(denied, Denied { operation: Operation::Subscribe, subject: "secret.>".into() });
    assert!(connection.is_connected(), "a denial does not end the connection");
}

#[tokio::test]
async fn closing_sends_what_is_queued_and_ends_every_subscription() {
    use futures::StreamExt as _;

    let server = testkit::nats().await;
    let (sender, listener) = (connect(&server).await, connect(&server).await);
    let mut heard = listener.client().subscribe("news").await.unwrap();
    within(listener.flush(PATIENCE)).await.unwrap();
    // The flush only wrote the subscription; an answer proves that the server has it.
    within(listener.jetstream().query_account()).await.unwrap();
    for i in 0..1_000 {
        sender.client().publish("news", i.to_string().into()).await.unwrap();
    }
    within(sender.close(PATIENCE)).await.unwrap();
    assert_eq!(*sender.state().borrow(), State::Closed);
    sender.client().publish("news", "too late".into()).await.unwrap_err();
    for i in 0..1_000 {
        assert_eq!(within(heard.next()).await.unwrap().payload, i.to_string());
    }
    within(listener.close(PATIENCE)).await.unwrap();
    assert!(within(heard.next()).await.is_none());
}
