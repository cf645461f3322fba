//! Orders on their way to their end.

use std::time::Duration;

use async_nats::HeaderMap;
use contracts::api::{OrderQuery, subjects};
use contracts::inventory::{InventoryCommitted, InventoryRejected, Shortage};
use contracts::orders::OrderCreated;
use contracts::payments::{PaymentCaptured, PaymentDeclined, PaymentFailed, Step};
use contracts::{OrderId, ProductId};
use millrace::config::HumanDuration;
use millrace::event::Event;
use millrace::request_reply::{RequestError, request_json};
use order::Settings;
use order::api::view::OrderView;
use serde_json::{Value, json};
use testkit::eventually;
use uuid::Uuid;

use crate::support::{Backend, PATIENCE, World, authorized, body, eur, now, on_both_backends, product, reserved};

on_both_backends! {
    an_order_is_confirmed_once_both_said_yes,
    the_first_no_cancels_with_its_reason,
    a_customer_cancels_until_it_is_confirmed,
    an_order_still_processing_at_its_deadline_is_cancelled,
    the_same_key_gets_the_same_answer,
    a_foreign_order_is_taken_on_and_passed_on,
    prices_follow_the_catalog,
    orders_can_be_asked_for_over_nats,
    the_list_leads_from_page_to_page,
}

async fn an_order_is_confirmed_once_both_said_yes(backend: Backend) {
    let world = World::start(backend).await;
    let service = &world.service;
    let answer = service.post("/orders", &body()).await;
    let id = answer.order_id();
    assert_eq!((answer.status, answer.header("location")), (202, &*format!("/orders/{id}")));
    assert_eq!(answer.body["status"], "processing");
    assert_eq!(answer.body["total"], json!({ "minor": 4_498, "currency": "EUR" }));
    let first = service.get(&format!("/orders/{id}")).await.body;
    assert_eq!(
        (&first["payment"], &first["stock"], &first["foreign"]),
        (&json!("pending"), &json!("pending"), &json!(false))
    );
    assert!(first.get("email").is_none() && first.get("payment_method").is_none(), "{first}");

    // Each fact twice, as after a lost acknowledgement, and the second once more under a new id.
    let (yes, id_of_yes) = (authorized(id), world.publish("payment", &authorized(id)).await);
    world.publish_as(&id_of_yes, "payment", &yes).await;
    service.becomes(id, json!({ "payment": "authorized", "status": "processing" })).await;
    world.publish("inventory", &reserved(id)).await;
    world.publish("inventory", &reserved(id)).await;
    service.becomes(id, json!({ "status": "confirmed", "stock": "reserved" })).await;
    let captured = PaymentCaptured { order_id: id, payment_id: "pi_1".into(), amount: eur(4_498), captured_at: now() };
    world.publish("payment", &captured).await;
    world.publish("inventory", &InventoryCommitted { order_id: id, items: Vec::new(), committed_at: now() }).await;
    let done = service.becomes(id, json!({ "payment": "captured", "stock": "committed", "status": "confirmed" })).await;
    assert!(done["ended_at"].is_string() && done.get("reason").is_none(), "{done}");

    let mut timeline = service.timeline(id).await;
    timeline.sort_unstable();
    assert_eq!(
        timeline,
        [
            "inventory.committed",
            "inventory.reserved",
            "inventory.reserved",
            "orders.confirmed",
            "orders.created",
            "payments.authorized",
            "payments.captured"
        ]
    );
    let both = || async {
        world.published("orders.created.v2").await.len() == 1 && world.published("orders.confirmed").await.len() == 1
    };
    eventually(PATIENCE, both, "the events").await;
    assert_eq!(world.published("orders.created").await.len(), 1, "version 1 is published beside version 2");
    let (v1, v2) = (world.published("orders.created").await, world.published("orders.created.v2").await);
    assert_eq!(v1[0].headers.get("ce-id"), v2[0].headers.get("ce-id"));
    let sent: OrderCreated = serde_json::from_slice(&v2[0].payload).unwrap();
    assert_eq!(
        (sent.contact.email.as_deref(), sent.payment_method.as_deref()),
        (Some("ada@example.com"), Some("pm_card_visa"))
    );
    world.service.stop().await;
}

async fn the_first_no_cancels_with_its_reason(backend: Backend) {
    let world = World::start(backend).await;
    let service = &world.service;
    let declined = |order_id| PaymentDeclined {
        order_id,
        code: "card_declined".into(),
        message: "No.".into(),
        declined_at: now(),
    };
    let id = service.place().await;
    world.publish("payment", &declined(id)).await;
    service.becomes(id, json!({ "status": "cancelled", "reason": "payment_declined", "payment": "declined" })).await;
    world.publish("inventory", &reserved(id)).await;
    service.becomes(id, json!({ "status": "cancelled", "stock": "reserved" })).await;

    let id = service.place().await;
    let shortage = Shortage { product_id: ProductId::new("mug").unwrap(), requested: 2, available: 1 };
    world
        .publish("inventory", &InventoryRejected { order_id: id, shortages: vec![shortage], rejected_at: now() })
        .await;
    service.becomes(id, json!({ "status": "cancelled", "reason": "out_of_stock", "stock": "rejected" })).await;

    let id = service.place().await;
    let failed = PaymentFailed {
        order_id: id,
        step: Step::Authorize,
        code: "invalid".into(),
        message: "No.".into(),
        failed_at: now(),
    };
    world.publish("payment", &failed).await;
    service.becomes(id, json!({ "status": "cancelled", "reason": "payment_declined" })).await;
    let told = || async { world.published("orders.cancelled").await.len() == 3 };
    eventually(PATIENCE, told, "three cancellations").await;
}

async fn a_customer_cancels_until_it_is_confirmed(backend: Backend) {
    let world = World::start(backend).await;
    let service = &world.service;
    let cancel = |id: OrderId| async move { service.post(&format!("/orders/{id}/cancel"), &json!({})).await };
    let id = service.place().await;
    let answer = cancel(id).await;
    assert_eq!(
        (answer.status, &answer.body["status"], &answer.body["reason"]),
        (202, &json!("cancelled"), &json!("customer"))
    );
    assert_eq!(cancel(id).await.status, 200);
    assert_eq!(service.timeline(id).await, ["orders.created", "orders.cancelled"]);

    let id = service.place().await;
    world.say_yes(id).await;
    service.becomes(id, json!({ "status": "confirmed" })).await;
    let refused = cancel(id).await;
    assert_eq!((refused.status, refused.header("content-type")), (409, "application/problem+json"));
    service.becomes(id, json!({ "status": "confirmed" })).await;
}

async fn an_order_still_processing_at_its_deadline_is_cancelled(backend: Backend) {
    let quick = Settings {
        deadline: HumanDuration::from_millis(400),
        deadline_poll: HumanDuration::from_millis(50),
        ..Settings::default()
    };
    let world = World::start_with(backend, quick).await;
    let id = world.service.place().await;
    world.publish("payment", &authorized(id)).await;
    let done = world.service.becomes(id, json!({ "status": "cancelled", "reason": "deadline" })).await;
    let time = |name: &str| serde_json::from_value::<contracts::Timestamp>(done[name].clone()).unwrap();
    assert!(time("ended_at") >= time("deadline_at"), "{done}");
    world.publish("inventory", &reserved(id)).await;
    world.service.becomes(id, json!({ "stock": "reserved", "status": "cancelled" })).await;
}

async fn the_same_key_gets_the_same_answer(backend: Backend) {
    let world = World::start(backend).await;
    let service = &world.service;
    let first = service.place_with_key(&body(), "once").await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (202, ""));
    world.say_yes(first.order_id()).await;
    service.becomes(first.order_id(), json!({ "status": "confirmed" })).await;
    // The same request, written otherwise, also when a product is no longer sold.
    world.bucket().await.delete("mug").await.unwrap();
    let gone = || async { service.post("/orders", &body()).await.status == 422 };
    eventually(PATIENCE, gone, "the mug to be off sale").await;
    let mut fields: Vec<_> = body().as_object().unwrap().clone().into_iter().collect();
    fields.reverse();
    let text = fields.iter().map(|(name, value)| format!("\"{name}\" : {value}")).collect::<Vec<_>>().join(" , ");
    let request = service.request(reqwest::Method::POST, "/orders").header("Idempotency-Key", "once");
    let again = service.send(request.header("Content-Type", "application/json").body(format!("{{ {text} }}"))).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (202, "true"), "{again:?}");
    assert_eq!(again.body, first.body);
    assert_eq!(again.header("location"), first.header("location"));
    let mut other = body();
    other["items"][0] = json!({ "product_id": "tea", "quantity": 1 });
    other["items"].as_array_mut().unwrap().truncate(1);
    let taken = service.place_with_key(&other, "once").await;
    assert_eq!((taken.status, &taken.body["errors"][0]["field"]), (422, &json!("Idempotency-Key")));

    // Many at once.
    let mut request = body();
    request["items"] = json!([{ "product_id": "pot", "quantity": 1 }]);
    let answers = futures::future::join_all((0..8).map(|_| service.place_with_key(&request, "storm"))).await;
    assert!(answers.iter().all(|answer| answer.status == 202 && answer.body == answers[0].body), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer.header("idempotent-replayed").is_empty()).count(), 1);
}

async fn a_foreign_order_is_taken_on_and_passed_on(backend: Backend) {
    let world = World::start(backend).await;
    let context = world.connection.jetstream();
    let publish = |body: Value, headers: HeaderMap| async move {
        context.publish_with_headers("orders.created", headers, body.to_string().into()).await.unwrap().await.unwrap();
    };
    let body = |id: Uuid, amount: f64| {
        json!({
            "order_id": id, "customer_id": "shop-7", "amount": amount, "currency": "EUR", "timestamp": "2026-01-02T03:04:05.678Z",
            "items": [{ "product_id": "mug", "quantity": 3 }],
        })
    };
    let (bare, named) = (Uuid::now_v7(), Uuid::now_v7());
    // A plain body, sent twice by somebody who knows no message ids; and one with an id of its own.
    publish(body(bare, 19.99), HeaderMap::new()).await;
    publish(body(bare, 19.99), HeaderMap::new()).await;
    let event_id = Uuid::now_v7().to_string();
    let headers = HeaderMap::from_iter([
        ("ce-id".parse().unwrap(), event_id.parse().unwrap()),
        ("ce-source".parse().unwrap(), "/shop".parse().unwrap()),
    ]);
    publish(body(named, 5.0), headers).await;
    for id in [bare, named] {
        let view = world
            .service
            .becomes(OrderId(id), json!({ "status": "processing", "foreign": true, "customer_id": "shop-7" }))
            .await;
        assert_eq!(view["created_at"], "2026-01-02T03:04:05.678Z");
    }
    let passed_on = || async {
        let found = world.published("orders.created.v2").await;
        if found.len() == 2 { Ok(found) } else { Err(format!("{} messages", found.len())) }
    };
    let found = eventually(PATIENCE, passed_on, "both in version 2").await;
    // Orders are handled side by side, so either may come first.
    let about =
        |id: Uuid| found.iter().find(|m| m.headers.get("ce-subject").unwrap().as_str() == id.to_string()).unwrap();
    assert_eq!(about(named).headers.get("ce-id").unwrap().as_str(), event_id);
    let sent: OrderCreated = serde_json::from_slice(&about(bare).payload).unwrap();
    assert_eq!((sent.order_id.0, sent.total, sent.items[0].quantity), (bare, eur(1_999), 3));

    // Another order under the same id goes to the dead letters; so does what is no order. Ours pass by.
    publish(body(bare, 77.0), HeaderMap::new()).await;
    publish(json!({ "order_id": "nonsense" }), HeaderMap::new()).await;
    let ours = world.service.place().await;
    let dead = || async { world.published("dead_letters.>").await.len() == 2 };
    eventually(PATIENCE, dead, "two dead letters").await;
    world.say_yes(OrderId(bare)).await;
    world.say_yes(ours).await;
    world.service.becomes(OrderId(bare), json!({ "status": "confirmed", "total": eur(1_999) })).await;
    world.service.becomes(ours, json!({ "status": "confirmed" })).await;
    assert_eq!(world.published("orders.created.v2").await.len(), 3);
    assert_eq!(world.published("orders.created").await.len(), 6, "version 1 of a foreign order was published again");
    world.service.stop().await;
}

async fn prices_follow_the_catalog(backend: Backend) {
    let mut world = World::start(backend).await;
    let total = |answer: &crate::support::Answer| answer.body["total"]["minor"].as_i64();
    world.put(&product("mug", eur(1_500))).await;
    let dearer = || async { total(&world.service.post("/orders", &body()).await) == Some(5_500) };
    eventually(PATIENCE, dearer, "the new price").await;
    // What cannot be read is not sold.
    world.bucket().await.put("pot", "broken".into()).await.unwrap();
    let refused = || async { world.service.post("/orders", &body()).await.status == 422 };
    eventually(PATIENCE, refused, "the pot to be off sale").await;
    world.put(&product("pot", eur(100))).await;
    let back = || async { total(&world.service.post("/orders", &body()).await) == Some(3_100) };
    eventually(PATIENCE, back, "the pot to be back").await;

    // Without NATS, after a restart, the copy in the database prices.
    world.nats.stop().await;
    world.service.stop().await;
    let url = world.nats.url();
    let service = crate::support::Instance::start(&url, &world.database_url, Settings::default()).await;
    let answers = || async {
        let answer = service.request(reqwest::Method::POST, "/orders").json(&body()).send().await.ok()?;
        (answer.status() == 202).then_some(answer)
    };
    let answer: Value = eventually(PATIENCE, answers, "an answer without NATS").await.json().await.unwrap();
    assert_eq!(answer["total"]["minor"], 3_100);
    assert!(!service.health.readiness().ready, "ready without NATS");
    world.nats.start().await.unwrap();
    let id: OrderId = answer["order_id"].as_str().unwrap().parse().unwrap();
    let published = || async {
        world
            .published("orders.created.v2")
            .await
            .iter()
            .any(|m| m.headers.get("ce-subject").unwrap().as_str() == id.to_string())
    };
    eventually(PATIENCE, published, "the order that was taken without NATS").await;
    service.ready().await;
    service.stop().await;
}

async fn orders_can_be_asked_for_over_nats(backend: Backend) {
    let world = World::start(backend).await;
    let id = world.service.place().await;
    let connection = &world.connection;
    let ask = |order_id| async move {
        let question = OrderQuery { order_id };
        request_json::<_, OrderView>(connection, subjects::ORDERS_GET, &question, Duration::from_secs(5)).await
    };
    let view = ask(id).await.unwrap();
    assert_eq!((view.order_id, view.status.as_str(), view.total), (id, "processing", eur(4_498)));
    let Err(RequestError::Service { error, .. }) = ask(OrderId::generate()).await else {
        panic!("an unknown order was found")
    };
    assert_eq!(error.code, 404);
}

async fn the_list_leads_from_page_to_page(backend: Backend) {
    let world = World::start(backend).await;
    let service = &world.service;
    let mut placed = Vec::new();
    for _ in 0..5 {
        placed.push(service.place().await.to_string());
    }
    let (mut path, mut seen) = ("/orders?limit=2&status=processing&customer_id=c-1".to_owned(), Vec::new());
    loop {
        let page = service.get(&path).await;
        assert_eq!(page.status, 200, "{page:?}");
        let ids =
            page.body["orders"].as_array().unwrap().iter().map(|order| order["order_id"].as_str().unwrap().to_owned());
        seen.extend(ids);
        match page.body["next_cursor"].as_str() {
            Some(cursor) => path = format!("/orders?limit=2&status=processing&customer_id=c-1&cursor={cursor}"),
            None => break,
        }
    }
    placed.reverse();
    assert_eq!(seen, placed);
    let page = service.get("/").await;
    assert!(page.header("content-type").starts_with("text/html"));
    let html = page.body.as_str().unwrap();
    assert!(!html.contains("http://") && !html.contains("https://"), "the page needs something from elsewhere");
    assert_eq!(OrderCreated::SUBJECT, "orders.created.v2");
}
