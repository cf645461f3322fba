//! The operations endpoint: `/livez`, `/readyz`, `/health` and `/metrics`, on a port of its own that is not exposed to
//! customers.

use std::io;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::health::{Health, Status};
use crate::shutdown::drain;
use crate::telemetry::metrics;

/// Scrapers keep their connections; they must not hold up the end of the process.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Serves until `shutdown`. Give it a token that ends after the work has drained, so that the probes are answered until
/// then.
pub async fn serve(listener: TcpListener, health: Health, shutdown: CancellationToken) -> io::Result<()> {
    metrics::install();
    let server = axum::serve(listener, router(health)).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let serving = async { tokio::join!(async move { server.await }, metrics::upkeep(shutdown.clone())).0 };
    drain(&shutdown, CLOSE_LIMIT, serving).await.unwrap_or(Ok(()))
}

/// The routes alone, to be mounted elsewhere or tested.
pub fn router(health: Health) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/health", get(full))
        .route("/metrics", get(scrape))
        .with_state(health)
}

async fn livez(State(health): State<Health>) -> Response {
    if health.alive() {
        (StatusCode::OK, "alive\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "dead\n").into_response()
    }
}

/// The body names what is not ready, for whoever looks with `curl`.
async fn readyz(State(health): State<Health>) -> Response {
    let readiness = health.readiness();
    if readiness.ready {
        return (StatusCode::OK, "ready\n").into_response();
    }
    let waiting = readiness
        .components
        .iter()
        .filter(|(_, condition)| condition.status > Status::Degraded)
        .filter_map(|(name, condition)| condition.reason.as_ref().map(|reason| format!("{name}: {reason}\n")));
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{}", waiting.collect::<String>())).into_response()
}

async fn full(State(health): State<Health>) -> Response {
    let readiness = health.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({
        "ready": readiness.ready,
        "alive": readiness.alive,
        "version": env!("CARGO_PKG_VERSION"),
        "components": readiness.components,
    });
    (status, Json(body)).into_response()
}

async fn scrape() -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(base: &str, path: &str) -> (u16, String, String) {
        let client = crate::http_client::http_client(Duration::from_secs(5), Duration::from_secs(5)).unwrap();
        let answer = client.get(format!("{base}{path}")).send().await.unwrap();
        let content_type = answer.headers()["content-type"].to_str().unwrap().to_owned();
        (answer.status().as_u16(), content_type, answer.text().await.unwrap())
    }

    #[tokio::test]
    async fn probes_follow_the_components_and_the_server_ends_on_request() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (health, shutdown) = (Health::new(), CancellationToken::new());
        let nats = health.component("nats");
        let server = tokio::spawn(serve(listener, health.clone(), shutdown.clone()));

        assert_eq!(ask(&base, "/livez").await.0, 200);
        let (status, _, body) = ask(&base, "/readyz").await;
        assert_eq!((status, body.as_str()), (503, "not ready\nnats: it is starting\n"));
        nats.ready();
        assert_eq!(ask(&base, "/readyz").await.0, 200);
        let (status, content_type, body) = ask(&base, "/health").await;
        assert_eq!((status, content_type.as_str()), (200, "application/json"));
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["components"]["nats"]["status"], "ready");
        assert!(body["components"]["nats"]["since"].is_string());
        nats.dead("it ended");
        assert_eq!(ask(&base, "/livez").await.0, 503);
        let (status, content_type, _) = ask(&base, "/metrics").await;
        assert_eq!((status, content_type.as_str()), (200, metrics::CONTENT_TYPE));

        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(5), server).await.unwrap().unwrap().unwrap();
    }
}
