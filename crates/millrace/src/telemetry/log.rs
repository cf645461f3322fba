//! Log lines: one per event, human or JSON, each with the trace id, the correlation id and the fields of the spans around
//! it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};

use time::OffsetDateTime;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::LogFormat;
use super::span_state::{CORRELATION_ID, Fields, LABEL, SpanState, Value};
use super::trace;

/// Where lines go.
#[derive(Debug)]
pub(super) enum Sink {
    Stdout,
    Stderr,
    File(Mutex<File>),
    #[cfg(test)]
    Memory(Arc<Mutex<Vec<u8>>>),
}

impl Sink {
    /// A log that cannot be written must not stop the service, so failures are swallowed.
    fn write(&self, line: &str) {
        let bytes = line.as_bytes();
        let _ = match self {
            Self::Stdout => io::stdout().lock().write_all(bytes),
            Self::Stderr => io::stderr().lock().write_all(bytes),
            Self::File(file) => file.lock().unwrap_or_else(PoisonError::into_inner).write_all(bytes),
            #[cfg(test)]
            Self::Memory(buffer) => buffer.lock().unwrap_or_else(PoisonError::into_inner).write_all(bytes),
        };
    }
}

/// One stream of lines.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) sink: Sink,
    pub(super) format: LogFormat,
    /// Colours, for a terminal.
    pub(super) ansi: bool,
}

#[derive(Debug)]
pub(super) struct LogLayer {
    pub(super) service_name: Arc<str>,
    pub(super) outputs: Vec<Output>,
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let line = Line::of(event, &self.service_name);
        for output in &self.outputs {
            let text = match output.format {
                LogFormat::Json => line.json(),
                LogFormat::Human => line.human(output.ansi),
            };
            output.sink.write(&text);
        }
    }
}

struct Line {
    time: String,
    level: Level,
    target: &'static str,
    message: String,
    service: String,
    trace: Option<(String, String)>,
    correlation_id: Option<Arc<str>>,
    /// Of the spans, outermost first, then of the event; an inner value hides an outer one of the same name.
    fields: Fields,
}

impl Line {
    fn of(event: &Event<'_>, service_name: &str) -> Self {
        let mut line = Self {
            time: timestamp(OffsetDateTime::now_utc()),
            level: *event.metadata().level(),
            target: event.metadata().target(),
            message: String::new(),
            service: service_name.to_owned(),
            trace: None,
            correlation_id: None,
            fields: Fields::default(),
        };
        trace::with_current(|state| line.take_span(state));
        let mut of_event = Fields::default();
        event.record(&mut of_event);
        line.take_fields(of_event);
        line
    }

    fn take_span(&mut self, state: &Arc<SpanState>) {
        let mut chain = vec![Arc::clone(state)];
        while let Some(parent) = chain.last().and_then(|last| last.parent.clone()) {
            chain.push(parent);
        }
        for span in chain.iter().rev() {
            let fields = span.lock().fields.clone();
            self.take_fields(fields);
        }
        let inner = state.lock();
        self.trace =
            (!state.label).then(|| (format!("{:032x}", inner.ids.trace_id), format!("{:016x}", inner.ids.span_id)));
        self.correlation_id = inner.correlation_id.clone();
    }

    fn take_fields(&mut self, fields: Fields) {
        for (name, value) in fields.list {
            match (name, value) {
                ("message", Value::Text(text)) => self.message = text,
                ("service", Value::Text(text)) => self.service = text,
                (CORRELATION_ID, Value::Text(text)) => self.correlation_id = Some(text.into()),
                (name, _) if name.starts_with("otel.") || name == LABEL => {}
                (name, value) => self.fields.set(name, value),
            }
        }
    }

    fn json(&self) -> String {
        let mut line = String::with_capacity(256);
        line.push_str("{\"time\":\"");
        line.push_str(&self.time);
        let _ = write!(line, "\",\"level\":\"{}\"", level_name(self.level));
        json_text(&mut line, "service", &self.service);
        json_text(&mut line, "target", self.target);
        json_text(&mut line, "message", &self.message);
        if let Some((trace_id, span_id)) = &self.trace {
            json_text(&mut line, "trace_id", trace_id);
            json_text(&mut line, "span_id", span_id);
        }
        if let Some(id) = &self.correlation_id {
            json_text(&mut line, CORRELATION_ID, id);
        }
        for (name, value) in &self.fields.list {
            // A field must not pass for one of the line's own.
            let own = matches!(*name, "time" | "level" | "target" | "trace_id" | "span_id");
            let name = if own { format!("field.{name}") } else { (*name).to_owned() };
            match value {
                Value::Text(text) => json_text(&mut line, &name, text),
                Value::Signed(number) => json_raw(&mut line, &name, number),
                Value::Unsigned(number) => json_raw(&mut line, &name, number),
                Value::Float(number) if number.is_finite() => json_raw(&mut line, &name, number),
                Value::Float(number) => json_text(&mut line, &name, &number.to_string()),
                Value::Bool(flag) => json_raw(&mut line, &name, flag),
            }
        }
        line.push_str("}\n");
        line
    }

    fn human(&self, ansi: bool) -> String {
        let (dim, colour, reset) = if ansi { ("\x1b[2m", colour(self.level), "\x1b[0m") } else { ("", "", "") };
        let mut line = String::with_capacity(256);
        let level = level_name(self.level).to_ascii_uppercase();
        let _ = write!(line, "{dim}{}{reset} {colour}{level:>5}{reset} {dim}{}:{reset} ", self.time, self.service);
        one_line(&mut line, &self.message);
        for (name, value) in &self.fields.list {
            human_field(&mut line, (dim, reset), name, value);
        }
        if let Some(id) = &self.correlation_id {
            human_field(&mut line, (dim, reset), CORRELATION_ID, &Value::Text(id.to_string()));
        }
        if let Some((trace_id, _)) = &self.trace {
            human_field(&mut line, (dim, reset), "trace_id", &Value::Text(trace_id.clone()));
        }
        line.push('\n');
        line
    }
}

fn json_text(line: &mut String, name: &str, text: &str) {
    let (name, text) = (serde_json::Value::from(name), serde_json::Value::from(text));
    let _ = write!(line, ",{name}:{text}");
}

fn json_raw(line: &mut String, name: &str, value: impl std::fmt::Display) {
    let name = serde_json::Value::from(name);
    let _ = write!(line, ",{name}:{value}");
}

fn human_field(line: &mut String, (dim, reset): (&str, &str), name: &str, value: &Value) {
    let _ = write!(line, " {dim}{name}={reset}");
    let _ = match value {
        Value::Text(text) if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c == '"') => {
            write!(line, "{text:?}")
        }
        Value::Text(text) => {
            one_line(line, text);
            Ok(())
        }
        Value::Signed(number) => write!(line, "{number}"),
        Value::Unsigned(number) => write!(line, "{number}"),
        Value::Float(number) => write!(line, "{number}"),
        Value::Bool(flag) => write!(line, "{flag}"),
    };
}

/// Text from outside must not be able to start a line of its own or to drive the terminal.
fn one_line(line: &mut String, text: &str) {
    for character in text.chars() {
        if character.is_control() { line.extend(character.escape_default()) } else { line.push(character) }
    }
}

fn timestamp(at: OffsetDateTime) -> String {
    let (date, hour, minute, second) = (at.date(), at.hour(), at.minute(), at.second());
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", at.millisecond())
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

#[cfg(test)]
mod tests {
    use tracing::{info, info_span, warn};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::super::layer::trace_layer;
    use super::*;

    fn lines(format: LogFormat, body: impl FnOnce()) -> String {
        let buffer = Arc::new(Mutex::new(Vec::new()));
        let output = Output { sink: Sink::Memory(Arc::clone(&buffer)), format, ansi: false };
        let log = LogLayer { service_name: "payment".into(), outputs: vec![output] };
        tracing::subscriber::with_default(tracing_subscriber::Registry::default().with(trace_layer()).with(log), body);
        let bytes = buffer.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_json_line_inside_a_span_carries_ids_and_fields() {
        let text = lines(LogFormat::Json, || {
            let outer = info_span!("handle", correlation_id = "c-1", order.id = "o-1", attempt = 1).entered();
            let _inner = info_span!("authorize", attempt = 2).entered();
            warn!(amount.minor = 1250, ok = false, level = "odd", "The card was \"declined\".");
            drop(outer);
        });
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "warn");
        assert_eq!(line["service"], "payment");
        assert_eq!(line["message"], "The card was \"declined\".");
        assert_eq!(line["correlation_id"], "c-1");
        assert_eq!(line["order.id"], "o-1");
        assert_eq!(line["attempt"], 2);
        assert_eq!(line["amount.minor"], 1250);
        assert_eq!(line["ok"], false);
        assert_eq!(line["field.level"], "odd");
        assert_eq!(line["trace_id"].as_str().unwrap().len(), 32);
        assert_eq!(line["span_id"].as_str().unwrap().len(), 16);
        assert!(line["time"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn a_human_line_is_one_line_whatever_the_text_holds() {
        let text = lines(LogFormat::Human, || {
            let _span = info_span!("handle", correlation_id = "c-1", service = "inventory").entered();
            info!(detail = "two\nlines", plain = "word", "Stock was held.\nINFO forged");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.contains("INFO inventory: Stock was held.\\nINFO forged detail=\"two\\nlines\" plain=word"),
            "{text}"
        );
        assert!(text.contains(" correlation_id=c-1 trace_id="), "{text}");
    }

    #[test]
    fn a_service_span_names_the_service_of_lines_inside() {
        let text = lines(LogFormat::Json, || {
            let _service = crate::telemetry::service_span("inventory").entered();
            info!("The service started.");
        });
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["service"], "inventory");
        assert!(line.get("trace_id").is_none() && line.get("trace.label").is_none(), "{text}");
    }

    #[test]
    fn a_line_outside_of_spans_has_no_ids() {
        let text = lines(LogFormat::Json, || info!("The service started."));
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(line.get("trace_id").is_none());
        assert!(line.get("correlation_id").is_none());
    }

    #[test]
    fn an_error_is_logged_with_its_causes() {
        let text = lines(LogFormat::Human, || {
            let cause = io::Error::other("no route to host");
            let error = crate::telemetry::TelemetryError::LogFile { path: "/x".into(), source: cause };
            warn!(error = &error as &(dyn std::error::Error + 'static), "Failed.");
        });
        assert!(text.contains("/x") && text.contains(": no route to host"), "{text}");
    }
}
