//! The streams, consumers and buckets of Millrace, declared once for all services.

use std::time::Duration;

use millrace::dead_letter;
use millrace::dead_letters::advisories;
use millrace::event::Event;
use millrace::retirement;
use millrace::topology::{BucketSpec, ConsumerSpec, StreamSpec, Topology};

use crate::orders::{OrderCancelled, OrderConfirmed, OrderCreated};
use crate::{catalog, inventory, notifications, payments};

/// What differs between installations.
#[derive(Debug, Clone)]
pub struct TopologySettings {
    /// Copies of each stream: 1 on a single server, 3 on a cluster.
    pub replicas: usize,
    /// How long streams keep events: the time a consumer may be away, and a new one may look back.
    pub max_age: Duration,
    /// How long the broker recognises a repeated publish.
    pub duplicate_window: Duration,
    /// Largest event; far below the server's `max_payload`, so that a dead letter's copy with its headers fits too.
    pub max_event_bytes: u32,
    /// A message nobody has answered for this long is delivered again.
    pub ack_wait: Duration,
    /// Deliveries before a message becomes a dead letter.
    pub max_deliver: u32,
    /// Messages a consumer may have unanswered, over all instances.
    pub max_ack_pending: u32,
}

impl Default for TopologySettings {
    fn default() -> Self {
        Self {
            replicas: 1,
            max_age: Duration::from_secs(7 * 24 * 3600),
            duplicate_window: Duration::from_secs(120),
            max_event_bytes: 512 * 1024,
            ack_wait: Duration::from_secs(30),
            max_deliver: 5,
            max_ack_pending: 10_000,
        }
    }
}

/// Durable consumers, by what they are for.
pub mod durables {
    pub const PAYMENT_ORDERS: &str = "payment-orders";
    pub const INVENTORY_ORDERS: &str = "inventory-orders";
    pub const NOTIFICATION_ORDERS: &str = "notification-orders";
    pub const ORDER_PAYMENTS: &str = "order-payments";
    pub const ORDER_INVENTORY: &str = "order-inventory";
    pub const ORDER_NOTIFICATIONS: &str = "order-notifications";
    /// Takes `orders.created` v1 from publishers that are not ours.
    pub const ORDER_FOREIGN: &str = "order-foreign";
    /// Those that read an older version only to take in what others publish: they need no copies of our own events.
    pub const INTAKES: &[&str] = &[ORDER_FOREIGN];
}

/// Everything Millrace needs at the broker.
pub fn topology(settings: &TopologySettings) -> Topology {
    let stream = |name: &str, subjects: &[&str], what: &str| {
        let mut spec = StreamSpec::new(name, subjects.iter().copied())
            .description(what)
            .replicas(settings.replicas)
            .max_age(settings.max_age);
        spec.duplicate_window = settings.duplicate_window;
        spec.max_message_bytes = Some(settings.max_event_bytes);
        spec
    };
    let mut dead_letters = stream(
        dead_letter::STREAM,
        &[&format!("{}.>", dead_letter::SUBJECT_PREFIX)],
        "Messages that could not be handled, whole, until somebody decides",
    );
    // A copy is its original and what is known about it.
    dead_letters.max_message_bytes = None;
    dead_letters.max_age *= 4;
    let unanswered = stream(
        advisories::STREAM,
        &["$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>", "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>"],
        "What the broker says about messages that no consumer answered",
    );
    let consumer = |stream: &str, durable: &str, subjects: &[&str], what: &str| {
        let mut spec = ConsumerSpec::new(stream, durable).filter(subjects.iter().copied()).description(what);
        spec.ack_wait = settings.ack_wait;
        spec.max_deliver = settings.max_deliver;
        spec.max_ack_pending = settings.max_ack_pending;
        spec
    };
    let orders = [OrderCreated::SUBJECT, OrderConfirmed::SUBJECT, OrderCancelled::SUBJECT];
    Topology {
        streams: vec![
            stream("ORDERS", &["orders.>"], "What happened to orders; published by the order service"),
            stream("PAYMENTS", &["payments.>"], "What happened to payments; published by the payment service"),
            stream("INVENTORY", &["inventory.>"], "What happened to stock; published by the inventory service"),
            stream(
                "NOTIFICATIONS",
                &["notifications.>"],
                "What customers were told; published by the notification service",
            ),
            dead_letters,
            unanswered,
        ],
        consumers: vec![
            consumer("ORDERS", durables::PAYMENT_ORDERS, &orders, "payment: authorize, capture, void"),
            consumer("ORDERS", durables::INVENTORY_ORDERS, &orders, "inventory: reserve, commit, release"),
            consumer("ORDERS", durables::NOTIFICATION_ORDERS, &orders, "notification: tell the customer"),
            consumer(
                "ORDERS",
                durables::ORDER_FOREIGN,
                &["orders.created"],
                "order: take in orders of foreign publishers",
            ),
            consumer(
                "PAYMENTS",
                durables::ORDER_PAYMENTS,
                &[
                    payments::PaymentAuthorized::SUBJECT,
                    payments::PaymentDeclined::SUBJECT,
                    payments::PaymentCaptured::SUBJECT,
                    payments::PaymentVoided::SUBJECT,
                    payments::PaymentRefunded::SUBJECT,
                    payments::PaymentFailed::SUBJECT,
                ],
                "order: decide on payments, keep the timeline",
            ),
            consumer(
                "INVENTORY",
                durables::ORDER_INVENTORY,
                &[
                    inventory::InventoryReserved::SUBJECT,
                    inventory::InventoryRejected::SUBJECT,
                    inventory::InventoryCommitted::SUBJECT,
                    inventory::InventoryReleased::SUBJECT,
                ],
                "order: decide on stock, keep the timeline",
            ),
            consumer(
                "NOTIFICATIONS",
                durables::ORDER_NOTIFICATIONS,
                &[notifications::NotificationSent::SUBJECT, notifications::NotificationFailed::SUBJECT],
                "order: keep the timeline",
            ),
        ],
        buckets: vec![
            BucketSpec::new(catalog::BUCKET).description("Products, prices, opening stock").replicas(settings.replicas),
            retirement::bucket().replicas(settings.replicas),
        ],
    }
    .with_dead_letters()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_consumer_can_be_replayed_to_and_is_listened_to() {
        let topology = topology(&TopologySettings { replicas: 3, ..TopologySettings::default() });
        topology.validate().unwrap();
        assert!(topology.streams.iter().all(|stream| stream.replicas == 3), "{topology:#?}");
        let (listeners, consumers): (Vec<_>, Vec<_>) =
            topology.consumers.iter().partition(|c| c.stream == "ADVISORIES");
        assert_eq!((consumers.len(), listeners.len()), (7, 7));
        for consumer in consumers {
            let replays = format!("replays.{}.>", consumer.durable);
            assert!(consumer.filter_subjects.contains(&replays), "{consumer:?}");
            let stream = topology.streams.iter().find(|stream| stream.name == consumer.stream).unwrap();
            assert!(stream.subjects.contains(&replays), "{stream:?}");
        }
    }
}
