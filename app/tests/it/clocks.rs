//! Services on machines whose clocks are wrong.

use serde_json::Value;
use testkit::{clock_ahead_by, eventually};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::task::JoinSet;

use crate::support::{Books, Installation, PATIENCE, SERVICES, Shop, good_order, sample};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;

/// Everything running; the services' clocks are so many seconds ahead, in the order of [`SERVICES`].
async fn installation(shifts: [i64; SERVICES.len()], products: &Value) -> Installation {
    let mut installation = Installation::new(None, &[]).await;
    installation.import(products).await;
    installation.serve("simulators");
    for (service, shift) in SERVICES.into_iter().zip(shifts) {
        let [preload, shift] = clock_ahead_by(shift).await;
        installation.serve_as(service, service, &[(preload.0, &preload.1), (shift.0, &shift.1)]);
    }
    installation.ready().await;
    installation
}

#[tokio::test(flavor = "multi_thread")]
async fn services_whose_clocks_are_minutes_apart_bring_every_order_to_its_end() {
    let products = sample();
    // order, payment, inventory, notification
    let shifts = [2 * MINUTE, -5 * MINUTE, 7 * MINUTE, -3 * MINUTE];
    let installation = installation(shifts, &products).await;
    let mut placing = JoinSet::new();
    for n in 0..20 {
        let shop = installation.shop.clone();
        placing.spawn(async move { shop.place_number(n).await });
    }
    let accepted = placing.join_all().await;
    let books = Books::close(&installation, &accepted, &products).await;
    assert!(books.count("confirmed", None) >= 12, "{:?}", books.orders());
    installation.no_dead_letters().await;

    // Nothing of this was shown if the clocks were right.
    let confirmed = books.orders().iter().find(|order| order["status"] == "confirmed").unwrap();
    let id = confirmed["order_id"].as_str().unwrap();
    let behind =
        at(&installation.shop, id, "orders.created").await - at(&installation.shop, id, "payments.authorized").await;
    assert!((6..=7).contains(&behind.whole_minutes()), "{behind}");
}

/// When something happened to an order, as the service says that did it.
async fn at(shop: &Shop, order_id: &str, event: &str) -> OffsetDateTime {
    let timeline = shop.timeline(order_id).await;
    let entry = timeline.iter().find(|entry| entry["event"] == event).unwrap_or_else(|| panic!("{timeline:?}"));
    OffsetDateTime::parse(entry["at"].as_str().unwrap(), &Rfc3339).unwrap()
}

/// It believes that the gateway may have forgotten the key of an order that was placed this minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_service_whose_clock_is_a_day_ahead_charges_nobody_and_leaves_its_orders_to_the_operator() {
    let installation = installation([0, 24 * HOUR, 0, 0], &sample()).await;
    let order = installation.shop.place(&good_order(0)).await;
    let cancelled = || async {
        let (_, text) = installation.shop.fetch(&installation.shop.order_url(&order.order_id)).await?;
        let shown: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if shown["status"] == "cancelled" && shown["reason"] == "payment_declined" { Ok(()) } else { Err(text) }
    };
    eventually(PATIENCE, cancelled, "the order to be cancelled").await;
    let listed = || async {
        let listed = installation.millrace(&["payments", "list", "--needs-operator", "--json"]).await.stdout;
        if listed.contains(&order.order_id) && listed.contains("authorize_unknown") { Ok(()) } else { Err(listed) }
    };
    eventually(PATIENCE, listed, "the payment to be left to the operator").await;
    assert_eq!(installation.shop.ledger().await.unwrap().intents, []);
}
