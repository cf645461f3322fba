//! The same promises on SQLite and on PostgreSQL.

use contracts::OrderId;
use contracts::api::StockAdjustment;
use futures::future::join_all;
use inventory::domain::{AdjustmentRefused, Status, Step};
use inventory::model::{Intent, Outcome};
use millrace::event::Cause;
use millrace::inbox::Mark;
use millrace::store::{Committed, Submission};
use uuid::Uuid;

use crate::support::{Bench, Place, item, product};

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
    an_order_goes_from_held_to_committed,
    a_short_order_holds_nothing_and_a_cancelled_one_gives_back,
    early_events_are_remembered_over_a_restart,
    orders_that_share_a_batch_never_oversell,
    an_event_takes_effect_once_per_consumer,
    opening_stock_counts_once,
    an_adjustment_counts_once_and_never_goes_below_zero,
    the_schema_itself_refuses_negative_stock,
);

fn step(order_id: OrderId, step: Step) -> Intent {
    Intent::Order { order_id, step }
}

fn adjust(id: Uuid, product_id: &str, delta: i64) -> Intent {
    let product_id = product(product_id);
    Intent::Adjust(StockAdjustment { adjustment_id: id, product_id, delta, reason: "count".into() })
}

async fn an_order_goes_from_held_to_committed(place: &Place) {
    let bench = Bench::at(place).await;
    let id = OrderId::generate();
    bench.add("mug", 10).await;
    bench.add("pen", 5).await;
    bench.submit(step(id, Step::Created(vec![item("pen", 1), item("mug", 2), item("mug", 1)]))).await;
    assert_eq!((bench.counts("mug").await, bench.counts("pen").await), ((7, 3, 0), (4, 1, 0)));
    bench.submit(step(id, Step::Confirmed)).await;
    bench.submit(step(id, Step::Confirmed)).await;
    assert_eq!((bench.counts("mug").await, bench.counts("pen").await), ((7, 0, 3), (4, 0, 1)));
    assert_eq!(bench.published(id).await, ["inventory.reserved", "inventory.committed"]);
    let reservation = bench.reads.reservation(id).await.unwrap().unwrap();
    assert_eq!(reservation.status, Status::Committed);
    assert_eq!(reservation.items, [item("mug", 3), item("pen", 1)]);
}

async fn a_short_order_holds_nothing_and_a_cancelled_one_gives_back(place: &Place) {
    let bench = Bench::at(place).await;
    let (short, held) = (OrderId::generate(), OrderId::generate());
    bench.add("mug", 2).await;
    bench.submit(step(short, Step::Created(vec![item("mug", 1), item("unheard-of", 1)]))).await;
    assert_eq!(bench.counts("mug").await, (2, 0, 0));
    bench.submit(step(held, Step::Created(vec![item("mug", 2)]))).await;
    assert_eq!(bench.counts("mug").await, (0, 2, 0));
    bench.submit(step(held, Step::Cancelled)).await;
    bench.submit(step(short, Step::Cancelled)).await;
    assert_eq!(bench.counts("mug").await, (2, 0, 0));
    assert_eq!(bench.published(held).await, ["inventory.reserved", "inventory.released"]);
    assert_eq!(bench.published(short).await, ["inventory.rejected"]);
}

async fn early_events_are_remembered_over_a_restart(place: &Place) {
    let (confirmed, cancelled) = (OrderId::generate(), OrderId::generate());
    {
        let bench = Bench::at(place).await;
        bench.add("mug", 5).await;
        bench.submit(step(confirmed, Step::Confirmed)).await;
        bench.submit(step(cancelled, Step::Cancelled)).await;
        let status = |id| async move { Bench::at(place).await.reads.reservation(id).await.unwrap().unwrap().status };
        assert_eq!((status(confirmed).await, status(cancelled).await), (Status::Expected, Status::Tombstone));
    }
    let bench = Bench::at(place).await;
    for id in [confirmed, cancelled] {
        bench.submit(step(id, Step::Created(vec![item("mug", 1)]))).await;
    }
    assert_eq!(bench.counts("mug").await, (4, 0, 1));
    assert_eq!(bench.published(confirmed).await, ["inventory.reserved", "inventory.committed"]);
    assert_eq!(bench.published(cancelled).await, [""; 0]);
    assert_eq!(bench.reads.reservation(cancelled).await.unwrap().unwrap().status, Status::Released);
}

async fn orders_that_share_a_batch_never_oversell(place: &Place) {
    let bench = Bench::at(place).await;
    bench.add("mug", 30).await;
    bench.add("pen", 45).await;
    let ids: Vec<OrderId> = (0..100).map(|_| OrderId::generate()).collect();
    let lines = vec![item("mug", 1), item("pen", 2)];
    join_all(ids.iter().map(|id| bench.submit(step(*id, Step::Created(lines.clone()))))).await;
    // The pens end first: 22 orders, and every one of them has its mug.
    assert_eq!((bench.counts("mug").await, bench.counts("pen").await), ((8, 22, 0), (1, 44, 0)));
    let ends = |n: usize| if n.is_multiple_of(2) { Step::Confirmed } else { Step::Cancelled };
    join_all(ids.iter().enumerate().map(|(n, id)| bench.submit(step(*id, ends(n))))).await;
    let (mugs, pens) = (bench.counts("mug").await, bench.counts("pen").await);
    assert_eq!((mugs.1, pens.1), (0, 0), "nothing stays held");
    assert_eq!((mugs.0 + mugs.2, pens.0 + pens.2, mugs.2 * 2), (30, 45, pens.2));
}

async fn an_event_takes_effect_once_per_consumer(place: &Place) {
    let bench = Bench::at(place).await;
    bench.add("mug", 5).await;
    let mark = Mark { consumer: "inventory-orders".into(), event_id: "e1".into() };
    let submission = |intent| Submission { intent, cause: Cause::spontaneous(), mark: Some(mark.clone()) };
    let first = bench.writer.submit(submission(step(OrderId::generate(), Step::Created(vec![item("mug", 1)])))).await;
    assert_eq!(first.unwrap(), Committed::Now(Outcome::Done));
    let again = bench.writer.submit(submission(step(OrderId::generate(), Step::Created(vec![item("mug", 1)])))).await;
    assert_eq!(again.unwrap(), Committed::Before);
    assert_eq!(bench.counts("mug").await, (4, 1, 0));
}

async fn opening_stock_counts_once(place: &Place) {
    let bench = Bench::at(place).await;
    let outcomes = join_all((0..20).map(|n| bench.add("mug", 5 + n))).await;
    assert_eq!(outcomes.iter().filter(|o| **o == Outcome::Added(true)).count(), 1);
    let (available, ..) = bench.counts("mug").await;
    bench.add("mug", 1_000).await;
    assert_eq!(bench.counts("mug").await, (available, 0, 0));
}

async fn an_adjustment_counts_once_and_never_goes_below_zero(place: &Place) {
    let bench = Bench::at(place).await;
    bench.add("mug", 5).await;
    let id = Uuid::now_v7();
    for _ in 0..2 {
        let Outcome::Adjusted(Ok(level)) = bench.submit(adjust(id, "mug", -2)).await else { panic!("refused") };
        assert_eq!(level.available, 3);
    }
    let refused = |outcome: Outcome| match outcome {
        Outcome::Adjusted(Err(refused)) => refused,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(bench.submit(adjust(id, "mug", 7)).await), AdjustmentRefused::IdTaken(id));
    assert_eq!(refused(bench.submit(adjust(Uuid::now_v7(), "mug", -4)).await).field(), "delta");
    assert_eq!(refused(bench.submit(adjust(Uuid::now_v7(), "jug", 4)).await).field(), "product_id");
    assert_eq!(bench.counts("mug").await, (3, 0, 0));
}

async fn the_schema_itself_refuses_negative_stock(place: &Place) {
    use millrace::store::{DatabaseUrl, Pool};
    let bench = Bench::at(place).await;
    bench.add("mug", 5).await;
    let refused = match (bench.database.pool(), &place.url) {
        (Pool::Postgres(pool), _) => {
            pool.get().await.unwrap().execute("update stock set available = -1", &[]).await.is_err()
        }
        (Pool::Sqlite(_), DatabaseUrl::Sqlite(path)) => {
            let db = rusqlite::Connection::open(path).unwrap();
            let error = db.execute("update stock set available = -1", []).unwrap_err();
            error.to_string().contains("CHECK")
        }
        _ => false,
    };
    assert!(refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_compete_for_hot_products_never_oversell() {
    let place = Place::postgres().await;
    let instances = [Bench::at(&place).await, Bench::at(&place).await, Bench::at(&place).await];
    // All see the product at once, as they do when they watch the catalog.
    let added = join_all(instances.iter().flat_map(|bench| [bench.add("mug", 50), bench.add("pen", 50)])).await;
    assert_eq!(added.iter().filter(|o| **o == Outcome::Added(true)).count(), 2);
    let ids: Vec<OrderId> = (0..240).map(|_| OrderId::generate()).collect();
    // In both directions, so that locks taken in the order of the lines would be taken in circles.
    let lines = |n: usize| {
        let mut lines = vec![item("mug", 1), item("pen", 1)];
        if n.is_multiple_of(2) {
            lines.reverse();
        }
        Step::Created(lines)
    };
    join_all(ids.iter().enumerate().map(|(n, id)| instances[n % 3].submit(step(*id, lines(n))))).await;
    assert_eq!(instances[0].counts("mug").await, (0, 50, 0));
    // The ends reach other instances than the beginnings, each twice.
    let ends = |n: usize| if n.is_multiple_of(2) { Step::Confirmed } else { Step::Cancelled };
    let all = ids.iter().enumerate();
    join_all(all.flat_map(|(n, id)| [1, 2].map(|k| instances[(n + k) % 3].submit(step(*id, ends(n)))))).await;
    let (mugs, pens) = (instances[0].counts("mug").await, instances[1].counts("pen").await);
    assert_eq!(mugs, pens);
    assert_eq!((mugs.0 + mugs.2, mugs.1), (50, 0));
}
