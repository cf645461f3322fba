//! What a running process tells about itself: log lines, traces and metrics.
//!
//! - [`init`] sets up logs and traces once per process; keep its [`Guard`] until the end.
//! - [`trace`] carries the trace context across HTTP, the outbox and NATS.
//! - [`metrics`] names every metric and renders them for Prometheus.

pub mod layer;
mod log;
pub mod metrics;
mod otlp;
mod span_state;
pub mod trace;

use std::fs::OpenOptions;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry};

use self::layer::TraceLayer;
use self::log::{LogLayer, Output, Sink};
use self::otlp::Exporter;

/// How long the end of the process may be held up by spans that still have to be sent.
const FLUSH_LIMIT: Duration = Duration::from_secs(3);

/// Section `telemetry` of a configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Lines for people or for machines.
    pub log_format: LogFormat,
    /// What is logged, in the notation of `RUST_LOG`: `info`, or `info,millrace=debug`.
    pub log_filter: String,
    /// Where lines go besides the file.
    pub log_to: LogTarget,
    /// A file that lines are appended to as well. Its folder is made when missing. It is not rotated; `logrotate` with
    /// `copytruncate` works, because lines are appended.
    pub log_file: Option<PathBuf>,
    /// Base address of an OTLP collector that takes HTTP with protobuf, e.g. `http://localhost:4318`.
    pub otlp_endpoint: Option<String>,
    /// The share of new traces that are exported, 0.0 to 1.0. A trace that began elsewhere keeps that side's choice.
    pub otlp_sample_ratio: f64,
    /// `service.name` of exported spans and `service` of log lines outside of a span that names another.
    pub service_name: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Human,
            log_filter: "info,async_nats=off".into(),
            log_to: LogTarget::Stdout,
            log_file: None,
            otlp_endpoint: None,
            otlp_sample_ratio: 1.0,
            service_name: "millrace".into(),
        }
    }
}

/// See [`Settings::log_format`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Human,
    Json,
}

/// See [`Settings::log_to`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogTarget {
    Stdout,
    Stderr,
    /// For commands whose output is a document.
    None,
}

/// Logs or traces could not be set up as asked; the setting is at fault.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("telemetry.log_filter is {filter:?}; expected a filter such as \"info\" or \"info,millrace=debug\"")]
    Filter { filter: String, source: tracing_subscriber::filter::ParseError },
    #[error("telemetry.log_file is {}, which cannot be written: {source}", path.display())]
    LogFile { path: PathBuf, source: io::Error },
    #[error("telemetry.otlp_endpoint is {endpoint}: {reason}; expected an address such as http://localhost:4318")]
    Otlp { endpoint: String, reason: String },
}

/// Keeps the exporter alive. Call [`Guard::shutdown`] at the end, or spans of the last seconds are lost.
#[must_use = "dropping it ends the export of traces"]
#[derive(Debug)]
pub struct Guard {
    exporter: Option<Arc<Exporter>>,
}

impl Guard {
    /// Sends what is still queued, within 3 seconds.
    pub async fn shutdown(mut self) {
        if let Some(exporter) = self.exporter.take() {
            let _ = tokio::task::spawn_blocking(move || exporter.shutdown(FLUSH_LIMIT)).await;
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(exporter) = self.exporter.take() {
            exporter.shutdown(FLUSH_LIMIT);
        }
    }
}

/// Sets up logs and traces for the process, and the metrics recorder. The first call decides; later ones (tests, several
/// services in one process) change nothing and return a guard that does nothing.
pub fn init(settings: &Settings) -> Result<Guard, TelemetryError> {
    static DONE: AtomicBool = AtomicBool::new(false);
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if DONE.load(Ordering::Acquire) {
        return Ok(Guard { exporter: None });
    }
    let (subscriber, exporter) = subscriber(settings)?;
    metrics::install();
    // Somebody else's global subscriber (a test harness) stays.
    let ours = tracing::subscriber::set_global_default(subscriber).is_ok();
    DONE.store(true, Ordering::Release);
    Ok(Guard { exporter: exporter.filter(|_| ours) })
}

/// A span to run a whole service in, so that its log lines carry its name where several share a process. It belongs to no
/// trace: each request and each message inside starts or continues its own.
pub fn service_span(service: &str) -> tracing::Span {
    tracing::info_span!("service", service, trace.label = true)
}

fn subscriber(
    settings: &Settings,
) -> Result<(impl tracing::Subscriber + Send + Sync + use<>, Option<Arc<Exporter>>), TelemetryError> {
    let filter = EnvFilter::try_new(&settings.log_filter)
        .map_err(|source| TelemetryError::Filter { filter: settings.log_filter.clone(), source })?;
    let outputs = outputs(settings)?;
    let exporter = match &settings.otlp_endpoint {
        None => None,
        Some(endpoint) => Some(Arc::new(Exporter::new(endpoint, &settings.service_name)?)),
    };
    let log = LogLayer { service_name: settings.service_name.as_str().into(), outputs };
    let subscriber = Registry::default()
        .with(TraceLayer::filtered(exporter.clone(), settings.otlp_sample_ratio))
        .with(log.with_filter(filter));
    Ok((subscriber, exporter))
}

fn outputs(settings: &Settings) -> Result<Vec<Output>, TelemetryError> {
    let format = settings.log_format;
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut outputs = Vec::new();
    match settings.log_to {
        LogTarget::Stdout => {
            outputs.push(Output { sink: Sink::Stdout, format, ansi: colours && io::stdout().is_terminal() });
        }
        LogTarget::Stderr => {
            outputs.push(Output { sink: Sink::Stderr, format, ansi: colours && io::stderr().is_terminal() });
        }
        LogTarget::None => {}
    }
    if let Some(path) = &settings.log_file {
        let failed = |source| TelemetryError::LogFile { path: path.clone(), source };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        outputs.push(Output { sink: Sink::File(Mutex::new(file)), format, ansi: false });
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests;
