//! Rules for consumers.

use serde_json::Value;

use super::super::subjects::{covered, union};
use super::{Config, Difference, Unit, flag, limit, list, number, text, value};

const ANEW: &str = "the server cannot change it; stop the service, delete the consumer, and apply the topology again \
    (a new consumer starts at the stream's beginning, and the inbox skips what was handled)";

/// Every difference between a declared consumer and what the server says of it.
pub(in super::super) fn consumer(declared: &Config, info: &Value) -> Vec<Difference> {
    let empty = Config::new();
    let live = info["config"].as_object().unwrap_or(&empty);
    let mut found = Vec::new();
    found.extend(lasting(live, info));
    found.extend(delivered(declared, live));
    found.extend(filters(declared, live));
    found.extend(numbers(declared, live));
    if text(live, "description") != text(declared, "description") {
        let quoted = |config| format!("\"{}\"", text(config, "description"));
        found.push(
            Difference::update("description", quoted(live), quoted(declared))
                .patch("description", value(declared, "description")),
        );
    }
    found
}

/// Sets which subjects a consumer receives; the server has one field for one subject and another for several.
pub(in super::super) fn set_filters(config: &mut Config, subjects: &[String]) {
    for (key, value) in filter_patch(subjects) {
        match value {
            Value::Null => config.remove(key),
            value => config.insert(key.to_owned(), value),
        };
    }
}

fn filter_patch(subjects: &[String]) -> [(&'static str, Value); 2] {
    let (one, several) = match subjects {
        [] => (Value::Null, Value::Null),
        [one] => (one.clone().into(), Value::Null),
        several => (Value::Null, several.to_vec().into()),
    };
    [("filter_subject", one), ("filter_subjects", several)]
}

/// Whether the consumer and what it has acknowledged outlive restarts.
fn lasting(live: &Config, info: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    if text(live, "durable_name").is_empty() {
        found.push(
            Difference::conflict("durable_name", "an ephemeral consumer", "a durable one", ANEW)
                .breaks("it vanishes with its reader, and with it the knowledge of what was handled"),
        );
    } else if let Some(threshold) = limit(live, "inactive_threshold") {
        found.push(
            Difference::update("inactive_threshold", Unit::Nanoseconds.show(Some(threshold)), "unlimited")
                .breaks("a service that is down for longer finds its consumer deleted")
                .patch("inactive_threshold", Value::Null),
        );
    }
    if flag(live, "mem_storage") {
        found.push(
            Difference::conflict("mem_storage", "true", "false", ANEW)
                .breaks("a restart of the server forgets what was handled"),
        );
    }
    if info["paused"] == Value::Bool(true) {
        let until = live.get("pause_until").and_then(Value::as_str).unwrap_or("an unknown time");
        let why = "somebody paused it; resume it with `nats consumer resume`";
        found.push(
            Difference::conflict("pause_until", until, "not paused", why)
                .breaks("it delivers nothing while it is paused"),
        );
    }
    found
}

fn delivered(declared: &Config, live: &Config) -> Vec<Difference> {
    let mut found = Vec::new();
    if !text(live, "deliver_subject").is_empty() {
        found.push(
            Difference::conflict("deliver_subject", text(live, "deliver_subject"), "none", ANEW)
                .breaks("it pushes messages whether or not there is room to work on them, and cannot be pulled from"),
        );
    }
    if text(live, "ack_policy") != text(declared, "ack_policy") {
        found.push(
            Difference::conflict("ack_policy", text(live, "ack_policy"), text(declared, "ack_policy"), ANEW)
                .breaks("messages count as handled that nobody has handled"),
        );
    }
    let (policy, wanted) = (text(live, "deliver_policy"), text(declared, "deliver_policy"));
    if policy != wanted {
        let difference = Difference::conflict("deliver_policy", policy, wanted, ANEW);
        found.push(
            difference.breaks_if(wanted == "all", "messages from before its creation may never be delivered to it"),
        );
    }
    if flag(live, "headers_only") {
        found.push(
            Difference::update("headers_only", "true", "false")
                .breaks("messages arrive without their bodies")
                .patch("headers_only", Value::Null),
        );
    }
    found
}

fn filters(declared: &Config, live: &Config) -> Vec<Difference> {
    let (wanted, has) = (subjects_of(declared), subjects_of(live));
    let show = |subjects: &[String]| if subjects.is_empty() { "all".to_owned() } else { subjects.join(", ") };
    let everything = [">".to_owned()];
    let or_everything = |subjects: &[String]| -> Vec<String> {
        if subjects.is_empty() { everything.to_vec() } else { subjects.to_vec() }
    };
    let (wide_wanted, wide_has) = (or_everything(&wanted), or_everything(&has));
    let mut found = Vec::new();
    let missing = wide_wanted.iter().any(|subject| !covered(&wide_has, subject));
    let surplus = wide_has.iter().any(|subject| !covered(&wide_wanted, subject));
    // With everything asked for there is no filter; otherwise both lists together.
    let all = if wanted.is_empty() { Vec::new() } else { union(&has, &wanted) };
    let with_patch = |mut difference: Difference, subjects: &[String]| {
        difference.patch.extend(filter_patch(subjects));
        difference
    };
    if missing {
        let difference = Difference::update("filter_subjects", show(&has), show(&all))
            .breaks("messages on a declared subject are never delivered to it");
        found.push(with_patch(difference, &all));
    }
    if surplus {
        let from = if missing { &all } else { &has };
        let difference = Difference::update("filter_subjects", show(from), show(&wanted)).narrowing();
        found.push(with_patch(difference, &wanted));
    }
    found
}

fn subjects_of(config: &Config) -> Vec<String> {
    let mut subjects = list(config, "filter_subjects");
    let single = text(config, "filter_subject");
    if !single.is_empty() {
        subjects.push(single.to_owned());
    }
    subjects.sort();
    subjects
}

fn numbers(declared: &Config, live: &Config) -> Vec<Difference> {
    let mut found = Vec::new();
    let (wait, wanted) = (number(live, "ack_wait"), number(declared, "ack_wait"));
    if wait != wanted {
        let show = |nanos| Unit::Nanoseconds.show(Some(nanos));
        found.push(
            Difference::update("ack_wait", show(wait), show(wanted))
                .patch("ack_wait", wanted.into())
                .breaks_if(wait < wanted, "work still going on is given to somebody else, and counts as an attempt"),
        );
    }
    if live.get("backoff").and_then(Value::as_array).is_some_and(|backoff| !backoff.is_empty()) {
        found.push(
            Difference::update("backoff", "a schedule", "none")
                .breaks("it overrides ack_wait, so that work still going on is given to somebody else")
                .patch("backoff", Value::Null),
        );
    }
    let (has, wanted) = (limit(live, "max_deliver"), limit(declared, "max_deliver"));
    if has != wanted {
        found.push(
            Difference::update("max_deliver", Unit::Count.show(has), Unit::Count.show(wanted))
                .breaks("the retry policy counts on this number to dead-letter a message exactly once")
                .patch("max_deliver", value(declared, "max_deliver")),
        );
    }
    let (has, wanted) = (limit(live, "max_ack_pending"), limit(declared, "max_ack_pending"));
    if has != wanted {
        found.push(
            Difference::update("max_ack_pending", Unit::Count.show(has), Unit::Count.show(wanted))
                .patch("max_ack_pending", value(declared, "max_ack_pending")),
        );
    }
    let replicas = number(live, "num_replicas");
    if replicas != number(declared, "num_replicas") {
        found.push(
            Difference::update("num_replicas", replicas.to_string(), "as many as its stream")
                .patch("num_replicas", value(declared, "num_replicas")),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::plan::Change;
    use super::super::super::spec::ConsumerSpec;
    use super::*;

    fn against(info: &Value, changes: &Value) -> Vec<Difference> {
        let declared = ConsumerSpec::new("ORDERS", "payment-orders").filter(["orders.created", "orders.confirmed"]);
        let mut live = declared.config();
        for (key, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => live.remove(key),
                value => live.insert(key.clone(), value.clone()),
            };
        }
        let mut info = info.clone();
        info["config"] = Value::Object(live);
        consumer(&declared.config(), &info)
    }

    #[test]
    fn differences_that_break_the_promise_are_told_from_harmless_ones() {
        const SECOND: i64 = 1_000_000_000;
        let cases = [
            (json!({"durable_name": null}), "durable_name", true, "conflict"),
            (json!({"inactive_threshold": SECOND}), "inactive_threshold", true, "update"),
            (json!({"mem_storage": true}), "mem_storage", true, "conflict"),
            (json!({"deliver_subject": "push.here"}), "deliver_subject", true, "conflict"),
            (json!({"ack_policy": "none"}), "ack_policy", true, "conflict"),
            (json!({"deliver_policy": "new"}), "deliver_policy", true, "conflict"),
            (json!({"headers_only": true}), "headers_only", true, "update"),
            (json!({"filter_subjects": ["orders.created"]}), "filter_subjects", true, "update"),
            (json!({"filter_subjects": null}), "filter_subjects", false, "narrow"),
            (json!({"filter_subjects": ["orders.>"]}), "filter_subjects", false, "narrow"),
            (json!({"ack_wait": SECOND}), "ack_wait", true, "update"),
            (json!({"ack_wait": 300 * SECOND}), "ack_wait", false, "update"),
            (json!({"backoff": [SECOND]}), "backoff", true, "update"),
            (json!({"max_deliver": -1}), "max_deliver", true, "update"),
            (json!({"max_ack_pending": 1}), "max_ack_pending", false, "update"),
            (json!({"description": "other"}), "description", false, "update"),
        ];
        for (live, field, breaks, how) in cases {
            let found = against(&json!({}), &live);
            assert_eq!(found.len(), 1, "{live}: {found:?}");
            let (named, does) = match &found[0].change {
                Change::Update { field, narrows: true, .. } => (*field, "narrow"),
                Change::Update { field, .. } => (*field, "update"),
                Change::Conflict { field, .. } => (*field, "conflict"),
                other => panic!("{other:?}"),
            };
            assert_eq!((named, found[0].breaks.is_some(), does), (field, breaks, how), "{live}");
        }
        assert_eq!(against(&json!({}), &json!({})), []);
    }

    #[test]
    fn a_paused_consumer_breaks_the_promise_and_is_left_to_whoever_paused_it() {
        let found = against(&json!({"paused": true}), &json!({"pause_until": "2030-01-01T00:00:00Z"}));
        assert!(matches!(&found[0].change, Change::Conflict { field: "pause_until", .. }));
        assert!(found[0].breaks.is_some());
        // A pause that is over leaves its date behind and is no difference.
        assert_eq!(against(&json!({}), &json!({"pause_until": "2020-01-01T00:00:00Z"})), []);
    }

    #[test]
    fn filters_are_compared_by_meaning_not_by_field() {
        let declared = ConsumerSpec::new("S", "c").filter(["a"]).config();
        let info = |config: Value| {
            let mut live = declared.clone();
            live.remove("filter_subject");
            live.extend(config.as_object().unwrap().clone());
            json!({"config": live})
        };
        assert_eq!(consumer(&declared, &info(json!({"filter_subject": "a"}))), []);
        assert_eq!(consumer(&declared, &info(json!({"filter_subjects": ["a"]}))), []);
        assert_eq!(consumer(&declared, &info(json!({"filter_subject": "b"}))).len(), 2, "one to add, one to remove");
    }
}
