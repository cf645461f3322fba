use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tracing::info_span;

use super::trace::{TraceContext, continue_from};
use super::*;

const REMOTE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Reads one HTTP request with a body and answers 200.
async fn one_request(listener: TcpListener) -> (String, Vec<u8>) {
    let (mut connection, _) = listener.accept().await.unwrap();
    let mut seen = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let read = connection.read(&mut buffer).await.unwrap();
        seen.extend_from_slice(&buffer[..read]);
        let Some(end) = seen.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&seen[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).unwrap().parse::<usize>().unwrap();
        if seen.len() >= end + 4 + length {
            connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            return (head, seen.split_off(end + 4));
        }
    }
}

#[tokio::test]
async fn a_configured_collector_gets_the_span_with_the_remote_trace_id() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let collector = tokio::spawn(one_request(listener));
    let settings = Settings {
        otlp_endpoint: Some(endpoint),
        log_to: LogTarget::None,
        service_name: "otlp-test".into(),
        ..Settings::default()
    };
    let (subscriber, exporter) = subscriber(&settings).unwrap();
    tracing::subscriber::with_default(subscriber, || {
        let span = info_span!("authorize", order.id = "o-77", correlation_id = "c-77");
        continue_from(&span, &TraceContext::parse(REMOTE, None).unwrap());
        span.in_scope(|| tracing::warn!("The gateway was slow."));
    });
    Guard { exporter }.shutdown().await;
    let (head, body) = tokio::time::timeout(Duration::from_secs(10), collector).await.unwrap().unwrap();
    assert!(head.starts_with("post /v1/traces "), "{head}");
    assert!(head.contains("content-type: application/x-protobuf"), "{head}");
    let holds = |bytes: &[u8]| body.windows(bytes.len()).any(|w| w == bytes);
    assert!(holds(&0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes()));
    assert!(holds(&0x00f0_67aa_0ba9_02b7_u64.to_be_bytes()), "the parent span id");
    for text in ["otlp-test", "authorize", "o-77", "c-77", "The gateway was slow."] {
        assert!(holds(text.as_bytes()), "{text}");
    }
}

#[test]
fn wrong_settings_are_named_with_what_would_be_right() {
    let error = |settings: Settings| subscriber(&settings).map(|_| ()).unwrap_err().to_string();
    let filter = error(Settings { log_filter: "info,=,=".into(), ..Settings::default() });
    assert!(filter.contains("\"info,=,=\"") && filter.contains("info,millrace=debug"), "{filter}");
    let otlp = error(Settings { otlp_endpoint: Some("collector:4318".into()), ..Settings::default() });
    assert!(otlp.contains("collector:4318") && otlp.contains("http://localhost:4318"), "{otlp}");
    let file = error(Settings { log_file: Some("/proc/none/x.log".into()), ..Settings::default() });
    assert!(file.contains("/proc/none/x.log"), "{file}");
}

#[test]
fn lines_are_appended_to_the_log_file_whose_folder_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/service.log");
    let settings = Settings {
        log_to: LogTarget::None,
        log_file: Some(path.clone()),
        log_format: LogFormat::Json,
        ..Settings::default()
    };
    for _ in 0..2 {
        let (subscriber, _) = subscriber(&settings).unwrap();
        tracing::subscriber::with_default(subscriber, || tracing::info!("The service started."));
    }
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn init_may_be_called_again() {
    let settings = Settings { log_to: LogTarget::None, ..Settings::default() };
    drop(init(&settings).unwrap());
    drop(init(&settings).unwrap());
}

/// A bound, not a benchmark: 20,000 spans a second must be a small part of one core even in a debug build.
#[test]
fn spans_without_an_exporter_are_cheap() {
    let (subscriber, _) = subscriber(&Settings { log_to: LogTarget::None, ..Settings::default() }).unwrap();
    tracing::subscriber::with_default(subscriber, || {
        let started = std::time::Instant::now();
        for i in 0..20_000_u64 {
            let span = info_span!("handle", order.id = i, correlation_id = "0190d6a0-0000-7000-8000-000000000000");
            let _entered = span.entered();
            std::hint::black_box(TraceContext::current());
        }
        let took = started.elapsed();
        assert!(took < Duration::from_secs(1), "20,000 spans took {took:?}");
    });
}
