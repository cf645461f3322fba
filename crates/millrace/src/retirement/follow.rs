use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::decisions::{self, Decision, State};
use crate::connection::Connection;
use crate::event::Retired;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Keeps `now` at what is decided, on top of what the settings retire, until `stop`. Starts over whenever something goes
/// wrong; meanwhile what was decided last stays in effect.
pub(crate) async fn follow(
    connection: Connection,
    service: &'static str,
    settings: Retired,
    now: watch::Sender<Retired>,
    stop: CancellationToken,
) {
    let mut pause = FIRST_PAUSE;
    let following = async {
        loop {
            let Err(reason) = read_and_follow(&connection, service, &settings, &now, &mut pause).await;
            warn!(
                service,
                reason,
                retry_ms = pause.as_millis() as u64,
                "decisions about event versions cannot be followed at the moment, trying again"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    };
    tokio::select! {
        () = following => {}
        () = stop.cancelled() => {}
    }
}

async fn read_and_follow(
    connection: &Connection,
    service: &str,
    settings: &Retired,
    now: &watch::Sender<Retired>,
    pause: &mut Duration,
) -> Result<Infallible, String> {
    let store = decisions::open(connection).await.map_err(|e| e.to_string())?;
    let mut entries = store.watch_with_history(">").await.map_err(|e| e.to_string())?;
    // One who has the whole picture replaces what was known; until then nothing changes.
    let mut complete = store.status().await.map_err(|e| e.to_string())?.values() == 0;
    let mut decided: HashMap<String, Decision> = HashMap::new();
    loop {
        if complete {
            publish(service, settings, &decided, now);
        }
        let Some(entry) = entries.next().await else { return Err("the watch on the bucket ended".into()) };
        let entry = entry.map_err(|e| e.to_string())?;
        *pause = FIRST_PAUSE;
        complete |= entry.seen_current;
        match decisions::read(&entry) {
            Some(decision) => decided.insert(entry.key, decision),
            None => decided.remove(&entry.key),
        };
    }
}

fn publish(service: &str, settings: &Retired, decided: &HashMap<String, Decision>, now: &watch::Sender<Retired>) {
    let mut all = settings.0.clone();
    let retired = decided.values().filter(|decision| decision.state == State::Retired);
    all.extend(retired.map(|decision| (decision.event.clone(), decision.version)));
    all.sort_unstable();
    all.dedup();
    let next = Retired(all);
    now.send_if_modified(|current| {
        let changed = *current != next;
        if changed {
            let names: Vec<String> = next.0.iter().map(|(event, version)| format!("{event} v{version}")).collect();
            info!(service, retired = names.join(", "), "Versions of events that are not published.");
            *current = next;
        }
        changed
    });
}
