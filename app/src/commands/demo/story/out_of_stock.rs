use crate::commands::demo::scenario::{Deviation, Scenario, Ware};
use crate::commands::demo::trial::Trial;
use crate::commands::demo::world::{Ending, Money, World};

const RARE: Ware = Ware { id: "demo-rare-print", name: "Rare print", price: 4_500, stock: 3 };
const FRAME: Ware = Ware { id: "demo-frame", name: "Frame", price: 1_900, stock: 40 };

pub(super) const SCENARIO: Scenario = Scenario {
    name: "out-of-stock",
    title: "there is too little of one of two products, so none of either is sold",
    expects: "cancelled (out_of_stock)",
    wares: &[RARE, FRAME],
    tell: |world, trial| Box::pin(tell(world, trial)),
};

async fn tell(world: &World, trial: &Trial) -> Result<(), Deviation> {
    // One more than there is.
    let id = world.place(trial, &World::order_of(trial, &[(&FRAME, 4), (&RARE, RARE.stock + 1)])).await?;
    let ending = Ending {
        payment: "voided",
        stock: "rejected",
        events: &["orders.created", "payments.authorized", "inventory.rejected", "orders.cancelled", "payments.voided"],
        notices: 2,
    };
    world.see_through(trial, id, &ending).await?;
    world.check_money(trial, id, Money::Released(4 * FRAME.price + 4 * RARE.price)).await?;
    world.check_stock(trial, &RARE, 0).await?;
    world.check_stock(trial, &FRAME, 0).await?;
    world.check_mail(trial, id, "cancelled").await
}
