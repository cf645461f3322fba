use futures::future::try_join_all;

use crate::commands::demo::scenario::{Deviation, Scenario, Ware};
use crate::commands::demo::trial::Trial;
use crate::commands::demo::world::{Ending, Money, World};

const CLOCK: Ware = Ware { id: "demo-clock", name: "Clock", price: 7_200, stock: 30 };

pub(super) const SCENARIO: Scenario = Scenario {
    name: "gateway-down",
    title: "the payment gateway is down: its breaker opens, orders wait, and go on when it is back",
    expects: "confirmed",
    wares: &[CLOCK],
    tell: |world, trial| Box::pin(tell(world, trial)),
};

async fn tell(world: &World, trial: &Trial) -> Result<(), Deviation> {
    world.gateway_is("down").await?;
    trial.say("     the gateway drops every connection from now on");
    let order = World::order_of(trial, &[(&CLOCK, 1)]);
    let threshold = world.settings.payment.breaker.failure_threshold;
    let mut ids = Vec::new();
    for _ in 0..threshold {
        ids.push(world.place(trial, &order).await?);
    }
    world.breaker_shows(trial, 2).await;
    trial.checked("the breaker is open: millrace_breaker_state is 2");
    // One that arrives while nobody may ask the gateway.
    ids.push(world.place(trial, &order).await?);
    for id in &ids {
        world.still_processing_at(trial, *id, "inventory.reserved").await?;
        world.nothing_died_of(*id).await?;
    }
    trial.checked(format!("all {} orders wait, and nothing became a dead letter", ids.len()));

    // Until a probe has failed, too: the breaker opens again then.
    let before = world.unanswered_at_gateway().await?;
    trial
        .until("the breaker to probe the gateway", async || match world.unanswered_at_gateway().await {
            Ok(now) if now > before => Ok(()),
            Ok(_) => Err(format!("{before} unanswered requests, as before")),
            Err(deviation) => Err(deviation.to_string()),
        })
        .await;
    world.gateway_is("ok").await?;
    trial.say("     a probe has failed as well; now the gateway works again");
    try_join_all(ids.iter().map(|id| world.see_through(trial, *id, &Ending::CONFIRMED))).await?;
    for id in &ids {
        world.check_money(trial, *id, Money::Charged(CLOCK.price)).await?;
        world.check_mail(trial, *id, "confirmed").await?;
    }
    world.check_stock(trial, &CLOCK, ids.len() as i64).await?;
    world.breaker_shows(trial, 0).await;
    trial.checked("the breaker is closed: millrace_breaker_state is 0");
    Ok(())
}
