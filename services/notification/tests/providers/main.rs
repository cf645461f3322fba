//! The mail and SMS clients against the sinks of the simulators, over real sockets.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod email;
mod sms;

use std::time::Duration;

use serde_json::Value;

/// Talks to the HTTP side of a simulator.
struct View {
    url: String,
    client: reqwest::Client,
}

impl View {
    fn of(listener: &tokio::net::TcpListener) -> Self {
        let client = millrace::http_client::http_client(Duration::from_secs(10), Duration::from_secs(10)).unwrap();
        Self { url: format!("http://{}", listener.local_addr().unwrap()), client }
    }

    async fn get(&self, path: &str) -> Value {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap().json().await.unwrap()
    }

    async fn set_mode(&self, mode: Value) {
        let answer = self.client.put(format!("{}/_control/mode", self.url)).json(&mode).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }
}
