//! Whether the process should be left alone, sent work, or restarted. Each part reports about itself; the operations
//! endpoint answers from the sum.
//!
//! Degraded means "I work, but something I need is away", and is for people. Not ready means "do not send me work", and
//! passes by itself. Dead means "only a restart helps": a task that must not end has ended. Confusing the last two makes an
//! outage of NATS restart every service that waits for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use time::OffsetDateTime;

/// The parts of a process and how they are. Clones share the same parts.
#[derive(Debug, Clone, Default)]
pub struct Health {
    components: Arc<Mutex<BTreeMap<String, Condition>>>,
    prefix: String,
}

/// How one part is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Condition {
    pub status: Status,
    /// Why it is anything but ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the status last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
}

/// From best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Ready,
    Degraded,
    NotReady,
    Dead,
}

/// The sum over all parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Every part takes work.
    pub ready: bool,
    /// No part is dead.
    pub alive: bool,
    pub components: BTreeMap<String, Condition>,
}

impl Health {
    pub fn new() -> Self {
        Self::default()
    }

    /// The same registry, with `name.` before the names of parts registered through it: several services in one process.
    #[must_use]
    pub fn scope(&self, name: &str) -> Self {
        Self { components: Arc::clone(&self.components), prefix: format!("{}{name}.", self.prefix) }
    }

    /// Registers a part, not ready until it says so. A second call with the same name shares the part.
    pub fn component(&self, name: &str) -> Component {
        let name = format!("{}{name}", self.prefix);
        self.lock().entry(name.clone()).or_insert_with(|| Condition {
            status: Status::NotReady,
            reason: Some("it is starting".into()),
            since: OffsetDateTime::now_utc(),
        });
        Component { health: self.clone(), name }
    }

    /// How everything is. Without any part registered it is ready.
    pub fn readiness(&self) -> Readiness {
        let components = self.lock().clone();
        let worst = components.values().map(|condition| condition.status).max().unwrap_or(Status::Ready);
        Readiness { ready: worst <= Status::Degraded, alive: worst != Status::Dead, components }
    }

    /// False once any part is dead.
    pub fn alive(&self) -> bool {
        self.lock().values().all(|condition| condition.status != Status::Dead)
    }

    /// Nothing under this lock can panic half-way, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Condition>> {
        self.components.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, name: &str, status: Status, reason: Option<String>) {
        let mut components = self.lock();
        let now = OffsetDateTime::now_utc();
        let known = components.get(name).cloned();
        match &known {
            // Only a restart brings it back, so nothing else may claim to have done so.
            Some(condition) if condition.status == Status::Dead => return,
            Some(condition) if condition.status == status && condition.reason == reason => return,
            _ => {}
        }
        let turned = known.as_ref().is_none_or(|condition| condition.status != status);
        let since = known.filter(|condition| condition.status == status).map_or(now, |condition| condition.since);
        components.insert(name.to_owned(), Condition { status, reason: reason.clone(), since });
        drop(components);
        let reason = reason.unwrap_or_default();
        match status {
            // A new reason for the same state, such as the next failed attempt, is no news.
            _ if !turned => tracing::debug!(component = name, reason, "A component is as before, for another reason."),
            Status::Ready => tracing::info!(component = name, "A component is ready."),
            Status::Degraded => tracing::warn!(component = name, reason, "A component is degraded."),
            Status::NotReady => tracing::warn!(component = name, reason, "A component is not ready."),
            Status::Dead => {
                tracing::error!(component = name, reason, "A component has died; the process must be restarted.")
            }
        }
    }
}

/// One part's own voice.
#[derive(Debug, Clone)]
pub struct Component {
    health: Health,
    name: String,
}

impl Component {
    pub fn ready(&self) {
        self.health.set(&self.name, Status::Ready, None);
    }

    /// It takes work, which waits for something that is away. `reason` is for the operator.
    pub fn degraded(&self, reason: impl Into<String>) {
        self.health.set(&self.name, Status::Degraded, Some(reason.into()));
    }

    /// It will recover by itself. `reason` is for the operator.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.health.set(&self.name, Status::NotReady, Some(reason.into()));
    }

    /// It will not recover; liveness fails from now on. `reason` is for the operator.
    pub fn dead(&self, reason: impl Into<String>) {
        self.health.set(&self.name, Status::Dead, Some(reason.into()));
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_every_component_is() {
        let health = Health::new();
        assert!(health.readiness().ready);
        let (nats, database) = (health.component("nats"), health.component("database"));
        nats.ready();
        assert!(!health.readiness().ready);
        database.ready();
        assert!(health.readiness().ready);
        nats.not_ready("the connection was lost");
        let readiness = health.readiness();
        assert!(!readiness.ready && readiness.alive);
        assert_eq!(readiness.components["nats"].reason.as_deref(), Some("the connection was lost"));
    }

    #[test]
    fn what_is_degraded_is_shown_and_still_sent_work() {
        let health = Health::new();
        let gateway = health.component("gateway");
        gateway.degraded("its breaker is open");
        let readiness = health.readiness();
        assert!(readiness.ready && readiness.alive);
        assert_eq!(readiness.components["gateway"].status, Status::Degraded);
        assert_eq!(readiness.components["gateway"].reason.as_deref(), Some("its breaker is open"));
    }

    #[test]
    fn death_is_final_and_fails_liveness() {
        let health = Health::new();
        let outbox = health.component("outbox");
        outbox.dead("the publisher panicked");
        outbox.ready();
        assert!(!health.alive());
        assert_eq!(health.readiness().components["outbox"].status, Status::Dead);
    }

    #[test]
    fn since_is_when_the_status_changed_not_the_reason() {
        let health = Health::new();
        let nats = health.component("nats");
        let first = health.readiness().components["nats"].since;
        nats.not_ready("attempt 2 failed");
        assert_eq!(health.readiness().components["nats"].since, first);
        nats.ready();
        assert!(health.readiness().components["nats"].since >= first);
    }

    #[test]
    fn scopes_share_one_registry() {
        let health = Health::new();
        health.scope("order").component("nats").ready();
        health.scope("payment").component("nats").not_ready("x");
        let names: Vec<String> = health.readiness().components.into_keys().collect();
        assert_eq!(names, ["order.nats", "payment.nats"]);
        assert!(!health.readiness().ready);
    }
}
