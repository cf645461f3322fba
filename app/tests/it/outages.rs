//! A minute without one of the things everything depends on, under load: customers do not notice, nothing is lost, nothing
//! comes twice, and whoever looks sees what is wrong.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use testkit::eventually;
use testkit::proxy::Fault;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use crate::support::{Accepted, Backend, Books, Installation, PATIENCE, SERVICES, Shop, Wire, good_order, sample};

const OUTAGE: Duration = Duration::from_secs(60);
/// For what is behind a queue of its own and does not get worse with time.
const SHORTER_OUTAGE: Duration = Duration::from_secs(20);
const ORDER_EVERY: Duration = Duration::from_millis(250);
/// How long orders are placed before an outage, and after it.
const UNDISTURBED: Duration = Duration::from_secs(2);
/// What a machine that is busy with other things takes for a commit, a mail or a message must not look like a refusal, a
/// lost answer or a crash.
const CALM: [(&str, &str); 4] = [
    ("MILLRACE_TOPOLOGY_ACK_WAIT", "10s"),
    ("MILLRACE_ORDER_SUBMIT_PATIENCE", "30s"),
    ("MILLRACE_NOTIFICATION_EMAIL_TIMEOUT_MS", "20000"),
    ("MILLRACE_NOTIFICATION_CLAIM", "45s"),
];

/// How a server is away.
#[derive(Debug, Clone, Copy)]
enum Away {
    /// Connections are refused.
    Refusing,
    /// Connections are taken, and nothing ever comes back.
    Silent,
}

impl Away {
    fn begin(self, wire: &mut Wire) {
        match self {
            Self::Refusing => wire.refuse(),
            Self::Silent => wire.set(Fault::BlackHole),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_without_the_gateway_costs_no_order_no_dead_letter_and_no_delivery_attempt() {
    tokio::join!(
        without_the_gateway(Backend::Sqlite, Away::Refusing),
        without_the_gateway(Backend::Postgres, Away::Silent)
    );
}

async fn without_the_gateway(backend: Backend, away: Away) {
    let products = sample();
    let mut installation = Installation::new(backend.fresh().await, &CALM).await;
    let mut gateway = installation.wire("MILLRACE_PAYMENT_GATEWAY_URL").await;
    installation.start(&products).await;
    let (shop, over) = (installation.shop.clone(), AtomicBool::new(false));
    let outage = async {
        sleep(UNDISTURBED).await;
        away.begin(&mut gateway);
        let end = Instant::now() + OUTAGE;
        let opens = || async { breaker_of_the_gateway(&installation, "degraded", &[2.0]).await };
        eventually(PATIENCE, opens, "the breaker to open").await;
        let told = || async { doctor_finds_it_open(&installation).await };
        eventually(PATIENCE, told, "millrace doctor to name the breaker").await;
        while Instant::now() < end {
            sleep(Duration::from_secs(3)).await;
            breaker_of_the_gateway(&installation, "degraded", &[1.0, 2.0]).await.unwrap();
        }
        gateway.mend().await;
        let closes = || async { breaker_of_the_gateway(&installation, "ready", &[0.0]).await };
        eventually(PATIENCE, closes, "the breaker to close by itself").await;
        sleep(UNDISTURBED).await;
        over.store(true, Ordering::Relaxed);
    };
    let (accepted, ()) = tokio::join!(shop.sell_until(&over, ORDER_EVERY), outage);
    all_end_well(&installation, &accepted, &products).await;

    let retried = installation.metric("payment", "millrace_retries_total", "").await;
    assert_eq!(retried, Err("payment shows no millrace_retries_total".to_owned()), "messages were given back");
    // An order is two messages to payment. One that is on its way while the gate closes may come twice.
    let delivered = installation.consumer("ORDERS", "payment-orders").await.delivered.consumer_sequence;
    let orders = accepted.len() as u64;
    assert!(delivered <= 2 * orders + orders / 20, "{delivered} deliveries for {orders} orders");
}

/// What payment says about the gateway at `/health` and `/metrics`, and that it takes work all the same.
async fn breaker_of_the_gateway(installation: &Installation, status: &str, states: &[f64]) -> Result<(), String> {
    let health = installation.health("payment").await?;
    let state = installation.metric("payment", "millrace_breaker_state", "payment-gateway").await?;
    let shown = health["components"]["payment.gateway"]["status"] == status && states.contains(&state);
    if shown && health["ready"] == true { Ok(()) } else { Err(format!("{state} {health}")) }
}

/// Between two probes it is half-open for a moment.
async fn doctor_finds_it_open(installation: &Installation) -> Result<(), String> {
    let ran = installation.millrace(&["doctor", "--json", "--ops", &installation.ops_url("payment")]).await;
    let found = ran.json();
    let mut checks = found["checks"].as_array().ok_or("no checks")?.iter();
    let check = checks.find(|check| check["name"] == "breaker payment-gateway").ok_or_else(|| found.to_string())?;
    if check["ok"] == false { Ok(()) } else { Err(check.to_string()) }
}

async fn all_end_well(installation: &Installation, accepted: &[Accepted], products: &Value) {
    let books = Books::close(installation, accepted, products).await;
    assert_eq!(books.count("confirmed", None), accepted.len());
    installation.no_dead_letters().await;
}

/// How NATS is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broker {
    Killed,
    CutOff,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_without_nats_refuses_no_customer_and_every_order_finishes_afterwards() {
    tokio::join!(without_nats(Backend::Sqlite, Broker::Killed), without_nats(Backend::Postgres, Broker::CutOff));
}

async fn without_nats(backend: Backend, broker: Broker) {
    let products = sample();
    let mut installation = Installation::new(backend.fresh().await, &CALM).await;
    let mut wire = installation.wire("NATS_URL").await;
    installation.start(&products).await;
    let (shop, over) = (installation.shop.clone(), AtomicBool::new(false));
    let outage = async {
        sleep(UNDISTURBED).await;
        let end = Instant::now() + OUTAGE;
        match broker {
            Broker::Killed => installation.nats.kill().await,
            Broker::CutOff => wire.set(Fault::Cut),
        }
        for service in SERVICES {
            let told = || async { waits_for_nats(&installation, service).await };
            eventually(PATIENCE, told, "each service to say that it waits for NATS").await;
        }
        sleep_until(end).await;
        for service in SERVICES {
            waits_for_nats(&installation, service).await.unwrap();
        }
        match broker {
            Broker::Killed => installation.nats.start().await.unwrap(),
            Broker::CutOff => wire.mend().await,
        }
        installation.ready().await;
        sleep(UNDISTURBED).await;
        over.store(true, Ordering::Relaxed);
    };
    let (accepted, ()) = tokio::join!(shop.sell_until(&over, ORDER_EVERY), outage);
    all_end_well(&installation, &accepted, &products).await;
}

/// Not ready, and says why; but alive, since a restart would not help.
async fn waits_for_nats(installation: &Installation, service: &str) -> Result<(), String> {
    let (status, text) = installation.readiness(service).await?;
    let health = installation.health(service).await?;
    let named = text.lines().any(|line| line.starts_with(&format!("{service}.nats: ")));
    if status == 503 && named && health["alive"] == true { Ok(()) } else { Err(format!("{status} {text} {health}")) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_back_empty_is_filled_again_and_every_order_ends() {
    let products = sample();
    let mut installation = Installation::running(None, &CALM, &products).await;
    let (shop, over) = (installation.shop.clone(), AtomicBool::new(false));
    let loss = async {
        sleep(UNDISTURBED).await;
        installation.nats.kill().await;
        std::fs::remove_dir_all(installation.nats.data_dir().join("jetstream")).unwrap();
        installation.nats.start().await.unwrap();
        installation.ready().await;
        sleep(UNDISTURBED).await;
        over.store(true, Ordering::Relaxed);
    };
    let (accepted, ()) = tokio::join!(shop.sell_until(&over, ORDER_EVERY), loss);
    all_end_well(&installation, &accepted, &products).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_mail_server_orders_go_on_and_each_mail_is_sent_once_afterwards() {
    let products = sample();
    let mut installation = Installation::new(None, &CALM).await;
    let mut mail = installation.wire("MILLRACE_NOTIFICATION_EMAIL_URL").await;
    installation.start(&products).await;
    let (shop, over) = (installation.shop.clone(), AtomicBool::new(false));
    let outage = async {
        sleep(UNDISTURBED).await;
        mail.refuse();
        let end = Instant::now() + SHORTER_OUTAGE;
        let told = || async {
            let health = installation.health("notification").await?;
            let email = &health["components"]["notification.email"];
            if email["status"] == "degraded" { Ok(()) } else { Err(health.to_string()) }
        };
        eventually(PATIENCE, told, "notification to say that it cannot send mail").await;
        let order = shop.place(&good_order(0)).await;
        let confirmed = || async {
            let orders = shop.orders().await?;
            let found = orders.iter().find(|known| known["order_id"] == order.order_id.as_str()).ok_or("unknown")?;
            if found["status"] == "confirmed" { Ok(()) } else { Err(found.to_string()) }
        };
        eventually(PATIENCE, confirmed, "an order to be confirmed without mail").await;
        sleep_until(end).await;
        mail.mend().await;
        sleep(UNDISTURBED).await;
        over.store(true, Ordering::Relaxed);
        order
    };
    let (mut accepted, extra) = tokio::join!(shop.sell_until(&over, ORDER_EVERY), outage);
    accepted.push(extra);
    Books::close(&installation, &accepted, &products).await.each_mail_came_once();
    all_end_well(&installation, &accepted, &products).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgresql_an_order_is_accepted_or_refused_with_503_and_what_was_accepted_is_kept() {
    let mut postgres = testkit::private_postgres().await;
    let products = sample();
    let installation = Installation::running(Some(postgres.database_url("shop")), &[], &products).await;
    let (shop, over) = (installation.shop.clone(), AtomicBool::new(false));
    let outage = async {
        sleep(UNDISTURBED).await;
        postgres.kill().await;
        sleep(SHORTER_OUTAGE).await;
        postgres.start().await.unwrap();
        installation.ready().await;
        sleep(UNDISTURBED).await;
        over.store(true, Ordering::Relaxed);
    };
    let (sold, ()) = tokio::join!(persistent_customers(&shop, &over), outage);
    let (accepted, refusals): (Vec<_>, Vec<_>) = sold.into_iter().unzip();
    assert!(refusals.iter().sum::<u32>() > 0, "nobody noticed the outage");
    all_end_well(&installation, &accepted, &products).await;
}

/// Customers who come back with the same request for as long as they are told to. Gives each one's receipt, and how often
/// it was refused.
async fn persistent_customers(shop: &Shop, over: &AtomicBool) -> Vec<(Accepted, u32)> {
    let mut placing = JoinSet::new();
    let mut ticks = tokio::time::interval(ORDER_EVERY);
    while !over.load(Ordering::Relaxed) {
        ticks.tick().await;
        let (shop, n, key) = (shop.clone(), placing.len(), Uuid::now_v7().to_string());
        placing.spawn(async move {
            let mut refusals = 0;
            let deadline = Instant::now() + PATIENCE;
            loop {
                let answer = shop.attempt(&good_order(n), &key).await.unwrap();
                if answer.status() == StatusCode::ACCEPTED {
                    return (Accepted::of(answer).await.unwrap(), refusals);
                }
                assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
                let pause: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
                assert!(Instant::now() < deadline, "still refused: {answer:?}");
                refusals += 1;
                sleep(Duration::from_secs(pause)).await;
            }
        });
    }
    placing.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn while_sqlite_is_locked_orders_are_refused_and_afterwards_accepted() {
    let products = sample();
    let installation = Installation::on(Backend::Sqlite, &products).await;
    let shop = &installation.shop;
    let before = shop.place(&good_order(0)).await;
    let locked = rusqlite::Connection::open(installation.folder.path().join("order.db")).unwrap();
    locked.execute_batch("begin immediate").unwrap();
    let refused = shop.attempt(&good_order(1), "while-locked").await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["code"], "MR0004", "{problem}");
    locked.execute_batch("rollback").unwrap();
    let again = || async {
        let answer = shop.attempt(&good_order(1), "while-locked").await.map_err(|e| e.to_string())?;
        if answer.status() == StatusCode::ACCEPTED { Accepted::of(answer).await } else { Err(format!("{answer:?}")) }
    };
    let after = eventually(PATIENCE, again, "the order to be accepted").await;
    all_end_well(&installation, &[before, after], &products).await;
}

const GOOD_ONES: usize = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_event_among_a_thousand_is_one_dead_letter_and_once_repaired_an_order_like_the_others() {
    tokio::join!(among_a_thousand(Backend::Sqlite), among_a_thousand(Backend::Postgres));
}

async fn among_a_thousand(backend: Backend) {
    let installation = Installation::on(backend, &sample()).await;
    let foreign = |amount: Value| {
        json!({ "order_id": Uuid::now_v7(), "customer_id": "somebody", "amount": amount, "currency": "EUR",
            "timestamp": "2026-01-02T03:04:05Z", "items": [{ "product_id": "mug", "quantity": 1 }] })
    };
    let mut orders: Vec<Value> = (0..=GOOD_ONES).map(|_| foreign(json!(12.5))).collect();
    let repaired = orders[GOOD_ONES / 2].clone();
    orders[GOOD_ONES / 2]["amount"] = json!("twelve and a half");
    let client = installation.nats.client().await;
    for order in &orders {
        client.publish("orders.created", order.to_string().into()).await.unwrap();
    }
    client.flush().await.unwrap();

    paid_and_gone(&installation, GOOD_ONES).await;
    let listed = dead_letters(&installation, &["list", "--flat"]).await;
    let letters = listed["letters"].as_array().unwrap();
    assert_eq!(letters.len(), 1, "{listed}");
    assert_eq!((&letters[0]["consumer"], &letters[0]["reason"]), (&json!("order-foreign"), &json!("undecodable")));

    let file = installation.folder.path().join("repaired.json");
    std::fs::write(&file, repaired.to_string()).unwrap();
    let (id, body) = (letters[0]["id"].to_string(), file.to_str().unwrap());
    let replayed = dead_letters(&installation, &["replay", &id, "--body", body]).await;
    assert_eq!(replayed["letters"][0]["outcome"], "handled", "{replayed}");
    paid_and_gone(&installation, GOOD_ONES + 1).await;
    assert_eq!(dead_letters(&installation, &["list"]).await["count"], 0);
    let known: Vec<Value> = installation.shop.orders().await.unwrap();
    assert!(known.iter().any(|order| order["order_id"] == repaired["order_id"]), "the repaired order is unknown");
}

async fn dead_letters(installation: &Installation, args: &[&str]) -> Value {
    let ran = installation.millrace(&[&["dead-letters"], args, &["--json"]].concat()).await;
    assert_eq!(ran.code, 0, "{args:?}: {ran}");
    ran.json()
}

/// Waits until so many orders have ended well: their goods are gone, and each is paid for once.
async fn paid_and_gone(installation: &Installation, orders: usize) {
    let gone = || async {
        let stock = installation.stock().await?;
        if stock["mug"][1..] == [0, orders as i64] { Ok(()) } else { Err(format!("{stock:?}")) }
    };
    eventually(PATIENCE * 3, gone, "the goods of all orders to be gone").await;
    let paid = || async {
        let known = installation.shop.orders().await?;
        let paid =
            known.iter().filter(|order| order["status"] == "confirmed" && order["payment"] == "captured").count();
        if (paid, known.len()) == (orders, orders) { Ok(()) } else { Err(format!("{paid} of {} paid", known.len())) }
    };
    eventually(PATIENCE, paid, "all orders to be paid").await;
    installation.quiet().await;
    let ledger = installation.shop.ledger().await.unwrap();
    assert_eq!((ledger.intents.len(), ledger.intents_dropped), (orders, 0));
    assert!(ledger.intents.iter().all(|intent| intent.captures == 1 && intent.captured == 1_250), "{ledger:?}");
}
