//! A TOML document as a list of settings with their places in the text.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// One setting of a document.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    /// `http.port`.
    pub(super) path: String,
    pub(super) value: toml::Value,
    /// Bytes of the value in the text.
    pub(super) span: Range<usize>,
    /// From 1.
    pub(super) line: usize,
}

/// All settings in the order of the text. A section without settings is listed as an empty table, so that a misspelt one
/// is noticed.
pub(super) fn flatten(text: &str) -> Result<Vec<Leaf>, String> {
    let shown = |e: toml::de::Error| e.to_string().trim().to_owned();
    let values: toml::Table = text.parse().map_err(shown)?;
    let spans = DeTable::parse(text).map_err(shown)?;
    let mut leaves = Vec::new();
    walk(text, "", &values, spans.get_ref(), &mut leaves);
    leaves.sort_by_key(|leaf| leaf.span.start);
    Ok(leaves)
}

fn walk(text: &str, prefix: &str, values: &toml::Table, spans: &DeTable<'_>, leaves: &mut Vec<Leaf>) {
    for (key, spanned) in spans {
        let name = key.get_ref().as_ref();
        let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
        let Some(value) = values.get(name) else { continue };
        match (value, spanned.get_ref()) {
            (toml::Value::Table(inner), DeValue::Table(inner_spans)) if !inner.is_empty() => {
                walk(text, &path, inner, inner_spans, leaves);
            }
            _ => {
                let span = spanned.span();
                let line = text.get(..key.span().start).unwrap_or_default().matches('\n').count() + 1;
                leaves.push(Leaf { path, value: value.clone(), span, line });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_listed_with_their_lines_in_the_order_of_the_text() {
        let text = "b = 1\n\n[z]\n# why\nname = \"x\"\n[a.deep]\nlist = [1,\n 2]\n[empty]\n";
        let leaves = flatten(text).unwrap();
        let seen: Vec<(&str, usize)> = leaves.iter().map(|leaf| (leaf.path.as_str(), leaf.line)).collect();
        assert_eq!(seen[..3], [("b", 1), ("z.name", 5), ("a.deep.list", 7)]);
        assert_eq!(seen[3].0, "empty");
        assert_eq!(&text[leaves[1].span.clone()], "\"x\"");
        assert_eq!(&text[leaves[2].span.clone()], "[1,\n 2]");
    }
}
