//! Rules for streams, and for the streams behind buckets.

use serde_json::Value;

use super::super::subjects::{covered, union};
use super::{Config, Difference, Unit, flag, limit, list, number, text, value};

const ANEW: &str = "the server cannot change it; save what the stream holds, delete it, and apply the topology again";

/// Every difference between a declared stream and the server's.
pub(in super::super) fn stream(declared: &Config, live: &Config) -> Vec<Difference> {
    let mut found = Vec::new();
    found.extend(kept(declared, live));
    found.extend(subjects(declared, live));
    found.extend(age_and_duplicates(declared, live));
    found.extend(size(declared, live));
    let per_subject = "max_msgs_per_subject";
    found.extend(bound(per_subject, Unit::Count, declared, live).map(|difference| {
        difference.tighter_breaks("older messages of a subject would be deleted before they are handled")
    }));
    found.extend(rest(declared, live));
    found
}

/// Every difference between a declared bucket and the stream behind the server's.
pub(in super::super) fn bucket(declared: &Config, live: &Config) -> Vec<Difference> {
    let mut found = Vec::new();
    found.extend(kept(declared, live));
    found.extend(subjects(declared, live));
    found.extend(age_and_duplicates(declared, live));
    found.extend(size(declared, live));
    // Fewer old values of a key than declared lose no present one.
    found.extend(bound("max_msgs_per_subject", Unit::Count, declared, live).map(|found| found.difference));
    for key in ["allow_rollup_hdrs", "deny_delete"] {
        if flag(live, key) != flag(declared, key) {
            let why = "it is not what the client made; create the bucket anew";
            found.push(Difference::conflict(key, flag(live, key).to_string(), flag(declared, key).to_string(), why));
        }
    }
    found.extend(rest(declared, live));
    found
}

/// Whether messages are kept until they are handled, and on disk.
fn kept(declared: &Config, live: &Config) -> Vec<Difference> {
    let mut found = Vec::new();
    let retention = text(live, "retention");
    if retention != text(declared, "retention") {
        let (to, key) = (text(declared, "retention"), "retention");
        // Servers turn interest into limits, but refuse to touch a work queue.
        let difference = if retention == "interest" {
            Difference::update(key, retention, to).patch(key, value(declared, key))
        } else {
            Difference::conflict(key, retention, to, ANEW)
        };
        found.push(difference.breaks(
            "a message is deleted once those who read it today have acknowledged it, so no other service can read it",
        ));
    }
    let storage = text(live, "storage");
    if storage != text(declared, "storage") {
        found.push(
            Difference::conflict("storage", storage, text(declared, "storage"), ANEW)
                .breaks("a restart of the server would lose every message"),
        );
    }
    if live.get("mirror").is_some_and(|mirror| !mirror.is_null()) {
        found.push(
            Difference::conflict("mirror", "a mirror", "none", ANEW).breaks("nothing can be published to a mirror"),
        );
    }
    if flag(live, "sealed") {
        found.push(
            Difference::conflict("sealed", "true", "false", ANEW).breaks("nothing can be published to a sealed stream"),
        );
    }
    if flag(live, "no_ack") {
        found.push(
            Difference::update("no_ack", "true", "false")
                .breaks("publishers never learn whether a message was stored")
                .patch("no_ack", Value::Bool(false)),
        );
    }
    if text(live, "persist_mode") == "async" {
        found.push(
            Difference::conflict("persist_mode", "async", "default", ANEW)
                .breaks("messages are acknowledged before they are stored"),
        );
    }
    if live.get("subject_transform").is_some_and(|transform| !transform.is_null()) {
        let why = "somebody set it on purpose; remove it with the nats tool if it is not needed";
        found.push(
            Difference::conflict("subject_transform", "a transform", "none", why)
                .breaks("messages are stored under other subjects than consumers filter by"),
        );
    }
    let replicas = number(live, "num_replicas").max(1);
    let wanted = number(declared, "num_replicas").max(1);
    if replicas != wanted {
        let difference = Difference::update("num_replicas", replicas.to_string(), wanted.to_string())
            .patch("num_replicas", wanted.into())
            .breaks_if(replicas < wanted, "losing one server could lose messages; fewer replicas must be asked for");
        found.push(if replicas > wanted { difference.narrowing() } else { difference });
    }
    found
}

fn subjects(declared: &Config, live: &Config) -> Vec<Difference> {
    let (wanted, has) = (list(declared, "subjects"), list(live, "subjects"));
    let missing: Vec<&String> = wanted.iter().filter(|subject| !covered(&has, subject)).collect();
    let surplus = has.iter().any(|subject| !covered(&wanted, subject));
    let mut found = Vec::new();
    let all = union(&has, &wanted);
    if !missing.is_empty() {
        let names = missing.iter().map(|subject| subject.as_str()).collect::<Vec<_>>().join(", ");
        found.push(
            Difference::update("subjects", has.join(", "), all.join(", "))
                .breaks(format!("what is published on {names} is not kept"))
                .patch("subjects", all.clone().into()),
        );
    }
    if surplus {
        let from = if missing.is_empty() { has } else { all };
        found.push(
            Difference::update("subjects", from.join(", "), wanted.join(", "))
                .narrowing()
                .patch("subjects", wanted.into()),
        );
    }
    found
}

fn age_and_duplicates(declared: &Config, live: &Config) -> Vec<Difference> {
    let age = bound("max_age", Unit::Nanoseconds, declared, live)
        .map(|found| found.tighter_breaks("a message could expire before a stopped consumer comes back for it"));
    // The server's window may be reported as 0 only for streams that have no deduplication at all.
    let (window, wanted) = (number(live, "duplicate_window"), number(declared, "duplicate_window"));
    let show = |nanos| Unit::Nanoseconds.show(Some(nanos));
    let duplicates = match window.cmp(&wanted) {
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Less => Some(
            Difference::update("duplicate_window", show(window), show(wanted))
                .breaks("a message published again after a lost acknowledgement could be stored twice"),
        ),
        std::cmp::Ordering::Greater => {
            Some(Difference::update("duplicate_window", show(window), show(wanted)).narrowing())
        }
    };
    let duplicates = duplicates.map(|difference| difference.patch("duplicate_window", wanted.into()));
    age.into_iter().chain(duplicates).collect()
}

fn size(declared: &Config, live: &Config) -> Vec<Difference> {
    let drops = text(live, "discard") == "old" && text(declared, "discard") == "new";
    let limited = |key| limit(live, key).is_some() || limit(declared, key).is_some();
    let mut found = Vec::new();
    if text(live, "discard") != text(declared, "discard") {
        found.push(
            Difference::update("discard", text(live, "discard"), text(declared, "discard"))
                .patch("discard", value(declared, "discard"))
                .breaks_if(
                    drops && (limited("max_bytes") || limited("max_msgs")),
                    "a full stream drops its oldest messages, handled or not, instead of refusing new ones",
                ),
        );
    }
    for key in ["max_bytes", "max_msgs"] {
        found.extend(bound(key, Unit::Count, declared, live).map(|found| found.difference));
    }
    found.extend(bound("max_msg_size", Unit::Count, declared, live).map(|found| {
        let promised = limit(declared, "max_msg_size").is_some();
        if promised { found.tighter_breaks("a larger message would be refused for ever") } else { found.difference }
    }));
    found
}

fn rest(declared: &Config, live: &Config) -> Vec<Difference> {
    let mut found = Vec::new();
    if !flag(live, "allow_direct") {
        found.push(Difference::update("allow_direct", "false", "true").patch("allow_direct", Value::Bool(true)));
    }
    if text(live, "description") != text(declared, "description") {
        let quoted = |config| format!("\"{}\"", text(config, "description"));
        found.push(
            Difference::update("description", quoted(live), quoted(declared))
                .patch("description", value(declared, "description")),
        );
    }
    found
}

/// A differing limit, and whether the server's is the tighter one.
struct Bound {
    difference: Difference,
    tighter: bool,
}

impl Bound {
    fn tighter_breaks(self, why: &str) -> Difference {
        self.difference.breaks_if(self.tighter, why)
    }
}

fn bound(key: &'static str, unit: Unit, declared: &Config, live: &Config) -> Option<Bound> {
    let (has, wanted) = (limit(live, key), limit(declared, key));
    if has == wanted {
        return None;
    }
    let tighter = match (has, wanted) {
        (Some(has), Some(wanted)) => has < wanted,
        (Some(_), None) => true,
        (None, _) => false,
    };
    let difference = Difference::update(key, unit.show(has), unit.show(wanted)).patch(key, value(declared, key));
    Some(Bound { difference: if tighter { difference } else { difference.narrowing() }, tighter })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::plan::Change;
    use super::super::super::spec::{BucketSpec, StreamSpec};
    use super::*;

    fn against(changes: Value) -> Vec<Difference> {
        let declared = StreamSpec::new("ORDERS", ["orders.>"]).replicas(3).config();
        let mut live = declared.clone();
        live.extend(changes.as_object().unwrap().clone());
        stream(&declared, &live)
    }

    #[test]
    fn what_is_as_declared_shows_no_difference() {
        assert_eq!(against(json!({})), []);
        let bucket_config = BucketSpec::new("catalog").config();
        assert_eq!(bucket(&bucket_config, &bucket_config), []);
    }

    #[test]
    fn differences_that_break_the_promise_are_told_from_harmless_ones() {
        const DAY: i64 = 86_400_000_000_000;
        // What the server has, the field that must be named, whether it breaks the promise, how it can be removed.
        let cases = [
            (json!({"retention": "workqueue"}), "retention", true, "conflict"),
            (json!({"retention": "interest"}), "retention", true, "update"),
            (json!({"storage": "memory"}), "storage", true, "conflict"),
            (json!({"sealed": true}), "sealed", true, "conflict"),
            (json!({"mirror": {"name": "X"}}), "mirror", true, "conflict"),
            (json!({"persist_mode": "async"}), "persist_mode", true, "conflict"),
            (json!({"no_ack": true}), "no_ack", true, "update"),
            (json!({"num_replicas": 1}), "num_replicas", true, "update"),
            (json!({"num_replicas": 5}), "num_replicas", false, "narrow"),
            (json!({"max_age": DAY}), "max_age", true, "update"),
            (json!({"max_age": 30 * DAY}), "max_age", false, "narrow"),
            (json!({"max_age": 0}), "max_age", false, "narrow"),
            (json!({"duplicate_window": 1_000_000_000}), "duplicate_window", true, "update"),
            (json!({"duplicate_window": DAY}), "duplicate_window", false, "narrow"),
            (json!({"discard": "old"}), "discard", false, "update"),
            (json!({"max_bytes": 1000}), "max_bytes", false, "update"),
            (json!({"max_msgs_per_subject": 1}), "max_msgs_per_subject", true, "update"),
            (json!({"subjects": ["orders.created"]}), "subjects", true, "update"),
            (json!({"subjects": ["orders.>", "old.>"]}), "subjects", false, "narrow"),
            (json!({"description": "other"}), "description", false, "update"),
            (json!({"allow_direct": false}), "allow_direct", false, "update"),
        ];
        for (live, field, breaks, how) in cases {
            let found = against(live.clone());
            assert_eq!(found.len(), 1, "{live}: {found:?}");
            let (named, does) = match &found[0].change {
                Change::Update { field, narrows: true, .. } => (*field, "narrow"),
                Change::Update { field, .. } => (*field, "update"),
                Change::Conflict { field, .. } => (*field, "conflict"),
                other => panic!("{other:?}"),
            };
            assert_eq!((named, found[0].breaks.is_some(), does), (field, breaks, how), "{live}");
        }
    }

    #[test]
    fn dropping_old_messages_at_a_limit_breaks_the_promise() {
        let found = against(json!({"discard": "old", "max_bytes": 1000}));
        let broken: Vec<_> = found.iter().filter(|difference| difference.breaks.is_some()).collect();
        assert_eq!(broken.len(), 1);
        assert!(matches!(broken[0].change, Change::Update { field: "discard", .. }));
    }

    #[test]
    fn a_missing_subject_is_added_without_taking_another_away() {
        let declared = StreamSpec::new("S", ["a.>", "b"]).config();
        let mut live = declared.clone();
        live.insert("subjects".into(), json!(["a.x", "c"]));
        let found = stream(&declared, &live);
        let kept = super::super::patched(&live, found.iter().take(1));
        assert_eq!(list(&kept, "subjects"), ["a.>", "b", "c"]);
        let narrowed = super::super::patched(&live, &found);
        assert_eq!(list(&narrowed, "subjects"), ["a.>", "b"]);
    }
}
