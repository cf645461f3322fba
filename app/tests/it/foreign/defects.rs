use serde_json::{Value, json};
use testkit::eventually;

use super::client::Client;
use super::{confirmed, full_order, minimal_order};
use crate::support::{Installation, PATIENCE, sample};

struct Defect {
    /// What is published, as it is.
    body: String,
    header: Option<&'static str>,
    /// What the dead letter's errors have to name.
    names: &'static str,
}

/// A good order with one thing wrong.
fn wrong(names: &'static str, spoil: impl FnOnce(&mut Value)) -> Defect {
    let mut order = full_order();
    spoil(&mut order);
    Defect { body: order.to_string(), header: None, names }
}

/// A good order with a header that contradicts it.
fn contradicted(names: &'static str, header: &'static str) -> Defect {
    Defect { body: full_order().to_string(), header: Some(header), names }
}

fn defects() -> Vec<Defect> {
    vec![
        wrong("/amount", |order| order["amount"] = json!(10.999)),
        wrong("/amount", |order| order["amount"] = json!(0)),
        wrong("/amount", |order| order["amount"] = json!(-5)),
        wrong("/amount", |order| order["amount"] = json!("12.50")),
        wrong("/amount", |order| {
            order["currency"] = json!("JPY");
            order["amount"] = json!(10.5);
        }),
        wrong("/currency", |order| order["currency"] = json!("EUX")),
        wrong("/currency", |order| order["currency"] = json!("eur")),
        wrong("/order_id", |order| order["order_id"] = json!("order-7")),
        wrong("/timestamp", |order| order["timestamp"] = json!("yesterday")),
        wrong("/items/1/quantity", |order| order["items"][1]["quantity"] = json!(0)),
        wrong("/items/0/product_id", |order| order["items"][0]["product_id"] = json!("tea pot")),
        wrong("/version", |order| order["version"] = json!("v9")),
        wrong("customer_id", |order| _ = order.as_object_mut().unwrap().remove("customer_id")),
        Defect { body: "an order, please".into(), header: None, names: "not valid JSON" },
        contradicted("ce-specversion", "ce-specversion=2.0"),
        contradicted("ce-type", "ce-type=orders.created.v9"),
        contradicted("ce-dataschema", "ce-dataschema=urn:millrace:schema:orders.created:v9"),
        contradicted("ce-time", "ce-time=yesterday"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_message_with_a_defect_becomes_a_dead_letter_that_names_it_and_the_others_are_orders() {
    let Some(client) = Client::python().await else { return };
    let installation = Installation::running(None, &[], &sample()).await;
    let client = client.of(&installation);

    let defects = defects();
    let without_header: String =
        defects.iter().filter(|d| d.header.is_none()).map(|defect| format!("{}\n", defect.body)).collect();
    client.lines("publish-orders", &["--bare", "--unchecked"], &without_header).await;
    for defect in defects.iter().filter(|defect| defect.header.is_some()) {
        let args = ["--unchecked", "--header", defect.header.unwrap()];
        client.lines("publish-orders", &args, &format!("{}\n", defect.body)).await;
    }
    // What the contract does not mention is nobody's business.
    let mut extended = minimal_order(7.0);
    extended["gift"] = json!({ "wrap": true });
    // What another team's tracing adds, and a schema of theirs.
    let chatty = minimal_order(8.0);
    client.publish(&[], &[&extended]).await;
    let more = ["--header", "ce-dataschema=https://partner.example/order.json", "--header", "x-team=partner"];
    client.publish(&more, &[&chatty]).await;
    confirmed(&installation, extended["order_id"].as_str().unwrap(), 700).await;
    confirmed(&installation, chatty["order_id"].as_str().unwrap(), 800).await;

    let all_there = || async {
        let listed = installation.millrace(&["dead-letters", "list", "--flat", "--json"]).await.json();
        let count = listed["letters"].as_array().unwrap().len();
        if count == defects.len() { Ok(listed) } else { Err(format!("{count} of {}", defects.len())) }
    };
    let listed = eventually(PATIENCE, all_there, "every defect to become a dead letter").await;
    for letter in listed["letters"].as_array().unwrap() {
        let shown = installation.millrace(&["dead-letters", "show", &letter["id"].to_string(), "--json"]).await.json();
        let body = match &shown["body"] {
            Value::String(text) => text.clone(),
            body => body.to_string(),
        };
        let said = |value: &Value| value.to_string();
        let header = |defect: &&Defect| defect.header.is_none_or(|_| said(&shown["errors"]).contains(defect.names));
        let is_whole = |defect: &&Defect| {
            let sent =
                serde_json::from_str::<Value>(&defect.body).map_or(defect.body.clone(), |value| value.to_string());
            sent == body
        };
        let defect = defects.iter().filter(is_whole).find(header);
        let defect = defect.unwrap_or_else(|| panic!("nobody sent this: {shown}"));
        assert!(said(&shown["errors"]).contains(defect.names), "{}: {shown}", defect.names);
        assert_eq!(json!([shown["consumer"], shown["reason"]]), json!(["order-foreign", "undecodable"]), "{shown}");
    }
    // Nothing else came of them.
    assert_eq!(installation.shop.orders().await.unwrap().len(), 2);
}
