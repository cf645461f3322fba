use time::OffsetDateTime;

use crate::event::{Cause, Encoded, Event, EventId, Retired, encode, encode_headers};
use crate::outbox::NewRow;

/// Collects what an intent publishes. Each event becomes one outbox row per published version.
#[derive(Debug)]
pub struct Outbound {
    source: String,
    retired: Retired,
    cause: Cause,
    now: OffsetDateTime,
    rows: Vec<NewRow>,
    unwritable: Option<String>,
}

impl Outbound {
    pub(super) fn new(source: &str, retired: Retired, now: OffsetDateTime) -> Self {
        Self { source: source.to_owned(), retired, cause: Cause::default(), now, rows: Vec::new(), unwritable: None }
    }

    pub(super) fn because_of(&mut self, cause: &Cause) {
        self.cause = cause.clone();
    }

    /// The rows to be stored, or why one of the events cannot be written. Then nothing may be committed: the state
    /// would have changed and nobody would hear of it.
    pub(super) fn into_rows(self) -> Result<Vec<NewRow>, String> {
        match self.unwritable {
            None => Ok(self.rows),
            Some(reason) => Err(reason),
        }
    }

    /// Publishes `event` under a new id once the intent is committed. Returns the id.
    pub fn publish<E: Event>(&mut self, event: &E) -> EventId {
        let id = EventId::generate();
        self.publish_as(&id, event);
        id
    }

    /// Publishes `event` under an id it already has: a foreign event that is passed on in its newest version is still
    /// the same business event.
    pub fn publish_as<E: Event>(&mut self, id: &EventId, event: &E) {
        self.publish_versions(id, event, &[]);
    }

    /// As [`publish_as`](Self::publish_as), leaving out versions that somebody else has published.
    pub fn publish_versions<E: Event>(&mut self, id: &EventId, event: &E, except: &[u32]) {
        match encode(event, id, &self.retired) {
            Ok(versions) => {
                versions.into_iter().filter(|e| !except.contains(&e.version)).for_each(|encoded| self.push(encoded));
            }
            Err(reason) => self.unwritable = Some(format!("{} cannot be written as JSON: {reason}", E::TYPE)),
        }
    }

    fn push(&mut self, event: Encoded) {
        let headers = encode_headers(&event, &self.source, self.now, &self.cause);
        self.rows.push(NewRow {
            message_id: crate::event::message_id(&event.event_id, event.version),
            subject: event.subject.to_owned(),
            // Copies in older versions need no order relative to the newest, so they travel in a lane of their own.
            lane: if event.newest { event.key } else { format!("{}/v{}", event.key, event.version) },
            headers,
            body: event.body.into(),
        });
    }
}
