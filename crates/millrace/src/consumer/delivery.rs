//! What happens to one delivered message: decode, handle, acknowledge, delay or bury.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, AckKind};
use futures::future::FutureExt;
use time::OffsetDateTime;
use tracing::{Instrument, debug, error, info_span, warn};

use super::router::RawMessage;
use super::runner::ConsumerSettings;
use super::{Failure, Router};
use crate::connection::Connection;
use crate::dead_letter::{self, DeadLetter, Reason};

/// What the workers of one consumer share.
pub(super) struct Shared {
    pub(super) connection: Connection,
    pub(super) stream: String,
    pub(super) router: Router,
    pub(super) settings: ConsumerSettings,
}

/// What the broker says about a delivery.
struct Facts {
    stream_seq: u64,
    delivered: u32,
    stored_at: OffsetDateTime,
}

impl Shared {
    /// Sees a message through to its acknowledgement, negative acknowledgement or dead letter.
    pub(super) async fn see_through(self: Arc<Self>, message: jetstream::Message) {
        let facts = match message.info() {
            Ok(info) => Facts {
                stream_seq: info.stream_sequence,
                delivered: u32::try_from(info.delivered.max(1)).unwrap_or(u32::MAX),
                stored_at: info.published,
            },
            Err(reason) => {
                error!(consumer = self.router.durable(), reason = %reason, "a delivery without JetStream facts cannot be acknowledged and is left alone");
                return;
            }
        };
        let durable = self.router.durable().to_owned();
        if facts.delivered > 1 {
            metrics::counter!("millrace_redeliveries_total", "consumer" => durable.clone()).increment(1);
        }
        let started = Instant::now();
        let outcome = self.still_working(&message, self.handle(&message, &facts)).await;
        metrics::histogram!("millrace_handler_duration_seconds", "consumer" => durable.clone())
            .record(started.elapsed().as_secs_f64());
        let label = match outcome {
            Outcome::Done => {
                if let Err(reason) = message.ack().await {
                    debug!(reason = %reason, "an acknowledgement did not leave, the inbox will recognise the redelivery");
                }
                "done"
            }
            Outcome::Failed(Failure::Transient(reason)) if facts.delivered < self.settings.max_attempts => {
                self.delay(&message, &facts, &reason).await;
                "retried"
            }
            Outcome::Failed(Failure::Transient(reason)) => {
                self.still_working(&message, self.bury(&message, &facts, Reason::AttemptsExhausted, reason)).await;
                "dead_lettered"
            }
            Outcome::Failed(Failure::Permanent(reason)) => {
                self.still_working(&message, self.bury(&message, &facts, Reason::Permanent, reason)).await;
                "dead_lettered"
            }
            Outcome::Undecodable(reason) => {
                metrics::counter!("millrace_decode_errors_total", "consumer" => durable.clone()).increment(1);
                self.still_working(&message, self.bury(&message, &facts, Reason::Undecodable, reason)).await;
                "dead_lettered"
            }
        };
        metrics::counter!("millrace_handled_total", "consumer" => durable, "outcome" => label).increment(1);
    }

    async fn handle(&self, message: &jetstream::Message, facts: &Facts) -> Outcome {
        let raw = RawMessage {
            subject: &message.subject,
            headers: message.headers.as_ref(),
            body: &message.payload,
            stream: &self.stream,
            stream_seq: facts.stream_seq,
            stored_at: facts.stored_at,
        };
        let call = match self.router.decode(&raw) {
            Ok(call) => call,
            Err(reason) => return Outcome::Undecodable(reason.to_string()),
        };
        let span = info_span!("handle", consumer = self.router.durable(), event.r#type = call.meta.event_type,
            event.id = %call.meta.id, order = call.meta.key, correlation_id = call.meta.correlation_id, attempt = facts.delivered);
        if let Some(trace) = &call.meta.trace {
            crate::telemetry::trace::continue_from(&span, trace);
        }
        let happened_at = call.meta.time;
        let handled = AssertUnwindSafe(call.handling).catch_unwind().instrument(span.clone()).await;
        match handled {
            Ok(Ok(())) => {
                let age = (OffsetDateTime::now_utc() - happened_at).as_seconds_f64().max(0.0);
                metrics::histogram!("millrace_event_to_handled_seconds", "consumer" => self.router.durable().to_owned()).record(age);
                span.in_scope(|| debug!("handled"));
                Outcome::Done
            }
            Ok(Err(failure)) => {
                span.in_scope(|| warn!(reason = %failure, "the handler could not finish"));
                Outcome::Failed(failure)
            }
            Err(_) => {
                span.in_scope(|| error!("the handler panicked"));
                Outcome::Failed(Failure::transient("the handler panicked"))
            }
        }
    }

    /// Tells the broker at intervals that `work` goes on, so that it does not deliver the message elsewhere.
    async fn still_working<T>(&self, message: &jetstream::Message, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        let every = self.settings.ack_wait / 3;
        loop {
            match tokio::time::timeout(every, &mut work).await {
                Ok(done) => return done,
                Err(_) => {
                    let _ = message.ack_with(AckKind::Progress).await;
                }
            }
        }
    }

    async fn delay(&self, message: &jetstream::Message, facts: &Facts, reason: &str) {
        let delay = self.settings.retry_delay(facts.delivered);
        metrics::counter!("millrace_retries_total", "consumer" => self.router.durable().to_owned()).increment(1);
        warn!(consumer = self.router.durable(), stream_seq = facts.stream_seq, attempt = facts.delivered,
            max_attempts = self.settings.max_attempts, retry_ms = delay.as_millis() as u64, reason, "the message comes back later");
        if let Err(error) = message.ack_with(AckKind::Nak(Some(delay))).await {
            debug!(error = %error, "the delay did not leave, the message comes back after ack-wait");
        }
    }

    /// Copies the message to the dead letters until the broker has it, and only then ends the original.
    async fn bury(&self, message: &jetstream::Message, facts: &Facts, reason: Reason, error: String) {
        let letter = DeadLetter {
            stream: self.stream.clone(),
            stream_seq: facts.stream_seq,
            subject: message.subject.to_string(),
            consumer: self.router.durable().to_owned(),
            reason,
            errors: vec![error.clone()],
            attempts: facts.delivered,
            published_at: facts.stored_at,
            dead_at: OffsetDateTime::now_utc(),
            headers: dead_letter::header_pairs(message.headers.as_ref()),
        };
        dead_letter::publish_until_confirmed(&self.connection, &letter, message.payload.clone()).await;
        metrics::counter!("millrace_dead_letters_total", "consumer" => self.router.durable().to_owned(), "reason" => reason.as_str()).increment(1);
        error!(consumer = self.router.durable(), subject = letter.subject, stream_seq = facts.stream_seq, attempts = facts.delivered,
            reason = reason.as_str(), error, "the message is a dead letter now");
        if let Some(reply) = &message.reply {
            // `AckKind::Term` carries no reason; the broker shows the text behind +TERM in its advisory.
            let end = format!("+TERM dead letter: {}", reason.as_str());
            let _ = self.connection.client().publish(reply.clone(), end.into()).await;
        }
    }
}

enum Outcome {
    Done,
    Failed(Failure),
    Undecodable(String),
}

impl ConsumerSettings {
    /// Exponential with full jitter, never under a tenth of a second: an immediate retry burns an attempt for nothing.
    fn retry_delay(&self, attempt: u32) -> Duration {
        let ceiling = self.retry_first.saturating_mul(1 << attempt.saturating_sub(1).min(20)).min(self.retry_most);
        ceiling.mul_f64(fastrand::f64()).max(Duration::from_millis(100))
    }
}
