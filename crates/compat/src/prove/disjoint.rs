//! Whether nothing can be valid under some schemas at once. "No" also means "not known".

use super::facts::Facts;
use crate::kinds::Kinds;

/// Deeper than this nothing is said.
const DEPTH: usize = 6;

pub(crate) fn never(facts: &Facts<'_>) -> bool {
    impossible(facts, 0)
}

fn impossible(facts: &Facts<'_>, depth: usize) -> bool {
    let kinds = facts.kinds();
    if kinds.is_empty() || facts.finite().is_some_and(|values| values.is_empty()) {
        return true;
    }
    // Variants of a tagged type differ in a property that all of them have.
    depth < DEPTH
        && kinds == Kinds::OBJECT
        && facts.required().into_iter().any(|name| impossible(&facts.property(name), depth + 1))
}
