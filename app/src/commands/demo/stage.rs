//! Tells the scenarios and checks them.

use futures::future::join_all;
use millrace::config::HumanDuration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::scenario::Scenario;
use super::story;
use super::trial::{Told, Trial};
use super::world::World;
use crate::output;

/// Tells the whole story: side by side what does not disturb others, then the disturbances one by one. The audience hears
/// one scenario at a time, each as it happens once those before it are over.
pub async fn tell(world: &World, patience: HumanDuration, silent: bool) -> Vec<Told> {
    let count = story::all().len();
    let mut unheard = Vec::new();
    let mut cast = (1..).zip(story::all()).map(|(number, scenario)| {
        let (voice, hearing) = unbounded_channel();
        let _ = voice.send(format!("{number}/{count}  {}: {}.", scenario.name, scenario.title));
        unheard.push(hearing);
        (scenario, voice)
    });
    let side_by_side: Vec<_> = cast.by_ref().take(story::SIDE_BY_SIDE.len()).collect();
    let one_by_one: Vec<_> = cast.collect();
    let telling = async {
        let together = side_by_side.into_iter().map(|(scenario, voice)| perform(world, scenario, patience, voice));
        let mut told = join_all(together).await;
        for (scenario, voice) in one_by_one {
            told.push(perform(world, scenario, patience, voice).await);
            world.mend().await;
        }
        told
    };
    tokio::join!(telling, narrate(unheard, silent)).0
}

async fn perform(
    world: &World,
    scenario: &'static Scenario,
    patience: HumanDuration,
    voice: UnboundedSender<String>,
) -> Told {
    let trial = Trial::new(scenario, voice);
    let deviation = match tokio::time::timeout(patience.get(), (scenario.tell)(world, &trial)).await {
        Ok(outcome) => outcome.err(),
        Err(_) => Some(trial.out_of_time(patience)),
    };
    match &deviation {
        None => trial.say(format!("     =>  {}, as expected\n", scenario.expects)),
        Some(deviation) => {
            world.look_once_more(&trial).await;
            trial.say("     =>  NOT as expected");
            trial.say(format!("         expected  {}", deviation.expected));
            trial.say(format!("         saw       {}", deviation.seen));
            for order in &*trial.orders() {
                trial
                    .say(format!("         order     {}: {}, should be {}", order.id, order.outcome, scenario.expects));
            }
            trial.say(format!("         log       {}\n", world.log().display()));
        }
    }
    trial.end(deviation)
}

async fn narrate(unheard: Vec<UnboundedReceiver<String>>, silent: bool) {
    for mut scenario in unheard {
        while let Some(line) = scenario.recv().await {
            if !silent {
                output::line(&line);
            }
        }
    }
}
