//! Requests to the JetStream API as plain JSON.
//!
//! The client's typed configurations would drop fields that a newer server has and this client does not know; as JSON
//! they survive an update. Each request ends: with an answer, with a denial, or with a time-out.

use std::time::Duration;

use async_nats::jetstream::context::RequestErrorKind;
use serde_json::{Map, Value, json};

use super::TopologyError;
use crate::connection::{Connection, Denied};

const API: &str = "$JS.API";

const STREAM_NOT_FOUND: u64 = 10_059;
const CONSUMER_NOT_FOUND: u64 = 10_014;
const STREAM_NAME_EXISTS: u64 = 10_058;
const CONSUMER_NAME_EXISTS: u64 = 10_013;
const CONSUMER_ALREADY_EXISTS: u64 = 10_148;

/// Beyond the client's own time-out, for the moment when its queue of commands is full and it has not even begun.
const GRACE: Duration = Duration::from_millis(500);

pub(super) struct Api<'a> {
    connection: &'a Connection,
}

/// What came of a write.
pub(super) enum Written {
    Done,
    /// Somebody else wrote first.
    Raced,
}

impl<'a> Api<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        Self { connection }
    }

    /// The stream's configuration; `None` when there is no such stream.
    pub(super) async fn stream(&self, name: &str) -> Result<Option<Map<String, Value>>, TopologyError> {
        match self.call(&format!("STREAM.INFO.{name}"), &json!({})).await {
            Ok(info) => Ok(config_of(&info)),
            Err(error) if code(&error) == Some(STREAM_NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The consumer's whole information; `None` when there is no such consumer or no such stream.
    pub(super) async fn consumer(&self, stream: &str, durable: &str) -> Result<Option<Value>, TopologyError> {
        match self.call(&format!("CONSUMER.INFO.{stream}.{durable}"), &json!({})).await {
            Ok(info) => Ok(Some(info)),
            Err(error) if matches!(code(&error), Some(STREAM_NOT_FOUND | CONSUMER_NOT_FOUND)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A stream that keeps messages on some subject which `subject` matches.
    pub(super) async fn stream_with(&self, subject: &str) -> Result<Option<String>, TopologyError> {
        let page = self.call("STREAM.NAMES", &json!({"subject": subject})).await?;
        Ok(page["streams"][0].as_str().map(ToOwned::to_owned))
    }

    pub(super) async fn write_stream(
        &self,
        config: &Map<String, Value>,
        exists: bool,
    ) -> Result<Written, TopologyError> {
        let verb = if exists { "UPDATE" } else { "CREATE" };
        let name = config.get("name").and_then(Value::as_str).unwrap_or_default();
        written(self.call(&format!("STREAM.{verb}.{name}"), config).await, exists)
    }

    pub(super) async fn write_consumer(
        &self,
        stream: &str,
        config: &Map<String, Value>,
        exists: bool,
    ) -> Result<Written, TopologyError> {
        let text = |key| config.get(key).and_then(Value::as_str).unwrap_or_default();
        let filter = match text("filter_subject") {
            "" => String::new(),
            filter => format!(".{filter}"),
        };
        let request = format!("CONSUMER.CREATE.{stream}.{}{filter}", text("durable_name"));
        let action = if exists { "update" } else { "create" };
        let body = json!({"stream_name": stream, "config": config, "action": action});
        match written(self.call(&request, &body).await, exists) {
            Err(error) if code(&error) == Some(STREAM_NOT_FOUND) => Err(TopologyError::StreamMissing { request }),
            other => other,
        }
    }

    /// The first sequence of a stream that was stored at `time` (RFC 3339) or later, and one past its last if there is
    /// none: where a consumer would begin that was made to begin then.
    pub(super) async fn sequence_at(&self, stream: &str, time: &str) -> Result<u64, TopologyError> {
        let name = format!("sequence-at-{:016x}", fastrand::u64(..));
        let config = json!({
            "name": name, "ack_policy": "none", "deliver_policy": "by_start_time", "opt_start_time": time,
            "mem_storage": true, "num_replicas": 1, "inactive_threshold": 10_000_000_000_i64,
        });
        let body = json!({"stream_name": stream, "config": config, "action": "create"});
        let made = self.call(&format!("CONSUMER.CREATE.{stream}.{name}"), &body).await?;
        // One that stays behind goes by itself.
        let _ = self.call(&format!("CONSUMER.DELETE.{stream}.{name}"), &json!({})).await;
        Ok(made["delivered"]["stream_seq"].as_u64().unwrap_or_default() + 1)
    }

    /// Makes `seq` the next sequence a consumer is given, and forgets what it was given before. Its configuration stays.
    /// Returns the consumer's whole information.
    pub(super) async fn reset_consumer(&self, stream: &str, durable: &str, seq: u64) -> Result<Value, TopologyError> {
        self.call(&format!("CONSUMER.RESET.{stream}.{durable}"), &json!({"seq": seq})).await
    }

    async fn call<T: serde::Serialize + ?Sized>(&self, request: &str, body: &T) -> Result<Value, TopologyError> {
        let denial = self.connection.denial(&format!("{API}.{request}"));
        let jetstream = self.connection.jetstream();
        let patience = self.connection.request_timeout() + GRACE;
        let answer = tokio::select! {
            answer = tokio::time::timeout(patience, jetstream.request::<_, _, Value>(request.to_owned(), body)) => answer,
            Denied { operation, subject } = denial => {
                return Err(TopologyError::Denied { operation: operation.to_string(), subject });
            }
        };
        let request = request.to_owned();
        let answer = match answer {
            Err(_) => return Err(TopologyError::Unanswered { request }),
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                return Err(match error.kind() {
                    RequestErrorKind::TimedOut => TopologyError::Unanswered { request },
                    RequestErrorKind::NoResponders => TopologyError::NoJetStream { request },
                    RequestErrorKind::InvalidSubject | RequestErrorKind::Other => {
                        TopologyError::Refused { request, code: 0, description: error.to_string() }
                    }
                });
            }
        };
        match answer.get("error") {
            None => Ok(answer),
            Some(error) => Err(TopologyError::Refused {
                request,
                code: error["err_code"].as_u64().unwrap_or_default(),
                description: error["description"].as_str().unwrap_or("no reason given").to_owned(),
            }),
        }
    }
}

fn written(answer: Result<Value, TopologyError>, exists: bool) -> Result<Written, TopologyError> {
    match answer {
        Ok(_) => Ok(Written::Done),
        Err(error) => match (code(&error), exists) {
            (Some(STREAM_NAME_EXISTS | CONSUMER_NAME_EXISTS | CONSUMER_ALREADY_EXISTS), false)
            | (Some(STREAM_NOT_FOUND | CONSUMER_NOT_FOUND), true) => Ok(Written::Raced),
            _ => Err(error),
        },
    }
}

fn code(error: &TopologyError) -> Option<u64> {
    match error {
        TopologyError::Refused { code, .. } => Some(*code),
        _ => None,
    }
}

fn config_of(info: &Value) -> Option<Map<String, Value>> {
    info["config"].as_object().cloned()
}
