use crate::commands::demo::scenario::{Deviation, Scenario, Ware};
use crate::commands::demo::trial::Trial;
use crate::commands::demo::world::{Ending, Money, World};

const TRAY: Ware = Ware { id: "demo-tray", name: "Tray", price: 2_640, stock: 25 };

pub(super) const SCENARIO: Scenario = Scenario {
    name: "nats-down",
    title: "nats-server is stopped: an order is accepted all the same, and confirmed after it is back",
    expects: "confirmed",
    wares: &[TRAY],
    tell: |world, trial| Box::pin(tell(world, trial)),
};

async fn tell(world: &World, trial: &Trial) -> Result<(), Deviation> {
    world.stop_nats().await;
    trial.say("     nats-server is stopped");
    world.ready_is(trial, false).await;
    trial.checked("/readyz says that NATS is missing");
    let id = world.place(trial, &World::order_of(trial, &[(&TRAY, 2)])).await?;
    world.still_processing_at(trial, id, "orders.created").await?;
    world.start_nats().await?;
    trial.say("     nats-server is back");
    world.see_through(trial, id, &Ending::CONFIRMED).await?;
    world.check_money(trial, id, Money::Charged(2 * TRAY.price)).await?;
    world.check_stock(trial, &TRAY, 2).await?;
    world.check_mail(trial, id, "confirmed").await?;
    world.ready_is(trial, true).await;
    trial.checked("/readyz says ready");
    Ok(())
}
