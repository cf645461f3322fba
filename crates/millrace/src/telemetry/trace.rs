//! W3C trace context (<https://www.w3.org/TR/trace-context/>): where the current work belongs, in the text form that
//! travels in HTTP headers, outbox rows and NATS headers.
//!
//! The ids are made here, by [`super::layer`], whether or not an exporter is configured, so log lines and outgoing events
//! always carry them. There is one source of ids; the OTLP exporter only copies finished spans.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use tracing_subscriber::Registry;
use tracing_subscriber::registry::LookupSpan;

use super::span_state::SpanState;

/// The specification allows a receiver to drop a longer one.
const TRACESTATE_MAX_CHARACTERS: usize = 512;
const SAMPLED: u8 = 0x01;

/// A position in a trace, as it is sent on.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TraceContext {
    /// `00-<trace id>-<span id>-<flags>`, lower-case hexadecimal.
    pub traceparent: String,
    /// Vendor data, passed on untouched.
    pub tracestate: Option<String>,
}

impl TraceContext {
    /// Of the span that is entered on this thread. `None` outside of all spans.
    pub fn current() -> Option<Self> {
        with_current(|state| state.context()).flatten()
    }

    /// Of a given span, entered or not. `None` for a span that is disabled or not seen by [`super::layer::TraceLayer`].
    pub fn of(span: &tracing::Span) -> Option<Self> {
        state_of(span).and_then(|state| state.context())
    }

    /// Reads the headers `traceparent` and `tracestate`. `None` when the first does not follow the specification, which
    /// says to start a new trace then. A bad `tracestate` is dropped alone.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let ids = Ids::parse(traceparent)?;
        let tracestate = tracestate
            .map(str::trim)
            .filter(|text| !text.is_empty() && text.len() <= TRACESTATE_MAX_CHARACTERS)
            .filter(|text| text.bytes().all(|b| (0x20..=0x7e).contains(&b)))
            .map(str::to_owned);
        Some(Self { traceparent: ids.traceparent(), tracestate })
    }

    /// The start of a new trace, for work that begins outside of any span.
    pub fn generate() -> Self {
        let ids = Ids { trace_id: random_u128(), span_id: random_u64(), flags: SAMPLED };
        Self { traceparent: ids.traceparent(), tracestate: None }
    }

    /// The 32 hexadecimal digits that every span of the trace shares.
    pub fn trace_id(&self) -> &str {
        self.traceparent.get(3..35).unwrap_or_default()
    }
}

/// Makes `span` continue the trace of `context`. To be called right after the span was made: its children take the
/// trace over when they are made.
pub fn continue_from(span: &tracing::Span, context: &TraceContext) {
    if let (Some(state), Some(ids)) = (state_of(span), Ids::parse(&context.traceparent)) {
        state.continue_from(ids, context.tracestate.as_deref());
    }
}

/// The correlation id of the current span or of the nearest one around it that has one.
pub fn correlation_id() -> Option<String> {
    with_current(|state| state.correlation_id().map(|id| id.to_string())).flatten()
}

fn state_of(span: &tracing::Span) -> Option<Arc<SpanState>> {
    span.with_subscriber(|(id, dispatch)| {
        let registry = dispatch.downcast_ref::<Registry>()?;
        registry.span(id)?.extensions().get::<Arc<SpanState>>().cloned()
    })
    .flatten()
}

thread_local! {
    /// The spans entered on this thread, innermost last. Kept here and not looked up in the subscriber, because a
    /// subscriber may not be asked again while it handles an event (that is when log lines need it).
    static ENTERED: RefCell<Vec<(u64, Arc<SpanState>)>> = const { RefCell::new(Vec::new()) };
    static RANDOM: RefCell<fastrand::Rng> =
        // Seeded from the operating system: fastrand's own seed is the clock, which two hosts can share.
        RefCell::new(fastrand::Rng::with_seed(RandomState::new().hash_one(std::process::id())));
}

pub(super) fn enter(span: u64, state: Arc<SpanState>) {
    let _ = ENTERED.try_with(|entered| entered.borrow_mut().push((span, state)));
}

/// Spans may be left in another order than they were entered, hence the search.
pub(super) fn exit(span: u64) {
    let _ = ENTERED.try_with(|entered| {
        let mut entered = entered.borrow_mut();
        if let Some(at) = entered.iter().rposition(|(id, _)| *id == span) {
            entered.remove(at);
        }
    });
}

pub(super) fn with_current<T>(read: impl FnOnce(&Arc<SpanState>) -> T) -> Option<T> {
    // Cloned first, so that `read` may log.
    let state =
        ENTERED.try_with(|entered| entered.borrow().last().map(|(_, state)| Arc::clone(state))).ok().flatten()?;
    Some(read(&state))
}

/// The numbers of a `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) trace_id: u128,
    pub(super) span_id: u64,
    pub(super) flags: u8,
}

impl Ids {
    /// A root. Whether it is sampled follows from the trace id alone, so that every service decides alike.
    pub(super) fn root(sample_ratio: f64) -> Self {
        let trace_id = random_u128();
        #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "the low half, as a fraction")]
        let fraction = (trace_id as u64 >> 11) as f64 / (1_u64 << 53) as f64;
        Self { trace_id, span_id: random_u64(), flags: u8::from(fraction < sample_ratio) }
    }

    pub(super) fn child(self) -> Self {
        Self { span_id: random_u64(), ..self }
    }

    pub(super) fn sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    pub(super) fn traceparent(self) -> String {
        let mut text = String::with_capacity(55);
        text.push_str("00-");
        push_hex(&mut text, self.trace_id.to_be_bytes());
        text.push('-');
        push_hex(&mut text, self.span_id.to_be_bytes());
        text.push('-');
        push_hex(&mut text, [self.flags]);
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (version, rest) = text.split_once('-')?;
        let (trace_id, rest) = rest.split_once('-')?;
        let (span_id, rest) = rest.split_once('-')?;
        // Later versions may append fields; version 00 may not.
        let flags = match rest.split_once('-') {
            None => rest,
            Some(_) if version == "00" => return None,
            Some((flags, _)) => flags,
        };
        if version == "ff" || hex(version, 2).is_none() {
            return None;
        }
        let ids = Self {
            trace_id: hex(trace_id, 32)?,
            span_id: u64::try_from(hex(span_id, 16)?).ok()?,
            flags: u8::try_from(hex(flags, 2)?).ok()? & SAMPLED,
        };
        (ids.trace_id != 0 && ids.span_id != 0).then_some(ids)
    }
}

/// Every message is read and written with two of these: `fmt` and `from_str_radix` take ten times as long.
fn push_hex<const BYTES: usize>(text: &mut String, bytes: [u8; BYTES]) {
    let digit = |half: u8| if half < 10 { b'0' + half } else { b'a' - 10 + half };
    let digits = bytes.map(|byte| [digit(byte >> 4), digit(byte & 0xf)]);
    text.push_str(std::str::from_utf8(digits.as_flattened()).unwrap_or_default());
}

fn hex(text: &str, digits: usize) -> Option<u128> {
    if text.len() != digits {
        return None;
    }
    // Numbers of two words are slow to shift.
    let word = |digits: &[u8]| digits.iter().try_fold(0_u64, |value, digit| Some(value << 4 | half_byte(*digit)?));
    let (high, low) = text.as_bytes().split_at(digits.saturating_sub(16));
    Some(u128::from(word(high)?) << 64 | u128::from(word(low)?))
}

fn half_byte(digit: u8) -> Option<u64> {
    match digit {
        b'0'..=b'9' => Some(u64::from(digit - b'0')),
        b'a'..=b'f' => Some(u64::from(digit - b'a') + 10),
        _ => None,
    }
}

fn random_u128() -> u128 {
    RANDOM.try_with(|random| random.borrow_mut().u128(1..)).unwrap_or(1)
}

fn random_u64() -> u64 {
    RANDOM.try_with(|random| random.borrow_mut().u64(1..)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_traceparent_is_read_and_written_unchanged() {
        let context = TraceContext::parse(PARENT, Some("vendor=1")).unwrap();
        assert_eq!(context.traceparent, PARENT);
        let ids = Ids { trace_id: 0xf, span_id: u64::MAX - 9, flags: 0 };
        assert_eq!(ids.traceparent(), "00-0000000000000000000000000000000f-fffffffffffffff6-00");
        assert_eq!(Ids::parse(&ids.traceparent()), Some(ids));
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.tracestate.as_deref(), Some("vendor=1"));
    }

    #[test]
    fn what_the_specification_forbids_is_refused() {
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(bad, None), None, "{bad}");
        }
    }

    #[test]
    fn a_later_version_with_more_fields_is_understood() {
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        assert_eq!(TraceContext::parse(later, None).unwrap().traceparent, PARENT);
    }

    #[test]
    fn a_bad_tracestate_is_dropped_alone() {
        assert_eq!(TraceContext::parse(PARENT, Some("a=\u{7}")).unwrap().tracestate, None);
        assert_eq!(TraceContext::parse(PARENT, Some(&"x".repeat(513))).unwrap().tracestate, None);
    }

    #[test]
    fn sampling_keeps_about_the_asked_share() {
        let kept = (0..10_000).filter(|_| Ids::root(0.25).sampled()).count();
        assert!((2_000..3_000).contains(&kept), "{kept}");
        assert!(Ids::root(1.0).sampled());
        assert!(!Ids::root(0.0).sampled());
    }
}
