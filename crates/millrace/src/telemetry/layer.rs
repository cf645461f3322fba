//! The `tracing` layer that gives every span its ids and hands finished spans to the exporter, if there is one.
//!
//! It sees spans of level INFO and above whatever the log filter says: quiet logs must not break a trace.

use std::sync::Arc;

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, LevelFilter, filter_fn};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::otlp::Exporter;
use super::span_state::{Fields, SpanState};
use super::trace;

/// Log events kept per exported span.
const EVENTS_MAX: usize = 64;

/// See the module's text. Add it to a subscriber of your own with [`trace_layer`], or let [`super::init`] do it.
#[derive(Debug)]
pub struct TraceLayer {
    exporter: Option<Arc<Exporter>>,
    sample_ratio: f64,
}

/// The layer without an exporter, with its filter, for a subscriber built by hand (it must sit on
/// [`tracing_subscriber::Registry`]).
pub fn trace_layer<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    TraceLayer::filtered(None, 1.0)
}

impl TraceLayer {
    pub(super) fn filtered<S>(exporter: Option<Arc<Exporter>>, sample_ratio: f64) -> impl Layer<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let filter = filter(exporter.is_some());
        Self { exporter, sample_ratio }.with_filter(filter)
    }
}

/// Spans that matter to a trace; warnings and errors too where they end up in an exported span.
fn filter(exporting: bool) -> FilterFn<impl Fn(&Metadata<'_>) -> bool> {
    filter_fn(
        move |meta| {
            if meta.is_span() { *meta.level() <= Level::INFO } else { exporting && *meta.level() <= Level::WARN }
        },
    )
    .with_max_level_hint(LevelFilter::INFO)
}

impl<S> Layer<S> for TraceLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let parent = span.parent().and_then(|parent| parent.extensions().get::<Arc<SpanState>>().cloned());
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let state =
            SpanState::new(attributes.metadata().name(), parent, fields, self.sample_ratio, self.exporter.is_some());
        span.extensions_mut().insert(Arc::new(state));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(state) = state(id, &context) {
            state.record(|fields| values.record(fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        trace::with_current(|state| {
            let mut inner = state.lock();
            if let Some(recording) = &mut inner.recording
                && recording.events.len() < EVENTS_MAX
            {
                let mut fields = Fields::default();
                event.record(&mut fields);
                recording.events.push((std::time::SystemTime::now(), fields));
                recording.failed |= *event.metadata().level() == Level::ERROR;
            }
        });
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        if let Some(state) = state(id, &context) {
            trace::enter(id.into_u64(), state);
        }
    }

    fn on_exit(&self, id: &Id, _: Context<'_, S>) {
        trace::exit(id.into_u64());
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        if let Some(exporter) = &self.exporter
            && let Some(state) = state(&id, &context)
        {
            exporter.finished(&state);
        }
    }
}

fn state<S>(id: &Id, context: &Context<'_, S>) -> Option<Arc<SpanState>>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    context.span(id)?.extensions().get::<Arc<SpanState>>().cloned()
}

#[cfg(test)]
mod tests {
    use tracing::{Span, debug_span, info_span};
    use tracing_subscriber::Registry;
    use tracing_subscriber::filter::LevelFilter;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::super::trace::{TraceContext, continue_from, correlation_id};
    use super::*;

    const REMOTE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn traced<T>(body: impl FnOnce() -> T) -> T {
        tracing::subscriber::with_default(Registry::default().with(trace_layer()), body)
    }

    #[test]
    fn a_child_shares_the_trace_and_has_its_own_span() {
        traced(|| {
            let outer = info_span!("outer").entered();
            let parent = TraceContext::current().unwrap();
            let inner = info_span!("inner").entered();
            let child = TraceContext::current().unwrap();
            assert_eq!(parent.trace_id(), child.trace_id());
            assert_ne!(parent.traceparent, child.traceparent);
            drop(inner);
            assert_eq!(TraceContext::current().unwrap(), parent);
            drop(outer);
            assert_eq!(TraceContext::current(), None);
        });
    }

    #[test]
    fn a_remote_trace_is_continued_into_children_with_its_state() {
        traced(|| {
            let remote = TraceContext::parse(REMOTE, Some("vendor=1")).unwrap();
            let span = info_span!("handle");
            continue_from(&span, &remote);
            let of_span = TraceContext::of(&span).unwrap();
            assert_eq!(of_span.trace_id(), remote.trace_id());
            assert_ne!(of_span.traceparent, remote.traceparent);
            let _entered = span.entered();
            let _child = info_span!("publish").entered();
            let child = TraceContext::current().unwrap();
            assert_eq!(child.trace_id(), remote.trace_id());
            assert_eq!(child.tracestate.as_deref(), Some("vendor=1"));
        });
    }

    #[test]
    fn the_correlation_id_is_inherited_and_may_be_recorded_late() {
        traced(|| {
            let span = info_span!("handle", correlation_id = tracing::field::Empty).entered();
            assert_eq!(correlation_id(), None);
            Span::current().record("correlation_id", "abc");
            assert_eq!(correlation_id().as_deref(), Some("abc"));
            let _child = info_span!("publish").entered();
            assert_eq!(correlation_id().as_deref(), Some("abc"));
            drop(span);
        });
    }

    #[test]
    fn spans_left_out_of_order_do_not_confuse_the_current_one() {
        traced(|| {
            let outer = info_span!("outer");
            let inner = info_span!("inner");
            let (outer_context, inner_context) = (TraceContext::of(&outer), TraceContext::of(&inner));
            let entered_outer = outer.enter();
            let entered_inner = inner.enter();
            drop(entered_outer);
            assert_eq!(TraceContext::current(), inner_context);
            assert_ne!(TraceContext::current(), outer_context);
            drop(entered_inner);
            assert_eq!(TraceContext::current(), None);
        });
    }

    #[test]
    fn quiet_logs_do_not_break_the_trace() {
        struct Silent;
        impl<S: Subscriber> Layer<S> for Silent {}
        let subscriber = Registry::default().with(trace_layer()).with(Silent.with_filter(LevelFilter::ERROR));
        tracing::subscriber::with_default(subscriber, || {
            let _span = info_span!("handle").entered();
            assert!(TraceContext::current().is_some());
        });
    }

    #[test]
    fn a_service_span_labels_lines_but_is_no_trace() {
        traced(|| {
            let service = crate::telemetry::service_span("order").entered();
            assert_eq!(TraceContext::current(), None);
            let one = info_span!("sweep").in_scope(TraceContext::current).unwrap();
            let other = info_span!("sweep").in_scope(TraceContext::current).unwrap();
            assert_ne!(one.trace_id(), other.trace_id());
            drop(service);
        });
    }

    #[test]
    fn spans_for_debugging_take_no_part() {
        traced(|| {
            let outer = info_span!("outer").entered();
            let of_outer = TraceContext::current();
            let _detail = debug_span!("detail").entered();
            assert_eq!(TraceContext::current(), of_outer);
            drop(outer);
        });
    }
}
