//! Export of finished spans over OTLP (HTTP, protobuf). Exists only when an endpoint is configured.
//!
//! The batch processor of the OpenTelemetry SDK has a thread of its own, with a bounded queue: spans are dropped, never
//! waited for, when the collector is slow.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use opentelemetry::trace::{Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor};

use super::TelemetryError;
use super::span_state::{CORRELATION_ID, Fields, Inner, SpanState, Value};

/// A collector that takes longer loses this batch.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) struct Exporter {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter")
    }
}

impl Exporter {
    /// `endpoint` is the collector's base address, as in `OTEL_EXPORTER_OTLP_ENDPOINT`; `/v1/traces` is added.
    pub(super) fn new(endpoint: &str, service_name: &str) -> Result<Self, TelemetryError> {
        let refused = |reason: String| TelemetryError::Otlp { endpoint: crate::config::mask_url(endpoint), reason };
        let uri: http::Uri = endpoint.parse().map_err(|e: http::uri::InvalidUri| refused(e.to_string()))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err(refused("it is not an address that starts with http:// or https://".into()));
        }
        let base = endpoint.trim_end_matches('/');
        let url = if base.ends_with("/v1/traces") { base.to_owned() } else { format!("{base}/v1/traces") };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(CollectorClient::new(endpoint)?)
            .with_endpoint(url)
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(|e| refused(e.to_string()))?;
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        processor.set_resource(&Resource::builder().with_service_name(service_name.to_owned()).build());
        Ok(Self { processor, scope: InstrumentationScope::builder("millrace").build() })
    }

    pub(super) fn finished(&self, state: &SpanState) {
        let mut inner = state.lock();
        if inner.ids.sampled() {
            let data = span_data(state.name, &mut inner, self.scope.clone());
            drop(inner);
            if let Some(data) = data {
                self.processor.on_end(data);
            }
        }
    }

    /// Sends what is queued. Blocks for at most `limit`.
    pub(super) fn shutdown(&self, limit: Duration) {
        let _ = self.processor.shutdown_with_timeout(limit);
    }
}

fn span_data(name: &'static str, inner: &mut Inner, scope: InstrumentationScope) -> Option<SpanData> {
    let recording = inner.recording.take()?;
    let fields = std::mem::take(&mut inner.fields);
    let tracestate = inner.tracestate.as_deref().and_then(|text| text.parse::<TraceState>().ok()).unwrap_or_default();
    let mut events = SpanEvents::default();
    events.events = recording.events.into_iter().map(|(at, fields)| event(at, fields)).collect();
    let failed = recording.failed || fields.text("otel.status_code").is_some_and(|c| c.eq_ignore_ascii_case("error"));
    let kind = match fields.text("otel.kind") {
        Some("server") => SpanKind::Server,
        Some("client") => SpanKind::Client,
        Some("producer") => SpanKind::Producer,
        Some("consumer") => SpanKind::Consumer,
        _ => SpanKind::Internal,
    };
    let shown = fields.text("otel.name").map(str::to_owned);
    let dropped_attributes_count = fields.dropped;
    let mut attributes = attributes(fields);
    if let Some(id) = &inner.correlation_id {
        attributes.retain(|pair| pair.key.as_str() != CORRELATION_ID);
        attributes.push(KeyValue::new(CORRELATION_ID, id.to_string()));
    }
    Some(SpanData {
        span_context: SpanContext::new(
            TraceId::from(inner.ids.trace_id),
            SpanId::from(inner.ids.span_id),
            TraceFlags::SAMPLED,
            false,
            tracestate,
        ),
        parent_span_id: SpanId::from(inner.parent_span_id),
        parent_span_is_remote: inner.parent_is_remote,
        span_kind: kind,
        name: shown.map_or(name.into(), Into::into),
        start_time: recording.started,
        end_time: SystemTime::now(),
        attributes,
        dropped_attributes_count,
        events,
        links: SpanLinks::default(),
        status: if failed { Status::error("") } else { Status::Unset },
        instrumentation_scope: scope,
    })
}

fn event(at: SystemTime, fields: Fields) -> Event {
    let name = fields.text("message").unwrap_or("log").to_owned();
    Event::new(name, at, attributes(fields), 0)
}

fn attributes(fields: Fields) -> Vec<KeyValue> {
    let to_pair = |(name, value): (&'static str, Value)| match value {
        Value::Text(text) => KeyValue::new(name, text),
        Value::Signed(number) => KeyValue::new(name, number),
        Value::Unsigned(number) => match i64::try_from(number) {
            Ok(number) => KeyValue::new(name, number),
            Err(_) => KeyValue::new(name, number.to_string()),
        },
        Value::Float(number) => KeyValue::new(name, number),
        Value::Bool(flag) => KeyValue::new(name, flag),
    };
    fields.list.into_iter().filter(|(name, _)| !name.starts_with("otel.") && *name != "message").map(to_pair).collect()
}

/// Talks to the collector from the batch processor's thread, which is not one of tokio's: hence a small runtime here.
struct CollectorClient {
    client: reqwest::Client,
    runtime: Option<tokio::runtime::Runtime>,
    endpoint: String,
    /// So that an outage of the collector is one line in the log, not one per batch.
    failing: Arc<AtomicBool>,
}

impl CollectorClient {
    fn new(endpoint: &str) -> Result<Self, TelemetryError> {
        let endpoint = crate::config::mask_url(endpoint);
        let refused = |reason: String| TelemetryError::Otlp { endpoint: endpoint.clone(), reason };
        let client =
            crate::http_client::http_client(EXPORT_TIMEOUT, CONNECT_TIMEOUT).map_err(|e| refused(e.to_string()))?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| refused(e.to_string()))?;
        Ok(Self { client, runtime: Some(runtime), endpoint, failing: Arc::default() })
    }

    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let request = self.client.request(parts.method, parts.uri.to_string()).headers(parts.headers).body(body);
        let answer = request.send().await?;
        let mut response = http::Response::builder().status(answer.status());
        if let Some(headers) = response.headers_mut() {
            *headers = answer.headers().clone();
        }
        Ok(response.body(answer.bytes().await?)?)
    }

    fn note(&self, outcome: &Result<http::Response<Bytes>, HttpError>) {
        let problem = match outcome {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("it answered {}", response.status())),
            Err(e) => Some(e.to_string()),
        };
        match problem {
            Some(problem) if !self.failing.swap(true, Ordering::Relaxed) => {
                tracing::warn!(otlp.endpoint = %self.endpoint, %problem, "Traces cannot be exported; spans are being dropped.");
            }
            None if self.failing.swap(false, Ordering::Relaxed) => {
                tracing::info!(otlp.endpoint = %self.endpoint, "Traces are being exported again.");
            }
            _ => {}
        }
    }
}

impl HttpClient for CollectorClient {
    // The trait is made by `async_trait`; this is what it expects, without the dependency.
    fn send_bytes<'life, 'result>(
        &'life self,
        request: http::Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<http::Response<Bytes>, HttpError>> + Send + 'result>>
    where
        'life: 'result,
        Self: 'result,
    {
        Box::pin(async move {
            let runtime = self.runtime.as_ref().ok_or("the exporter was shut down")?;
            let outcome = runtime.block_on(self.send(request));
            self.note(&outcome);
            outcome
        })
    }
}

impl fmt::Debug for CollectorClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CollectorClient({})", self.endpoint)
    }
}

impl Drop for CollectorClient {
    /// A runtime dropped on one of tokio's own threads panics unless it is told not to wait.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
