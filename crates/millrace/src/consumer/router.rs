use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use async_nats::{HeaderMap, HeaderName};
use futures::future::BoxFuture;
use time::OffsetDateTime;

use super::Failure;
use crate::dead_letters::replays;
use crate::event::{
    DecodeError, Event, Meta, Origin, Received, Validator, decode_headers, message_name, read, validator_for,
};
use crate::history::Recorded;

/// Sources under this prefix are our own services; their bodies were typed when they were written.
pub const OWN_SOURCE_PREFIX: &str = "/millrace/";

/// A handler at work on one message.
pub type Handling = BoxFuture<'static, Result<(), Failure>>;
type Decode = Box<dyn Fn(&RawMessage<'_>, Meta) -> Result<Handling, DecodeError> + Send + Sync>;

/// Sends each subject of one durable consumer to its handler, decoded and in the newest version.
pub struct Router {
    durable: Arc<str>,
    routes: HashMap<&'static str, Route>,
    foreign_only: bool,
}

struct Route {
    event_type: &'static str,
    version: u32,
    decode: Decode,
}

/// A message as it was delivered.
pub(crate) struct RawMessage<'a> {
    pub(crate) subject: &'a str,
    pub(crate) headers: Option<&'a HeaderMap>,
    pub(crate) body: &'a [u8],
    pub(crate) stream: &'a str,
    pub(crate) stream_seq: u64,
    pub(crate) stored_at: OffsetDateTime,
}

/// A message that was understood: what it is, and its handler, ready to run.
pub struct Call {
    pub meta: Meta,
    pub handling: Handling,
}

impl Router {
    /// For the durable consumer of this name.
    pub fn new(durable: &str) -> Self {
        Self { durable: durable.into(), routes: HashMap::new(), foreign_only: false }
    }

    /// For a consumer that is there for what others publish: messages of our own services are acknowledged unread. A filter
    /// cannot keep them away, since both use the same subject.
    pub fn of_foreign_publishers(self) -> Self {
        Self { foreign_only: true, ..self }
    }

    /// Whether a message is nothing to this consumer. One whose source is written otherwise than we write it is for the
    /// handler to tell.
    pub(super) fn passes_over(&self, headers: Option<&HeaderMap>) -> bool {
        let source = || headers?.get(HeaderName::from_static("ce-source"));
        self.foreign_only && source().is_some_and(|source| source.as_str().starts_with(OWN_SOURCE_PREFIX))
    }

    pub fn durable(&self) -> &str {
        &self.durable
    }

    /// Subjects that have a handler.
    pub fn subjects(&self) -> impl Iterator<Item = &'static str> {
        self.routes.keys().copied()
    }

    /// Handles `E` in whatever declared version it comes, converted to the newest. Which of them come is for the
    /// consumer's filter to say; while it has several, as during a change, the inbox sees to it that each event has its
    /// effect once.
    pub fn on<E, H, F>(mut self, handler: H) -> Self
    where
        E: Event,
        H: Fn(Received<E>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        for older in E::OLDER {
            // One that was given a handler of its own keeps it.
            if !self.routes.contains_key(older.subject) {
                let handler = handler.clone();
                self = self.route(older.subject, older.version, older.decode, move |event| handler(event));
            }
        }
        let name = format!("{} v{}", E::TYPE, E::VERSION);
        self.route(E::SUBJECT, E::VERSION, move |body| read(&name, body), move |event| handler(event))
    }

    /// Handles one older version of `E`, converted to the newest. A version that `E` does not declare is a mistake of whoever
    /// wires the service: all its messages would become dead letters.
    pub fn on_version<E, H, F>(self, version: u32, handler: H) -> Self
    where
        E: Event,
        H: Fn(Received<E>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        match E::OLDER.iter().find(|older| older.version == version) {
            Some(older) => self.route(older.subject, version, older.decode, handler),
            None => {
                tracing::error!(event.type = E::TYPE, event.version = version, "a handler is given for a version that the event does not declare");
                debug_assert!(false, "{} has no older version {version}", E::TYPE);
                self
            }
        }
    }

    fn route<E, H, F>(
        mut self,
        subject: &'static str,
        version: u32,
        decode: impl Fn(&[u8]) -> Result<E, DecodeError> + Send + Sync + 'static,
        handler: H,
    ) -> Self
    where
        E: Event,
        H: Fn(Received<E>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let consumer = self.durable.clone();
        let validator: std::sync::OnceLock<Option<Result<Validator, DecodeError>>> = std::sync::OnceLock::new();
        let decode: Decode = Box::new(move |raw, mut meta| {
            if meta.foreign
                && let Some(validator) = validator.get_or_init(|| validator_for::<E>(version))
            {
                validator.as_ref().map_err(Clone::clone)?.check(raw.body)?;
            }
            let data = decode(raw.body)?;
            // What the event is about stands in its body; a foreign publisher need not repeat it in a header.
            meta.key = data.key();
            Ok(Box::pin(handler(Received { meta, data, consumer: consumer.clone() })))
        });
        self.routes.insert(subject, Route { event_type: E::TYPE, version, decode });
        self
    }

    /// Understands a message of a stream's history as if it had been delivered just now.
    pub fn recall(&self, recorded: &Recorded) -> Result<Call, DecodeError> {
        self.decode(&RawMessage {
            subject: &recorded.message.subject,
            headers: recorded.message.headers.as_ref(),
            body: &recorded.message.payload,
            stream: &recorded.stream,
            stream_seq: recorded.sequence,
            stored_at: recorded.stored_at,
        })
    }

    /// A subject nobody handles: another version of an event that is handled, or something else altogether.
    fn unknown(&self, subject: &str) -> DecodeError {
        let of_event = |event: &str| match subject.strip_prefix(event)? {
            "" => Some(1),
            rest => rest.strip_prefix(".v")?.parse::<u32>().ok(),
        };
        let found = self.routes.values().find_map(|route| Some((route.event_type, of_event(route.event_type)?)));
        let Some((event, version)) = found else { return DecodeError::UnknownSubject { subject: subject.to_owned() } };
        let mut known: Vec<u32> =
            self.routes.values().filter(|route| route.event_type == event).map(|route| route.version).collect();
        known.sort_unstable();
        DecodeError::UnknownVersion { event: event.to_owned(), version, known }
    }

    pub(crate) fn decode(&self, raw: &RawMessage<'_>) -> Result<Call, DecodeError> {
        // A replay is handled as what it is a replay of.
        let subject = replays::original(&self.durable, raw.subject).unwrap_or(raw.subject);
        let route = self.routes.get(subject).ok_or_else(|| self.unknown(subject))?;
        let origin = Origin {
            subject,
            event_type: route.event_type,
            version: route.version,
            message_name: &|| message_name(raw.stream, raw.stream_seq, raw.stored_at),
            stored_at: raw.stored_at,
            own_source_prefix: OWN_SOURCE_PREFIX,
        };
        let meta = decode_headers(raw.headers, &origin)?;
        let handling = (route.decode)(raw, meta.clone())?;
        Ok(Call { meta, handling })
    }
}
