//! Section `payment` of the configuration.

use std::time::Duration;

use millrace::breaker;
use millrace::config::{HumanDuration, Invalid};
use millrace::http_client::http_client;
use serde::Deserialize;

use crate::gateway::{Gateway, GatewaySettings};

/// What an operator can set about payments.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub gateway: GatewaySettings,
    /// The gateway's token that pays for orders which name none, such as those of foreign publishers.
    pub default_payment_method: String,
    /// When the gateway is left alone.
    pub breaker: BreakerSettings,
    /// How soon a call that got no answer is made again, at first; doubles with each attempt.
    pub retry_first: HumanDuration,
    /// The longest pause between two attempts, so that a payment moves on soon after its trouble is over.
    pub retry_most: HumanDuration,
    /// How often payments are looked for whose next step is overdue.
    pub sweep_every: HumanDuration,
    /// Most of them taken up in one go.
    pub sweep_batch: u32,
    /// How many of them are at the gateway at the same time: few, because customers who are ordering now come first.
    pub sweep_concurrency: usize,
    /// How long whoever has begun a step may take before the sweep does it again: longer than `gateway.timeout_ms`.
    pub grace: HumanDuration,
    /// How long an authorization without an answer is asked for again: shorter than the gateway remembers idempotency
    /// keys (a day at Stripe), because after that, asking again could put the money on hold twice.
    pub authorize_within: HumanDuration,
}

/// When the breaker in front of the gateway opens and closes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerSettings {
    /// Failures in a row that open it.
    pub failure_threshold: u32,
    /// How long it stays open before a probe.
    pub open_for: HumanDuration,
    /// Probes in a row that must succeed to close it.
    pub success_threshold: u32,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self { failure_threshold: 5, open_for: HumanDuration::from_secs(10), success_threshold: 1 }
    }
}

impl From<&BreakerSettings> for breaker::Settings {
    fn from(settings: &BreakerSettings) -> Self {
        Self {
            failure_threshold: settings.failure_threshold,
            open_for: settings.open_for.get(),
            success_threshold: settings.success_threshold,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            gateway: GatewaySettings::default(),
            default_payment_method: "pm_card_visa".into(),
            breaker: BreakerSettings::default(),
            retry_first: HumanDuration::from_secs(1),
            retry_most: HumanDuration::from_secs(5 * 60),
            sweep_every: HumanDuration::from_millis(500),
            sweep_batch: 100,
            sweep_concurrency: 16,
            grace: HumanDuration::from_secs(60),
            authorize_within: HumanDuration::from_secs(20 * 3_600),
        }
    }
}

impl Settings {
    /// Every value that cannot work, by its full name. `section` is what the settings are called in the configuration:
    /// `payment`.
    pub fn check(&self, section: &str) -> Result<(), Vec<Invalid>> {
        let mut wrong = Vec::new();
        let mut need = |holds: bool, name: &str, value: String, expected: &str| {
            if !holds {
                wrong.push(Invalid::new(format!("{section}.{name}"), value, expected));
            }
        };
        let token = &self.default_payment_method;
        let expected = "a payment method of the gateway, such as \"pm_card_visa\"";
        need(!token.trim().is_empty(), "default_payment_method", token.clone(), expected);
        for (name, duration) in [
            ("breaker.open_for", self.breaker.open_for),
            ("retry_first", self.retry_first),
            ("sweep_every", self.sweep_every),
        ] {
            need(!duration.is_zero(), name, duration.to_string(), "more than zero, such as \"1s\"");
        }
        for (name, number) in [
            ("breaker.failure_threshold", u64::from(self.breaker.failure_threshold)),
            ("breaker.success_threshold", u64::from(self.breaker.success_threshold)),
            ("sweep_batch", u64::from(self.sweep_batch)),
            ("sweep_concurrency", self.sweep_concurrency as u64),
        ] {
            need(number > 0, name, number.to_string(), "a whole number greater than 0");
        }
        let expected = format!("at least retry_first (\"{}\")", self.retry_first);
        need(self.retry_most >= self.retry_first, "retry_most", self.retry_most.to_string(), &expected);
        let call = Duration::from_millis(self.gateway.timeout_ms);
        let expected = format!("more than gateway.timeout_ms ({})", self.gateway.timeout_ms);
        need(self.grace.get() > call, "grace", self.grace.to_string(), &expected);
        let within = self.authorize_within.get();
        let possible = within > self.grace.get() && within < Duration::from_secs(24 * 3_600);
        let expected = "more than grace and less than the gateway remembers idempotency keys, such as \"20h\"";
        need(possible, "authorize_within", self.authorize_within.to_string(), expected);
        // Any client will do: checking connects to nothing. The value may be a secret, so the gateway's own words stand
        // in for it.
        let client = http_client(call, call).ok();
        if let Some(error) = client.and_then(|client| Gateway::new(client, &self.gateway).err()) {
            let expected = format!("another value: it {}", error.problem);
            need(false, &format!("gateway.{}", error.name), "(not shown)".into(), &expected);
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_and_a_wrong_value_is_named() {
        Settings::default().check("payment").unwrap();
        let wrong = Settings {
            default_payment_method: " ".into(),
            sweep_batch: 0,
            gateway: GatewaySettings { url: "stripe.example".into(), ..GatewaySettings::default() },
            grace: HumanDuration::from_secs(5),
            authorize_within: HumanDuration::from_secs(30 * 3_600),
            ..Settings::default()
        };
        let names: Vec<_> = wrong.check("payment").unwrap_err().into_iter().map(|invalid| invalid.setting).collect();
        assert_eq!(
            names,
            [
                "payment.default_payment_method",
                "payment.sweep_batch",
                "payment.grace",
                "payment.authorize_within",
                "payment.gateway.url"
            ]
        );
    }
}
