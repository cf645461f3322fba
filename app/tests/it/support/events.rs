//! What really stands in the streams, event by event, against what the order service has heard of it.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::{Books, Installation};

const ENDS: [&str; 2] = ["orders.confirmed", "orders.cancelled"];

/// Checks that each order has exactly one end in the stream, that nothing was published twice, and that every event about
/// an order is on its timeline exactly once.
pub(super) async fn check(installation: &Installation, books: &Books) {
    let told = installation.millrace(&["events", "tail", "--since", "1h", "--no-follow", "--json"]).await;
    assert_eq!(told.code, 0, "{told}");
    let mut message_ids = HashSet::new();
    // Type of each event, by order and event id.
    let mut by_order: HashMap<String, BTreeMap<String, String>> = HashMap::new();
    for line in told.stdout.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let header =
            |name: &str| event["headers"][name].as_str().unwrap_or_else(|| panic!("no {name}: {event}")).to_owned();
        assert!(message_ids.insert(header("Nats-Msg-Id")), "stored twice: {event}");
        let of_order = by_order.entry(header("ce-subject")).or_default();
        of_order.insert(header("ce-id"), header("ce-type"));
    }
    for order in books.orders() {
        let id = order["order_id"].as_str().unwrap();
        let published = by_order.remove(id).unwrap_or_default();
        let ends: Vec<_> = published.values().filter(|kind| ENDS.contains(&kind.as_str())).collect();
        assert_eq!(ends, [&format!("orders.{}", order["status"].as_str().unwrap())], "{order}");
        let timeline = installation.shop.timeline(id).await;
        let mut heard = BTreeMap::new();
        for entry in &timeline {
            let text = |name: &str| entry[name].as_str().unwrap().to_owned();
            assert!(heard.insert(text("event_id"), text("event")).is_none(), "twice on the timeline of {id}: {entry}");
        }
        assert_eq!(heard, published, "timeline and streams differ for {order}");
    }
    assert!(by_order.is_empty(), "events of orders nobody placed: {by_order:?}");
}
