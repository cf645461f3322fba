//! Every bad request gets the right status and a problem that names what is wrong, and the service goes on.

use order::Settings;
use reqwest::Method;
use serde_json::{Value, json};

use testkit::eventually;

use crate::support::{Backend, Instance, PATIENCE, World, body, on_both_backends};

on_both_backends! {
    a_bad_request_is_answered_with_its_status_and_names_the_field,
}

/// What is sent, and what has to come back.
struct Case {
    name: &'static str,
    request: Sent,
    status: u16,
    /// The fields named in `errors`, in any order; empty where there is no field.
    fields: &'static [&'static str],
}

enum Sent {
    /// The right order with one thing changed.
    Order(fn(&mut Value)),
    /// These bytes as `POST /orders` with this media type.
    Raw(&'static str, String),
    Key(&'static [&'static str]),
    Plain(Method, String),
    LastEventId(&'static str),
}

fn set(at: &str, value: Value) -> impl Fn(&mut Value) {
    move |body| {
        let (parent, name) = at.rsplit_once('/').unwrap();
        match body.pointer_mut(parent).unwrap() {
            Value::Array(list) => list[name.parse::<usize>().unwrap()] = value.clone(),
            object => object[name] = value.clone(),
        }
    }
}

fn remove(body: &mut Value, parent: &str, name: &str) {
    body.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
}

const JSON: &str = "application/json";

fn cases(order_id: &str) -> Vec<Case> {
    use Sent::{Key, LastEventId, Order, Plain, Raw};
    let case = |name, request, status, fields| Case { name, request, status, fields };
    let nobody = uuid::Uuid::now_v7();
    let get = |path: String| Plain(Method::GET, path);
    vec![
        // Not an order at all.
        case("empty body", Raw(JSON, String::new()), 400, &[]),
        case("malformed JSON", Raw(JSON, r#"{"customer_id": "c-1","#.into()), 400, &[]),
        case("two documents", Raw(JSON, format!("{0}{0}", body())), 400, &[]),
        case("not UTF-8 in words", Raw(JSON, "\u{feff}nonsense".into()), 400, &[]),
        case("a number out of any range", Raw(JSON, r#"{"customer_id": 1e999}"#.into()), 422, &["/customer_id"]),
        case("deeply nested", Raw(JSON, "[".repeat(10_000)), 400, &[]),
        case("a list", Raw(JSON, "[]".into()), 422, &[""]),
        case("null", Raw(JSON, "null".into()), 422, &[""]),
        case("an empty object", Raw(JSON, "{}".into()), 422, &["/customer_id", "/payment_method", "/items"]),
        case("oversized body", Raw(JSON, format!("{{\"customer_id\": \"{}\"}}", "x".repeat(70_000))), 413, &[]),
        case("wrong content type", Raw("text/plain", body().to_string()), 415, &["Content-Type"]),
        case(
            "form content type",
            Raw("application/x-www-form-urlencoded", "customer_id=c-1".into()),
            415,
            &["Content-Type"],
        ),
        // One field wrong.
        case("no customer", Order(|b| remove(b, "", "customer_id")), 422, &["/customer_id"]),
        case("empty customer", Order(|b| set("/customer_id", json!(""))(b)), 422, &["/customer_id"]),
        case("customer with a space", Order(|b| set("/customer_id", json!("a b"))(b)), 422, &["/customer_id"]),
        case("customer of the wrong type", Order(|b| set("/customer_id", json!(7))(b)), 422, &["/customer_id"]),
        case("long customer", Order(|b| set("/customer_id", json!("x".repeat(129)))(b)), 422, &["/customer_id"]),
        case("no payment method", Order(|b| remove(b, "", "payment_method")), 422, &["/payment_method"]),
        case(
            "payment method with a line break",
            Order(|b| set("/payment_method", json!("pm\n1"))(b)),
            422,
            &["/payment_method"],
        ),
        case(
            "long payment method",
            Order(|b| set("/payment_method", json!("x".repeat(129)))(b)),
            422,
            &["/payment_method"],
        ),
        case("no items", Order(|b| remove(b, "", "items")), 422, &["/items"]),
        case("an empty list of items", Order(|b| set("/items", json!([]))(b)), 422, &["/items"]),
        case("items of the wrong type", Order(|b| set("/items", json!({"mug": 1}))(b)), 422, &["/items"]),
        case(
            "too many items",
            Order(|b| set("/items", json!(vec![json!({"product_id": "mug", "quantity": 1}); 101]))(b)),
            422,
            &["/items"],
        ),
        case("an item that is none", Order(|b| set("/items/0", json!("mug"))(b)), 422, &["/items/0"]),
        case(
            "an unknown product",
            Order(|b| set("/items/1/product_id", json!("unicorn"))(b)),
            422,
            &["/items/1/product_id"],
        ),
        case(
            "an impossible product",
            Order(|b| set("/items/1/product_id", json!("a/b"))(b)),
            422,
            &["/items/1/product_id"],
        ),
        case(
            "a duplicate product",
            Order(|b| set("/items/1/product_id", json!("mug"))(b)),
            422,
            &["/items/1/product_id"],
        ),
        case("no quantity", Order(|b| remove(b, "/items/0", "quantity")), 422, &["/items/0/quantity"]),
        case("zero of a product", Order(|b| set("/items/0/quantity", json!(0))(b)), 422, &["/items/0/quantity"]),
        case("less than zero", Order(|b| set("/items/0/quantity", json!(-1))(b)), 422, &["/items/0/quantity"]),
        case("a fraction", Order(|b| set("/items/0/quantity", json!(1.5))(b)), 422, &["/items/0/quantity"]),
        case("a quantity in quotes", Order(|b| set("/items/0/quantity", json!("2"))(b)), 422, &["/items/0/quantity"]),
        case(
            "more than anybody needs",
            Order(|b| set("/items/0/quantity", json!(10_001))(b)),
            422,
            &["/items/0/quantity"],
        ),
        case(
            "a quantity beyond 64 bits",
            Order(|b| set("/items/0/quantity", json!(1e30))(b)),
            422,
            &["/items/0/quantity"],
        ),
        case("a price of one's own", Order(|b| set("/items/0/unit_price", json!(1))(b)), 422, &["/items/0/unit_price"]),
        case(
            "a total too large",
            Order(|b| set("/items/0", json!({"product_id": "yacht", "quantity": 10_000}))(b)),
            422,
            &["/items"],
        ),
        case(
            "a total of nothing",
            Order(|b| set("/items", json!([{"product_id": "gift", "quantity": 1}]))(b)),
            422,
            &["/items"],
        ),
        case("two currencies", Order(|b| set("/items/1/product_id", json!("tea"))(b)), 422, &["/items/1/product_id"]),
        case("another currency", Order(|b| set("/currency", json!("USD"))(b)), 422, &["/currency"]),
        case("no currency of this world", Order(|b| set("/currency", json!("EURO"))(b)), 422, &["/currency"]),
        case("bad e-mail", Order(|b| set("/email", json!("ada@"))(b)), 422, &["/email"]),
        case(
            "mail header in the e-mail",
            Order(|b| set("/email", json!("a@b.com\r\nBcc: c@d.com"))(b)),
            422,
            &["/email"],
        ),
        case("bad phone number", Order(|b| set("/phone", json!("0151 1234"))(b)), 422, &["/phone"]),
        case("an unknown field", Order(|b| set("/total", json!(1))(b)), 422, &["/total"]),
        case(
            "everything at once",
            Order(|b| *b = json!({"payment_method": "", "email": 1, "items": [{"product_id": "mug"}], "x": 0})),
            422,
            &["/customer_id", "/payment_method", "/email", "/items/0/quantity", "/x"],
        ),
        // Headers.
        case("empty key", Key(&[""]), 400, &["Idempotency-Key"]),
        case("key with a space", Key(&["a b"]), 400, &["Idempotency-Key"]),
        case("two keys", Key(&["a", "b"]), 400, &["Idempotency-Key"]),
        case("the same key with another body", Key(&["taken"]), 422, &["Idempotency-Key"]),
        case("a place in the stream that is none", LastEventId("-3"), 400, &["Last-Event-ID"]),
        // Paths and parameters.
        case("unknown order", get(format!("/orders/{nobody}")), 404, &["order_id"]),
        case("unknown order's timeline", get(format!("/orders/{nobody}/timeline")), 404, &["order_id"]),
        case("unknown order's stream", get(format!("/orders/{nobody}/events")), 404, &["order_id"]),
        case(
            "cancelling an unknown order",
            Plain(Method::POST, format!("/orders/{nobody}/cancel")),
            404,
            &["order_id"],
        ),
        case("an id that is none", get("/orders/42".into()), 400, &["order_id"]),
        case("cancelling an id that is none", Plain(Method::POST, "/orders/42/cancel".into()), 400, &["order_id"]),
        case("a bad cursor", get("/orders?cursor=xyz".into()), 400, &["cursor"]),
        case("a page of nothing", get("/orders?limit=0".into()), 400, &["limit"]),
        case("a page too long", get("/orders?limit=101".into()), 400, &["limit"]),
        case("a page of words", get("/orders?limit=ten".into()), 400, &["limit"]),
        case("an unknown status", get("/orders?status=shipped".into()), 400, &["status"]),
        case("an impossible customer", get("/orders?customer_id=a%20b".into()), 400, &["customer_id"]),
        case("an unknown parameter", get("/orders?page=2".into()), 400, &["page"]),
        case("a parameter given twice", get("/orders?limit=1&limit=2".into()), 400, &["limit"]),
        case("no such path", get("/order".into()), 404, &[]),
        case("a method that is not there", Plain(Method::DELETE, format!("/orders/{order_id}")), 405, &[]),
        case("a method that is not there for the list", Plain(Method::PUT, "/orders".into()), 405, &[]),
    ]
}

async fn a_bad_request_is_answered_with_its_status_and_names_the_field(backend: Backend) {
    let world = World::start_with(backend, Settings::default()).await;
    let service = &world.service;
    let first = service.place_with_key(&body(), "taken").await;
    assert_eq!(first.status, 202, "{first:?}");
    let order_id = first.order_id().to_string();
    let cases = cases(&order_id);
    assert!(cases.len() >= 30);
    for case in &cases {
        let name = case.name;
        let sent = || {
            let request = request(service, &order_id, &case.request).header("X-Correlation-ID", "bad-request-test");
            // On a connection of its own: a server that refuses a body before it has all of it closes the connection,
            // and a client that still writes may then never read the answer. One that tries again gets it.
            let alone = if case.status == 413 { request.header("Connection", "close") } else { request };
            service.try_send(alone)
        };
        let answer = if case.status == 413 { eventually(PATIENCE, sent, name).await } else { sent().await.unwrap() };
        assert_eq!(answer.status, case.status, "{name}: {answer:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{name}: {answer:?}");
        assert_eq!(answer.header("x-correlation-id"), "bad-request-test", "{name}");
        assert_eq!(answer.body["status"], case.status, "{name}");
        assert!(answer.body["title"].is_string() && answer.body["detail"].is_string(), "{name}: {answer:?}");
        assert_eq!(answer.status == 405, !answer.header("allow").is_empty(), "{name}: {answer:?}");
        let errors = answer.body["errors"].as_array().cloned().unwrap_or_default();
        let mut named: Vec<_> = errors.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect();
        let mut wanted: Vec<_> = case.fields.iter().map(|field| (*field).to_owned()).collect();
        named.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(named, wanted, "{name}: {answer:?}");
        assert!(errors.iter().all(|error| !error["message"].as_str().unwrap().is_empty()), "{name}");
    }
    // Nothing of it left a trace, and the service still takes orders.
    let listed = service.get("/orders").await;
    assert_eq!(listed.body["orders"].as_array().unwrap().len(), 1, "{listed:?}");
    service.place().await;
    world.service.stop().await;
}

fn request(service: &Instance, order_id: &str, sent: &Sent) -> reqwest::RequestBuilder {
    let post = |body: &Value| service.request(Method::POST, "/orders").json(body);
    match sent {
        Sent::Order(change) => {
            let mut order = body();
            change(&mut order);
            post(&order)
        }
        Sent::Raw(media_type, bytes) => {
            service.request(Method::POST, "/orders").header("Content-Type", *media_type).body(bytes.clone())
        }
        Sent::Key(keys) => {
            let mut order = body();
            order["customer_id"] = json!("c-2");
            keys.iter().fold(post(&order), |request, key| request.header("Idempotency-Key", *key))
        }
        Sent::Plain(method, path) => service.request(method.clone(), path),
        Sent::LastEventId(id) => {
            service.request(Method::GET, &format!("/orders/{order_id}/events")).header("Last-Event-ID", *id)
        }
    }
}
