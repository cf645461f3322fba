//! The provider's HTTP side.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::message::{Message, Refusal};
use crate::bounded::BoundedLog;
use crate::control::ModeSwitch;
use crate::hangup::Hangup;
use crate::http;

const USUAL_PAGE: usize = 50;

pub(super) async fn run(listener: TcpListener, settings: Settings, shutdown: CancellationToken) -> io::Result<()> {
    let switch = ModeSwitch::new(shutdown.clone());
    let messages = Mutex::new(BoundedLog::new(settings.keep_messages));
    let provider = Arc::new(Provider { messages, switch: Arc::clone(&switch) });
    let routes =
        Router::new().route("/2010-04-01/Accounts/{sid}/Messages.json", post(send).get(list)).with_state(provider);
    http::serve(listener, routes, switch, shutdown).await
}

struct Provider {
    messages: Mutex<BoundedLog<Message>>,
    switch: Arc<ModeSwitch>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
struct Page {
    to: Option<String>,
    page_size: Option<usize>,
}

async fn send(
    State(provider): State<Arc<Provider>>,
    ConnectInfo(connection): ConnectInfo<Hangup>,
    Path(account): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let queue = async { Some(provider.queue(&account, &headers, &body)) };
    let answer = http::obey(&provider.switch, queue, outage).await;
    http::deliver(answer, &connection)
}

async fn list(
    State(provider): State<Arc<Provider>>,
    Path(account): Path<String>,
    headers: HeaderMap,
    Query(page): Query<Page>,
) -> Response {
    if !is_authenticated(&account, &headers) {
        return unauthenticated();
    }
    let size = page.page_size.unwrap_or(USUAL_PAGE);
    let messages = provider.messages();
    let wanted =
        |message: &&Message| message.account_sid == account && page.to.as_ref().is_none_or(|to| *to == message.to);
    let found: Vec<_> = messages.iter().rev().filter(wanted).take(size).cloned().collect();
    Json(json!({ "messages": found, "page": 0, "page_size": size, "dropped": messages.dropped() })).into_response()
}

impl Provider {
    fn queue(&self, account: &str, headers: &HeaderMap, body: &[u8]) -> Response {
        if !is_authenticated(account, headers) {
            return unauthenticated();
        }
        let form: HashMap<_, _> = form_urlencoded::parse(body).into_owned().collect();
        match Message::new(account, form) {
            Err(refusal) => error(StatusCode::BAD_REQUEST, refusal),
            Ok(message) => {
                self.messages().push(message.clone());
                (StatusCode::CREATED, Json(message)).into_response()
            }
        }
    }

    fn messages(&self) -> MutexGuard<'_, BoundedLog<Message>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The user of the basic authentication must be the account in the path; any token that is not empty will do.
fn is_authenticated(account: &str, headers: &HeaderMap) -> bool {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let decoded = header.and_then(|value| STANDARD.decode(value.strip_prefix("Basic ")?).ok());
    let credentials = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    credentials
        .as_deref()
        .and_then(|credentials| credentials.split_once(':'))
        .is_some_and(|(user, token)| user == account && !token.is_empty())
}

fn unauthenticated() -> Response {
    let message = "Authenticate with the account's sid and its token.".to_owned();
    error(StatusCode::UNAUTHORIZED, Refusal { code: 20003, message })
}

fn outage(status: Option<u16>) -> Response {
    let status = status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    error(status, Refusal { code: 20503, message: "The provider is out of order at the moment.".into() })
}

fn error(status: StatusCode, refusal: Refusal) -> Response {
    let body = json!({ "code": refusal.code, "message": refusal.message, "status": status.as_u16() });
    (status, Json(body)).into_response()
}
