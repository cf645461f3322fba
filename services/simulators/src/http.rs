//! What the HTTP side of every simulator has in common.

use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::control::{self, ModeSwitch, Verdict};
use crate::hangup::{Hangup, HangupListener};

/// Serves `routes`, the control plane and `/livez` until the token is cancelled.
pub(crate) async fn serve(
    listener: TcpListener,
    routes: Router,
    switch: Arc<ModeSwitch>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let app = routes.merge(control::routes(switch)).route("/livez", get(async || "ok"));
    axum::serve(HangupListener(listener), app.into_make_service_with_connect_info::<Hangup>())
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

/// Answers one request as the mode demands. `None` means that the connection is to be dropped without an answer.
pub(crate) async fn obey<Answer>(
    switch: &ModeSwitch,
    perform: impl Future<Output = Option<Answer>>,
    refuse: impl FnOnce(Option<u16>) -> Answer,
) -> Option<Answer> {
    match switch.judge() {
        Verdict::Proceed => perform.await,
        Verdict::HangUp => None,
        Verdict::Refuse(status) => Some(refuse(status)),
        Verdict::Hold => {
            switch.hold().await;
            None
        }
        Verdict::ProceedThenHangUp => {
            perform.await;
            None
        }
    }
}

/// The answer to send, or an empty one on a connection that will not carry it.
pub(crate) fn deliver(answer: Option<Response>, connection: &Hangup) -> Response {
    answer.unwrap_or_else(|| {
        connection.hang_up();
        Response::new(Body::empty())
    })
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
