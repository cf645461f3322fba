use contracts::orders::{CancelReason, Contact, OrderCreated, PricedItem};
use contracts::{CustomerId, Money, OrderId, ProductId, Timestamp};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;

const DEADLINE_MS: i64 = 1_000;

fn created() -> OrderCreated {
    OrderCreated {
        order_id: OrderId(uuid::Uuid::from_u128(1)),
        customer_id: CustomerId::new("c-1").unwrap(),
        total: Money::new(1_998, "EUR".parse().unwrap()).unwrap(),
        items: vec![PricedItem {
            product_id: ProductId::new("mug").unwrap(),
            quantity: 2,
            unit_price_minor: Some(999),
        }],
        payment_method: Some("pm_card_visa".into()),
        contact: Contact::default(),
        created_at: at(0),
    }
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(ms)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Input {
    Place,
    Fact(Fact),
    Cancel,
    Deadline,
}

/// Runs the inputs one after the other; returns the order and every end that was announced.
fn run(inputs: &[Input]) -> (Order, Vec<End>) {
    let mut order = Order::unknown(created().order_id);
    let mut ends = Vec::new();
    for (step, input) in inputs.iter().enumerate() {
        let now = at(step as i64);
        let end = match input {
            Input::Place => match order.place(&created(), false, now, at(DEADLINE_MS)) {
                Placement::Accepted(end) => end,
                Placement::Known => None,
                Placement::Clash => panic!("the same order cannot clash with itself"),
            },
            Input::Fact(fact) => order.observe(*fact, now),
            Input::Cancel if order.cancel(now) == Cancellation::Now => Some(End::Cancelled(CancelReason::Customer)),
            Input::Cancel => None,
            Input::Deadline => order.expire(at(DEADLINE_MS)),
        };
        ends.extend(end);
    }
    (order, ends)
}

fn end_of(order: &Order) -> Option<End> {
    order.placed.as_ref().and_then(|placed| placed.ended).map(|(end, _)| end)
}

fn pay(payment: Payment) -> Input {
    Input::Fact(Fact::Payment(payment))
}

fn stock(stock: Stock) -> Input {
    Input::Fact(Fact::Stock(stock))
}

/// The facts of an order whose services behave: at most one answer each, and what follows from the end.
fn consistent_history() -> impl Strategy<Value = Vec<Input>> {
    let answers = (
        select(vec![None, Some(Payment::Authorized), Some(Payment::Declined)]),
        select(vec![None, Some(Stock::Reserved), Some(Stock::Rejected)]),
    );
    answers.prop_flat_map(|(payment, goods)| {
        let after = match (payment, goods) {
            (Some(Payment::Authorized), Some(Stock::Reserved)) => {
                vec![
                    pay(Payment::CaptureFailed),
                    pay(Payment::Captured),
                    stock(Stock::Committed),
                    pay(Payment::Refunded),
                ]
            }
            (Some(Payment::Authorized), Some(Stock::Rejected)) => vec![pay(Payment::VoidFailed), pay(Payment::Voided)],
            (Some(Payment::Declined), Some(Stock::Reserved)) => vec![stock(Stock::Released)],
            _ => vec![],
        };
        let mut always = vec![Input::Place, Input::Fact(Fact::Notice)];
        always.extend(payment.map(pay));
        always.extend(goods.map(stock));
        let count = after.len();
        subsequence(after, 0..=count).prop_map(move |after| [always.clone(), after].concat())
    })
}

/// Every input at least once, some more often, in any order.
fn shuffled(history: Vec<Input>) -> impl Strategy<Value = Vec<Input>> {
    let again = prop::collection::vec(select(history.clone()), 0..6);
    again.prop_flat_map(move |again| Just([history.clone(), again].concat()).prop_shuffle())
}

fn any_input() -> impl Strategy<Value = Input> {
    let payment = |name: &str| pay(name.parse().unwrap());
    let goods = |name: &str| stock(name.parse().unwrap());
    let mut all = vec![Input::Place, Input::Cancel, Input::Deadline, Input::Fact(Fact::Notice)];
    all.extend(Payment::NAMES.iter().map(|name| payment(name)));
    all.extend(Stock::NAMES.iter().map(|name| goods(name)));
    select(all)
}

proptest! {
    #[test]
    fn any_arrival_order_and_any_duplication_ends_in_the_same_state(
        (history, arrived) in consistent_history().prop_flat_map(|h| (Just(h.clone()), shuffled(h)))
    ) {
        let (expected, _) = run(&history);
        let (order, ends) = run(&arrived);
        prop_assert_eq!((order.payment, order.stock), (expected.payment, expected.stock));
        let both_said_no = history.contains(&pay(Payment::Declined)) && history.contains(&stock(Stock::Rejected));
        if both_said_no {
            // Which no came first is the reason; both are true.
            prop_assert!(matches!(end_of(&order), Some(End::Cancelled(CancelReason::PaymentDeclined | CancelReason::OutOfStock))));
        } else {
            prop_assert_eq!(end_of(&order), end_of(&expected));
        }
        prop_assert_eq!(ends, end_of(&order).into_iter().collect::<Vec<_>>(), "the end is announced once");
    }

    #[test]
    fn whatever_happens_an_order_has_at_most_one_end_and_keeps_it(
        inputs in prop::collection::vec(any_input(), 0..24)
    ) {
        let (order, ends) = run(&inputs);
        prop_assert!(ends.len() <= 1);
        prop_assert_eq!(ends.first().copied(), end_of(&order));
        for length in 0..inputs.len() {
            let (earlier, _) = run(&inputs[..length]);
            if let Some(end) = end_of(&earlier) {
                prop_assert_eq!(Some(end), end_of(&order), "an end never changes");
            }
        }
    }

    #[test]
    fn payment_and_stock_depend_on_the_facts_alone(
        (inputs, arrived) in prop::collection::vec(any_input(), 1..12).prop_flat_map(|h| (Just(h.clone()), shuffled(h)))
    ) {
        let ((one, _), (other, _)) = (run(&inputs), run(&arrived));
        prop_assert_eq!((one.payment, one.stock), (other.payment, other.stock));
    }

    #[test]
    fn nothing_ends_before_the_order_itself_is_known(
        inputs in prop::collection::vec(any_input().prop_filter("not the order", |i| *i != Input::Place), 0..12)
    ) {
        let (order, ends) = run(&inputs);
        prop_assert!(ends.is_empty() && order.placed.is_none());
    }
}

#[test]
fn both_yes_confirms_and_the_first_no_cancels() {
    let yes = [Input::Place, pay(Payment::Authorized), stock(Stock::Reserved)];
    assert_eq!(run(&yes).1, [End::Confirmed]);
    assert_eq!(run(&yes[..2]).1, []);
    let declined = [Input::Place, pay(Payment::Declined)];
    assert_eq!(run(&declined).1, [End::Cancelled(CancelReason::PaymentDeclined)]);
    let rejected = [Input::Place, pay(Payment::Authorized), stock(Stock::Rejected)];
    assert_eq!(run(&rejected).1, [End::Cancelled(CancelReason::OutOfStock)]);
}

#[test]
fn a_customer_can_cancel_until_the_order_is_confirmed_and_repeat_it() {
    let (mut order, _) = run(&[Input::Place, pay(Payment::Authorized)]);
    assert_eq!(order.cancel(at(5)), Cancellation::Now);
    assert_eq!(order.cancel(at(6)), Cancellation::Already);
    assert_eq!(order.observe(Fact::Stock(Stock::Reserved), at(7)), None);
    let (mut order, _) = run(&[Input::Place, pay(Payment::Authorized), stock(Stock::Reserved)]);
    assert_eq!(order.cancel(at(5)), Cancellation::TooLate);
    assert_eq!(Order::unknown(order.id).cancel(at(5)), Cancellation::UnknownOrder);
}

#[test]
fn the_deadline_ends_only_what_is_still_processing_and_not_a_moment_early() {
    let (mut order, _) = run(&[Input::Place]);
    assert_eq!(order.expire(at(DEADLINE_MS - 1)), None);
    assert_eq!(order.expire(at(DEADLINE_MS)), Some(End::Cancelled(CancelReason::Deadline)));
    let (mut order, _) = run(&[Input::Place, pay(Payment::Authorized), stock(Stock::Reserved)]);
    assert_eq!(order.expire(at(DEADLINE_MS)), None);
}

#[test]
fn the_same_order_told_again_is_known_and_another_under_its_id_clashes() {
    let (mut order, _) = run(&[Input::Place]);
    let mut copy = created();
    // What version 1 of the event cannot carry.
    copy.items[0].unit_price_minor = None;
    copy.payment_method = None;
    assert_eq!(order.place(&copy, true, at(9), at(99)), Placement::Known);
    copy.items[0].quantity = 3;
    assert_eq!(order.place(&copy, true, at(9), at(99)), Placement::Clash);
}
