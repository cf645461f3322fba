use millrace::dead_letter::Reason;

use crate::commands::demo::scenario::{Deviation, Scenario, Ware};
use crate::commands::demo::trial::Trial;
use crate::commands::demo::world::{Ending, Money, World};

const BOWL: Ware = Ware { id: "demo-bowl", name: "Bowl", price: 1_180, stock: 15 };

pub(super) const SCENARIO: Scenario = Scenario {
    name: "undecodable",
    title: "a message that nobody can read is kept as a dead letter, and the order behind it is not held up",
    expects: "confirmed",
    wares: &[BOWL],
    tell: |world, trial| Box::pin(tell(world, trial)),
};

async fn tell(world: &World, trial: &Trial) -> Result<(), Deviation> {
    let mark = uuid::Uuid::now_v7().to_string();
    let body = format!("{{\"order_id\": \"{mark}\", \"amount\": twelve, \u{7}");
    world.publish_plainly("orders.created", body.clone()).await?;
    trial.say(format!("     published to orders.created: {}", body.escape_debug()));
    let id = world.place(trial, &World::order_of(trial, &[(&BOWL, 1)])).await?;
    world.see_through(trial, id, &Ending::CONFIRMED).await?;
    world.check_money(trial, id, Money::Charged(BOWL.price)).await?;
    world.check_stock(trial, &BOWL, 1).await?;

    trial
        .until("a dead letter with the body", async || match world.dead_letters_about(&mark).await {
            Ok(letters) if letters.is_empty() => Err("none".to_owned()),
            Ok(_) => Ok(()),
            Err(deviation) => Err(deviation.to_string()),
        })
        .await;
    let letters = world.dead_letters_about(&mark).await?;
    let [(letter, kept)] = letters.as_slice() else {
        return Err(Deviation::new("exactly one dead letter", format!("{}: {letters:?}", letters.len())));
    };
    Deviation::unless_equal("the body of the dead letter", &String::from_utf8_lossy(kept).as_ref(), &body.as_str())?;
    Deviation::unless_equal("the reason", &letter.reason, &Reason::Undecodable)?;
    Deviation::unless_equal("the subject", &letter.subject.as_str(), &"orders.created")?;
    trial.checked(format!("one dead letter of {}, with the whole body: {}", letter.consumer, letter.errors.join(": ")));
    Ok(())
}
