//! Section `notification` of the configuration.

use std::fmt::Display;
use std::time::Duration;

use millrace::backoff::Backoff;
use millrace::config::{HumanDuration, Invalid};
use millrace::http_client::http_client;
use serde::Deserialize;

use crate::domain::Policy;
use crate::drive::Sweep;
use crate::email::{EmailSettings, Mailer};
use crate::sms::{SmsSender, SmsSettings};

/// What an operator can set about notices.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether mails are sent. What becomes due while they are not is skipped, not kept.
    pub email_enabled: bool,
    /// Whether text messages are sent; as for mails.
    pub sms_enabled: bool,
    pub email: EmailSettings,
    pub sms: SmsSettings,
    /// Right-hand side of the Message-ID of mails: a domain of yours.
    pub message_domain: String,
    /// Attempts at the same time, per channel. Providers limit connections from one address.
    pub sends_at_once: usize,
    /// For how long a delivery belongs to the instance that took it up: longer than one attempt can take
    /// (`email.timeout_ms`, `sms.timeout_ms`), or two instances may send the same mail. What a crash interrupted is sent
    /// after this long.
    pub claim: HumanDuration,
    /// Ceiling of the random pause before a delivery is tried again; doubles with each attempt.
    pub retry_first: HumanDuration,
    /// Ceiling of all pauses. A mail server that defers unknown senders ("greylisting") wants some minutes.
    pub retry_most: HumanDuration,
    /// A notice that could not be delivered for this long has failed.
    pub give_up_after: HumanDuration,
    /// How often deliveries are looked up whose time has come again.
    pub sweep_every: HumanDuration,
    /// Deliveries looked up at once, per channel: what has to be sent again after a long outage comes in such portions.
    pub sweep_batch: u32,
    /// Failures in a row after which a provider is left alone for a while.
    pub breaker_failures: u32,
    /// For how long.
    pub breaker_open_for: HumanDuration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            email_enabled: true,
            sms_enabled: true,
            email: EmailSettings::default(),
            sms: SmsSettings::default(),
            message_domain: "millrace.example".into(),
            sends_at_once: 16,
            claim: HumanDuration::from_secs(15),
            retry_first: HumanDuration::from_secs(5),
            retry_most: HumanDuration::from_secs(5 * 60),
            give_up_after: HumanDuration::from_secs(24 * 3600),
            sweep_every: HumanDuration::from_secs(1),
            sweep_batch: 200,
            breaker_failures: 5,
            breaker_open_for: HumanDuration::from_secs(10),
        }
    }
}

impl Settings {
    /// Every setting that cannot be right, by its full name.
    pub fn validate(&self) -> Result<(), Vec<Invalid>> {
        let mut wrong = Vec::new();
        let mut check = |fine: bool, name: &str, value: &dyn Display, expected: String| {
            if !fine {
                wrong.push(Invalid::new(format!("notification.{name}"), value, expected));
            }
        };
        let domain = &self.message_domain;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
        let is_domain = (1..=200).contains(&domain.len()) && domain.bytes().all(allowed);
        check(is_domain, "message_domain", domain, "a domain name such as shop.example".into());
        let least = self.attempt_limit();
        check(self.claim.get() > least, "claim", &self.claim, format!("more than one attempt may take, {least:?}"));
        let positive = "more than 0".to_owned();
        check(!self.retry_first.is_zero(), "retry_first", &self.retry_first, positive.clone());
        let ordered = format!("at least notification.retry_first, {}", self.retry_first);
        check(self.retry_most >= self.retry_first, "retry_most", &self.retry_most, ordered);
        check(!self.give_up_after.is_zero(), "give_up_after", &self.give_up_after, positive.clone());
        check(!self.sweep_every.is_zero(), "sweep_every", &self.sweep_every, positive.clone());
        check(self.sweep_batch > 0, "sweep_batch", &self.sweep_batch, positive.clone());
        let sends = self.sends_at_once;
        check((1..=1_000).contains(&sends), "sends_at_once", &sends, "a number from 1 to 1000".into());
        check(self.breaker_failures > 0, "breaker_failures", &self.breaker_failures, positive.clone());
        check(!self.breaker_open_for.is_zero(), "breaker_open_for", &self.breaker_open_for, positive);
        self.validate_providers(&mut wrong);
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    fn validate_providers(&self, wrong: &mut Vec<Invalid>) {
        // The value itself may hold a password, so the provider's own words stand in for it.
        if let Some(error) = Mailer::new(&self.email).err().filter(|_| self.email_enabled) {
            let expected = format!("another value: it {}", error.problem);
            wrong.push(Invalid::new(format!("notification.email.{}", error.name), "(not shown)", expected));
        }
        // Any client will do: checking connects to nothing.
        let Ok(client) = http_client(self.attempt_limit(), self.attempt_limit()) else { return };
        if let Some(error) = SmsSender::new(client, &self.sms).err().filter(|_| self.sms_enabled) {
            let expected = format!("another value: it {}", error.problem);
            wrong.push(Invalid::new(format!("notification.sms.{}", error.name), "(not shown)", expected));
        }
    }

    pub(crate) fn policy(&self) -> Policy {
        Policy {
            email: self.email_enabled,
            sms: self.sms_enabled,
            claim: self.claim.get(),
            give_up_after: self.give_up_after.get(),
        }
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.retry_first.get(), self.retry_most.get())
    }

    pub(crate) fn sweep(&self) -> Sweep {
        Sweep { every: self.sweep_every.get(), batch: self.sweep_batch, concurrency: self.sends_at_once }
    }

    pub(crate) fn breaker(&self) -> millrace::breaker::Settings {
        millrace::breaker::Settings {
            failure_threshold: self.breaker_failures,
            open_for: self.breaker_open_for.get(),
            success_threshold: 1,
        }
    }

    /// The longest that one attempt can take.
    pub(crate) fn attempt_limit(&self) -> Duration {
        Duration::from_millis(self.email.timeout_ms.max(self.sms.timeout_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(settings: &Settings) -> Vec<String> {
        settings.validate().err().into_iter().flatten().map(|invalid| invalid.setting).collect()
    }

    #[test]
    fn the_defaults_are_right() {
        assert_eq!(wrong(&Settings::default()), [""; 0]);
    }

    #[test]
    fn every_wrong_setting_is_named_at_once() {
        let settings = Settings {
            email: EmailSettings { url: "http://mail".into(), timeout_ms: 30_000, ..EmailSettings::default() },
            sms: SmsSettings { account_sid: String::new(), ..SmsSettings::default() },
            message_domain: "no domain".into(),
            sends_at_once: 0,
            retry_most: HumanDuration::from_secs(1),
            ..Settings::default()
        };
        let names = ["message_domain", "sends_at_once", "claim", "retry_most", "email.url", "sms.account_sid"];
        let mut found = wrong(&settings);
        found.sort_unstable();
        let mut expected: Vec<String> = names.iter().map(|name| format!("notification.{name}")).collect();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_channel_that_is_not_in_use_needs_no_settings() {
        let sms = SmsSettings { account_sid: String::new(), ..SmsSettings::default() };
        assert_eq!(wrong(&Settings { sms_enabled: false, sms, ..Settings::default() }), [""; 0]);
    }
}
