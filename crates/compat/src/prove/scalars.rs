//! Numbers, texts, and how much there is of something.

use std::cmp::Ordering;

use serde_json::Value;

use super::facts::Facts;
use super::{Gaps, may, unjudged};
use crate::kinds::Kinds;
use crate::number::{Num, count};

pub(super) fn lower(facts: &Facts<'_>, says: &Value, exclusive: bool, at: &str, gaps: &mut Gaps) {
    let Some(wanted) = Num::of_value(says) else { return unjudged(gaps, at, "this is not a number") };
    let holds = facts.lower().is_some_and(|known| match known.at.compare(wanted) {
        Some(Ordering::Greater) => true,
        Some(Ordering::Equal) => known.exclusive || !exclusive,
        _ => false,
    });
    if !holds {
        may(gaps, at, &format!("be less than {says}{}", if exclusive { ", or equal" } else { "" }));
    }
}

pub(super) fn upper(facts: &Facts<'_>, says: &Value, exclusive: bool, at: &str, gaps: &mut Gaps) {
    let Some(wanted) = Num::of_value(says) else { return unjudged(gaps, at, "this is not a number") };
    let holds = facts.upper().is_some_and(|known| match known.at.compare(wanted) {
        Some(Ordering::Less) => true,
        Some(Ordering::Equal) => known.exclusive || !exclusive,
        _ => false,
    });
    if !holds {
        may(gaps, at, &format!("be more than {says}{}", if exclusive { ", or equal" } else { "" }));
    }
}

pub(super) fn multiple(facts: &Facts<'_>, says: &Value, at: &str, gaps: &mut Gaps) {
    let Some(wanted) = Num::of_value(says) else { return unjudged(gaps, at, "this is not a number") };
    let known = facts.values("multipleOf").filter_map(Num::of_value).any(|known| known.is_multiple_of(wanted));
    let any_integer = !facts.kinds().has(Kinds::FRACTION) && wanted.compare(Num::Integer(1)) == Some(Ordering::Equal);
    if !known && !any_integer {
        may(gaps, at, &format!("not be a multiple of {says}"));
    }
}

pub(super) fn at_least(known: u64, says: &Value, of: &str, at: &str, gaps: &mut Gaps) {
    match count(says) {
        None => unjudged(gaps, at, "this is not a count"),
        Some(wanted) if known >= wanted => {}
        Some(wanted) => may(gaps, at, &format!("have fewer than {wanted} {of}")),
    }
}

pub(super) fn at_most(known: Option<u64>, says: &Value, of: &str, at: &str, gaps: &mut Gaps) {
    match count(says) {
        None => unjudged(gaps, at, "this is not a count"),
        Some(wanted) if known.is_some_and(|known| known <= wanted) => {}
        Some(wanted) => may(gaps, at, &format!("have more than {wanted} {of}")),
    }
}

/// Holds only when the same is said already: patterns are not compared, only recognised.
pub(super) fn text(facts: &Facts<'_>, keyword: &str, says: &Value, what: &str, at: &str, gaps: &mut Gaps) {
    if !facts.values(keyword).any(|known| known == says) {
        may(gaps, at, what);
    }
}

/// Formats that are part of another one.
const NARROWER: [(&str, &str); 5] =
    [("int32", "int64"), ("uint32", "uint64"), ("uint32", "int64"), ("uint16", "uint32"), ("float", "double")];

pub(super) fn format(facts: &Facts<'_>, says: &Value, at: &str, gaps: &mut Gaps) {
    let implies =
        |known: &Value| known == says || NARROWER.iter().any(|(narrow, wide)| known == narrow && says == wide);
    if !facts.values("format").any(implies) {
        may(gaps, at, &format!("not be a {}", says.as_str().unwrap_or("text of this format")));
    }
}
