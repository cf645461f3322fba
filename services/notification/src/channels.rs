//! The ways to a customer, each behind a circuit breaker of its own: a mail server that is down does not hold up text
//! messages, and is not asked a thousand times a second whether it is back.

use std::error::Error;
use std::time::Duration;

use contracts::OrderId;
use contracts::notifications::Channel;
use millrace::backoff::Backoff;
use millrace::breaker::{self, Breaker, CallError};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::domain::{Send, Verdict};
use crate::email::{EmailError, EmailMessage, Mailer};
use crate::model::message_id;
use crate::redact::without_addresses;
use crate::sms::{SmsError, SmsMessage, SmsSender};
use crate::{templates, under_test};

/// Not sooner than this after an attempt that was not even made: the breaker may have been between two probes.
const SHORTEST_POSTPONEMENT: Duration = Duration::from_millis(500);

/// The channels in use.
pub struct Channels {
    pub email: Option<Guarded<Mailer>>,
    pub sms: Option<Guarded<SmsSender>>,
    /// Pauses between attempts at one delivery.
    pub backoff: Backoff,
    /// Right-hand side of a Message-ID.
    pub message_domain: String,
}

/// A provider's client and the breaker in front of it.
pub struct Guarded<Client> {
    pub client: Client,
    pub breaker: Breaker,
    /// Attempts at the same time.
    pub slots: Semaphore,
}

impl Channels {
    /// One for each channel in use.
    pub fn breakers(&self) -> Vec<Breaker> {
        let (email, sms) = (self.email.as_ref(), self.sms.as_ref());
        email.map(|e| e.breaker.clone()).into_iter().chain(sms.map(|s| s.breaker.clone())).collect()
    }

    /// Those worth trying now.
    pub fn open(&self) -> Vec<Channel> {
        let open = |breaker: Option<&Breaker>| breaker.is_some_and(|b| b.state() != breaker::State::Open);
        let mut channels = Vec::with_capacity(2);
        if open(self.email.as_ref().map(|e| &e.breaker)) {
            channels.push(Channel::Email);
        }
        if open(self.sms.as_ref().map(|s| &s.breaker)) {
            channels.push(Channel::Sms);
        }
        channels
    }

    /// Waits until one more attempt may be made over this channel; it may while the permit lives.
    pub async fn slot(&self, channel: Channel) -> Option<SemaphorePermit<'_>> {
        let slots = match channel {
            Channel::Email => &self.email.as_ref()?.slots,
            Channel::Sms => &self.sms.as_ref()?.slots,
        };
        // Fails only on a semaphore that was closed, and nobody closes these.
        slots.acquire().await.ok()
    }

    /// Makes one attempt, unless the provider is known to be away.
    pub async fn send(&self, order_id: OrderId, send: &Send) -> Verdict {
        match send.channel {
            Channel::Email => self.send_email(order_id, send).await,
            Channel::Sms => self.send_sms(order_id, send).await,
        }
    }

    async fn send_email(&self, order_id: OrderId, send: &Send) -> Verdict {
        let Some(Guarded { client, breaker, .. }) = &self.email else { return not_in_use() };
        let (subject, text) = templates::email(order_id, send);
        let message_id = message_id(order_id, send.notice, &self.message_domain);
        let message = EmailMessage { to: send.to.clone(), subject, text, message_id };
        under_test::BEFORE_MAIL_SENT.reach();
        let sent = breaker.try_call(|| client.send(&message), EmailError::is_transient).await;
        if sent.is_ok() {
            under_test::AFTER_MAIL_SENT.reach();
        }
        match sent {
            Ok(()) => Verdict::Sent { provider_id: None },
            Err(failed) => self.failed(order_id, send, failed, EmailError::is_transient, |_| None),
        }
    }

    async fn send_sms(&self, order_id: OrderId, send: &Send) -> Verdict {
        let Some(Guarded { client, breaker, .. }) = &self.sms else { return not_in_use() };
        let message = SmsMessage { to: send.to.clone(), body: templates::sms(order_id, send) };
        let sent = breaker.try_call(|| client.send(&message), SmsError::is_transient).await;
        if sent.is_ok() {
            under_test::AFTER_SMS_SENT.reach();
        }
        match sent {
            Ok(sid) => Verdict::Sent { provider_id: Some(sid) },
            Err(failed) => self.failed(order_id, send, failed, SmsError::is_transient, SmsError::retry_after),
        }
    }

    fn failed<E: Error>(
        &self,
        order_id: OrderId,
        send: &Send,
        failed: CallError<E>,
        is_transient: impl Fn(&E) -> bool,
        retry_after: impl Fn(&E) -> Option<Duration>,
    ) -> Verdict {
        let error = match failed {
            CallError::Open { retry_after, .. } => {
                return Verdict::Postponed { after: retry_after.max(SHORTEST_POSTPONEMENT) };
            }
            CallError::Failed(error) => error,
        };
        let reason = without_addresses(&with_sources(&error));
        let (notice, channel) = (send.notice.as_str(), send.channel.as_str());
        if !is_transient(&error) {
            tracing::warn!(order.id = %order_id, notice, channel, reason, "A notice was refused for good.");
            return Verdict::Refused { reason };
        }
        let attempt = send.attempts.saturating_add(1);
        let after = self.backoff.delay(attempt).max(retry_after(&error).unwrap_or_default());
        let retry_ms = after.as_millis() as u64;
        tracing::warn!(order.id = %order_id, notice, channel, attempt, reason, retry_ms, "A notice could not be sent yet.");
        Verdict::Later { reason, after }
    }
}

/// The channel was in use when the notice became due, under an earlier configuration.
fn not_in_use() -> Verdict {
    Verdict::Refused { reason: "the channel is not in use any more".into() }
}

fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
