//! The state machine behind [`super::Breaker`]: who may pass, and what their outcomes change.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::{Settings, State};
use crate::telemetry::metrics::BREAKER_STATE;

/// Where a half-open breaker sends callers while its probe is out: nobody knows how long that takes.
const WHILE_PROBING: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Gate {
    name: Arc<str>,
    settings: Settings,
    inner: Mutex<Inner>,
    shown: watch::Sender<State>,
    /// Wakes those who wait to pass.
    changed: Notify,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    /// Grows with each change of phase. A call counts only in the epoch that admitted it: what a slow call from before an
    /// outage says is no news about now.
    epoch: u64,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { successes: u32, probing: bool },
}

pub(super) enum Admission {
    Granted(Permit),
    Refused { retry_after: Duration },
}

/// The right to make one call. Dropped without an outcome (the caller was cancelled or panicked), it says nothing about
/// the other side, and makes room for another probe.
pub(super) struct Permit {
    gate: Arc<Gate>,
    epoch: u64,
    settled: bool,
}

impl Gate {
    pub(super) fn new(name: &str, settings: Settings) -> Arc<Self> {
        let settings = Settings {
            failure_threshold: settings.failure_threshold.max(1),
            success_threshold: settings.success_threshold.max(1),
            ..settings
        };
        let gate = Self {
            name: name.into(),
            settings,
            inner: Mutex::new(Inner { phase: Phase::Closed { failures: 0 }, epoch: 0 }),
            shown: watch::Sender::new(State::Closed),
            changed: Notify::new(),
        };
        gate.show(State::Closed);
        Arc::new(gate)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<State> {
        self.shown.subscribe()
    }

    pub(super) fn state(self: &Arc<Self>) -> State {
        let mut inner = self.lock();
        self.refresh(&mut inner);
        inner.phase.state()
    }

    /// May this call pass now?
    pub(super) fn admit(self: &Arc<Self>) -> Admission {
        let mut inner = self.lock();
        self.refresh(&mut inner);
        match &mut inner.phase {
            Phase::Closed { .. } => {}
            Phase::HalfOpen { probing, .. } if !*probing => *probing = true,
            Phase::HalfOpen { .. } => return Admission::Refused { retry_after: WHILE_PROBING },
            Phase::Open { until } => {
                return Admission::Refused { retry_after: until.saturating_duration_since(Instant::now()) };
            }
        }
        Admission::Granted(Permit { gate: Arc::clone(self), epoch: inner.epoch, settled: false })
    }

    /// Waits until this call may pass.
    pub(super) async fn admitted(self: &Arc<Self>) -> Permit {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the question, so that a change in between is not missed.
            changed.as_mut().enable();
            if let Admission::Granted(permit) = self.admit() {
                return permit;
            }
            changed.await;
        }
    }

    /// Turns open into half-open when its time has come.
    fn refresh(self: &Arc<Self>, inner: &mut Inner) {
        if let Phase::Open { until } = inner.phase
            && Instant::now() >= until
        {
            self.enter(inner, Phase::HalfOpen { successes: 0, probing: false }, None);
        }
    }

    fn enter(self: &Arc<Self>, inner: &mut Inner, phase: Phase, failures: Option<u32>) {
        inner.phase = phase;
        inner.epoch += 1;
        let state = phase.state();
        self.show(state);
        self.changed.notify_waiters();
        let breaker = &*self.name;
        match phase {
            Phase::Closed { .. } => {
                tracing::info!(breaker, "The circuit breaker closed: the other side is well again.")
            }
            Phase::HalfOpen { .. } => {
                tracing::info!(breaker, "The circuit breaker is half-open: the next call is a probe.")
            }
            Phase::Open { until } => {
                let open_for_s = self.settings.open_for.as_secs_f64();
                let (code, failures) = (crate::codes::BREAKER_OPEN, failures.unwrap_or(1));
                tracing::warn!(breaker, code, failures, open_for_s, "The circuit breaker opened: calls wait.");
                self.half_open_at(until);
            }
        }
    }

    /// Half-open must come by itself: those who watch the state stop calling while it is open.
    fn half_open_at(self: &Arc<Self>, until: Instant) {
        let gate = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep_until(until).await;
            if let Some(gate) = gate.upgrade() {
                gate.state();
            }
        });
    }

    fn show(&self, state: State) {
        self.shown.send_replace(state);
        metrics::gauge!(BREAKER_STATE, "breaker" => self.name.to_string()).set(f64::from(state.as_number()));
    }

    /// Nothing under this lock can panic half-way, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    pub(super) fn succeeded(self) {
        self.settle(|gate, inner| match &mut inner.phase {
            Phase::Closed { failures } => *failures = 0,
            Phase::HalfOpen { successes, probing } => {
                *successes += 1;
                *probing = false;
                if *successes >= gate.settings.success_threshold {
                    gate.enter(inner, Phase::Closed { failures: 0 }, None);
                }
            }
            Phase::Open { .. } => {}
        });
    }

    pub(super) fn failed(self) {
        self.settle(|gate, inner| {
            let failures = match &mut inner.phase {
                Phase::Closed { failures } => {
                    *failures += 1;
                    *failures
                }
                Phase::HalfOpen { .. } => gate.settings.failure_threshold,
                Phase::Open { .. } => return,
            };
            if failures >= gate.settings.failure_threshold {
                let until = Instant::now() + gate.settings.open_for;
                gate.enter(inner, Phase::Open { until }, Some(failures));
            }
        });
    }

    fn settle(mut self, change: impl FnOnce(&Arc<Gate>, &mut Inner)) {
        self.settled = true;
        let mut inner = self.gate.lock();
        if inner.epoch == self.epoch {
            change(&self.gate, &mut inner);
        }
        drop(inner);
        // Half-open with more successes to go: the next probe may pass.
        self.gate.changed.notify_waiters();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let mut inner = self.gate.lock();
        let same_epoch = inner.epoch == self.epoch;
        if let Phase::HalfOpen { probing, .. } = &mut inner.phase
            && same_epoch
        {
            *probing = false;
        }
        drop(inner);
        self.gate.changed.notify_waiters();
    }
}

impl Phase {
    fn state(self) -> State {
        match self {
            Self::Closed { .. } => State::Closed,
            Self::HalfOpen { .. } => State::HalfOpen,
            Self::Open { .. } => State::Open,
        }
    }
}
