use serde_json::json;

use crate::commands::demo::scenario::{Deviation, Scenario, Ware};
use crate::commands::demo::trial::Trial;
use crate::commands::demo::world::{Ending, Money, World, accepted};

const MUG: Ware = Ware { id: "demo-mug", name: "Mug", price: 1_290, stock: 20 };

pub(super) const SCENARIO: Scenario = Scenario {
    name: "same-key-twice",
    title: "the same Idempotency-Key comes twice at the same moment and is one order",
    expects: "confirmed",
    wares: &[MUG],
    tell: |world, trial| Box::pin(tell(world, trial)),
};

async fn tell(world: &World, trial: &Trial) -> Result<(), Deviation> {
    let key = uuid::Uuid::now_v7().to_string();
    let order = World::order_of(trial, &[(&MUG, 3)]);
    let (one, other) = tokio::join!(world.api.place(&order, Some(&key)), world.api.place(&order, Some(&key)));
    let (one, other) = (one?, other?);
    let replayed = usize::from(one.replayed) + usize::from(other.replayed);
    let (receipt, repeated) = (accepted(one)?, accepted(other)?);
    let id = receipt.order_id;
    Deviation::unless_equal("the order of the other request", &repeated.order_id, &id)?;
    Deviation::unless_equal("the other receipt", &repeated, &receipt)?;
    Deviation::unless_equal("answers marked as replayed", &replayed, &1)?;
    trial.say(format!("     POST /orders twice with the key {key} -> 202 twice, {id} both times"));
    trial.follows(id);

    let mut changed = order;
    changed["items"][0]["quantity"] = json!(4);
    let refused = world.api.place(&changed, Some(&key)).await?;
    Deviation::unless_equal("the answer to the key with another body", &refused.status, &422)?;
    trial.say("     POST /orders with the key and another body -> 422");

    world.see_through(trial, id, &Ending::CONFIRMED).await?;
    Deviation::unless_equal("all orders of the customer", &world.orders_of_customer(trial).await?, &vec![id])?;
    world.check_money(trial, id, Money::Charged(3 * MUG.price)).await?;
    world.check_stock(trial, &MUG, 3).await?;
    world.check_mail(trial, id, "confirmed").await
}
