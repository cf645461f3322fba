use contracts::{OrderId, Timestamp};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::commands::demo::scenario::{Deviation, Scenario, Ware};
use crate::commands::demo::trial::Trial;
use crate::commands::demo::world::{Ending, Money, World};

const VASE: Ware = Ware { id: "demo-vase", name: "Vase", price: 3_350, stock: 12 };

pub(super) const SCENARIO: Scenario = Scenario {
    name: "foreign-order",
    title: "another system publishes orders in version 1 with a plain NATS client, and they are processed",
    expects: "confirmed",
    wares: &[VASE],
    tell: |world, trial| Box::pin(tell(world, trial)),
};

async fn tell(world: &World, trial: &Trial) -> Result<(), Deviation> {
    // As much as such publishers have always sent: no items, no version, no headers.
    let (bare, body) = version_1(149.99);
    // One that names its goods.
    let (full, mut body_with_items) = version_1(67.0);
    body_with_items["items"] = json!([{ "product_id": VASE.id, "quantity": 2 }]);
    body_with_items["version"] = json!("v1");

    trial.follows(bare);
    trial.follows(full);
    for (id, body) in [(bare, body), (full, body_with_items)] {
        world.publish_plainly("orders.created", body.to_string()).await?;
        trial.say(format!("     published to orders.created: {body}"));
        trial
            .until(&format!("order {id} to be taken on"), async || {
                world.look(trial, id).await.map(drop).map_err(|deviation| deviation.seen)
            })
            .await;
    }
    // They name no address to write to.
    let ending = Ending { notices: 0, ..Ending::CONFIRMED };
    world.see_through(trial, bare, &ending).await?;
    world.see_through(trial, full, &ending).await?;
    world.check_money(trial, bare, Money::Charged(14_999)).await?;
    world.check_money(trial, full, Money::Charged(6_700)).await?;
    world.check_stock(trial, &VASE, 2).await
}

fn version_1(amount: f64) -> (OrderId, Value) {
    let id = OrderId(uuid::Uuid::now_v7());
    let body = json!({
        "order_id": id,
        "customer_id": "customer-of-another-system",
        "amount": amount,
        "currency": "EUR",
        "timestamp": Timestamp(OffsetDateTime::now_utc()),
    });
    (id, body)
}
