//! The same promises of both backends.

use std::time::Duration;

use contracts::payments::Step;
use contracts::{Money, OrderId};
use millrace::event::{Cause, Retired};
use millrace::outbox::{Relay, RelaySettings};
use millrace::store::{Database, DatabaseSettings, Writer, WriterSettings};
use payment::SERVICE;
use payment::domain::{Answer, Charge, OrderEvent, Refusal, State};
use payment::model::{Intent, PaymentModel, Row};
use payment::store::{MIGRATIONS, Reads};
use tempfile::TempDir;
use testkit::TestNats;
use tokio_util::sync::CancellationToken;

use crate::support::{Backend, connect, database, now, on_both_backends};

on_both_backends! {
    every_column_survives_the_trip,
    a_batch_about_many_orders_is_stored_whole,
    a_due_step_is_listed_until_it_is_claimed_and_only_one_claims_it,
    an_unanswered_step_is_due_again_later_with_its_problem,
    only_what_an_operator_must_see_is_listed_for_him,
}

struct Store {
    writer: Writer<PaymentModel>,
    reads: Reads,
    nats: TestNats,
    _folder: TempDir,
}

impl Store {
    async fn open(backend: Backend, grace: Duration) -> Self {
        let nats = testkit::nats().await;
        let (url, folder) = database(backend).await;
        let stop = CancellationToken::new();
        let database = Database::open(&url, SERVICE, &DatabaseSettings::default(), MIGRATIONS, &stop).await.unwrap();
        let writer = writer(&nats, &database, grace).await;
        Self { writer, reads: Reads { database }, nats, _folder: folder }
    }

    async fn submit(&self, intent: Intent) -> Option<Row> {
        let order_id = intent.order_id();
        let row = self.writer.submit_because(Cause::spontaneous(), intent.clone()).await.unwrap();
        if !matches!(intent, Intent::Claim { .. }) {
            assert_eq!(self.reads.get(order_id).await.unwrap(), row, "what was stored is not what was decided");
        }
        row
    }

    async fn due(&self) -> Vec<OrderId> {
        self.reads.due(now().unix_ms(), 10).await.unwrap().iter().map(|row| row.payment.order_id).collect()
    }
}

async fn writer(nats: &TestNats, database: &Database, grace: Duration) -> Writer<PaymentModel> {
    // The relay is not run: what is published is not looked at here.
    let (_, sender) = Relay::new(connect(nats).await, database.clone(), RelaySettings::default());
    let (model, settings) = (PaymentModel { grace }, WriterSettings::default());
    Writer::start(database, model, SERVICE, Retired::default(), settings, sender).unwrap().0
}

fn observe(order_id: OrderId, event: OrderEvent) -> Intent {
    Intent::Observe { order_id, correlation_id: "c-1".into(), said_at: now(), event, answer: None }
}

fn created(order_id: OrderId) -> Intent {
    let amount = Money::new(1_999, "EUR".parse().unwrap()).unwrap();
    observe(order_id, OrderEvent::Created(Charge { amount, payment_method: "pm_card_visa".into() }))
}

fn done(order_id: OrderId, step: Step) -> Intent {
    Intent::Answered { order_id, step, answer: Answer::Done { payment_id: "pi_1".into() } }
}

fn refused(order_id: OrderId, step: Step) -> Intent {
    let refusal = Refusal { code: "expired".into(), message: "Too late – é.".into() };
    Intent::Answered { order_id, step, answer: Answer::Refused(refusal) }
}

async fn every_column_survives_the_trip(backend: Backend) {
    let store = Store::open(backend, Duration::from_secs(60)).await;
    let id = OrderId::generate();
    assert_eq!(store.reads.get(id).await.unwrap(), None);
    assert_eq!(store.submit(done(id, Step::Authorize)).await, None, "an answer to nothing made a payment");
    // Each submission compares what was read back with what was decided.
    store.submit(observe(id, OrderEvent::Confirmed)).await;
    store.submit(created(id)).await;
    store.submit(done(id, Step::Authorize)).await;
    store.submit(refused(id, Step::Capture)).await;
    store.submit(observe(id, OrderEvent::Cancelled)).await;
    let problem = "no answer within 10000 ms".to_owned();
    let (step, retry_in) = (Step::Void, Duration::from_secs(3));
    let unanswered = Intent::Unanswered { order_id: id, step, problem, retry_in, attempted: true };
    let row = store.submit(unanswered).await.unwrap();
    assert_eq!((row.attempts, row.correlation_id.as_str()), (1, "c-1"));
    let row = store.submit(done(id, Step::Void)).await.unwrap();
    assert_eq!((row.payment.state, row.due_at, row.attempts, row.last_problem), (State::Voided, None, 0, None));
}

async fn a_batch_about_many_orders_is_stored_whole(backend: Backend) {
    let store = Store::open(backend, Duration::from_secs(60)).await;
    let ids: Vec<_> = (0..200).map(|_| OrderId::generate()).collect();
    let all = |intents: Vec<Intent>| {
        futures::future::join_all(intents.into_iter().map(|i| store.writer.submit_because(Cause::spontaneous(), i)))
    };
    // The two that belong to one order arrive in either order.
    all(ids.iter().flat_map(|id| [created(*id), observe(*id, OrderEvent::Confirmed)]).collect()).await;
    all(ids.iter().map(|id| done(*id, Step::Authorize)).collect()).await;
    all(ids.iter().map(|id| done(*id, Step::Capture)).collect()).await;
    for id in ids {
        assert_eq!(store.reads.get(id).await.unwrap().unwrap().payment.state, State::Captured);
    }
}

async fn a_due_step_is_listed_until_it_is_claimed_and_only_one_claims_it(backend: Backend) {
    let store = Store::open(backend, Duration::ZERO).await;
    let (due, tombstone) = (OrderId::generate(), OrderId::generate());
    store.submit(created(due)).await;
    store.submit(observe(tombstone, OrderEvent::Cancelled)).await;
    assert_eq!(store.due().await, [due]);
    let patient = writer(&store.nats, &store.reads.database, Duration::from_secs(60)).await;
    let claim = |order_id| patient.submit_because(Cause::spontaneous(), Intent::Claim { order_id });
    let claims = futures::join!(claim(due), claim(due), claim(tombstone));
    assert_eq!([claims.0, claims.1, claims.2].map(|claimed| claimed.unwrap().is_some()), [true, false, false]);
    assert!(store.due().await.is_empty());
}

async fn an_unanswered_step_is_due_again_later_with_its_problem(backend: Backend) {
    let store = Store::open(backend, Duration::ZERO).await;
    let id = OrderId::generate();
    store.submit(created(id)).await;
    let unanswered = |step, retry_in| Intent::Unanswered {
        order_id: id,
        step,
        problem: "away".into(),
        retry_in: Duration::from_secs(retry_in),
        attempted: true,
    };
    store.submit(unanswered(Step::Authorize, 3_600)).await;
    assert!(store.due().await.is_empty());
    let row = store.submit(unanswered(Step::Capture, 0)).await.unwrap();
    assert_eq!((row.attempts, row.last_problem.as_deref()), (1, Some("away")), "a step that is not due was recorded");
    store.submit(unanswered(Step::Authorize, 0)).await;
    assert_eq!(store.due().await, [id]);
}

async fn only_what_an_operator_must_see_is_listed_for_him(backend: Backend) {
    let store = Store::open(backend, Duration::from_secs(60)).await;
    let (fine, failed) = (OrderId::generate(), OrderId::generate());
    for id in [fine, failed] {
        store.submit(created(id)).await;
        store.submit(done(id, Step::Authorize)).await;
        store.submit(observe(id, OrderEvent::Confirmed)).await;
    }
    store.submit(done(fine, Step::Capture)).await;
    store.submit(refused(failed, Step::Capture)).await;
    let listed = store.reads.needing_operator(10).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].payment.order_id, failed);
    assert_eq!(listed[0].payment.refusal.as_ref().unwrap().message, "Too late – é.");
    assert!(listed[0].payment.state.needs_operator());
}
