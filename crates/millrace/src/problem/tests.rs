use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::routing::{get, post};
use serde_json::json;
use tokio::sync::Notify;
use tower::ServiceExt as _;
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;
use crate::telemetry::trace::TraceContext;

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only their shape matters")]
struct Order {
    customer_id: String,
    items: Vec<Item>,
    mode: Option<Mode>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only their shape matters")]
struct Item {
    product_id: String,
    quantity: u16,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Fast,
    Safe,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "shown by Debug")]
struct List {
    limit: Option<u32>,
    cursor: Option<String>,
}

fn app(limits: HttpLimits) -> Router {
    let router = Router::new()
        .route("/orders", post(|JsonBody(_): JsonBody<Order>| async { "ok" }))
        .route("/orders", get(|QueryParams(list): QueryParams<List>| async move { format!("{list:?}") }))
        .route("/orders/{order_id}", get(|PathParams(id): PathParams<uuid::Uuid>| async move { id.to_string() }))
        .route("/named/{order_id}", get(|PathParams(id): PathParams<Named>| async move { id.order_id.to_string() }))
        .route("/panic", get(async || -> &'static str { panic!("on purpose") }))
        .route(
            "/trace",
            get(|CorrelationId(id): CorrelationId| async move {
                format!("{} {id}", TraceContext::current().map(|c| c.traceparent).unwrap_or_default())
            }),
        );
    instrument(router, HttpLayer::new("http-test", limits))
}

#[derive(serde::Deserialize)]
struct Named {
    order_id: uuid::Uuid,
}

struct Answer {
    status: u16,
    headers: axum::http::HeaderMap,
    body: String,
}

impl Answer {
    fn problem(&self) -> Problem {
        assert_eq!(self.headers["content-type"], CONTENT_TYPE, "{}", self.body);
        let problem: Problem = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem.status.as_u16(), self.status);
        problem
    }
}

async fn send(app: Router, request: Request<Body>) -> Answer {
    let response = app.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

fn post_json(body: impl Into<Body>) -> Request<Body> {
    Request::post("/orders").header("content-type", "application/json").body(body.into()).unwrap()
}

fn get_from(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_bad_body_gets_the_right_status_and_names_the_field() {
    let cases: &[(&str, u16, &str, &str)] = &[
        ("", 400, "", ""),
        ("{", 400, "", ""),
        ("{\"customer_id\": 5, ", 400, "", ""),
        ("{\"customer_id\":\"c\",\"items\":[]} x", 400, "", ""),
        ("[]", 422, "", "expected an object, got a list"),
        ("[1]", 422, "/0", "expected a text, got integer"),
        ("\"x\"", 422, "", "expected an object, got string"),
        ("{}", 422, "/customer_id", "it is required"),
        (r#"{"customer_id":5,"items":[]}"#, 422, "/customer_id", "expected a text, got integer `5`"),
        (r#"{"customer_id":"c","items":{}}"#, 422, "/items", "expected a list, got map"),
        (r#"{"customer_id":"c","items":[{"product_id":"p"}]}"#, 422, "/items/0/quantity", "it is required"),
        (
            r#"{"customer_id":"c","items":[{"product_id":"p","quantity":-1}]}"#,
            422,
            "/items/0/quantity",
            "expected a whole number from 0 to 65535, got integer",
        ),
        (
            r#"{"customer_id":"c","items":[{"product_id":"p","quantity":70000}]}"#,
            422,
            "/items/0/quantity",
            "expected a whole number from 0 to 65535",
        ),
        (
            r#"{"customer_id":"c","items":[{"product_id":"p","quantity":1,"a/b":1}]}"#,
            422,
            "/items/0/a~1b",
            "there is no such field; known are product_id or quantity",
        ),
        (r#"{"customer_id":"c","customer_id":"d","items":[]}"#, 422, "/customer_id", "it is given twice"),
        (
            r#"{"customer_id":"c","items":[],"mode":"slow"}"#,
            422,
            "/mode",
            "expected \"fast\" or \"safe\", got \"slow\"",
        ),
    ];
    for (body, status, field, message) in cases {
        let answer = send(app(HttpLimits::default()), post_json(*body)).await;
        assert_eq!(answer.status, *status, "{body}: {}", answer.body);
        let problem = answer.problem();
        if *status == 422 {
            assert_eq!(problem.errors[0].field, *field, "{body}: {}", answer.body);
            let told = problem.errors[0].message.replace('"', "`");
            assert!(told.contains(&message.replace('"', "`")), "{body}: {}", answer.body);
        } else {
            assert!(problem.detail.as_ref().is_some_and(|detail| !detail.is_empty()), "{}", answer.body);
        }
    }
}

#[tokio::test]
async fn a_good_body_passes_with_any_json_media_type() {
    for media_type in ["application/json", "application/json; charset=utf-8", "application/vnd.order+json"] {
        let request = Request::post("/orders").header("content-type", media_type);
        let body = r#"{"customer_id":"c","items":[{"product_id":"p","quantity":1}]}"#;
        assert_eq!(send(app(HttpLimits::default()), request.body(body.into()).unwrap()).await.status, 200);
    }
}

#[tokio::test]
async fn another_media_type_is_refused() {
    for request in [Request::post("/orders").header("content-type", "text/plain"), Request::post("/orders")] {
        let answer = send(app(HttpLimits::default()), request.body("{}".into()).unwrap()).await;
        assert_eq!(answer.status, 415);
        assert_eq!(answer.problem().errors[0].field, "Content-Type");
    }
}

#[tokio::test]
async fn an_oversized_body_is_refused_announced_or_not() {
    let limits = HttpLimits { max_body_bytes: 100, ..HttpLimits::default() };
    let announced = post_json("x".repeat(101));
    let chunks = futures::stream::iter((0..200).map(|_| Ok::<_, std::io::Error>("x")));
    let streamed = post_json(Body::from_stream(chunks));
    for request in [announced, streamed] {
        let answer = send(app(limits), request).await;
        assert_eq!(answer.status, 413);
        assert_eq!(answer.problem().detail.as_deref(), Some("At most 100 bytes are accepted."));
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_is_given_up() {
    let never = Body::from_stream(futures::stream::pending::<Result<&str, std::io::Error>>());
    let answer = send(app(HttpLimits::default()), post_json(never)).await;
    assert_eq!(answer.status, 408);
    assert!(answer.problem().detail.as_ref().unwrap().contains("10 s"));
}

#[tokio::test]
async fn a_bad_parameter_is_named() {
    for (path, field, message) in [
        ("/orders?limit=ten", "limit", "expected a whole number from 0 to 4294967295, got \"ten\""),
        ("/orders?limit=1&limit=2", "limit", "it is given twice"),
        ("/orders?limt=1", "limt", "there is no such parameter; known are limit or cursor"),
        ("/orders?limt", "limt", "there is no such parameter; known are limit or cursor"),
        ("/orders?limit=", "limit", "expected a whole number from 0 to 4294967295, got \"\""),
        ("/orders?cursor=%ff", "cursor", "it is not valid UTF-8"),
        ("/named/17", "order_id", "expected a UUID, got \"17\""),
        ("/orders/17", "order_id", "expected a UUID, got \"17\""),
    ] {
        let answer = send(app(HttpLimits::default()), get_from(path)).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.body);
        let problem = answer.problem();
        assert_eq!(problem.errors[0].field, field, "{path}: {}", answer.body);
        assert!(problem.errors[0].message.contains(message), "{path}: {}", answer.body);
    }
    let answer = send(app(HttpLimits::default()), get_from("/orders?limit=5&cursor=a%20b+c%26")).await;
    assert_eq!(answer.body, "List { limit: Some(5), cursor: Some(\"a b c&\") }");
}

#[tokio::test]
async fn no_route_and_no_method_are_problems_too() {
    let answer = send(app(HttpLimits::default()), get_from("/nowhere")).await;
    assert_eq!((answer.status, answer.problem().kind.as_str()), (404, "urn:millrace:problem:not-found"));
    let answer = send(app(HttpLimits::default()), Request::delete("/orders").body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, 405);
    assert!(answer.headers.contains_key("allow"));
    assert!(answer.problem().detail.as_ref().unwrap().starts_with("DELETE is not supported by /orders"));
}

#[tokio::test]
async fn a_panicking_handler_is_answered_with_500_and_the_next_request_works() {
    let app = app(HttpLimits { max_in_flight: 1, ..HttpLimits::default() });
    let answer = send(app.clone(), get_from("/panic")).await;
    assert_eq!(answer.status, 500);
    assert!(!answer.body.contains("on purpose"));
    answer.problem();
    assert_eq!(send(app, get_from("/orders")).await.status, 200);
}

#[tokio::test]
async fn the_correlation_id_is_taken_or_made_and_always_sent_back() {
    let ask = async |given: Option<&[u8]>| {
        let mut request = Request::get("/trace");
        if let Some(given) = given {
            request = request.header("x-correlation-id", given);
        }
        let answer = send(app(HttpLimits::default()), request.body(Body::empty()).unwrap()).await;
        let sent = answer.headers["x-correlation-id"].to_str().unwrap().to_owned();
        assert!(answer.body.ends_with(&format!(" {sent}")), "the handler sees {}", answer.body);
        sent
    };
    assert_eq!(ask(Some(b"abc-1")).await, "abc-1");
    assert_eq!(ask(Some("x".repeat(128).as_bytes())).await.len(), 128);
    for refused in
        [None, Some("x".repeat(129).into_bytes()), Some(b"a b".to_vec()), Some(b"".to_vec()), Some(vec![0xe9])]
    {
        let made = ask(refused.as_deref()).await;
        assert!(made.parse::<uuid::Uuid>().is_ok(), "{made}");
    }
}

#[tokio::test]
async fn the_callers_trace_goes_on_in_the_handler_and_problems_carry_the_correlation_id() {
    let subscriber = tracing_subscriber::Registry::default().with(crate::telemetry::layer::trace_layer());
    let _traced = tracing::subscriber::set_default(subscriber);
    let request = Request::get("/trace")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .body(Body::empty());
    let answer = send(app(HttpLimits::default()), request.unwrap()).await;
    assert!(answer.body.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{}", answer.body);
    assert!(!answer.body.contains("00f067aa0ba902b7"), "{}", answer.body);
    let request = Request::get("/nowhere").header("x-correlation-id", "c-9").body(Body::empty());
    let answer = send(app(HttpLimits::default()), request.unwrap()).await;
    assert_eq!(answer.problem().correlation_id.as_deref(), Some("c-9"));
}

#[tokio::test]
async fn requests_above_the_limit_are_shed_and_told_when_to_return() {
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (entered, release) = (Arc::clone(&entered), Arc::clone(&release));
        move || async move {
            entered.notify_one();
            release.notified().await;
            "done"
        }
    };
    let limits = HttpLimits { max_in_flight: 1, retry_after: Duration::from_millis(1500), ..HttpLimits::default() };
    let app = instrument(Router::new().route("/slow", get(handler)), HttpLayer::new("shed-test", limits));
    let first = tokio::spawn(send(app.clone(), get_from("/slow")));
    entered.notified().await;
    let shed = send(app.clone(), get_from("/slow")).await;
    assert_eq!(shed.status, 503);
    assert_eq!(shed.headers["retry-after"], "2");
    shed.problem();
    release.notify_one();
    assert_eq!(first.await.unwrap().body, "done");
    release.notify_one();
    assert_eq!(send(app, get_from("/slow")).await.status, 200);
}

#[tokio::test]
async fn requests_are_counted_by_route_not_by_path() {
    crate::telemetry::metrics::install();
    let layer = HttpLayer::new("count-test", HttpLimits::default());
    let app = instrument(Router::new().route("/orders/{id}", get(async || "ok")), layer);
    for path in ["/orders/1", "/orders/2", "/nowhere/3"] {
        send(app.clone(), get_from(path)).await;
    }
    let text = crate::telemetry::metrics::render();
    let counted = |route: &str, status: u16, count: u32| {
        text.lines().any(|line| {
            line.starts_with("millrace_http_requests_total{")
                && [r#"service="count-test""#, &format!(r#"route="{route}""#), &format!(r#"status="{status}""#)]
                    .iter()
                    .all(|label| line.contains(label))
                && line.ends_with(&format!(" {count}"))
        })
    };
    assert!(counted("/orders/{id}", 200, 2), "{text}");
    assert!(counted("unmatched", 404, 1), "{text}");
}

#[test]
fn a_problem_is_written_as_the_standard_says() {
    let problem =
        Problem::invalid_field("/items/0/quantity", "expected 1 or more, got 0").code("MR0005").instance("/orders");
    assert_eq!(
        serde_json::to_value(&problem).unwrap(),
        json!({
            "type": "urn:millrace:problem:invalid-fields",
            "title": "Some fields are not valid",
            "status": 422,
            "detail": "/items/0/quantity: expected 1 or more, got 0",
            "instance": "/orders",
            "code": "MR0005",
            "errors": [{"field": "/items/0/quantity", "message": "expected 1 or more, got 0"}],
        })
    );
    assert_eq!(problem.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[test]
fn its_schema_names_the_members_of_the_standard() {
    let schema = serde_json::to_value(<Problem as utoipa::PartialSchema>::schema()).unwrap();
    let members = schema["properties"].as_object().unwrap();
    for member in ["type", "title", "status", "detail", "instance", "code", "errors"] {
        assert!(members.contains_key(member), "{member} in {schema}");
    }
    assert!(!members.contains_key("retry_after"));
}
