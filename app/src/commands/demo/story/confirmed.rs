use crate::commands::demo::scenario::{Deviation, Scenario, Ware};
use crate::commands::demo::trial::Trial;
use crate::commands::demo::world::{Ending, Money, World};

const CUP: Ware = Ware { id: "demo-cup", name: "Cup", price: 690, stock: 40 };
const SAUCER: Ware = Ware { id: "demo-saucer", name: "Saucer", price: 315, stock: 40 };

pub(super) const SCENARIO: Scenario = Scenario {
    name: "confirmed",
    title: "an order is paid for, its goods are held, and it is confirmed",
    expects: "confirmed",
    wares: &[CUP, SAUCER],
    tell: |world, trial| Box::pin(tell(world, trial)),
};

async fn tell(world: &World, trial: &Trial) -> Result<(), Deviation> {
    let id = world.place(trial, &World::order_of(trial, &[(&CUP, 2), (&SAUCER, 3)])).await?;
    world.see_through(trial, id, &Ending::CONFIRMED).await?;
    world.check_money(trial, id, Money::Charged(2 * CUP.price + 3 * SAUCER.price)).await?;
    world.check_stock(trial, &CUP, 2).await?;
    world.check_stock(trial, &SAUCER, 3).await?;
    world.check_mail(trial, id, "confirmed").await
}
