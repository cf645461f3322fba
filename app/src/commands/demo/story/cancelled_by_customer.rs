use serde_json::json;

use crate::commands::demo::scenario::{Deviation, Scenario, Ware};
use crate::commands::demo::trial::Trial;
use crate::commands::demo::world::{Ending, Money, World};

const LAMP: Ware = Ware { id: "demo-lamp", name: "Lamp", price: 8_450, stock: 10 };

pub(super) const SCENARIO: Scenario = Scenario {
    name: "customer-cancels",
    title: "the customer cancels while the bank is still thinking",
    expects: "cancelled (customer)",
    wares: &[LAMP],
    tell: |world, trial| Box::pin(tell(world, trial)),
};

async fn tell(world: &World, trial: &Trial) -> Result<(), Deviation> {
    let mut order = World::order_of(trial, &[(&LAMP, 2)]);
    // Approved after seconds: there is time to change one's mind.
    order["payment_method"] = json!("pm_slow");
    let id = world.place(trial, &order).await?;
    world.still_processing_at(trial, id, "inventory.reserved").await?;
    let answer = world.api.cancel(&id.to_string()).await?;
    Deviation::unless_equal("the answer to the cancellation", &answer.status, &202)?;
    trial.say(format!("     POST /orders/{id}/cancel -> 202"));
    let ending = Ending {
        payment: "voided",
        stock: "released",
        events: &[
            "orders.created",
            "inventory.reserved",
            "orders.cancelled",
            "inventory.released",
            "payments.authorized",
            "payments.voided",
        ],
        notices: 2,
    };
    world.see_through(trial, id, &ending).await?;
    world.check_money(trial, id, Money::Released(2 * LAMP.price)).await?;
    world.check_stock(trial, &LAMP, 0).await?;
    world.check_mail(trial, id, "cancelled").await
}
