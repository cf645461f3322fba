//! The least that a 202 can mean: an HTTP handler that awaits one acknowledgement of JetStream. No database, no checks.

use std::net::SocketAddr;
use std::process::ExitCode;

use async_nats::jetstream::{self, Context};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use tokio::net::TcpListener;

use crate::failure::{CommandResult, Failure};

/// Belongs to the stream of orders, and no consumer reads it.
const SUBJECT: &str = "orders.limit";

/// Serves until it is asked to stop.
pub async fn serve(listen: SocketAddr, nats_url: &str) -> CommandResult {
    let failed = |e: &dyn std::fmt::Display| Failure::new(format!("the limit of accept: {e}"));
    let servers: Vec<&str> = nats_url.split(',').collect();
    let client = async_nats::ConnectOptions::new().name("bench-limit").connect(servers).await;
    let context = jetstream::new(client.map_err(|e| failed(&e))?);
    let listener = TcpListener::bind(listen).await.map_err(|e| failed(&e))?;
    let shutdown = millrace::shutdown::on_signal().map_err(|e| failed(&e))?;
    let routes = Router::new().route("/orders", post(accept)).with_state(context);
    let serving = axum::serve(listener, routes).with_graceful_shutdown(shutdown.cancelled_owned());
    serving.await.map_err(|e| failed(&e))?;
    Ok(ExitCode::SUCCESS)
}

async fn accept(State(context): State<Context>, body: Bytes) -> (StatusCode, Bytes) {
    let stored = async { context.publish(SUBJECT, body.clone()).await?.await };
    match stored.await {
        Ok(_) => (StatusCode::ACCEPTED, body),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, Bytes::new()),
    }
}
