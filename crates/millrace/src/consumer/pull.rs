//! Pull requests with exact credit: as many messages are asked for as there are free slots, never more.
//!
//! The client library's own message stream prefetches; here a request is open for each free slot and nothing else, a
//! paused consumer asks for nothing. What was asked under one inbox is void once that inbox is given up: after missed
//! heartbeats or a reconnection a new inbox is used, and the broker drops what nobody listens for any more.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use tokio::time::Instant;

use crate::connection::Connection;

/// A request that is not filled ends after this time and is made anew.
const EXPIRES: Duration = Duration::from_secs(5);
/// While a request is open the broker sends a sign of life this often.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Without one for this long what was asked is void.
const SILENCE: Duration = Duration::from_millis(2_500);
/// How long messages that are on their way already are waited for before the inbox is given up: one that finds nobody
/// comes back only after ack-wait.
const LINGER: Duration = Duration::from_millis(100);
/// Longest time for the broker to hear that nobody listens any more.
const FAREWELL: Duration = Duration::from_millis(500);

/// What a message on the reply subject means.
pub(super) enum Reply {
    Delivered(Message),
    /// A heartbeat or the end of a request.
    Status,
    /// The broker does not serve the request now.
    Refused(String),
    /// The consumer or its stream is not there.
    Missing(String),
}

/// The open pull requests of one consumer.
pub(super) struct Pulls {
    connection: Connection,
    subject: String,
    inbox: String,
    replies: Subscriber,
    /// Messages that were asked for, have not come and can still come. Only the sum is known: a delivered message bears
    /// the subject it was stored under, and nothing that tells which request it answers.
    outstanding: usize,
    /// What the latest requests asked for. One that is filled ends without a word, so old ones are forgotten by age.
    asked: VecDeque<Asked>,
    next: u64,
    last_sign: Instant,
}

struct Asked {
    request: u64,
    count: usize,
    at: Instant,
}

/// On the last word about a request: how many of its messages will not come.
const PENDING_MESSAGES: &str = "Nats-Pending-Messages";

impl Pulls {
    pub(super) async fn start(
        connection: Connection,
        stream: &str,
        durable: &str,
    ) -> Result<Self, async_nats::SubscribeError> {
        let inbox = connection.client().new_inbox();
        let replies = connection.client().subscribe(format!("{inbox}.*")).await?;
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}");
        let (asked, last_sign) = (VecDeque::new(), Instant::now());
        Ok(Self { connection, subject, inbox, replies, outstanding: 0, asked, next: 0, last_sign })
    }

    /// Messages that were asked for and have not come.
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Asks for `count` messages.
    pub(super) async fn request(&mut self, count: usize) {
        let body = format!(
            r#"{{"batch":{count},"expires":{},"idle_heartbeat":{}}}"#,
            EXPIRES.as_nanos(),
            HEARTBEAT.as_nanos()
        );
        self.next += 1;
        let now = Instant::now();
        if self.outstanding == 0 {
            self.last_sign = now;
        }
        while self.asked.front().is_some_and(|oldest| now - oldest.at > 2 * EXPIRES) {
            self.asked.pop_front();
        }
        let reply = format!("{}.{}", self.inbox, self.next);
        // A request that does not leave is voided by the silence that follows.
        let _ = self.connection.client().publish_with_reply(self.subject.clone(), reply, Bytes::from(body)).await;
        self.asked.push_back(Asked { request: self.next, count, at: now });
        self.outstanding += count;
    }

    /// The next message or sign. `None` when the subscription ended.
    pub(super) async fn next(&mut self) -> Option<Reply> {
        use futures::StreamExt;
        let message = self.replies.next().await?;
        self.last_sign = Instant::now();
        let Some(status) = message.status else {
            self.outstanding = self.outstanding.saturating_sub(1);
            return Some(Reply::Delivered(message));
        };
        if status == StatusCode::IDLE_HEARTBEAT {
            return Some(Reply::Status);
        }
        self.ended(&message);
        if status == StatusCode::TIMEOUT || status == StatusCode::NOT_FOUND {
            return Some(Reply::Status);
        }
        let description = message.description.as_deref().unwrap_or_default().to_owned();
        // 503: nobody serves the consumer's subject. 409 covers many ends; only this one needs somebody to act.
        if status == StatusCode::NO_RESPONDERS || description.contains("Consumer Deleted") {
            return Some(Reply::Missing(format!("{status} {description}")));
        }
        Some(Reply::Refused(format!("{status} {description}")))
    }

    /// When what was asked for can no longer be expected, unless there is a sign before.
    pub(super) fn silent_at(&self) -> Option<Instant> {
        (self.outstanding > 0).then(|| self.last_sign + SILENCE)
    }

    /// Asks for nothing more, tells the broker that nobody listens, and returns what came until then.
    pub(super) async fn stop(mut self) -> Vec<Message> {
        use futures::StreamExt;
        let mut late = Vec::new();
        let linger = async {
            while self.outstanding() > 0
                && let Some(reply) = self.next().await
            {
                if let Reply::Delivered(message) = reply {
                    late.push(message);
                }
            }
        };
        let _ = tokio::time::timeout(LINGER, linger).await;
        let farewell = async {
            let _ = self.replies.drain().await;
            while let Some(message) = self.replies.next().await {
                if message.status.is_none() {
                    late.push(message);
                }
            }
        };
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
        late
    }

    /// Takes what is left of a request off the sum. Without a word about that it was refused as a whole.
    fn ended(&mut self, last_word: &Message) {
        let request = last_word.subject.rsplit('.').next().and_then(|number| number.parse::<u64>().ok());
        let place = self.asked.iter().position(|asked| Some(asked.request) == request);
        let asked = place.and_then(|place| self.asked.remove(place)).map_or(0, |asked| asked.count);
        let said = last_word.headers.as_ref().and_then(|headers| headers.get(PENDING_MESSAGES));
        let left = said.and_then(|count| count.as_str().parse::<usize>().ok()).unwrap_or(asked);
        self.outstanding = self.outstanding.saturating_sub(left);
    }
}
