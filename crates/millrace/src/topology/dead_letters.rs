//! What dead letters need of the broker, made from the consumers themselves so that it cannot be forgotten for one.

use std::time::Duration;

use super::spec::{ConsumerSpec, StreamSpec, Topology};
use super::subjects::covered;
use crate::dead_letter;
use crate::dead_letters::{advisories, audit, replays};

impl Topology {
    /// Adds, for each declared consumer, where its dead letters are replayed to and where the broker's word about
    /// messages it never answered is kept; and the streams of dead letters, advisories and the audit unless they are
    /// declared. Adding twice changes nothing.
    ///
    /// A consumer of a whole stream is from then on one of the subjects the stream has by itself: it must not see the
    /// replays of others.
    #[must_use]
    pub fn with_dead_letters(mut self) -> Self {
        let replicas = self.streams.iter().map(|stream| stream.replicas).max().unwrap_or(1);
        let defaults = [
            StreamSpec::new(dead_letter::STREAM, [format!("{}.>", dead_letter::SUBJECT_PREFIX)])
                .description("Messages that could not be handled, whole, until somebody decides"),
            StreamSpec::new(advisories::STREAM, [format!("{}.>", advisories::MAX_DELIVERIES)])
                .description("What the broker says about messages that no consumer answered"),
            StreamSpec::new(audit::STREAM, [format!("{}.>", audit::SUBJECT_PREFIX)])
                .description("Who did what about dead letters, and what came of it")
                .max_age(audit::MAX_AGE),
        ];
        for stream in defaults {
            if !self.streams.iter().any(|declared| declared.name == stream.name) {
                self.streams.push(stream.replicas(replicas));
            }
        }
        self.keep_audit_longer();
        let mut catchers = Vec::new();
        for consumer in &mut self.consumers {
            if [dead_letter::STREAM, advisories::STREAM, audit::STREAM].contains(&consumer.stream.as_str()) {
                continue;
            }
            let replays = replays::subject(&consumer.durable, ">");
            let stream = self.streams.iter_mut().find(|stream| stream.name == consumer.stream);
            if let Some(stream) = stream {
                if consumer.filter_subjects.is_empty() {
                    let own = stream.subjects.iter().filter(|subject| !replays::is_replay(subject));
                    consumer.filter_subjects = own.cloned().collect();
                }
                if !covered(&stream.subjects, &replays) {
                    stream.subjects.push(replays.clone());
                }
            }
            if !consumer.filter_subjects.is_empty() && !covered(&consumer.filter_subjects, &replays) {
                consumer.filter_subjects.push(replays);
            }
            catchers.push(catcher(consumer));
        }
        for catcher in catchers {
            if !self.consumers.iter().any(|declared| declared.durable == catcher.durable) {
                self.consumers.push(catcher);
            }
        }
        self
    }

    /// A letter whose discarding was forgotten would wait again.
    fn keep_audit_longer(&mut self) {
        let age_of = |name: &str| self.streams.iter().find(|stream| stream.name == name).map(|stream| stream.max_age);
        let Some(letters) = age_of(dead_letter::STREAM) else { return };
        for audit in self.streams.iter_mut().filter(|stream| stream.name == audit::STREAM) {
            // Zero is for ever.
            audit.max_age = match (letters.is_zero(), audit.max_age.is_zero()) {
                (true, _) | (_, true) => Duration::ZERO,
                _ => audit.max_age.max(letters * 2),
            };
        }
    }
}

fn catcher(consumer: &ConsumerSpec) -> ConsumerSpec {
    let subject = format!("{}.{}.{}", advisories::MAX_DELIVERIES, consumer.stream, consumer.durable);
    let mut catcher = ConsumerSpec::new(advisories::STREAM, advisories::durable(&consumer.durable))
        .filter([subject])
        .description(format!("dead letters of what {} never answered", consumer.durable));
    // There is nothing behind this consumer that would catch what it gives up.
    catcher.max_deliver = advisories::MAX_DELIVER;
    catcher
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared() -> Topology {
        Topology {
            streams: vec![StreamSpec::new("ORDERS", ["orders.>"]).replicas(3)],
            consumers: vec![
                ConsumerSpec::new("ORDERS", "payment-orders").filter(["orders.created"]),
                ConsumerSpec::new("ORDERS", "archive"),
                ConsumerSpec::new("ELSEWHERE", "far").filter(["far.>"]),
            ],
            buckets: Vec::new(),
        }
    }

    #[test]
    fn every_consumer_gets_replays_of_its_own_and_no_others() {
        let topology = declared().with_dead_letters();
        topology.validate().unwrap();
        assert_eq!(topology.streams[0].subjects, ["orders.>", "replays.payment-orders.>", "replays.archive.>"]);
        let filters: Vec<_> = topology.consumers[..3].iter().map(|consumer| consumer.filter_subjects.clone()).collect();
        assert_eq!(filters[0], ["orders.created", "replays.payment-orders.>"]);
        assert_eq!(filters[1], ["orders.>", "replays.archive.>"], "not the replays of payment-orders");
        assert_eq!(filters[2], ["far.>", "replays.far.>"]);
        assert_eq!(topology.with_dead_letters(), declared().with_dead_letters().with_dead_letters());
    }

    #[test]
    fn the_audit_outlives_what_it_is_about() {
        let audit_of = |age: Duration| {
            let letters = StreamSpec::new(dead_letter::STREAM, ["dead_letters.>"]).max_age(age);
            let topology = Topology { streams: vec![letters], ..Topology::default() }.with_dead_letters();
            topology.streams.iter().find(|stream| stream.name == audit::STREAM).unwrap().max_age
        };
        assert_eq!(audit_of(Duration::from_secs(1)), audit::MAX_AGE);
        assert_eq!(audit_of(audit::MAX_AGE), audit::MAX_AGE * 2);
        assert_eq!(audit_of(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn every_consumer_has_somebody_who_hears_that_it_never_answers() {
        let topology = declared().with_dead_letters();
        let names: Vec<_> = topology.streams.iter().map(|stream| (stream.name.as_str(), stream.replicas)).collect();
        assert_eq!(names, [("ORDERS", 3), ("DEAD_LETTERS", 3), ("ADVISORIES", 3), ("AUDIT", 3)]);
        let catchers: Vec<_> =
            topology.consumers[3..].iter().map(|c| (c.durable.as_str(), &*c.filter_subjects)).collect();
        let subject = |rest: &str| vec![format!("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{rest}")];
        assert_eq!(
            catchers,
            [
                ("advisories-payment-orders", &*subject("ORDERS.payment-orders")),
                ("advisories-archive", &*subject("ORDERS.archive")),
                ("advisories-far", &*subject("ELSEWHERE.far")),
            ]
        );
    }
}
