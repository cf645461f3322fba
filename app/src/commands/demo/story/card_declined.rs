use serde_json::json;

use crate::commands::demo::scenario::{Deviation, Scenario, Ware};
use crate::commands::demo::trial::Trial;
use crate::commands::demo::world::{Ending, Money, World};

const KETTLE: Ware = Ware { id: "demo-kettle", name: "Kettle", price: 5_995, stock: 10 };

pub(super) const SCENARIO: Scenario = Scenario {
    name: "card-declined",
    title: "the bank declines the card, so the goods are available to others again",
    expects: "cancelled (payment_declined)",
    wares: &[KETTLE],
    tell: |world, trial| Box::pin(tell(world, trial)),
};

async fn tell(world: &World, trial: &Trial) -> Result<(), Deviation> {
    let mut order = World::order_of(trial, &[(&KETTLE, 10)]);
    order["payment_method"] = json!("pm_card_chargeDeclined");
    let id = world.place(trial, &order).await?;
    let ending = Ending {
        payment: "declined",
        stock: "released",
        events: &[
            "orders.created",
            "payments.declined",
            "inventory.reserved",
            "orders.cancelled",
            "inventory.released",
        ],
        notices: 2,
    };
    world.see_through(trial, id, &ending).await?;
    world.check_money(trial, id, Money::Declined).await?;
    world.check_stock(trial, &KETTLE, 0).await?;
    world.check_mail(trial, id, "cancelled").await
}
