//! The order service's HTTP API as the command line uses it.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;

use crate::failure::Failure;

/// A handle to one order API.
#[derive(Clone)]
pub struct ApiClient {
    base: String,
    http: reqwest::Client,
}

/// One answer: its status and body, whatever they are.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub location: Option<String>,
    pub replayed: bool,
    pub body: Value,
}

const TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

impl ApiClient {
    /// `base` is the API's address without a path: `http://127.0.0.1:8080`.
    pub fn new(base: &str) -> Result<Self, Failure> {
        let http =
            millrace::http_client::http_client(TIMEOUT, CONNECT_TIMEOUT).map_err(|e| Failure::new(e.to_string()))?;
        Ok(Self { base: base.trim_end_matches('/').to_owned(), http })
    }

    pub async fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.send(self.request(Method::GET, path)).await
    }

    /// Places an order; the key makes a repeated call the same order.
    pub async fn place(&self, order: &Value, idempotency_key: Option<&str>) -> Result<Answer, Failure> {
        let mut request = self.request(Method::POST, "/orders").json(order);
        if let Some(key) = idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        self.send(request).await
    }

    pub async fn cancel(&self, order_id: &str) -> Result<Answer, Failure> {
        self.send(self.request(Method::POST, &format!("/orders/{order_id}/cancel"))).await
    }

    /// The stream of an order's events, as server-sent events. Has no time limit: it lasts as long as the caller wants.
    pub async fn stream(&self, order_id: &str) -> Result<Response, Failure> {
        let path = format!("/orders/{order_id}/events");
        let request = self.request(Method::GET, &path).timeout(Duration::from_secs(24 * 3600));
        request.send().await.map_err(|e| self.unreachable(&e))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Answer, Failure> {
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        let header = |name| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let (location, replayed) = (header("location"), header("idempotent-replayed").is_some());
        let status = response.status().as_u16();
        let body = response.json().await.unwrap_or(Value::Null);
        Ok(Answer { status, location, replayed, body })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            reason = inner.to_string();
            source = inner.source();
        }
        Failure::new(format!("the order API at {} does not answer: {reason}", self.base))
            .remedy("start it with `millrace up`, or name it with --url")
    }
}

impl Answer {
    /// The body of a success; otherwise the problem in words, with every field that is wrong.
    pub fn success(self) -> Result<Value, Failure> {
        if (200..300).contains(&self.status) {
            return Ok(self.body);
        }
        let text = |name: &str| self.body.get(name).and_then(Value::as_str).map(str::to_owned);
        let mut message =
            text("detail").or_else(|| text("title")).unwrap_or_else(|| format!("HTTP status {}", self.status));
        for error in self.body.get("errors").and_then(Value::as_array).into_iter().flatten() {
            let part = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
            message.push_str(&format!("\n  {}: {}", part("field"), part("message")));
        }
        let mut failure = Failure::new(format!("{} ({})", message, self.status));
        if let Some(code) = text("code") {
            failure = failure.code(code);
        }
        Err(failure)
    }
}
