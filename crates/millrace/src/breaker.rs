//! A circuit breaker: after several failures in a row the other side is left alone for a while, then probed with one call
//! at a time until it is well again. (Michael Nygard, "Release It!", chapter "Stability Patterns".)
//!
//! Two ways through it. [`Breaker::call`] waits while it is open, so that an outage costs a message no delivery attempt.
//! [`Breaker::try_call`] fails fast, for callers that somebody is waiting for.

mod gate;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::gate::{Admission, Gate};
use crate::health::Component;

/// When a breaker opens and closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Failures in a row that open it. At least 1.
    pub failure_threshold: u32,
    /// How long it stays open before a probe.
    pub open_for: Duration,
    /// Probes in a row that must succeed to close it. At least 1.
    pub success_threshold: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { failure_threshold: 5, open_for: Duration::from_secs(10), success_threshold: 1 }
    }
}

/// What a breaker does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Lets all through.
    Closed,
    /// Lets one probe through at a time.
    HalfOpen,
    /// Lets none through.
    Open,
}

impl State {
    /// As in the metric `millrace_breaker_state`.
    pub fn as_number(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}

/// Why [`Breaker::try_call`] has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError<E> {
    /// Not tried. The caller may try again after that time.
    #[error("the circuit breaker {breaker} is open, try again in {} s", retry_after.as_secs_f64().ceil())]
    Open { breaker: Arc<str>, retry_after: Duration },
    /// Tried and failed.
    #[error(transparent)]
    Failed(E),
}

/// See the module's text. Clones share one state.
#[derive(Debug, Clone)]
pub struct Breaker {
    gate: Arc<Gate>,
}

impl Breaker {
    /// A closed breaker. `name` appears in logs and as the metric's label.
    pub fn new(name: &str, settings: Settings) -> Self {
        Self { gate: Gate::new(name, settings) }
    }

    pub fn name(&self) -> &str {
        self.gate.name()
    }

    pub fn state(&self) -> State {
        self.gate.state()
    }

    /// Follows the state. It turns from open to half-open by itself when the time has come, also when nobody calls.
    pub fn subscribe(&self) -> watch::Receiver<State> {
        self.gate.subscribe()
    }

    /// Shows the state as that of a part of the process, until `shutdown`. Open is degraded, not unready: work is still
    /// taken in, and waits.
    pub async fn show_in(&self, component: Component, shutdown: CancellationToken) {
        let mut states = self.subscribe();
        loop {
            match *states.borrow_and_update() {
                State::Closed => component.ready(),
                State::HalfOpen => {
                    component.degraded(format!("the circuit breaker {} is half-open: probing", self.name()))
                }
                State::Open => component.degraded(format!("the circuit breaker {} is open: calls wait", self.name())),
            }
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Runs `op`, waiting as long as the breaker does not let it through. An error for which `is_failure` says yes counts
    /// against the other side; if the breaker is open after it, `op` is run again once the breaker lets it through.
    /// Any other error (the other side answered, and said no) counts as success and is returned.
    ///
    /// May wait for the length of an outage. Dropping the future at any moment is fine: a probe that was dropped makes
    /// room for the next.
    pub async fn call<T, E, Fut>(&self, mut op: impl FnMut() -> Fut, is_failure: impl Fn(&E) -> bool) -> Result<T, E>
    where
        Fut: Future<Output = Result<T, E>>,
    {
        loop {
            let permit = self.gate.admitted().await;
            match op().await {
                Err(error) if is_failure(&error) => {
                    permit.failed();
                    if self.state() == State::Closed {
                        return Err(error);
                    }
                }
                answered => {
                    permit.succeeded();
                    return answered;
                }
            }
        }
    }

    /// Runs `op` once if the breaker lets it through now.
    pub async fn try_call<T, E, Fut>(
        &self,
        op: impl FnOnce() -> Fut,
        is_failure: impl Fn(&E) -> bool,
    ) -> Result<T, CallError<E>>
    where
        Fut: Future<Output = Result<T, E>>,
    {
        let permit = match self.gate.admit() {
            Admission::Granted(permit) => permit,
            Admission::Refused { retry_after } => {
                return Err(CallError::Open { breaker: self.gate.shared_name(), retry_after });
            }
        };
        let outcome = op().await;
        match &outcome {
            Err(error) if is_failure(error) => permit.failed(),
            _ => permit.succeeded(),
        }
        outcome.map_err(CallError::Failed)
    }
}

#[cfg(test)]
mod tests;
