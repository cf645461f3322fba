use millrace::config::{ByteSize, HumanDuration, Invalid};
use serde::{Deserialize, Serialize};

/// Section `order` of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How long an order may be processing before it is cancelled: longer than any outage it should survive, shorter
    /// than a card authorization lasts.
    pub deadline: HumanDuration,
    /// How often overdue orders are looked for.
    pub deadline_poll: HumanDuration,
    /// Most orders cancelled in one go, so that a backlog after an outage does not hold up new orders.
    pub deadline_batch: u32,
    /// Most items in an order: bounds what one reservation locks.
    pub max_items: usize,
    /// Most of one product in an order: a typing mistake should not empty the stock.
    pub max_quantity: u32,
    /// Largest total in minor units: card gateways take at most eight digits.
    pub max_total_minor: i64,
    /// How long an `Idempotency-Key` is remembered: longer than any client keeps trying.
    pub idempotency_key_lifetime: HumanDuration,
    /// How often keys past their lifetime are removed.
    pub idempotency_key_prune: HumanDuration,
    /// Largest request body: an order of `max_items` fits several times.
    pub max_body: ByteSize,
    /// How long a request body may take to arrive: what a slow sender can occupy.
    pub body_timeout: HumanDuration,
    /// How long a request waits for its commit before it is answered with 503.
    pub submit_patience: HumanDuration,
    /// Most requests at work at once; beyond it they are answered with 503 at once instead of all becoming slow.
    pub max_in_flight: usize,
    /// Most live streams at once; each polls the database.
    pub max_streams: usize,
    /// How often a live stream looks for events that another instance handled.
    pub stream_poll: HumanDuration,
    /// How often a silent live stream sends a comment, so that proxies keep it open.
    pub stream_heartbeat: HumanDuration,
    /// Orders on a page of the list unless the request says otherwise.
    pub page_default: u32,
    /// Most orders on a page of the list.
    pub page_max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            deadline: HumanDuration::from_secs(15 * 60),
            deadline_poll: HumanDuration::from_secs(1),
            deadline_batch: 200,
            max_items: 100,
            max_quantity: 10_000,
            max_total_minor: 99_999_999,
            idempotency_key_lifetime: HumanDuration::from_secs(24 * 60 * 60),
            idempotency_key_prune: HumanDuration::from_secs(10 * 60),
            max_body: ByteSize::new(64 * 1024),
            body_timeout: HumanDuration::from_secs(10),
            submit_patience: HumanDuration::from_secs(5),
            max_in_flight: 1_024,
            max_streams: 256,
            stream_poll: HumanDuration::from_secs(1),
            stream_heartbeat: HumanDuration::from_secs(15),
            page_default: 20,
            page_max: 100,
        }
    }
}

impl Settings {
    /// Every value that cannot work. `section` is what the settings are called in the configuration: `order`.
    pub fn check(&self, section: &str) -> Result<(), Vec<Invalid>> {
        let mut wrong = Vec::new();
        let mut need = |holds: bool, name: &str, value: String, expected: &str| {
            if !holds {
                wrong.push(Invalid::new(format!("{section}.{name}"), value, expected));
            }
        };
        for (name, duration) in [
            ("deadline", self.deadline),
            ("deadline_poll", self.deadline_poll),
            ("idempotency_key_lifetime", self.idempotency_key_lifetime),
            ("idempotency_key_prune", self.idempotency_key_prune),
            ("body_timeout", self.body_timeout),
            ("submit_patience", self.submit_patience),
            ("stream_poll", self.stream_poll),
            ("stream_heartbeat", self.stream_heartbeat),
        ] {
            need(!duration.is_zero(), name, duration.to_string(), "more than zero, such as \"1s\"");
        }
        for (name, number) in [
            ("deadline_batch", u64::from(self.deadline_batch)),
            ("max_items", self.max_items as u64),
            ("max_quantity", u64::from(self.max_quantity)),
            ("max_in_flight", self.max_in_flight as u64),
            ("max_streams", self.max_streams as u64),
            ("page_default", u64::from(self.page_default)),
        ] {
            need(number > 0, name, number.to_string(), "a whole number greater than 0");
        }
        let most = contracts::money::MAX_MINOR;
        let expected = format!("a whole number from 1 to {most}");
        need(
            (1..=most).contains(&self.max_total_minor),
            "max_total_minor",
            self.max_total_minor.to_string(),
            &expected,
        );
        need(self.max_body.get() >= 1024, "max_body", self.max_body.to_string(), "at least \"1KiB\"");
        let expected = format!("a whole number from page_default ({}) to 1000", self.page_default);
        need((self.page_default..=1_000).contains(&self.page_max), "page_max", self.page_max.to_string(), &expected);
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_and_a_wrong_value_is_named() {
        Settings::default().check("order").unwrap();
        let wrong =
            Settings { max_items: 0, page_max: 5, deadline: HumanDuration::from_secs(0), ..Settings::default() };
        let names: Vec<_> = wrong.check("order").unwrap_err().into_iter().map(|invalid| invalid.setting).collect();
        assert_eq!(names, ["order.deadline", "order.max_items", "order.page_max"]);
    }
}
