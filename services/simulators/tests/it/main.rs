//! The simulators over real sockets, spoken to without the clients of the services.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests may panic")]

mod gateway;
mod mail;

use std::time::Duration;

/// Longer than anything here should take.
const PATIENCE: Duration = Duration::from_secs(10);

fn http() -> reqwest::Client {
    millrace::http_client::http_client(PATIENCE, PATIENCE).unwrap()
}
