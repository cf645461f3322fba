//! The running service, from an event to a mail.

use contracts::notifications::{Channel, Notice};
use contracts::orders::{CancelReason, OrderCancelled, OrderConfirmed};
use contracts::{OrderId, Timestamp};
use millrace::event::EventId;
use testkit::eventually;

use crate::running::{Announced, Running, Sinks, next};
use crate::support::{PATIENCE, Place, order};

const ANN: Option<&str> = Some("ann@example.org");
const PHONE: &str = "+491511234567";

fn confirmed(order_id: OrderId) -> OrderConfirmed {
    let total = order(order_id, None, None).total;
    OrderConfirmed { order_id, total, confirmed_at: Timestamp::from_unix_ms(0) }
}

fn cancelled(order_id: OrderId) -> OrderCancelled {
    OrderCancelled { order_id, reason: CancelReason::OutOfStock, cancelled_at: Timestamp::from_unix_ms(0) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_hears_of_each_step_once_on_sqlite() {
    a_customer_hears_of_each_step_once(&Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_hears_of_each_step_once_on_postgres() {
    a_customer_hears_of_each_step_once(&Place::postgres().await).await;
}

async fn a_customer_hears_of_each_step_once(place: &Place) {
    let (nats, sinks) = (testkit::nats().await, Sinks::start().await);
    let running = Running::start(&nats, place, sinks.settings()).await;
    let mut heard = running.listen().await;
    let (id, event) = (OrderId::generate(), EventId::generate());
    let order = order(id, ANN, Some(PHONE));
    // The same event three times, and once more under another id.
    for _ in 0..3 {
        running.publish_as(&event, &order).await;
    }
    running.publish(&order).await;
    running.publish(&confirmed(id)).await;

    let mut announced = Vec::new();
    for _ in 0..4 {
        let Announced::Sent(sent) = next(&mut heard).await else { panic!("failed") };
        assert_eq!(sent.message_id, format!("{id}.{}@millrace.example", sent.notice.as_str()));
        announced.push((sent.notice, sent.channel));
    }
    announced.sort_unstable();
    let both = [Channel::Email, Channel::Sms];
    assert_eq!(announced[..2], both.map(|channel| (Notice::Acknowledgement, channel)));
    assert_eq!(announced[2..], both.map(|channel| (Notice::Confirmation, channel)));

    running.all_answered_at_once().await;
    let mails = sinks.mails_eventually(id, 2).await;
    assert!(mails[0]["subject"].as_str().unwrap().starts_with("We have your order"), "{mails:?}");
    assert!(mails[1]["subject"].as_str().unwrap().ends_with("is confirmed"), "{mails:?}");
    for mail in &mails {
        let text = mail["text"].as_str().unwrap();
        assert!(
            text.contains(&id.to_string()) && text.contains("Total: 19.98 EUR") && text.contains("2 x mug"),
            "{text}"
        );
    }
    assert_eq!(sinks.texts(PHONE).await.len(), 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_that_came_first_is_told_once_the_contact_is_known() {
    let (nats, place, sinks) = (testkit::nats().await, Place::sqlite(), Sinks::start().await);
    let running = Running::start(&nats, &place, sinks.settings()).await;
    let id = OrderId::generate();
    running.publish(&cancelled(id)).await;
    running.all_answered_at_once().await;
    running.publish(&order(id, ANN, None)).await;
    let mails = sinks.mails_eventually(id, 2).await;
    let text = mails[1]["text"].as_str().unwrap();
    assert!(text.contains("not everything in it is in stock"), "{text}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_refused_fails_alone_and_is_named_nowhere() {
    let (nats, place, sinks) = (testkit::nats().await, Place::sqlite(), Sinks::start().await);
    let running = Running::start(&nats, &place, sinks.settings()).await;
    let mut heard = running.listen().await;
    let refused = OrderId::generate();
    running.publish(&order(refused, Some("bounce@example.org"), Some("+15005550001"))).await;
    for _ in 0..2 {
        let Announced::Failed(failed) = next(&mut heard).await else { panic!("sent") };
        assert_eq!(failed.order_id, refused);
        assert!(!failed.reason.contains('@') && !failed.reason.contains("5005550001"), "{}", failed.reason);
    }
    let well = OrderId::generate();
    running.publish(&order(well, ANN, Some(PHONE))).await;
    sinks.mails_eventually(well, 1).await;
    eventually(PATIENCE, || async { !sinks.texts(PHONE).await.is_empty() }, "the text message").await;
    running.all_answered_at_once().await;
    assert_eq!(running.dead_letters().await, 0);
    running.stop().await;
}
