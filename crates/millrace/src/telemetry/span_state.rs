//! What is remembered of a span while it lives: its ids, its correlation id and its fields. Read by the log lines written
//! inside it and, when spans are exported, by the exporter at its end.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tracing::field::{Field, Visit};

use super::trace::{Ids, TraceContext};

/// The field of a span that holds its correlation id.
pub(super) const CORRELATION_ID: &str = "correlation_id";
/// The field that makes a span a mere label, see [`super::service_span`].
pub(super) const LABEL: &str = "trace.label";
/// More fields on one span or event are dropped: a bound on memory, far above what a person reads.
const FIELDS_MAX: usize = 64;
/// Longer texts are cut.
const TEXT_MAX_BYTES: usize = 8 * 1024;

#[derive(Debug)]
pub(super) struct SpanState {
    pub(super) name: &'static str,
    pub(super) parent: Option<Arc<SpanState>>,
    /// Lends its fields to log lines, but belongs to no trace: what happens inside starts traces of its own.
    pub(super) label: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) ids: Ids,
    pub(super) parent_span_id: u64,
    pub(super) parent_is_remote: bool,
    pub(super) tracestate: Option<Arc<str>>,
    pub(super) correlation_id: Option<Arc<str>>,
    pub(super) fields: Fields,
    /// `Some` while the span is to be exported.
    pub(super) recording: Option<Box<Recording>>,
}

/// What only the exporter needs.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) started: SystemTime,
    pub(super) events: Vec<(SystemTime, Fields)>,
    pub(super) failed: bool,
}

impl SpanState {
    pub(super) fn new(
        name: &'static str,
        parent: Option<Arc<SpanState>>,
        fields: Fields,
        sample_ratio: f64,
        export: bool,
    ) -> Self {
        let label = fields.get(LABEL) == Some(&Value::Bool(true));
        let (ids, parent_span_id, tracestate, inherited) = match parent.as_ref().filter(|parent| !parent.label) {
            None => (Ids::root(sample_ratio), 0, None, None),
            Some(parent) => {
                let parent = parent.lock();
                (parent.ids.child(), parent.ids.span_id, parent.tracestate.clone(), parent.correlation_id.clone())
            }
        };
        let correlation_id = fields.text(CORRELATION_ID).map(Arc::from).or(inherited);
        let recording = (export && !label)
            .then(|| Box::new(Recording { started: SystemTime::now(), events: Vec::new(), failed: false }));
        let inner =
            Inner { ids, parent_span_id, parent_is_remote: false, tracestate, correlation_id, fields, recording };
        Self { name, parent, label, inner: Mutex::new(inner) }
    }

    /// Nothing that is done under this lock can panic half-way, so a poisoned one is still sound.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn continue_from(&self, remote: Ids, tracestate: Option<&str>) {
        let mut inner = self.lock();
        inner.ids = Ids { span_id: inner.ids.span_id, ..remote };
        inner.parent_span_id = remote.span_id;
        inner.parent_is_remote = true;
        inner.tracestate = tracestate.map(Arc::from);
    }

    pub(super) fn record(&self, record: impl FnOnce(&mut Fields)) {
        let mut inner = self.lock();
        record(&mut inner.fields);
        if let Some(id) = inner.fields.text(CORRELATION_ID).map(Arc::from) {
            inner.correlation_id = Some(id);
        }
    }

    pub(super) fn context(&self) -> Option<TraceContext> {
        let inner = self.lock();
        let tracestate = inner.tracestate.as_deref().map(str::to_owned);
        (!self.label).then(|| TraceContext { traceparent: inner.ids.traceparent(), tracestate })
    }

    pub(super) fn correlation_id(&self) -> Option<Arc<str>> {
        self.lock().correlation_id.clone()
    }
}

/// Fields of a span or of an event, in the order they were given; a name given twice keeps the later value.
#[derive(Debug, Default, Clone)]
pub(super) struct Fields {
    pub(super) list: Vec<(&'static str, Value)>,
    pub(super) dropped: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Bool(bool),
}

impl Fields {
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.list.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn set(&mut self, name: &'static str, value: Value) {
        if let Some((_, old)) = self.list.iter_mut().find(|(known, _)| *known == name) {
            *old = value;
        } else if self.list.len() < FIELDS_MAX {
            self.list.push((name, value));
        } else {
            self.dropped += 1;
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field.name(), Value::Text(cut(value.to_owned())));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), Value::Signed(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), Value::Unsigned(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field.name(), Value::Float(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), Value::Bool(value));
    }

    /// With its whole chain of causes: an error is logged once, where it is handled.
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        self.set(field.name(), Value::Text(cut(text)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field.name(), Value::Text(cut(format!("{value:?}"))));
    }
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_MAX_BYTES {
        let end = (0..=TEXT_MAX_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}
