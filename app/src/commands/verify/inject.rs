//! Breaks what the schedule says, and mends it again.

use std::collections::BTreeMap;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace::local::proxy::Fault;
use millrace::local::{NatsServer, Postgres, copy_folder};
use serde_json::json;
use simulators::control::Behaviour;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::faults::{Injection, Manner, Planned, REACH_LIMIT, VICTIMS, mode_name};
use super::fleet::Fleet;
use crate::stack::Role;

/// A server that was killed may find its port or files still in use for a moment.
const START_ATTEMPTS: u32 = 5;
const START_PAUSE: Duration = Duration::from_millis(200);
/// How often a simulator is told to behave again, with a pause that grows each time.
const MEND_ATTEMPTS: u32 = 20;
/// What a shell says of a process that was ended by SIGKILL.
const KILLED: i32 = 137;

/// Whoever breaks things.
pub struct Injector {
    fleet: Arc<Fleet>,
    http: reqwest::Client,
    /// How often what was broken.
    counts: Mutex<BTreeMap<String, u64>>,
}

impl Injector {
    pub fn new(fleet: Arc<Fleet>, http: reqwest::Client) -> Self {
        Self { fleet, http, counts: Mutex::default() }
    }

    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Follows the schedule until its end or `stop`; everything is mended when this returns.
    pub async fn follow(self: &Arc<Self>, schedule: Vec<Planned>, stop: &CancellationToken) {
        let begun = Instant::now();
        let mut running = JoinSet::new();
        for Planned { at, what } in schedule {
            tokio::select! {
                () = sleep_until(begun + at) => {}
                () = stop.cancelled() => break,
            }
            let injector = self.clone();
            running.spawn(async move { injector.inject(what).await });
        }
        while running.join_next().await.is_some() {}
        self.mend().await;
    }

    async fn inject(&self, what: Injection) {
        self.count(what.name());
        let fleet = &self.fleet;
        let failed = match what {
            Injection::Kill { service, manner, down } => self.kill(service, manner, down).await,
            Injection::Pause { service, during } => {
                let mut service = fleet.service(service).lock().await;
                let paused = service.child.pause().await;
                sleep(during).await;
                paused.and_then(|()| service.child.resume()).err().map(|e| e.to_string())
            }
            Injection::KillNats { down } => {
                let mut nats = fleet.nats.lock().await;
                nats.kill().await;
                sleep(down).await;
                nats_again(&mut nats).await
            }
            Injection::PauseNats { during } => {
                let mut nats = fleet.nats.lock().await;
                let paused = nats.pause().await;
                sleep(during).await;
                paused.and_then(|()| nats.resume()).err().map(|e| e.to_string())
            }
            Injection::PowerLoss { rewind } => self.power_loss(rewind).await,
            Injection::KillPostgres { down } => match &mut *fleet.postgres.lock().await {
                Some(postgres) => {
                    postgres.kill().await;
                    sleep(down).await;
                    postgres_again(postgres).await
                }
                None => None,
            },
            Injection::Network { link, fault, during } => {
                if let Some(wire) = fleet.wire(link) {
                    wire.set(fault);
                    sleep(during).await;
                    wire.set(Fault::Pass);
                }
                None
            }
            Injection::Gateway { mode, during } => self.simulator(fleet.places.gateway.to_string(), mode, during).await,
            Injection::Mail { mode, during } => self.simulator(fleet.places.mail.to_string(), mode, during).await,
        };
        if let Some(reason) = failed {
            fleet.problem(format!("{} could not be done or undone: {reason}", what.name()));
        }
    }

    fn count(&self, what: String) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
    }

    async fn kill(&self, role: Role, manner: Manner, down: Duration) -> Option<String> {
        let mut service = self.fleet.service(role).lock().await;
        match manner {
            Manner::Plain => {}
            Manner::Frozen(during) => {
                if let Err(error) = service.child.pause().await {
                    return Some(error.to_string());
                }
                sleep(during).await;
            }
            Manner::CutOff { link, fault, since } => {
                if let Some(wire) = self.fleet.wire(link) {
                    wire.set(fault);
                    sleep(since).await;
                    service.child.kill().await;
                    wire.set(Fault::Pass);
                }
            }
            Manner::Again { times, after } => {
                for _ in 1..times {
                    service.child.kill().await;
                    sleep(down).await;
                    if let Err(failure) = service.restart() {
                        return Some(failure.message);
                    }
                    sleep(after).await;
                }
            }
            Manner::At { point, nth } => {
                service.child.kill().await;
                if let Err(failure) = service.restart_to_die(&format!("{point}:{nth}")) {
                    return Some(failure.message);
                }
                match service.child.wait(REACH_LIMIT).await {
                    Some(KILLED) => {}
                    Some(code) => return Some(format!("it ended with exit code {code}")),
                    None => self.count(format!("{} that did not come to {point} in time", role.name())),
                }
            }
        }
        service.child.kill().await;
        sleep(down).await;
        service.restart().err().map(|failure| failure.message)
    }

    async fn simulator(&self, address: String, mode: Behaviour, during: Duration) -> Option<String> {
        let failed = self.switch(&address, mode).await.err();
        sleep(during).await;
        failed.or(self.mended(&address).await.err())
    }

    /// Patiently: left as it is, a simulator that was too busy to hear of it would fail everybody until the end.
    async fn mended(&self, address: &str) -> Result<(), String> {
        let mut attempt = 1;
        loop {
            match self.switch(address, Behaviour::Ok).await {
                Err(_) if attempt < MEND_ATTEMPTS => sleep(START_PAUSE * attempt).await,
                ended => return ended,
            }
            attempt += 1;
        }
    }

    async fn switch(&self, address: &str, mode: Behaviour) -> Result<(), String> {
        let request =
            self.http.put(format!("http://{address}/_control/mode")).json(&json!({ "mode": mode_name(mode) }));
        let answer = request.send().await.and_then(reqwest::Response::error_for_status);
        answer.map(drop).map_err(|e| e.to_string())
    }

    /// What a power cut does to a server that has not flushed: its files are as they were `rewind` ago.
    async fn power_loss(&self, rewind: Duration) -> Option<String> {
        let mut nats = self.fleet.nats.lock().await;
        let (store, copy) = (nats.data_dir().join("jetstream"), nats.data_dir().join("jetstream-before"));
        // Held still, so that the copy is of one moment.
        if let Err(error) = nats.pause().await {
            return Some(error.to_string());
        }
        let (from, to) = (store.clone(), copy.clone());
        let copied = tokio::task::spawn_blocking(move || copy_folder(&from, &to)).await;
        let resumed = nats.resume();
        match (copied, resumed) {
            (Ok(Ok(())), Ok(())) => {}
            (copied, resumed) => return Some(format!("the store could not be copied: {copied:?} {resumed:?}")),
        }
        sleep(rewind).await;
        nats.kill().await;
        let swapped = std::fs::remove_dir_all(&store).and_then(|()| std::fs::rename(&copy, &store));
        let failed = swapped.err().map(|e| format!("the store could not be rolled back: {e}"));
        failed.or(nats_again(&mut nats).await)
    }

    /// Makes sure that nothing is broken any more.
    async fn mend(&self) {
        let fleet = &self.fleet;
        fleet.wires().for_each(|wire| wire.set(Fault::Pass));
        for address in [fleet.places.gateway, fleet.places.mail] {
            if let Err(reason) = self.mended(&address.to_string()).await {
                fleet.problem(format!("a simulator could not be mended: {reason}"));
            }
        }
        for role in VICTIMS {
            // One that is not running is started again by whoever watches the processes.
            let _ = fleet.service(role).lock().await.child.resume();
        }
    }
}

async fn nats_again(server: &mut NatsServer) -> Option<String> {
    let mut reason = None;
    for attempt in 1..=START_ATTEMPTS {
        match server.start().await {
            Ok(()) => return None,
            Err(error) => reason = Some(error.to_string()),
        }
        sleep(START_PAUSE * attempt).await;
    }
    reason
}

async fn postgres_again(server: &mut Postgres) -> Option<String> {
    let mut reason = None;
    for attempt in 1..=START_ATTEMPTS {
        match server.start().await {
            Ok(()) => return None,
            Err(error) => reason = Some(error.to_string()),
        }
        sleep(START_PAUSE * attempt).await;
    }
    reason
}
