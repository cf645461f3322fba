//! Everything the gateway remembers, behind one lock that is never held across an await.

use std::collections::{BTreeMap, HashMap};

use axum::http::StatusCode;
use uuid::Uuid;

use super::answer::{Answer, Refusal};
use super::idempotency::{Begin, Fingerprint, Keys};
use super::intent::{Intent, NewIntent};
use super::ledger::Seen;
use crate::bounded::BoundedLog;

/// How often `pm_flaky` fails for a key before it works.
const FLAKY_FAILURES: u8 = 2;
/// For how many keys the failures of `pm_flaky` are remembered; far more than are ever retried at once.
const FLAKY_KEYS: usize = 1_000;

pub(super) struct Bank {
    /// By a number that grows, so that a listing has an order.
    intents: BTreeMap<u64, Intent>,
    numbers: HashMap<String, u64>,
    last: u64,
    limit: usize,
    dropped: u64,
    keys: Keys,
    failures: HashMap<String, u8>,
    failed_keys: BoundedLog<String>,
    pub(super) seen: BoundedLog<Seen>,
}

impl Bank {
    pub(super) fn new(settings: &super::Settings) -> Self {
        Self {
            intents: BTreeMap::new(),
            numbers: HashMap::new(),
            last: 0,
            limit: settings.ledger_intents,
            dropped: 0,
            keys: Keys::default(),
            failures: HashMap::new(),
            failed_keys: BoundedLog::new(FLAKY_KEYS),
            seen: BoundedLog::new(settings.ledger_requests),
        }
    }

    /// Claims an idempotency key; see [`Keys::begin`].
    pub(super) fn begin(&mut self, key: &str, fingerprint: Fingerprint) -> Result<Begin, Refusal> {
        self.keys.begin(key, fingerprint)
    }

    /// Keeps an answer about an intent under its key, or frees the key when nothing took place.
    pub(super) fn finish(&mut self, key: &str, took_place: Option<(String, Answer)>) {
        let intent = took_place.as_ref().and_then(|(id, _)| self.get_mut(id).ok());
        let known = intent.map(|intent| intent.keys.push(key.to_owned())).is_some();
        self.keys.finish(key, took_place.filter(|_| known).map(|(_, answer)| answer));
    }

    /// Opens a payment, making room for it if need be.
    pub(super) fn open(&mut self, new: NewIntent) -> Result<&Intent, Refusal> {
        self.make_room()?;
        self.last += 1;
        let id = format!("pi_{}", Uuid::now_v7().simple());
        self.numbers.insert(id.clone(), self.last);
        Ok(self.intents.entry(self.last).or_insert_with(|| Intent::open(id, new)))
    }

    pub(super) fn get(&self, id: &str) -> Result<&Intent, Refusal> {
        let intent = self.numbers.get(id).and_then(|number| self.intents.get(number));
        intent.ok_or_else(|| Refusal::no_such("payment_intent", id, "intent"))
    }

    pub(super) fn get_mut(&mut self, id: &str) -> Result<&mut Intent, Refusal> {
        let intent = self.numbers.get(id).and_then(|number| self.intents.get_mut(number));
        intent.ok_or_else(|| Refusal::no_such("payment_intent", id, "intent"))
    }

    /// Newest first, those older than `after` where it is given.
    pub(super) fn newest_first(&self, after: Option<&str>) -> Result<impl Iterator<Item = &Intent>, Refusal> {
        let end = match after {
            None => self.last + 1,
            Some(id) => {
                *self.numbers.get(id).ok_or_else(|| Refusal::no_such("payment_intent", id, "starting_after"))?
            }
        };
        Ok(self.intents.range(..end).rev().map(|(_, intent)| intent))
    }

    /// Oldest first.
    pub(super) fn intents(&self) -> impl Iterator<Item = &Intent> {
        self.intents.values()
    }

    /// How many intents were forgotten since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether a payment with `pm_flaky` under this key is to fail once more.
    pub(super) fn fails_once_more(&mut self, key: &str) -> bool {
        if !self.failures.contains_key(key)
            && let Some(oldest) = self.failed_keys.push(key.to_owned())
        {
            self.failures.remove(&oldest);
        }
        let failures = self.failures.entry(key.to_owned()).or_default();
        *failures = failures.saturating_add(1);
        *failures <= FLAKY_FAILURES
    }

    fn make_room(&mut self) -> Result<(), Refusal> {
        if self.intents.len() < self.limit {
            return Ok(());
        }
        let Some(oldest) = self.intents.iter().find(|(_, intent)| !intent.holds_money()).map(|(number, _)| *number)
        else {
            let message = format!(
                "The simulator holds {} intents that wait for a capture and has room for no more; \
                 raise `simulators.ledger_intents`.",
                self.limit
            );
            return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "api_error", message));
        };
        if let Some(intent) = self.intents.remove(&oldest) {
            self.numbers.remove(&intent.id);
            intent.keys.iter().for_each(|key| self.keys.forget(key));
        }
        if self.dropped == 0 {
            tracing::warn!(
                limit = self.limit,
                "the gateway simulator forgets its oldest payments from now on; raise `simulators.ledger_intents` to keep more"
            );
        }
        self.dropped += 1;
        Ok(())
    }
}
