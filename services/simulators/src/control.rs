//! The control plane all simulators share: take a provider down, let it fail, let it hang, and bring it back.
//!
//! `PUT /_control/mode` with a [`Mode`], `GET /_control/mode` to read it. Example: `{"mode":"errors","requests":3}`
//! refuses the next three requests and then works again by itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How long a request is held in mode `timeout` when nobody changes the mode: longer than any sensible client waits,
/// short enough that abandoned connections do not pile up.
const LONGEST_HOLD: Duration = Duration::from_secs(60);

/// What a simulator does with the requests of its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Behaviour {
    /// Answers as the provider would.
    #[default]
    Ok,
    /// Drops the connection without doing or answering anything.
    Down,
    /// Does nothing and answers with an error: HTTP 503, SMTP 451, or `status`.
    Errors,
    /// Does nothing and lets the client wait, then drops the connection.
    Timeout,
    /// Does what it was asked and drops the connection instead of answering.
    LoseAnswers,
}

/// A behaviour and its bounds, as sent to `PUT /_control/mode`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mode {
    /// What to do.
    pub mode: Behaviour,
    /// With `errors`: the HTTP status or SMTP reply code to answer with, 400 to 599.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Go back to `ok` after this many requests (mail transactions, for the mail server).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u32>,
}

impl Mode {
    fn check(&self) -> Result<(), String> {
        match self {
            Self { status: Some(status), .. } if !(400..=599).contains(status) => {
                Err(format!("`status` is {status}; it must be an error status, 400 to 599"))
            }
            Self { status: Some(_), mode, .. } if *mode != Behaviour::Errors => {
                Err("`status` has a meaning with mode `errors` only; leave it out".into())
            }
            Self { requests: Some(0), .. } => Err("`requests` is 0; it must be at least 1, or left out".into()),
            _ => Ok(()),
        }
    }
}

/// What to do with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Proceed,
    HangUp,
    /// Answer with this status, or with the protocol's own temporary error.
    Refuse(Option<u16>),
    Hold,
    ProceedThenHangUp,
}

/// The mode of one simulator, shared by its connections.
pub(crate) struct ModeSwitch {
    mode: Mutex<Mode>,
    changed: Notify,
    shutdown: CancellationToken,
}

impl ModeSwitch {
    pub(crate) fn new(shutdown: CancellationToken) -> Arc<Self> {
        Arc::new(Self { mode: Mutex::default(), changed: Notify::new(), shutdown })
    }

    pub(crate) fn get(&self) -> Mode {
        self.lock().clone()
    }

    fn set(&self, mode: Mode) {
        tracing::info!(mode = ?mode.mode, requests = mode.requests, "the simulator's mode was changed");
        *self.lock() = mode;
        self.changed.notify_waiters();
    }

    /// Judges one request and counts it.
    pub(crate) fn judge(&self) -> Verdict {
        let mut mode = self.lock();
        let verdict = match mode.mode {
            Behaviour::Ok => Verdict::Proceed,
            Behaviour::Down => Verdict::HangUp,
            Behaviour::Errors => Verdict::Refuse(mode.status),
            Behaviour::Timeout => Verdict::Hold,
            Behaviour::LoseAnswers => Verdict::ProceedThenHangUp,
        };
        match mode.requests {
            Some(1) => *mode = Mode::default(),
            Some(left) => mode.requests = Some(left - 1),
            None => {}
        }
        verdict
    }

    /// Returns when a held request may be let go: the mode was set anew, the longest hold is over, or we shut down.
    pub(crate) async fn hold(&self) {
        tokio::select! {
            () = self.changed.notified() => {}
            () = tokio::time::sleep(LONGEST_HOLD) => {}
            () = self.shutdown.cancelled() => {}
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Mode> {
        self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `GET` and `PUT /_control/mode`.
pub(crate) fn routes(switch: Arc<ModeSwitch>) -> Router {
    Router::new().route("/_control/mode", get(read_mode).put(write_mode)).with_state(switch)
}

async fn read_mode(State(switch): State<Arc<ModeSwitch>>) -> Json<Mode> {
    Json(switch.get())
}

async fn write_mode(State(switch): State<Arc<ModeSwitch>>, body: Result<Json<Mode>, JsonRejection>) -> Response {
    let Json(mode) = match body {
        Ok(mode) => mode,
        Err(rejection) => return bad_request(rejection.status(), rejection.body_text()),
    };
    match mode.check() {
        Ok(()) => {
            switch.set(mode.clone());
            Json(mode).into_response()
        }
        Err(message) => bad_request(StatusCode::UNPROCESSABLE_ENTITY, message),
    }
}

fn bad_request(status: StatusCode, message: String) -> Response {
    (status, Json(serde_json::json!({ "error": message }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn switch(mode: Mode) -> Arc<ModeSwitch> {
        let switch = ModeSwitch::new(CancellationToken::new());
        switch.set(mode);
        switch
    }

    #[test]
    fn a_counted_mode_ends_by_itself() {
        let switch = switch(Mode { mode: Behaviour::Errors, status: Some(500), requests: Some(2) });
        assert_eq!(switch.judge(), Verdict::Refuse(Some(500)));
        assert_eq!(switch.judge(), Verdict::Refuse(Some(500)));
        assert_eq!(switch.judge(), Verdict::Proceed);
    }

    #[test]
    fn a_mode_that_makes_no_sense_is_refused_by_the_name_of_its_field() {
        for (mode, field) in [
            (Mode { mode: Behaviour::Errors, status: Some(200), requests: None }, "status"),
            (Mode { mode: Behaviour::Down, status: Some(503), requests: None }, "status"),
            (Mode { mode: Behaviour::Down, status: None, requests: Some(0) }, "requests"),
        ] {
            assert!(mode.check().is_err_and(|message| message.contains(field)), "{mode:?}");
        }
    }
}
