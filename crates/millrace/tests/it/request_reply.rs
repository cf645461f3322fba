use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use futures::StreamExt as _;
use millrace::connection::{Connection, State};
use millrace::request_reply::{
    DEADLINE_HEADER, Endpoint, ReplyError, Request, RequestError, Running, Service, ServiceError, request, request_json,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, configured, connect, login, open, settings, state, stopped, traced, within};

#[derive(Serialize, Deserialize)]
struct Question {
    product_id: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Answer {
    available: u32,
}

async fn stock(question: Question, _request: Request) -> Result<Answer, ReplyError> {
    match question.product_id.as_str() {
        "chair" => Ok(Answer { available: 7 }),
        "panic" => panic!("a defect in a handler"),
        other => Err(ReplyError::not_found(format!("there is no product\n{other}"))),
    }
}

/// Starts the service and waits until it answers.
async fn start(connection: &Connection, shutdown: &CancellationToken) -> Running {
    let endpoint = Endpoint::new("api.inventory.stock").description("stock of a product").request_schema("{}");
    let service = Service::builder("inventory", "1.2.3", "stock and reservations").json_endpoint(endpoint, stock);
    let running = service.start(connection, shutdown.clone()).await.unwrap();
    answering(connection, &running).await;
    running
}

/// The subscriptions of a service reach the server in order, so one that answers a ping has them all.
async fn answering(connection: &Connection, running: &Running) {
    let ping = format!("$SRV.PING.{}.{}", name_of(connection, running).await, running.id());
    within(async { while connection.client().request(ping.clone(), "".into()).await.is_err() {} }).await;
}

async fn name_of(connection: &Connection, running: &Running) -> String {
    let found = discover(connection, "$SRV.PING", running.id()).await;
    found["name"].as_str().unwrap().to_owned()
}

/// Asks all services until the one with this id answers.
async fn discover(connection: &Connection, subject: &'static str, id: &str) -> Value {
    within(async {
        loop {
            let inbox = connection.client().new_inbox();
            let mut answers = connection.client().subscribe(inbox.clone()).await.unwrap();
            connection.client().publish_with_reply(subject, inbox, "".into()).await.unwrap();
            while let Ok(Some(answer)) = tokio::time::timeout(Duration::from_millis(200), answers.next()).await {
                match serde_json::from_slice::<Value>(&answer.payload) {
                    Ok(found) if found["id"] == id => return found,
                    _ => {}
                }
            }
        }
    })
    .await
}

async fn ask(connection: &Connection, product: &str) -> Result<Answer, RequestError> {
    let question = Question { product_id: product.into() };
    within(request_json(connection, "api.inventory.stock", &question, PATIENCE)).await
}

fn code(error: &RequestError) -> u16 {
    match error {
        RequestError::Service { error, .. } => error.code,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_question_gets_its_answer_and_an_error_its_code_and_reason() {
    let server = testkit::nats().await;
    let connection = connect(&server).await;
    let _running = start(&connection, &CancellationToken::new()).await;
    let caller = connect(&server).await;
    assert_eq!(ask(&caller, "chair").await, Ok(Answer { available: 7 }));

    let error = ask(&caller, "unicorn").await.unwrap_err();
    let expected = ReplyError::not_found("there is no product unicorn");
    assert_eq!(error, RequestError::Service { subject: "api.inventory.stock".into(), error: expected });

    let subject = "api.inventory.stock";
    let wrong = within(request_json::<_, Answer>(&caller, subject, &json!({"id": 1}), PATIENCE)).await.unwrap_err();
    assert_eq!(code(&wrong), 400);
    assert!(wrong.to_string().contains("product_id"), "the field at fault is named: {wrong}");
    let empty = within(request(&caller, subject, HeaderMap::new(), "".into(), PATIENCE)).await.unwrap_err();
    assert_eq!(code(&empty), 400);
}

#[tokio::test]
async fn an_answer_of_another_shape_is_a_decode_error() {
    let server = testkit::nats().await;
    let connection = connect(&server).await;
    let _running = start(&connection, &CancellationToken::new()).await;
    let question = Question { product_id: "chair".into() };
    let answer = within(request_json::<_, Vec<u8>>(&connection, "api.inventory.stock", &question, PATIENCE)).await;
    assert!(matches!(answer, Err(RequestError::Decode { .. })), "{answer:?}");
}

#[tokio::test]
async fn a_panicking_handler_answers_with_an_error_and_goes_on() {
    let server = testkit::nats().await;
    let connection = connect(&server).await;
    let _running = start(&connection, &CancellationToken::new()).await;
    assert_eq!(code(&ask(&connection, "panic").await.unwrap_err()), 500);
    assert_eq!(ask(&connection, "chair").await, Ok(Answer { available: 7 }));
}

#[tokio::test]
async fn without_a_service_the_caller_learns_it_at_once() {
    let server = testkit::nats().await;
    let connection = connect(&server).await;
    let begun = Instant::now();
    let answer = ask(&connection, "chair").await;
    assert!(matches!(answer, Err(RequestError::NoResponders { .. })), "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_request_while_nats_is_away_ends_at_its_deadline_and_is_not_sent_later() {
    let mut server = testkit::nats().await;
    let caller = connect(&server).await;
    // Restored by the client before it sends what is queued, so it would hear a request sent late.
    let mut heard = caller.client().subscribe("api.inventory.stock").await.unwrap();
    within(caller.jetstream().query_account()).await.unwrap();
    server.kill().await;
    state(&caller, |state| !matches!(state, State::Connected { .. })).await;
    let patience = Duration::from_millis(300);
    let answer = within(request_json::<_, Answer>(&caller, "api.inventory.stock", &json!({}), patience)).await;
    assert!(matches!(answer, Err(RequestError::DeadlineExceeded { .. })), "{answer:?}");

    server.start().await.unwrap();
    within(caller.connected()).await.unwrap();
    let marker = request(&caller, "api.inventory.stock", HeaderMap::new(), "marker".into(), patience);
    let (first, _) = tokio::join!(within(heard.next()), marker);
    assert_eq!(first.unwrap().payload, "marker");
}

#[tokio::test]
async fn the_deadline_reaches_the_handler_and_work_past_it_is_abandoned() {
    let server = testkit::nats().await;
    let connection = connect(&server).await;
    let remaining = Arc::new(std::sync::Mutex::new(Vec::new()));
    // Held by each handler while it runs.
    let running = Arc::new(Semaphore::new(10));
    let (seen, slots) = (remaining.clone(), running.clone());
    let handle = move |request: Request| {
        let (seen, slots) = (seen.clone(), slots.clone());
        async move {
            let _slot = slots.acquire_owned().await.unwrap();
            seen.lock().unwrap().push(request.remaining());
            std::future::pending::<Result<&'static str, ReplyError>>().await
        }
    };
    let endpoint = Endpoint::new("api.slow").deadlines(Duration::from_millis(100), Duration::from_secs(1));
    let service = Service::builder("slow", "0.1.0", "never answers").endpoint(endpoint, handle);
    let service = service.start(&connection, CancellationToken::new()).await.unwrap();
    answering(&connection, &service).await;

    let patience = Duration::from_millis(400);
    let answer = within(request(&connection, "api.slow", HeaderMap::new(), "".into(), patience)).await.unwrap_err();
    assert!(matches!(answer, RequestError::DeadlineExceeded { .. }), "{answer:?}");
    within(running.acquire_many(10)).await.unwrap().forget();
    running.add_permits(10);
    let told = remaining.lock().unwrap()[0];
    assert!(told <= patience && told > patience / 2, "{told:?}");

    // A plain client gets the endpoint's own deadline, and an answer that says so.
    let answer = within(connection.client().request("api.slow", "".into())).await.unwrap();
    let headers = answer.headers.unwrap();
    assert_eq!(headers.get("Nats-Service-Error-Code").unwrap().as_str(), "504");

    // A caller cannot ask for more than the endpoint grants, and nonsense counts as nothing.
    for (asked, bound) in [("999999999", Duration::from_secs(1)), ("soon", Duration::from_millis(100))] {
        let mut headers = HeaderMap::new();
        headers.insert(DEADLINE_HEADER, asked);
        within(connection.client().request_with_headers("api.slow", headers, "".into())).await.unwrap();
        assert!(*remaining.lock().unwrap().last().unwrap() <= bound);
    }
    // One without any time left never reaches the handler.
    let before = remaining.lock().unwrap().len();
    let mut headers = HeaderMap::new();
    headers.insert(DEADLINE_HEADER, "0");
    within(connection.client().request_with_headers("api.slow", headers, "".into())).await.unwrap();
    assert_eq!(remaining.lock().unwrap().len(), before);
}

#[tokio::test]
async fn the_trace_and_the_correlation_id_of_the_caller_go_on_in_the_handler() {
    use millrace::telemetry::trace;
    use tracing::Instrument as _;

    traced();
    let server = testkit::nats().await;
    let connection = connect(&server).await;
    let handle = |_request: Request| async {
        let trace = trace::TraceContext::current().map(|context| context.trace_id().to_owned());
        Ok::<_, ReplyError>(format!("{trace:?} {:?}", trace::correlation_id()))
    };
    let service = Service::builder("traced", "0.1.0", "").endpoint(Endpoint::new("api.traced"), handle);
    let service = service.start(&connection, CancellationToken::new()).await.unwrap();
    answering(&connection, &service).await;

    let span = tracing::info_span!("caller", correlation_id = "c-1");
    let id = trace::TraceContext::of(&span).unwrap().trace_id().to_owned();
    let asking = request(&connection, "api.traced", HeaderMap::new(), "".into(), PATIENCE).instrument(span);
    let expected = format!("{:?} {:?}", Some(id), Some("c-1"));
    assert_eq!(within(asking).await.unwrap().payload, expected);
}

#[tokio::test]
async fn a_full_endpoint_says_so_at_once_and_when_to_come_back() {
    let server = testkit::nats().await;
    let connection = connect(&server).await;
    let gate = Arc::new(Semaphore::new(0));
    let entered = Arc::new(AtomicUsize::new(0));
    let (door, count) = (gate.clone(), entered.clone());
    let handle = move |_request: Request| {
        let (door, count) = (door.clone(), count.clone());
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            door.acquire_owned().await.unwrap().forget();
            Ok::<_, ReplyError>("done")
        }
    };
    let pause = Duration::from_millis(2_500);
    let endpoint = Endpoint::new("api.narrow").max_concurrent(1).retry_after(pause);
    let service = Service::builder("narrow", "0.1.0", "one at a time").endpoint(endpoint, handle);
    let service = service.start(&connection, CancellationToken::new()).await.unwrap();
    answering(&connection, &service).await;

    let first = tokio::spawn({
        let connection = connection.clone();
        async move { request(&connection, "api.narrow", HeaderMap::new(), "".into(), PATIENCE).await }
    });
    within(async {
        while entered.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await
        }
    })
    .await;
    let error = within(request(&connection, "api.narrow", HeaderMap::new(), "".into(), PATIENCE)).await.unwrap_err();
    let RequestError::Service { error, .. } = error else { panic!("{error}") };
    assert_eq!((error.code, error.retry_after), (503, Some(pause)));
    gate.add_permits(1);
    assert_eq!(within(first).await.unwrap().unwrap().payload, "done");
}

#[tokio::test]
async fn two_instances_share_the_requests() {
    let server = testkit::nats().await;
    let counts = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
    let mut instances = Vec::new();
    for count in &counts {
        let connection = connect(&server).await;
        let count = count.clone();
        let handle = move |_request: Request| {
            let count = count.clone();
            async move {
                count.fetch_add(1, Ordering::SeqCst);
                Ok::<_, ReplyError>("")
            }
        };
        let service = Service::builder("shared", "0.1.0", "").endpoint(Endpoint::new("api.shared"), handle);
        let running = service.start(&connection, CancellationToken::new()).await.unwrap();
        answering(&connection, &running).await;
        instances.push((connection, running));
    }
    let caller = connect(&server).await;
    for _ in 0..200 {
        within(request(&caller, "api.shared", HeaderMap::new(), "".into(), PATIENCE)).await.unwrap();
    }
    let [a, b] = counts.map(|count| count.load(Ordering::SeqCst));
    assert_eq!(a + b, 200, "each request reaches one instance");
    assert!(a > 0 && b > 0, "{a} and {b}");
}

#[tokio::test]
async fn discovery_finds_the_service_its_endpoint_and_its_statistics() {
    let server = testkit::nats().await;
    let connection = connect(&server).await;
    let running = start(&connection, &CancellationToken::new()).await;
    ask(&connection, "chair").await.unwrap();
    ask(&connection, "unicorn").await.unwrap_err();

    let ping = discover(&connection, "$SRV.PING", running.id()).await;
    assert_eq!((&ping["name"], &ping["version"]), (&json!("inventory"), &json!("1.2.3")));
    let info = discover(&connection, "$SRV.INFO.inventory", running.id()).await;
    let endpoint = &info["endpoints"][0];
    assert_eq!(endpoint["subject"], "api.inventory.stock");
    assert_eq!(endpoint["metadata"]["description"], "stock of a product");
    assert_eq!(endpoint["metadata"]["request_schema"], "{}");
    let stats = discover(&connection, "$SRV.STATS.inventory", running.id()).await;
    assert_eq!((&stats["endpoints"][0]["num_requests"], &stats["endpoints"][0]["num_errors"]), (&json!(2), &json!(1)));
}

#[tokio::test]
async fn a_stop_finishes_what_is_at_hand_and_takes_nothing_more() {
    let server = testkit::nats().await;
    let connection = connect(&server).await;
    let gate = Arc::new(Semaphore::new(0));
    let entered = Arc::new(Semaphore::new(0));
    let (door, bell) = (gate.clone(), entered.clone());
    let handle = move |_request: Request| {
        let (door, bell) = (door.clone(), bell.clone());
        async move {
            bell.add_permits(1);
            door.acquire_owned().await.unwrap().forget();
            Ok::<_, ReplyError>("finished")
        }
    };
    let shutdown = CancellationToken::new();
    let service = Service::builder("gated", "0.1.0", "").endpoint(Endpoint::new("api.gated"), handle);
    let running = service.start(&connection, shutdown.clone()).await.unwrap();
    answering(&connection, &running).await;
    let caller = connect(&server).await;
    let at_hand: Vec<_> = (0..3)
        .map(|_| {
            let caller = caller.clone();
            tokio::spawn(async move { request(&caller, "api.gated", HeaderMap::new(), "".into(), PATIENCE).await })
        })
        .collect();
    within(entered.acquire_many(3)).await.unwrap().forget();
    shutdown.cancel();
    // Until the service has unsubscribed a request may still get in; none does afterwards.
    within(async {
        let brief = Duration::from_millis(100);
        while !matches!(
            request(&caller, "api.gated", HeaderMap::new(), "".into(), brief).await,
            Err(RequestError::NoResponders { .. })
        ) {}
    })
    .await;
    let mut stopped = tokio::spawn(running.stopped());
    let early = tokio::time::timeout(Duration::from_millis(100), &mut stopped).await;
    assert!(early.is_err(), "it counts as stopped while requests are at hand");
    gate.add_permits(100);
    for answer in at_hand {
        assert_eq!(within(answer).await.unwrap().unwrap().payload, "finished");
    }
    within(stopped).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_service_answers_again_after_the_server_was_restarted() {
    let mut server = testkit::nats().await;
    let connection = connect(&server).await;
    let running = start(&connection, &CancellationToken::new()).await;
    let mut reconnects = connection.reconnects();
    server.kill().await;
    server.start().await.unwrap();
    within(reconnects.wait_for(|count| *count == 2)).await.unwrap();
    answering(&connection, &running).await;
    assert_eq!(ask(&connection, "chair").await, Ok(Answer { available: 7 }));
}

#[tokio::test]
async fn a_service_started_while_nats_is_away_answers_once_it_is_there_and_stops_without_it() {
    let mut server = stopped().await;
    let connection = open(&settings(&server)).await;
    let shutdown = CancellationToken::new();
    let service = Service::builder("early", "0.1.0", "")
        .json_endpoint(Endpoint::new("api.inventory.stock"), stock)
        .start(&connection, shutdown.clone())
        .await
        .unwrap();
    server.start().await.unwrap();
    answering(&connection, &service).await;
    assert_eq!(ask(&connection, "chair").await, Ok(Answer { available: 7 }));
    server.kill().await;
    shutdown.cancel();
    within(service.stopped()).await.unwrap();
}

#[tokio::test]
async fn a_service_learns_that_its_connection_was_closed() {
    let server = testkit::nats().await;
    let connection = connect(&server).await;
    let running = start(&connection, &CancellationToken::new()).await;
    within(connection.close(PATIENCE)).await.unwrap();
    assert!(matches!(within(running.stopped()).await, Err(ServiceError::Closed(_))));
    assert!(matches!(ask(&connection, "chair").await, Err(RequestError::Closed(_))));
}

#[tokio::test]
async fn a_denied_request_says_so_instead_of_timing_out() {
    let server = configured(
        "authorization { users: [ { user: a, password: b, permissions: {
            publish: { deny: [\"api.>\"] } } } ] }",
    )
    .await;
    let connection = open(&login(&server, "a", "b")).await;
    let begun = Instant::now();
    let answer = ask(&connection, "chair").await;
    assert!(
        matches!(&answer, Err(RequestError::Denied { denied, .. }) if denied == "api.inventory.stock"),
        "{answer:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn what_the_framework_does_not_take_is_refused_by_name() {
    let server = testkit::nats().await;
    let connection = connect(&server).await;
    let mut problems = BTreeSet::new();
    for service in [
        Service::builder("with space", "1.0.0", ""),
        Service::builder("version", "one", ""),
        Service::builder("subject", "1.0.0", "").json_endpoint(Endpoint::new("a..b"), stock),
    ] {
        let error = service.start(&connection, CancellationToken::new()).await.unwrap_err();
        assert!(matches!(error, ServiceError::Register { .. }), "{error}");
        problems.insert(error.to_string());
    }
    assert_eq!(problems.len(), 3, "{problems:?}");
}
