//! "Did you mean": the nearest known name by edit distance.

/// The known name that is nearest to `given`, if one is near enough to be what was meant.
pub(super) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, best) = known.into_iter().map(|name| (rank(given, name), name)).min()?;
    (distance <= (given.chars().count() / 3).max(2)).then_some(best)
}

/// Distance of the names; a name that only lacks its section counts as near.
fn rank(given: &str, name: &str) -> usize {
    let last = |text: &str| text.rsplit('.').next().map(str::to_owned).unwrap_or_default();
    let whole = distance(given, name);
    if last(given) == last(name) { whole.min(2) } else { whole }
}

/// Levenshtein's distance, in two rows.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = i;
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_nonsense_finds_none() {
        let known = ["nats.url", "http.port", "http.max_body", "database.url"];
        assert_eq!(nearest("http.prot", known), Some("http.port"));
        assert_eq!(nearest("http.max-body", known), Some("http.max_body"));
        assert_eq!(nearest("max_body", known), Some("http.max_body"));
        assert_eq!(nearest("completely.different", known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
