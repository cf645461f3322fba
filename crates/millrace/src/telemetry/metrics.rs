//! Every metric of the toolkit: its name, what it means, its unit, and the text Prometheus scrapes.
//!
//! Counters and gauges appear once they were first set.

use std::sync::OnceLock;
use std::time::Duration;

use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

/// Events confirmed by the broker. Labels `service`, `subject`.
pub const PUBLISHED: &str = "millrace_published_total";
/// Messages a handler finished with. Labels `consumer`, `outcome`.
pub const HANDLED: &str = "millrace_handled_total";
/// Messages that could not be decoded. Label `consumer`.
pub const DECODE_ERRORS: &str = "millrace_decode_errors_total";
/// Messages handed back to be tried again. Label `consumer`.
pub const RETRIES: &str = "millrace_retries_total";
/// Messages given up. Labels `consumer`, `reason`.
pub const DEAD_LETTERS: &str = "millrace_dead_letters_total";
/// Messages given up that were no longer in their stream, so that nothing is kept of them. Label `consumer`.
pub const DEAD_LETTERS_MISSING: &str = "millrace_dead_letters_missing_total";
/// Deliveries that were not the first of their message. Label `consumer`.
pub const REDELIVERIES: &str = "millrace_redeliveries_total";
/// Messages in the stream that the consumer has not been given yet. Label `consumer`.
pub const CONSUMER_LAG: &str = "millrace_consumer_lag_messages";
/// Seconds from an event's time to the end of its handling. Label `consumer`.
pub const EVENT_TO_HANDLED: &str = "millrace_event_to_handled_seconds";
/// Seconds one run of a handler took. Label `consumer`.
pub const HANDLER_DURATION: &str = "millrace_handler_duration_seconds";
/// Outbox rows that are not yet confirmed. Label `service`.
pub const OUTBOX_DEPTH: &str = "millrace_outbox_depth_rows";
/// Age in seconds of the oldest unconfirmed outbox row, 0 when there is none. Label `service`.
pub const OUTBOX_OLDEST_AGE: &str = "millrace_outbox_oldest_age_seconds";
/// 0 closed, 1 half-open, 2 open. Label `breaker`.
pub const BREAKER_STATE: &str = "millrace_breaker_state";
/// Requests answered. Labels `service`, `method`, `route`, `status`.
pub const HTTP_REQUESTS: &str = "millrace_http_requests_total";
/// Seconds to the head of the answer. Labels `service`, `method`, `route`.
pub const HTTP_DURATION: &str = "millrace_http_request_duration_seconds";
/// 1 while connected, 0 while not. Label `service`.
pub const NATS_CONNECTED: &str = "millrace_nats_connected";

/// Content type of [`render`]: the text format of Prometheus.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Bounds in seconds for what should take milliseconds.
const SHORT: &[f64] = &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Bounds in seconds for what spans retries and outages.
const LONG: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0];

/// Histograms keep raw samples until they are drained; scrapes do that, and this does it where nobody scrapes.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// The process's recorder, installed on the first call. When another recorder is already installed, ours stays empty.
pub fn install() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let recorder = builder().build_recorder();
            let handle = recorder.handle();
            if ::metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("Another metrics recorder is installed in this process; /metrics will stay empty.");
            }
            describe();
            handle
        })
        .clone()
}

/// All metrics in the text format of Prometheus, see [`CONTENT_TYPE`].
pub fn render() -> String {
    install().render()
}

/// Keeps histograms small until `shutdown`. [`crate::ops::serve`] runs it.
pub async fn upkeep(shutdown: CancellationToken) {
    let handle = install();
    while shutdown.run_until_cancelled(tokio::time::sleep(UPKEEP_EVERY)).await.is_some() {
        handle.run_upkeep();
    }
}

fn builder() -> PrometheusBuilder {
    let buckets = [(EVENT_TO_HANDLED, LONG), (HANDLER_DURATION, SHORT), (HTTP_DURATION, SHORT)];
    buckets.into_iter().fold(PrometheusBuilder::new(), |builder, (name, bounds)| {
        match builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), bounds) {
            Ok(builder) => builder,
            // It refuses empty bounds only, and ours are constants.
            Err(_) => PrometheusBuilder::new(),
        }
    })
}

fn describe() {
    describe_counter!(PUBLISHED, Unit::Count, "Events the broker has confirmed.");
    describe_counter!(HANDLED, Unit::Count, "Messages a handler has finished with, by outcome.");
    describe_counter!(DECODE_ERRORS, Unit::Count, "Messages that could not be decoded.");
    describe_counter!(RETRIES, Unit::Count, "Messages handed back to be tried again later.");
    describe_counter!(DEAD_LETTERS, Unit::Count, "Messages given up and kept as dead letters, by reason.");
    describe_counter!(DEAD_LETTERS_MISSING, Unit::Count, "Messages given up that were gone from their stream already.");
    describe_counter!(REDELIVERIES, Unit::Count, "Deliveries that were not the first of their message.");
    describe_gauge!(CONSUMER_LAG, Unit::Count, "Messages the consumer has not been given yet.");
    describe_histogram!(EVENT_TO_HANDLED, Unit::Seconds, "Time from an event to the end of its handling.");
    describe_histogram!(HANDLER_DURATION, Unit::Seconds, "Duration of one run of a handler.");
    describe_gauge!(OUTBOX_DEPTH, Unit::Count, "Outbox rows the broker has not confirmed yet.");
    describe_gauge!(OUTBOX_OLDEST_AGE, Unit::Seconds, "Age of the oldest unconfirmed outbox row.");
    describe_gauge!(BREAKER_STATE, "State of a circuit breaker: 0 closed, 1 half-open, 2 open.");
    describe_counter!(HTTP_REQUESTS, Unit::Count, "HTTP requests answered, by route and status.");
    describe_histogram!(HTTP_DURATION, Unit::Seconds, "Time from an HTTP request to the head of its answer.");
    describe_gauge!(NATS_CONNECTED, "1 while the service is connected to NATS, else 0.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_metric_is_rendered_with_its_description_and_buckets() {
        install();
        install();
        ::metrics::counter!(PUBLISHED, "service" => "metrics-test", "subject" => "a.b").increment(3);
        ::metrics::histogram!(HTTP_DURATION, "service" => "metrics-test").record(0.003);
        let text = render();
        assert!(text.contains("# HELP millrace_published_total Events the broker has confirmed."), "{text}");
        assert!(text.contains("millrace_published_total{service=\"metrics-test\",subject=\"a.b\"} 3"), "{text}");
        assert!(text.contains("# TYPE millrace_http_request_duration_seconds histogram"), "{text}");
        assert!(
            text.contains("millrace_http_request_duration_seconds_bucket{service=\"metrics-test\",le=\"0.005\"} 1"),
            "{text}"
        );
    }
}
