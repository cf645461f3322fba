//! The same promises on SQLite and on PostgreSQL.

use std::time::Duration;

use contracts::OrderId;
use contracts::notifications::{Channel, Notice};
use contracts::orders::CancelReason;
use futures::future::join_all;
use notification::domain::{CHANNELS, Fact, Policy, Report, Send, Status, Verdict};
use notification::model::Intent;

use crate::support::{Bench, Place, order, policy};

macro_rules! on_both_databases {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(&super::Place::sqlite()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(&super::Place::postgres().await).await;
            })*
        }
    };
}

on_both_databases!(
    what_is_sent_is_announced_once,
    early_facts_are_remembered_over_a_restart,
    everything_a_text_needs_is_kept,
    what_failed_is_found_again_when_its_time_has_come,
    of_many_who_claim_one_gets_it,
    many_orders_share_a_batch,
    an_order_nobody_heard_of_is_not_made_up,
);

const ANN: Option<&str> = Some("ann@example.org");
const PHONE: Option<&str> = Some("+491511234567");
/// Far in the future, in Unix milliseconds.
const LATER: i64 = 9_000_000_000_000;

fn placed(id: OrderId, email: Option<&str>, phone: Option<&str>) -> Fact {
    Fact::Placed((&order(id, email, phone)).into())
}

fn report(order_id: OrderId, sends: &[Send], verdict: Verdict) -> Intent {
    let one = |send: &Send| Report { notice: send.notice, channel: send.channel, verdict: verdict.clone() };
    Intent::Report { order_id, reports: sends.iter().map(one).collect() }
}

async fn what_is_sent_is_announced_once(place: &Place) {
    let bench = Bench::at(place).await;
    let id = OrderId::generate();
    let due = bench.learn(id, placed(id, ANN, PHONE)).await;
    assert_eq!((due.sends.len(), due.correlation_id.as_str()), (2, "c-1"));
    for _ in 0..2 {
        bench.submit(report(id, &due.sends, Verdict::Sent { provider_id: Some("SM1".into()) })).await;
    }
    bench.submit(report(id, &due.sends, Verdict::Refused { reason: "too late to say".into() })).await;
    assert_eq!(bench.published(id).await, ["notifications.sent", "notifications.sent"]);
    let notice = Notice::Acknowledgement;
    assert_eq!(
        bench.statuses(id).await,
        [(notice, Channel::Email, Status::Sent), (notice, Channel::Sms, Status::Sent)]
    );
    assert_eq!(bench.reads.due_count().await.unwrap(), 0);
}

async fn early_facts_are_remembered_over_a_restart(place: &Place) {
    let id = OrderId::generate();
    {
        let bench = Bench::at(place).await;
        assert_eq!(bench.learn(id, Fact::Confirmed).await.sends, []);
        assert_eq!(bench.learn(id, Fact::Cancelled(CancelReason::Deadline)).await.sends, []);
    }
    let bench = Bench::at(place).await;
    let due = bench.learn(id, placed(id, ANN, None)).await;
    let told: Vec<_> = due.sends.iter().map(|send| (send.notice, send.reason)).collect();
    let why = Some(CancelReason::Deadline);
    assert_eq!(told, [(Notice::Acknowledgement, None), (Notice::Confirmation, None), (Notice::Cancellation, why)]);
}

async fn everything_a_text_needs_is_kept(place: &Place) {
    let id = OrderId::generate();
    let policy = Policy { claim: Duration::ZERO, sms: false, ..policy() };
    let said = Bench::with(place, policy).await.learn(id, placed(id, ANN, PHONE)).await;
    let bench = Bench::with(place, policy).await;
    let kept = bench.claim(id, &CHANNELS).await;
    assert_eq!(said, kept);
    assert_eq!((kept.sends[0].to.as_str(), kept.sends[0].items.len()), ("ann@example.org", 1));
    assert_eq!(bench.statuses(id).await[1], (Notice::Acknowledgement, Channel::Sms, Status::Skipped));
}

async fn what_failed_is_found_again_when_its_time_has_come(place: &Place) {
    let bench = Bench::at(place).await;
    let (later, refused) = (OrderId::generate(), OrderId::generate());
    let sends = bench.learn(later, placed(later, ANN, None)).await.sends;
    let verdict = Verdict::Later { reason: "it answered 451".into(), after: Duration::from_secs(600) };
    bench.submit(report(later, &sends, verdict)).await;
    let sends = bench.learn(refused, placed(refused, ANN, None)).await.sends;
    bench.submit(report(refused, &sends, Verdict::Refused { reason: "no such user".into() })).await;
    assert_eq!(bench.published(refused).await, ["notifications.failed"]);

    assert_eq!(bench.reads.due(Channel::Email, 0, 10).await.unwrap(), []);
    assert_eq!(bench.reads.due(Channel::Sms, LATER, 10).await.unwrap(), []);
    assert_eq!(bench.reads.due(Channel::Email, LATER, 10).await.unwrap(), [later]);
    let delivery = bench.reads.deliveries(later).await.unwrap().remove(0).1;
    assert_eq!((delivery.attempts, delivery.detail.as_deref()), (1, Some("it answered 451")));
    assert_eq!(bench.claim(later, &CHANNELS).await.sends, [], "its time has not come");
}

async fn of_many_who_claim_one_gets_it(place: &Place) {
    let id = OrderId::generate();
    Bench::with(place, Policy { claim: Duration::ZERO, ..policy() }).await.learn(id, placed(id, ANN, PHONE)).await;
    let bench = Bench::at(place).await;
    let claims = join_all((0..10).map(|_| bench.claim(id, &CHANNELS))).await;
    let sizes: Vec<usize> = claims.iter().map(|due| due.sends.len()).filter(|n| *n > 0).collect();
    assert_eq!(sizes, [2]);
}

async fn many_orders_share_a_batch(place: &Place) {
    let bench = Bench::at(place).await;
    let ids: Vec<OrderId> = (0..100).map(|_| OrderId::generate()).collect();
    let facts = |id: OrderId| [placed(id, ANN, None), Fact::Confirmed, placed(id, ANN, None)];
    let learnt = join_all(ids.iter().flat_map(|id| facts(*id).map(|fact| bench.learn(*id, fact)))).await;
    assert_eq!(learnt.iter().map(|due| due.sends.len()).sum::<usize>(), 200, "two notices each, none of them twice");
    assert_eq!(bench.reads.due_count().await.unwrap(), 200);
    assert_eq!(bench.reads.due(Channel::Email, LATER, 1_000).await.unwrap().len(), 100);
}

async fn an_order_nobody_heard_of_is_not_made_up(place: &Place) {
    let bench = Bench::at(place).await;
    let id = OrderId::generate();
    assert_eq!(bench.claim(id, &CHANNELS).await.sends, []);
    assert_eq!(bench.statuses(id).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_share_the_work_send_each_notice_once() {
    let place = Place::postgres().await;
    let instances = [Bench::at(&place).await, Bench::at(&place).await];
    let ids: Vec<OrderId> = (0..50).map(|_| OrderId::generate()).collect();
    let facts = |id: OrderId| [(0, placed(id, ANN, None)), (1, Fact::Confirmed), (1, placed(id, ANN, None))];
    let learning = ids.iter().flat_map(|id| facts(*id).map(|(n, fact)| instances[n].learn(*id, fact)));
    let learnt = join_all(learning).await;
    assert_eq!(learnt.iter().map(|due| due.sends.len()).sum::<usize>(), 100);
}
