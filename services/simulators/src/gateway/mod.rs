//! A payment gateway in the shape of Stripe's PaymentIntents API, with a ledger that shows what really happened.
//!
//! | request | does |
//! | --- | --- |
//! | `POST /v1/payment_intents` | authorizes (`capture_method=manual`) or charges; `confirm=true` is required |
//! | `GET /v1/payment_intents/{id}` | reads one; `expand[]=latest_charge` shows what was refunded |
//! | `GET /v1/payment_intents?limit&starting_after` | lists them, newest first; `expand[]=data.latest_charge` |
//! | `GET /v1/payment_intents/search?query=metadata["order_id"]:".."` | finds an order's |
//! | `POST /v1/payment_intents/{id}/capture` | takes the money, or a part of it (`amount_to_capture`) |
//! | `POST /v1/payment_intents/{id}/cancel` | releases the hold |
//! | `POST /v1/refunds` | gives captured money back (`payment_intent`, `amount`) |
//!
//! Bodies are form-encoded and a bearer token `sk_test_...` is required. `Idempotency-Key` means what it means at
//! Stripe: the first answer of an operation that took place is kept and repeated with `Idempotent-Replayed: true`;
//! other parameters are a 400 `idempotency_error`; a second request during the first is a 409. Requests that never
//! started an operation (bad parameters, a conflict, an outage) leave no trace under their key. [`TOKENS`] lists the
//! payment methods.
//!
//! `GET /_control/ledger?order_id=..&requests=n` answers with every request and every intent, see [`ledger`].

mod answer;
mod bank;
mod idempotency;
mod intent;
pub mod ledger;
mod operation;
mod server;
mod tokens;

use std::io;

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use intent::Status;
pub use tokens::{TOKENS, Token};

/// Settings of the payment gateway simulator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How long an authorization with `pm_slow` takes, in milliseconds.
    pub slow_ms: u64,
    /// How many requests the ledger keeps; older ones are dropped and counted. One takes about 500 bytes.
    pub ledger_requests: usize,
    /// How many intents are kept, with the answers stored under their idempotency keys; about 3 KB each. At the limit
    /// the oldest intent that holds no money is dropped and counted in the ledger; when every intent is waiting for a
    /// capture, new ones are refused, because a hold that is forgotten could never be released.
    pub ledger_intents: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { slow_ms: 3_000, ledger_requests: 10_000, ledger_intents: 50_000 }
    }
}

/// Serves the gateway on `listener` until the token is cancelled; answers in progress are finished first.
///
/// # Errors
/// When the listener cannot be served.
pub async fn run(listener: TcpListener, settings: Settings, shutdown: CancellationToken) -> io::Result<()> {
    server::run(listener, settings, shutdown).await
}
