//! The configuration in force, and the reference of all settings, both made from the default TOML and its comments.

use super::flat::{Leaf, flatten};
use super::loader::env_name;
use super::{ConfigError, Origin, mask};

/// One setting in force.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) value: toml::Value,
    pub(super) origin: Origin,
    pub(super) default: Leaf,
}

/// The values in force and where each came from.
#[derive(Debug, Clone)]
pub struct Effective {
    pub(super) text: String,
    pub(super) entries: Vec<Entry>,
}

impl Effective {
    /// The default TOML with the values in force, each followed by its origin. Valid TOML; secrets are masked.
    pub fn dump(&self) -> String {
        let mut text = self.text.clone();
        // From the end, so that the places of earlier values stay right.
        for entry in self.entries.iter().rev().filter(|entry| !entry.default.value.is_table()) {
            let span = entry.default.span.clone();
            let value = mask::shown(&entry.default.path, &entry.value);
            let line_end = text[span.end..].find('\n').map_or(text.len(), |at| span.end + at);
            text.insert_str(line_end, &format!("  # {}", entry.origin));
            text.replace_range(span, &value.to_string());
        }
        text
    }

    /// Where the value of a setting came from.
    pub fn origin(&self, setting: &str) -> Option<&Origin> {
        self.entries.iter().find(|entry| entry.default.path == setting).map(|entry| &entry.origin)
    }
}

/// One setting for a reference page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingDoc {
    /// `http.port`.
    pub name: String,
    /// `MILLRACE_HTTP_PORT`.
    pub variable: String,
    /// As TOML.
    pub default: String,
    /// The comment above it, joined to one text.
    pub text: String,
}

/// All settings of a default TOML, in its order.
pub fn reference(defaults: &str, env_prefix: &str) -> Result<Vec<SettingDoc>, ConfigError> {
    let prefix = format!("{env_prefix}_");
    let lines: Vec<&str> = defaults.lines().collect();
    let leaves = flatten(defaults).map_err(ConfigError::BuiltIn)?;
    Ok(leaves
        .into_iter()
        .map(|leaf| SettingDoc {
            variable: env_name(&prefix, &leaf.path),
            default: leaf.value.to_string(),
            text: comment_above(&lines, leaf.line),
            name: leaf.path,
        })
        .collect())
}

fn comment_above(lines: &[&str], line: usize) -> String {
    let above = lines.get(..line.saturating_sub(1)).unwrap_or_default();
    let mut comment: Vec<&str> =
        above.iter().rev().map_while(|text| text.trim().strip_prefix('#')).map(str::trim).collect();
    comment.reverse();
    comment.join(" ")
}
