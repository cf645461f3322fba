use std::collections::BTreeMap;

use contracts::ProductId;
use contracts::api::StockAdjustment;
use contracts::orders::Item;
use proptest::prelude::*;
use proptest::sample::SizeRange;
use uuid::Uuid;

use super::*;

fn product(n: usize) -> ProductId {
    ProductId::new(format!("p{n}")).unwrap()
}

fn item(n: usize, quantity: u32) -> Item {
    Item { product_id: product(n), quantity }
}

/// A warehouse in memory, run as the model runs it.
#[derive(Debug, Clone, Default, PartialEq)]
struct World {
    stock: BTreeMap<ProductId, Stock>,
    reservations: BTreeMap<usize, Reservation>,
    announced: Vec<(usize, Announcement)>,
}

impl World {
    fn with(stock: &[i64]) -> Self {
        let of = |(n, &available): (usize, &i64)| (product(n), Stock { available, ..Stock::default() });
        Self { stock: stock.iter().enumerate().map(of).collect(), ..Self::default() }
    }

    fn apply(&mut self, order: usize, step: &Step) {
        let known = self.reservations.get(&order);
        if let Some(decision) = decide(known, step, |p| self.stock.get(p).copied()) {
            self.stock.extend(decision.stock);
            self.reservations.insert(order, decision.reservation);
            self.announced.extend(decision.announce.into_iter().map(|a| (order, a)));
        }
    }

    /// Reserved and committed units are those of the orders that hold them: nothing leaked, nothing made up.
    fn assert_sound(&self, initial: &[i64]) {
        for (n, &initial) in initial.iter().enumerate() {
            let stock = self.stock[&product(n)];
            assert!(stock.available >= 0 && stock.reserved >= 0 && stock.committed >= 0, "{stock:?}");
            assert_eq!(stock.total(), initial);
            let held_by = |status: Status| -> i64 {
                let orders = self.reservations.values().filter(|r| r.status == status);
                orders
                    .flat_map(|r| &r.items)
                    .filter(|i| i.product_id == product(n))
                    .map(|i| i64::from(i.quantity))
                    .sum()
            };
            assert_eq!(stock.reserved, held_by(Status::Held));
            assert_eq!(stock.committed, held_by(Status::Committed));
        }
    }
}

fn lines() -> impl Strategy<Value = Vec<Item>> {
    prop::collection::vec((0..4_usize, 1..6_u32).prop_map(|(n, q)| item(n, q)), SizeRange::from(0..5))
}

/// What may happen to an order after its creation, the contradiction included.
fn ends() -> impl Strategy<Value = Vec<Step>> {
    prop_oneof![
        Just(vec![]),
        Just(vec![Step::Confirmed]),
        Just(vec![Step::Cancelled]),
        Just(vec![Step::Confirmed, Step::Cancelled]),
    ]
}

proptest! {
    #[test]
    fn any_arrival_order_and_duplication_ends_in_the_same_state(
        lines in lines(),
        ends in ends(),
        stock in prop::collection::vec(0..12_i64, 3),
        shuffled in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        seed in any::<u64>(),
    ) {
        let steps: Vec<Step> = std::iter::once(Step::Created(lines)).chain(ends).collect();
        let mut straight = World::with(&stock);
        steps.iter().for_each(|s| straight.apply(1, s));
        let mut arrivals: Vec<&Step> = steps.iter().chain(shuffled.iter().map(|i| i.get(&steps))).collect();
        // A small generator of its own: the shuffle must depend on nothing but the case.
        let mut state = seed | 1;
        for i in (1..arrivals.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            arrivals.swap(i, (state >> 33) as usize % (i + 1));
        }
        let mut shaken = World::with(&stock);
        arrivals.iter().for_each(|s| shaken.apply(1, s));
        shaken.assert_sound(&stock);
        prop_assert_eq!(&straight.stock, &shaken.stock);
        prop_assert_eq!(&straight.reservations, &shaken.reservations);
    }

    #[test]
    fn competing_orders_never_oversell_never_leak_and_get_all_or_nothing(
        stock in prop::collection::vec(0..15_i64, 3),
        orders in prop::collection::vec(lines(), 1..12),
        schedule in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8), 0..60),
    ) {
        let mut world = World::with(&stock);
        for (index, what) in schedule {
            let order = index.index(orders.len());
            let step = match what {
                0 => Step::Created(orders[order].clone()),
                1 => Step::Confirmed,
                _ => Step::Cancelled,
            };
            let before = world.stock.clone();
            let status_before = world.reservations.get(&order).map(|r| r.status);
            world.apply(order, &step);
            world.assert_sound(&stock);
            let now = &world.reservations[&order];
            if status_before.is_none_or(|s| s == Status::Expected) && now.status == Status::Rejected {
                prop_assert_eq!(&world.stock, &before, "a rejected order holds nothing");
                prop_assert!(now.items.iter().any(|i| before.get(&i.product_id).map_or(0, |s| s.available) < i64::from(i.quantity)));
            }
        }
        // Whatever was said last about an order is what holds for it.
        for (order, reservation) in &world.reservations {
            let said = world.announced.iter().filter(|(o, _)| o == order).map(|(_, a)| a).next_back();
            match reservation.status {
                Status::Held => prop_assert!(matches!(said, Some(Announcement::Reserved(_)))),
                Status::Committed => prop_assert!(matches!(said, Some(Announcement::Committed(_)))),
                Status::Rejected => prop_assert!(matches!(said, Some(Announcement::Rejected(_)))),
                Status::Released => prop_assert!(!matches!(said, Some(Announcement::Reserved(_) | Announcement::Committed(_)))),
                Status::Expected | Status::Tombstone => prop_assert!(said.is_none()),
            }
        }
    }

    #[test]
    fn adjustments_never_take_available_below_zero_and_count_once(
        start in 0..50_u32,
        deltas in prop::collection::vec(-30..30_i64, 0..20),
    ) {
        let (mut stock, _, first) = opening(&product(0), start);
        let mut sum = first.delta;
        for delta in deltas {
            let asked = StockAdjustment { adjustment_id: Uuid::nil(), product_id: product(0), delta, reason: "count".into() };
            match adjust(None, Some(stock), &asked) {
                Ok(Some((after, made))) => {
                    prop_assert_eq!(adjust(Some(&made), Some(after), &asked), Ok(None));
                    (stock, sum) = (after, sum + delta);
                }
                Ok(None) => prop_assert!(false, "a new adjustment was taken for a repeated one"),
                Err(refused) => {
                    prop_assert_eq!(refused.field(), "delta");
                    prop_assert!(delta == 0 || stock.available + delta < 0);
                }
            }
            prop_assert!(stock.available >= 0);
            prop_assert_eq!(stock.total(), sum);
        }
    }
}

#[test]
fn lines_of_one_product_are_summed() {
    let mut world = World::with(&[5]);
    world.apply(1, &Step::Created(vec![item(0, 3), item(0, 3)]));
    let shortage = contracts::inventory::Shortage { product_id: product(0), requested: 6, available: 5 };
    assert_eq!(world.announced, [(1, Announcement::Rejected(vec![shortage]))]);
    world.apply(2, &Step::Created(vec![item(0, 3), item(0, 2)]));
    assert_eq!(world.announced[1], (2, Announcement::Reserved(vec![item(0, 5)])));
}

#[test]
fn an_unknown_product_is_a_shortage_and_nothing_else_is_held() {
    let mut world = World::with(&[5]);
    world.apply(1, &Step::Created(vec![item(0, 1), item(7, 1)]));
    let shortage = contracts::inventory::Shortage { product_id: product(7), requested: 1, available: 0 };
    assert_eq!(world.announced, [(1, Announcement::Rejected(vec![shortage]))]);
    assert_eq!(world.stock, World::with(&[5]).stock);
}

#[test]
fn an_order_without_items_is_reserved_with_nothing() {
    let mut world = World::with(&[]);
    world.apply(1, &Step::Created(vec![]));
    world.apply(1, &Step::Confirmed);
    assert_eq!(world.announced, [(1, Announcement::Reserved(vec![])), (1, Announcement::Committed(vec![]))]);
}

#[test]
fn nothing_is_held_after_a_cancellation_that_came_first() {
    let mut world = World::with(&[5]);
    world.apply(1, &Step::Cancelled);
    world.apply(1, &Step::Created(vec![item(0, 1)]));
    world.apply(1, &Step::Confirmed);
    assert_eq!(world.announced, []);
    assert_eq!(world.stock, World::with(&[5]).stock);
}

#[test]
fn lines_that_add_up_to_more_than_a_line_can_say_are_a_shortage() {
    let mut world = World::with(&[i64::MAX]);
    world.apply(1, &Step::Created(vec![item(0, u32::MAX), item(0, 1)]));
    assert!(matches!(&world.announced[..], [(1, Announcement::Rejected(s))] if s[0].requested == u32::MAX));
}

#[test]
fn a_refused_adjustment_names_its_field() {
    let stock = Some(Stock { available: 3, reserved: 2, committed: 0 });
    let asked = |delta, reason: &str| StockAdjustment {
        adjustment_id: Uuid::nil(),
        product_id: product(0),
        delta,
        reason: reason.into(),
    };
    let field =
        |made: Option<&Adjustment>, stock, asked: &StockAdjustment| adjust(made, stock, asked).unwrap_err().field();
    assert_eq!(field(None, None, &asked(1, "x")), "product_id");
    assert_eq!(field(None, stock, &asked(-4, "x")), "delta");
    assert_eq!(field(None, stock, &asked(0, "x")), "delta");
    assert_eq!(field(None, stock, &asked(i64::MAX, "x")), "delta");
    assert_eq!(field(None, stock, &asked(i64::MIN, "x")), "delta");
    assert_eq!(field(None, stock, &asked(1, " ")), "reason");
    assert_eq!(field(None, stock, &asked(1, &"x".repeat(201))), "reason");
    let made = Adjustment { product_id: product(0), delta: 2, reason: "x".into() };
    assert_eq!(field(Some(&made), stock, &asked(1, "x")), "adjustment_id");
}
