//! Idempotency keys: the same request under the same key takes place once and is answered alike every time.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use axum::http::StatusCode;

use super::answer::{Answer, Refusal};
use super::operation::Params;

/// Stripe's own limit.
const LONGEST_KEY: usize = 255;

/// Identifies a request: two with the same fingerprint ask for the same thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(u64);

impl Fingerprint {
    pub(super) fn of(path: &str, params: &Params) -> Self {
        let mut hasher = DefaultHasher::new();
        (path, params).hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// The keys in use and the answers kept under them.
#[derive(Default)]
pub(super) struct Keys(HashMap<String, Kept>);

struct Kept {
    fingerprint: Fingerprint,
    /// None while the first request is being worked on.
    answer: Option<Answer>,
}

/// What to do with a request under a key.
pub(super) enum Begin {
    /// Nobody asked before: carry it out, then call [`Keys::finish`].
    Fresh,
    /// Give this answer and do nothing.
    Answered(Answer),
}

impl Keys {
    /// Claims the key for a request.
    pub(super) fn begin(&mut self, key: &str, fingerprint: Fingerprint) -> Result<Begin, Refusal> {
        if key.is_empty() || key.len() > LONGEST_KEY {
            return Err(conflict(
                StatusCode::BAD_REQUEST,
                format!("Idempotency keys are 1 to {LONGEST_KEY} bytes long."),
            ));
        }
        match self.0.get(key) {
            None => {
                self.0.insert(key.to_owned(), Kept { fingerprint, answer: None });
                Ok(Begin::Fresh)
            }
            Some(kept) if kept.fingerprint != fingerprint => Err(conflict(
                StatusCode::BAD_REQUEST,
                format!("The key {key} was first used for another request; the same key needs the same parameters."),
            )),
            Some(Kept { answer: None, .. }) => Err(conflict(
                StatusCode::CONFLICT,
                format!("Another request with the key {key} is in progress; try again when it is done."),
            )
            .code("idempotency_key_in_use")),
            Some(Kept { answer: Some(answer), .. }) => Ok(Begin::Answered(answer.clone().again())),
        }
    }

    /// Keeps the answer of a request that took place; without one, frees the key as if nobody had asked.
    pub(super) fn finish(&mut self, key: &str, answer: Option<Answer>) {
        match (answer, self.0.get_mut(key)) {
            (Some(answer), Some(kept)) => kept.answer = Some(answer),
            _ => self.forget(key),
        }
    }

    pub(super) fn forget(&mut self, key: &str) {
        self.0.remove(key);
    }
}

fn conflict(status: StatusCode, message: String) -> Refusal {
    Refusal::new(status, "idempotency_error", message)
}
