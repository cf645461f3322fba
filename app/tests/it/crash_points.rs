//! Each named crash point, hit by real processes on both databases: whatever was half done at that very moment is finished
//! after the restart, and done once.

#![expect(clippy::print_stdout, reason = "which points were hit, and how often, is what is to be seen of this")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use contracts::Timestamp;
use contracts::orders::{CancelReason, OrderCancelled};
use millrace::event::{Cause, EventId, Retired, encode, encode_headers};
use serde_json::{Value, json};
use testkit::eventually;
use time::OffsetDateTime;

use crate::support::{Accepted, Backend, Books, Installation, PATIENCE, SERVICES, cli, sample};

/// Points on the way of every event: each service dies there once, in the course of one order.
const ON_EVERY_WAY: [&str; 6] =
    ["before-effect", "before-commit", "after-commit", "after-publish", "after-marked", "after-effect-before-ack"];
/// Where a mail server may have a mail that nobody has written down: it comes twice, with one Message-ID. When what
/// was sent about an order's first notice is published, its second may be on its way.
const MAIL_COMES_AGAIN: [&str; 3] = ["before-commit", "after-publish", "after-marked"];
/// Deliveries of a message before the broker gives it up; what users have.
const DELIVERIES: usize = 5;
/// Every order here names an address and a phone number, and is told twice how it stands.
const NOTICES: usize = 4;
/// What a shell says of a process that was ended by SIGKILL.
const KILLED: i32 = 137;

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_point_leaves_nothing_undone_and_nothing_done_twice_on_sqlite() {
    Story::tell(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_point_leaves_nothing_undone_and_nothing_done_twice_on_postgresql() {
    Story::tell(Backend::Postgres).await;
}

struct Story {
    backend: Backend,
    installation: Installation,
    products: Value,
    accepted: Vec<Accepted>,
    /// How often each point was the end of a process.
    hits: BTreeMap<String, u32>,
    began: Instant,
}

/// A service that was started to die.
struct Doomed {
    service: &'static str,
    point: String,
    mark: PathBuf,
}

impl Story {
    async fn tell(backend: Backend) {
        let mut story = Self::begin(backend).await;
        story.first_start().await;
        for point in ON_EVERY_WAY {
            let order = story.dies_during(&SERVICES.map(|service| (service, point)), &good_order()).await;
            story.closes(&order, MAIL_COMES_AGAIN.contains(&point)).await;
        }
        story.between_us_and_the_outside_world().await;
        story.crash_loop_and_replay().await;
        story.unreadable_message().await;
        story.refund().await;

        let known = points_of_the_binary().await;
        let hit: BTreeSet<String> = story.hits.keys().map(|at| base(at).to_owned()).collect();
        assert_eq!(hit, known, "every crash point needs its part in this story");
        let hits: Vec<_> = story.hits.iter().map(|(point, times)| format!("{point} x{times}")).collect();
        println!("{backend:?}: {} crash points in {:.0?}: {}", known.len(), story.began.elapsed(), hits.join(", "));
    }

    async fn begin(backend: Backend) -> Self {
        let began = Instant::now();
        let url = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(testkit::fresh_database().await),
        };
        let products = sample();
        let mut installation = Installation::new(url, &[]).await;
        installation.import(&products).await;
        installation.serve("simulators");
        Self { backend, installation, products, accepted: Vec::new(), hits: BTreeMap::new(), began }
    }

    /// On empty databases, every service dies in the middle of making its tables, and then when they are made.
    async fn first_start(&mut self) {
        for point in ["between-migrations", "after-migration"] {
            let doomed = self.doom(&SERVICES.map(|service| (service, point))).await;
            self.all_die(doomed).await;
        }
        self.installation.ready().await;
    }

    /// A crash right before and right after something happens that no transaction can take back.
    async fn between_us_and_the_outside_world(&mut self) {
        let doomed = self.doom(&[("inventory", "after-product-stocked")]).await;
        let late = json!({ "product_id": "late", "name": "late", "opening_stock": 7,
            "unit_price": { "minor": 100, "currency": "EUR" } });
        self.products.as_array_mut().unwrap().push(late);
        self.installation.import(&self.products).await;
        self.all_die(doomed).await;

        let before = [("payment", "before-gateway-call"), ("notification", "before-mail-sent")];
        let order = self.dies_during(&before, &good_order()).await;
        self.closes(&order, false).await;

        let authorized = [("payment", "after-gateway-answer"), ("notification", "after-mail-sent")];
        let order = self.dies_during(&authorized, &good_order()).await;
        self.closes(&order, true).await;
        let mails = self.mails(&order).await;
        assert!(mails.values().any(|times| *times > 1), "nothing was sent when it died after a mail: {mails:?}");

        let captured = [("payment", "after-gateway-answer:2"), ("notification", "after-sms-sent")];
        let order = self.dies_during(&captured, &good_order()).await;
        self.closes(&order, true).await;

        let too_many = json!({ "customer_id": "greedy", "email": "someone@example.org",
            "phone": "+4915112345678", "payment_method": "pm_card_visa",
            "items": [{ "product_id": "rare", "quantity": 99 }] });
        let voided = [("payment", "after-gateway-answer:2")];
        let order = self.dies_during(&voided, &too_many).await;
        let books = self.closes(&order, false).await;
        assert_eq!(books.count("cancelled", Some("out_of_stock")), 1);
    }

    /// A message that kills inventory each time becomes a dead letter, once, and its replay finishes the order.
    async fn crash_loop_and_replay(&mut self) {
        let mut doomed = self.doom(&[("inventory", "before-commit")]).await;
        let order = self.installation.shop.place(&good_order()).await;
        for _ in 1..DELIVERIES {
            self.die(&mut doomed).await;
            doomed = self.doom(&[("inventory", "before-commit")]).await;
        }
        self.die(&mut doomed).await;
        let doomed = self.doom(&[("inventory", "after-advisory-letter")]).await;
        self.all_die(doomed).await;
        let letter = self.only_letter("inventory-orders", "never_answered").await;

        let written_down = "after-replay-written-down";
        self.installation.millrace_dies_at(written_down, &["dead-letters", "replay", &letter]).await;
        *self.hits.entry(written_down.to_owned()).or_default() += 1;
        let shown = self.installation.millrace(&["dead-letters", "show", &letter, "--json"]).await.json();
        assert_eq!(shown["state"], "being_replayed", "{shown}");

        // It would wait again after five minutes. Whoever knows better need not wait.
        let doomed = self.doom(&[("inventory", "before-replay-audit")]).await;
        let replaying = self.installation.spawn_millrace(&["dead-letters", "replay", &letter, "--again", "--json"]);
        self.all_die(doomed).await;
        let replayed = replaying.await.unwrap();
        assert_eq!((replayed.code, &replayed.json()["letters"][0]["outcome"]), (0, &json!("handled")), "{replayed}");
        self.closes(&order, false).await;
        let audit = self.installation.millrace(&["dead-letters", "audit", "--json"]).await.json();
        let told: Vec<_> = audit["entries"].as_array().unwrap().iter().map(|entry| &entry["action"]).collect();
        assert_eq!(told, ["replayed", "replayed", "handled"], "{audit}");
    }

    async fn unreadable_message(&mut self) {
        let mut doomed = self.doom(&[("order", "after-dead-letter-copy")]).await;
        let client = self.installation.nats.client().await;
        client.publish("orders.created", "{\"order_id\": twelve".into()).await.unwrap();
        client.flush().await.unwrap();
        self.die(&mut doomed).await;
        let doomed = self.doom(&[("order", "after-dead-letter-kept")]).await;
        self.all_die(doomed).await;
        self.only_letter("order-foreign", "undecodable").await;
        // Delivered again, buried again, and still one letter.
        self.installation.quiet().await;
        self.only_letter("order-foreign", "undecodable").await;
    }

    /// Nothing cancels an order that is confirmed. Should it be told all the same, the money goes back, once.
    async fn refund(&mut self) {
        let order = self.accepted[0].clone();
        let doomed = self.doom(&[("payment", "after-gateway-answer")]).await;
        let cancelled = OrderCancelled {
            order_id: order.order_id.parse().unwrap(),
            reason: CancelReason::Customer,
            cancelled_at: Timestamp(OffsetDateTime::now_utc()),
        };
        let event = encode(&cancelled, &EventId::generate(), &Retired::default()).unwrap().remove(0);
        let mut headers = async_nats::HeaderMap::new();
        for (name, value) in encode_headers(&event, "/millrace/order", OffsetDateTime::now_utc(), &Cause::default()) {
            headers.insert(name, value);
        }
        let client = self.installation.nats.client().await;
        client.publish_with_headers(event.subject, headers, event.body.into()).await.unwrap();
        client.flush().await.unwrap();
        self.all_die(doomed).await;

        let refunded = || async {
            let text = self.installation.shop.fetch(&self.installation.shop.order_url(&order.order_id)).await?.1;
            let shown: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            if shown["payment"] == "refunded" { Ok(()) } else { Err(text) }
        };
        eventually(PATIENCE, refunded, "the order to be refunded").await;
        self.installation.quiet().await;
        let ledger = self.installation.shop.ledger().await.unwrap();
        let of_order = ledger.intents.iter().filter(|intent| intent.order_id.as_deref() == Some(&order.order_id));
        let moved: Vec<_> = of_order.map(|intent| (intent.captures, intent.refunds, intent.refunded)).collect();
        assert_eq!(moved, [(1, 1, order.total_minor)]);
    }

    /// Starts services so that each dies at its point: `(service, point)`.
    async fn doom(&mut self, fates: &[(&'static str, &str)]) -> Vec<Doomed> {
        let mut doomed = Vec::new();
        for (service, point) in fates {
            let mark = self.installation.serve_to_die(service, point).await;
            doomed.push(Doomed { service, point: (*point).to_owned(), mark });
        }
        doomed
    }

    /// Places an order that brings each of these services to its point; they are back when this returns.
    async fn dies_during(&mut self, fates: &[(&'static str, &str)], order: &Value) -> Accepted {
        let doomed = self.doom(fates).await;
        let (shop, order) = (self.installation.shop.clone(), order.clone());
        let placing = tokio::spawn(async move { shop.place(&order).await });
        self.all_die(doomed).await;
        placing.await.unwrap()
    }

    /// Waits until each has died where it should, and starts it again as in life.
    async fn all_die(&mut self, mut doomed: Vec<Doomed>) {
        while !doomed.is_empty() {
            let back = self.die(&mut doomed).await;
            self.installation.serve(back);
        }
    }

    /// Waits until one of them has died where it should.
    async fn die(&mut self, doomed: &mut Vec<Doomed>) -> &'static str {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let dead = doomed.iter().position(|one| !self.installation.process(one.service).is_running());
            if let Some(dead) = dead {
                let Doomed { service, point, mark } = doomed.swap_remove(dead);
                let process = self.installation.process(service);
                let code = process.exit_code();
                assert_eq!(code, Some(KILLED), "{service}, to die at {point}: {}", process.all_output());
                let marked = std::fs::read_to_string(mark).unwrap_or_default();
                assert_eq!(marked, base(&point), "{service} died elsewhere: {}", process.all_output());
                *self.hits.entry(point).or_default() += 1;
                return service;
            }
            let left = || doomed.iter().map(|one| format!("{} at {}", one.service, one.point)).collect::<Vec<_>>();
            assert!(Instant::now() < deadline, "on {:?} still alive: {:?}", self.backend, left());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The order and all before it came to their ends, everything happened once, and nothing is left to do.
    async fn closes(&mut self, order: &Accepted, mail_comes_again: bool) -> Books {
        self.installation.ready().await;
        // A notice that was claimed by a process which died is sent when the claim has run out.
        let told = || async {
            let timeline = self.installation.shop.timeline(&order.order_id).await;
            let told = timeline.iter().filter(|entry| entry["event"] == "notifications.sent").count();
            if told == NOTICES { Ok(()) } else { Err(format!("{told} notices: {timeline:?}")) }
        };
        eventually(PATIENCE, told, "the customer to be told everything").await;
        self.accepted.push(order.clone());
        let books = Books::close(&self.installation, &self.accepted, &self.products).await;
        let mails = self.mails(order).await;
        let once = mails.values().all(|times| *times == 1);
        assert!(once || mail_comes_again, "a mail came twice for no reason: {mails:?}, {:?}", self.hits);
        books
    }

    /// How often each mail about an order came in.
    async fn mails(&self, order: &Accepted) -> BTreeMap<String, u64> {
        let counts = self.installation.shop.mails().await.unwrap().counts;
        counts.into_iter().filter(|(id, _)| id.starts_with(&order.order_id)).collect()
    }

    /// Waits for a dead letter, of which there must be one; its id.
    async fn only_letter(&self, consumer: &str, reason: &str) -> String {
        let only = || async {
            let listed = self.installation.millrace(&["dead-letters", "list", "--flat", "--json"]).await.json();
            let letters = listed["letters"].as_array().ok_or("no list")?;
            assert!(letters.len() <= 1, "{listed}");
            let letter = letters.first().ok_or("no letter yet")?;
            assert_eq!((&letter["consumer"], &letter["reason"]), (&json!(consumer), &json!(reason)), "{letter}");
            Ok::<_, String>(letter["id"].to_string())
        };
        eventually(PATIENCE, only, "the dead letter").await
    }
}

/// Confirmed, with everything that there is to happen on the way.
fn good_order() -> Value {
    json!({ "customer_id": "somebody", "email": "someone@example.org", "phone": "+4915112345678",
        "payment_method": "pm_card_visa",
        "items": [{ "product_id": "mug", "quantity": 2 }, { "product_id": "kettle", "quantity": 1 }] })
}

/// `after-commit:2` is the point `after-commit`.
fn base(at: &str) -> &str {
    at.split_once(':').map_or(at, |(point, _)| point)
}

/// Every point that the binary says it has.
async fn points_of_the_binary() -> BTreeSet<String> {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = [("MILLRACE_CRASH_AT".to_owned(), "nowhere".to_owned())];
    let ran = cli::millrace(folder.path(), &nowhere, &["--json", "serve", "payment", "--under-test"]).await;
    let error: Value = serde_json::from_str(&ran.stderr).unwrap();
    let (_, names) = error["error"].as_str().unwrap().split_once("those there are: ").unwrap();
    names.split(", ").map(str::to_owned).collect()
}
