//! `consumer.overrides`: what one consumer is to do otherwise than the rest, as
//! `payment-orders max_deliver=8 retry_first=2s retry_most=5m`.

use std::str::FromStr;

use millrace::config::HumanDuration;
use millrace::kit::RetryDelays;

use super::Consumer;

/// One entry of the list.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Override {
    pub(super) consumer: String,
    pub(super) max_deliver: Option<u32>,
    retry_first: Option<HumanDuration>,
    retry_most: Option<HumanDuration>,
}

const FORM: &str =
    "a consumer and what it does otherwise, such as \"payment-orders max_deliver=8 retry_first=2s retry_most=5m\"";

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let consumer = words.next().ok_or(FORM)?.to_owned();
        let mut own = Self { consumer, ..Self::default() };
        for word in words {
            let (name, value) = word.split_once('=').ok_or(FORM)?;
            let duration = || value.parse().map(Some).map_err(|_| format!("{name} to be a duration such as \"2s\""));
            match name {
                "max_deliver" => {
                    let count = value.parse().ok().filter(|count| (1..=1_000).contains(count));
                    own.max_deliver = Some(count.ok_or("max_deliver to be a number from 1 to 1000")?);
                }
                "retry_first" => own.retry_first = duration()?,
                "retry_most" => own.retry_most = duration()?,
                _ => return Err(format!("{name} to be one of max_deliver, retry_first, retry_most")),
            }
        }
        Ok(own)
    }
}

impl Override {
    /// Its own delays, or those of all.
    pub(super) fn delays(&self, all: &Consumer) -> RetryDelays {
        let first = self.retry_first.unwrap_or(all.retry_first).get();
        RetryDelays { first, most: self.retry_most.unwrap_or(all.retry_most).get() }
    }
}

/// What would be right instead; `None` if it is.
pub(super) fn wrong(text: &str, known: &[&str], all: &Consumer) -> Option<String> {
    let own: Override = match text.parse() {
        Ok(own) => own,
        Err(expected) => return Some(expected),
    };
    if !known.contains(&own.consumer.as_str()) {
        return Some(format!("one of the consumers {}", known.join(", ")));
    }
    let delays = own.delays(all);
    (delays.first.is_zero() || delays.most < delays.first)
        .then(|| "retry_first to be more than zero, and retry_most at least as much".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use millrace::config::Loader;

    use super::super::{DEFAULTS, Settings};

    #[test]
    fn one_consumer_does_otherwise_and_the_rest_as_before() {
        let mut settings = Loader::new(DEFAULTS).load::<Settings>().unwrap().settings;
        let before = settings.declared_topology();
        settings.consumer.overrides = vec!["payment-orders max_deliver=8 retry_first=2s".to_owned()];
        let after = settings.declared_topology();
        let differ: Vec<_> = before.consumers.iter().zip(&after.consumers).filter(|(old, new)| old != new).collect();
        let [(_, changed)] = differ.as_slice() else { panic!("{differ:?}") };
        assert_eq!((changed.durable.as_str(), changed.max_deliver), ("payment-orders", 8));
        let kit = settings.kit();
        let delays = kit.retry_delays["payment-orders"];
        assert_eq!((delays.first, delays.most), (Duration::from_secs(2), kit.consumer.retry_most));
        assert_eq!(kit.retry_delays.len(), 1);
    }
}
