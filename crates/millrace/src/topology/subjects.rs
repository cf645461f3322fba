//! Sets of subjects with wildcards.

use std::collections::BTreeSet;

/// Whether every subject that `inner` matches is matched by `outer` too.
pub(crate) fn covers(outer: &str, inner: &str) -> bool {
    let mut outer = outer.split('.');
    let mut inner = inner.split('.');
    loop {
        match (outer.next(), inner.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

/// Whether some subject is matched by both.
pub(crate) fn overlap(a: &str, b: &str) -> bool {
    let mut a = a.split('.');
    let mut b = b.split('.');
    loop {
        match (a.next(), b.next()) {
            (Some(">"), Some(_)) | (Some(_), Some(">")) | (None, None) => return true,
            (Some("*"), Some(_)) | (Some(_), Some("*")) => {}
            (Some(x), Some(y)) if x == y => {}
            _ => return false,
        }
    }
}

/// Whether one of `outer` covers `inner`.
pub(super) fn covered(outer: &[String], inner: &str) -> bool {
    outer.iter().any(|subject| covers(subject, inner))
}

/// Both lists together, without those another one covers: servers refuse overlapping subjects.
pub(super) fn union(a: &[String], b: &[String]) -> Vec<String> {
    let all: BTreeSet<&String> = a.iter().chain(b).collect();
    all.iter()
        .filter(|subject| !all.iter().any(|other| other != *subject && covers(other, subject)))
        .map(|subject| (*subject).clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_cover_what_they_match() {
        for (outer, inner, expected) in [
            ("orders.>", "orders.created", true),
            ("orders.>", "orders.created.v2", true),
            ("orders.>", "orders.*", true),
            ("orders.>", "orders", false),
            ("orders.*", "orders.>", false),
            ("orders.*", "orders.created.v2", false),
            ("orders.*", "orders.created", true),
            ("orders.created", "orders.*", false),
            (">", "orders.created", true),
            ("a.*.c", "a.b.c", true),
            ("a.*.c", "a.b.d", false),
        ] {
            assert_eq!(covers(outer, inner), expected, "{outer} over {inner}");
        }
    }

    #[test]
    fn overlap_needs_one_common_subject() {
        for (a, b, expected) in [
            ("orders.*", "orders.created", true),
            ("*.created", "orders.*", true),
            ("orders.>", "*.*.v2", true),
            ("orders.*", "orders.created.v2", false),
            ("orders.>", "payments.>", false),
        ] {
            assert_eq!(overlap(a, b), expected, "{a} and {b}");
            assert_eq!(overlap(b, a), expected, "{b} and {a}");
        }
    }

    #[test]
    fn a_union_holds_nothing_twice() {
        let union = union(&["orders.created".into(), "x".into()], &["orders.>".into(), "x".into()]);
        assert_eq!(union, ["orders.>", "x"]);
    }
}
