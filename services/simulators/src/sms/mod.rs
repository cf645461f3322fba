//! An SMS provider in the shape of Twilio's Messages API that keeps what it is given and sends nothing.
//!
//! | request | does |
//! | --- | --- |
//! | `POST /2010-04-01/Accounts/{sid}/Messages.json` | queues a message: form `To`, `From`, `Body`; answers 201 |
//! | `GET /2010-04-01/Accounts/{sid}/Messages.json?To=&PageSize=` | lists the account's messages, newest first |
//!
//! Basic authentication is required with the account's sid as the user; any token will do. Twilio's magic numbers work:
//! a message to +15005550001 is refused with 400 and code 21211, see [`MAGIC_NUMBERS`]. Unlike the payment gateway, the
//! provider knows no idempotency keys: a message sent twice is two messages, and the list shows both.

mod message;
mod server;

use std::io;

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use message::MAGIC_NUMBERS;

/// Settings of the SMS sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How many messages are kept; older ones are dropped and counted. One takes at most about 7 KB, ours about 500
    /// bytes.
    pub keep_messages: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { keep_messages: 10_000 }
    }
}

/// Serves the provider on `listener` until the token is cancelled; answers in progress are finished first.
///
/// # Errors
/// When the listener cannot be served.
pub async fn run(listener: TcpListener, settings: Settings, shutdown: CancellationToken) -> io::Result<()> {
    server::run(listener, settings, shutdown).await
}
