//! What happens to one delivered message: decode, handle, acknowledge, delay or bury.

use std::any::Any;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, AckKind};
use futures::future::FutureExt;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;
use tracing::{Instrument as _, Span, debug, error, info, info_span, warn};

use super::first_failures::FirstFailures;
use super::meters::Meters;
use super::router::{Call, Handling, RawMessage};
use super::runner::ConsumerSettings;
use super::{Failure, Restore, Router};
use crate::connection::Connection;
use crate::dead_letter::{self, DeadLetter, Death, Graveyard, Original, Reason};
use crate::dead_letters::audit::{self, Ending};
use crate::dead_letters::replays::{self, ReplayOf};
use crate::event::DecodeError;
use crate::store::Keeper;
use crate::telemetry::metrics::{DECODE_ERRORS, HANDLED, REDELIVERIES, RETRIES};
use crate::{crash, sabotage};

/// What the workers of one consumer share.
pub(super) struct Shared {
    pub(super) connection: Connection,
    pub(super) stream: String,
    pub(super) router: Router,
    pub(super) settings: ConsumerSettings,
    pub(super) first_failures: FirstFailures,
    pub(super) meters: Meters,
    /// Where dead letters are kept besides the broker.
    pub(super) keeper: Option<Keeper>,
    pub(super) restore: Restore,
    /// The span of the service. Entered only where there is something to log: it costs more than it tells.
    pub(super) around: Span,
}

/// What the broker says about a delivery.
struct Facts {
    stream_seq: u64,
    delivered: u32,
    stored_at: OffsetDateTime,
}

/// Longest time to hand an answer to the client, which takes nothing while it is disconnected for long. An answer that
/// does not leave means that the message is delivered once more, and the inbox recognises it.
const HANDOVER: Duration = Duration::from_secs(5);
/// How long a dead letter that cannot be stored may hold up the end of the service. The message itself stays at the
/// broker, which delivers it again.
const LAST_TRIES: Duration = Duration::from_secs(2);

impl Shared {
    /// How often the broker is told that a message is in good hands.
    pub(super) fn progress_every(&self) -> Duration {
        (self.settings.ack_wait / 3).max(Duration::from_millis(10))
    }

    pub(super) async fn answer(&self, message: &jetstream::Message, answer: AckKind) {
        let left = tokio::time::timeout(HANDOVER, message.ack_with(answer)).await;
        if !matches!(left, Ok(Ok(()))) {
            debug!(
                consumer = self.router.durable(),
                "an answer did not leave, the broker will deliver the message again"
            );
        }
    }

    /// Sees a message through to its acknowledgement, negative acknowledgement or dead letter.
    pub(super) async fn see_through(self: Arc<Self>, message: jetstream::Message, stop: CancellationToken) {
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
        let durable = self.router.durable();
        let original = replays::original(durable, &message.subject);
        if original.is_none() {
            // A consumer made before there were replays may have no filter yet that keeps them away.
            return self.answer(&message, AckKind::Ack).await;
        }
        // A replay has its end told of below.
        if original == Some(&*message.subject) && self.router.passes_over(message.headers.as_ref()) {
            self.answer(&message, AckKind::Ack).await;
            return self.meters.done.increment(1);
        }
        if facts.delivered > 1 {
            metrics::counter!(REDELIVERIES, "consumer" => durable.to_owned()).increment(1);
        }
        if sabotage::ACK_BEFORE_COMMIT.is_on() {
            // Sabotage: whatever comes of it, the broker will not deliver it again.
            self.answer(&message, AckKind::Ack).await;
            let _ = self.connection.client().flush().await;
        }
        crash::BEFORE_EFFECT.reach();
        let started = Instant::now();
        let outcome = self.still_working(&message, self.handle(&message, &facts)).await;
        self.meters.handler_seconds.record(started.elapsed().as_secs_f64());
        let Outcome::Failed(unfinished) = outcome else {
            self.first_failures.forget((facts.stream_seq, facts.stored_at));
            if let Some(replay) = ReplayOf::read(&message.subject, message.headers.as_ref()) {
                crash::BEFORE_REPLAY_AUDIT.reach();
                let told = Box::pin(audit::ended(&self.connection, durable, &replay, Ending::Handled));
                self.still_working(&message, told).await;
            }
            crash::AFTER_EFFECT_BEFORE_ACK.reach();
            self.answer(&message, AckKind::Ack).await;
            return self.meters.done.increment(1);
        };
        // Apart, because it is rare and large: every message under way takes the room of all that may come.
        Box::pin(self.come_to_terms(&message, &facts, unfinished, &stop)).await;
    }

    /// Delays what can be tried again, buries what cannot.
    async fn come_to_terms(
        &self,
        message: &jetstream::Message,
        facts: &Facts,
        unfinished: Unfinished,
        stop: &CancellationToken,
    ) {
        let known_as = (facts.stream_seq, facts.stored_at);
        let now = OffsetDateTime::now_utc();
        let first_failed_at = self.first_failures.failed(known_as, now);
        let (reason, errors) = match unfinished {
            Unfinished::Failed(Failure::Transient(causes)) if facts.delivered < self.settings.max_attempts => {
                self.delay(message, facts, &causes.to_string()).await;
                return self.count("retried");
            }
            Unfinished::Failed(Failure::Transient(causes)) => (Reason::AttemptsExhausted, causes.into_vec()),
            Unfinished::Failed(Failure::Permanent(causes)) => (Reason::Permanent, causes.into_vec()),
            Unfinished::OtherRelease(reason) if facts.delivered < self.settings.max_attempts => {
                self.delay(message, facts, &reason).await;
                return self.count("retried");
            }
            Unfinished::Undecodable(reason) | Unfinished::OtherRelease(reason) => {
                metrics::counter!(DECODE_ERRORS, "consumer" => self.router.durable().to_owned()).increment(1);
                (Reason::Undecodable, vec![reason])
            }
        };
        self.first_failures.forget(known_as);
        let death = Death {
            reason,
            errors,
            attempts: facts.delivered,
            first_failed_at: Some(first_failed_at),
            last_failed_at: now,
        };
        tokio::select! {
            () = self.still_working(message, self.bury(message, facts, death)) => self.count("dead_lettered"),
            () = async { stop.cancelled().await; tokio::time::sleep(LAST_TRIES).await } => {
                info!(consumer = self.router.durable(), stream_seq = facts.stream_seq, "a message that has to become a dead letter stays at the broker, because the service is stopping");
            }
        }
    }

    fn count(&self, outcome: &'static str) {
        metrics::counter!(HANDLED, "consumer" => self.router.durable().to_owned(), "outcome" => outcome).increment(1);
    }

    async fn handle(&self, message: &jetstream::Message, facts: &Facts) -> Outcome {
        let Begun { span, happened_at, handling } = match self.begin(message, facts) {
            Ok(begun) => begun,
            Err(unfinished) => return Outcome::Failed(unfinished),
        };
        let mut handling = AssertUnwindSafe(handling).catch_unwind();
        // Not `instrument`, which enters the span once more to drop what has ended.
        let handled = poll_fn(|context| span.in_scope(|| handling.poll_unpin(context))).await;
        match handled {
            Ok(Ok(())) => {
                let age = (OffsetDateTime::now_utc() - happened_at).as_seconds_f64().max(0.0);
                self.meters.event_to_handled_seconds.record(age);
                // Whether anybody listens to spans like this one is asked inside of it.
                if LevelFilter::current() >= tracing::Level::DEBUG {
                    span.in_scope(|| debug!("handled"));
                }
                Outcome::Done
            }
            Ok(Err(failure)) => {
                span.in_scope(|| warn!(reason = %failure, "the handler could not finish"));
                Outcome::Failed(Unfinished::Failed(failure))
            }
            Err(panic) => {
                span.in_scope(|| error!("the handler panicked"));
                let failure = Failure::transient(text_of(&*panic)).while_doing("the handler panicked");
                Outcome::Failed(Unfinished::Failed(failure))
            }
        }
    }

    fn begin(&self, message: &jetstream::Message, facts: &Facts) -> Result<Begun, Unfinished> {
        let raw = RawMessage {
            subject: &message.subject,
            headers: message.headers.as_ref(),
            body: &message.payload,
            stream: &self.stream,
            stream_seq: facts.stream_seq,
            stored_at: facts.stored_at,
        };
        let Call { meta, handling } = match std::panic::catch_unwind(AssertUnwindSafe(|| self.router.decode(&raw))) {
            Ok(Ok(call)) => call,
            Ok(Err(reason @ DecodeError::UnknownVersion { .. })) => {
                return Err(Unfinished::OtherRelease(reason.to_string()));
            }
            Ok(Err(reason)) => return Err(Unfinished::Undecodable(reason.to_string())),
            Err(panic) => {
                error!(consumer = self.router.durable(), stream_seq = facts.stream_seq, "decoding panicked");
                let failure = Failure::transient(text_of(&*panic)).while_doing("decoding panicked");
                return Err(Unfinished::Failed(failure));
            }
        };
        let span = info_span!(
            parent: &self.around,
            "handle",
            consumer = self.router.durable(),
            event.r#type = meta.event_type,
            event.id = meta.id.as_str(),
            order = meta.key,
            correlation_id = meta.correlation_id,
            attempt = facts.delivered
        );
        if let Some(trace) = &meta.trace {
            crate::telemetry::trace::continue_from(&span, trace);
        }
        Ok(Begun { span, happened_at: meta.time, handling })
    }

    /// Tells the broker at intervals that `work` goes on, so that it does not deliver the message elsewhere.
    async fn still_working<T>(&self, message: &jetstream::Message, work: impl Future<Output = T>) -> T {
        let progress = async {
            loop {
                tokio::time::sleep(self.progress_every()).await;
                Box::pin(self.answer(message, AckKind::Progress)).await;
            }
        };
        // Side by side: a client that takes no answer, because it is disconnected, must not hold up the work.
        tokio::select! {
            biased;
            done = work => done,
            () = progress => unreachable!("progress is told until the work is done"),
        }
    }

    async fn delay(&self, message: &jetstream::Message, facts: &Facts, reason: &str) {
        let delay = self.settings.retry_delay(facts.delivered);
        metrics::counter!(RETRIES, "consumer" => self.router.durable().to_owned()).increment(1);
        self.around.in_scope(|| {
            warn!(
                consumer = self.router.durable(),
                stream_seq = facts.stream_seq,
                attempt = facts.delivered,
                max_attempts = self.settings.max_attempts,
                retry_ms = delay.as_millis() as u64,
                reason,
                "the message comes back later"
            );
        });
        self.answer(message, AckKind::Nak(Some(delay))).await;
    }

    /// Copies the message to the dead letters until broker and outbox have it, and only then ends the original.
    async fn bury(&self, message: &jetstream::Message, facts: &Facts, death: Death) {
        let original = Original {
            stream: &self.stream,
            stream_seq: facts.stream_seq,
            subject: &message.subject,
            headers: message.headers.as_ref(),
            published_at: facts.stored_at,
        };
        let letter = DeadLetter::new(self.router.durable(), &original, death);
        let graveyard =
            Graveyard { connection: &self.connection, keeper: self.keeper.as_ref(), restore: &self.restore };
        dead_letter::bury(&graveyard, &letter, message.payload.clone()).instrument(self.around.clone()).await;
        crash::AFTER_DEAD_LETTER_KEPT.reach();
        if let Some(reply) = &message.reply {
            // `AckKind::Term` carries no reason; the broker shows the text behind +TERM in its advisory.
            let end = format!("+TERM dead letter: {}", letter.reason.as_str());
            let ended = self.connection.client().publish(reply.clone(), end.into());
            let _ = tokio::time::timeout(HANDOVER, ended).await;
        }
    }
}

/// What a panic said.
fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it did not say why")
}

/// A message that was understood, ready to be handled.
struct Begun {
    span: Span,
    happened_at: OffsetDateTime,
    handling: Handling,
}

enum Outcome {
    Done,
    Failed(Unfinished),
}

enum Unfinished {
    Failed(Failure),
    Undecodable(String),
    /// During a rolling upgrade an instance of the other release can read it, so it is given back a few times.
    OtherRelease(String),
}

impl ConsumerSettings {
    /// Exponential with full jitter, never under a tenth of a second: an immediate retry burns an attempt for nothing.
    fn retry_delay(&self, attempt: u32) -> Duration {
        let ceiling = self.retry_first.saturating_mul(1 << attempt.saturating_sub(1).min(20)).min(self.retry_most);
        ceiling.mul_f64(fastrand::f64()).max(Duration::from_millis(100))
    }
}
