//! The only place that prints: results on standard output, everything about them on standard error.

#![expect(clippy::print_stderr, reason = "a command's output is its purpose")]

use std::io::Write;

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

/// What a shell reports of a program that was ended by SIGPIPE.
const BROKEN_PIPE: i32 = 141;

/// A line of the result.
pub fn line(text: &str) {
    // Whoever reads may have seen enough, as `head` has: no reason to complain.
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(BROKEN_PIPE);
    }
}

/// A remark that is not part of the result.
pub fn note(text: &str) {
    eprintln!("{text}");
}

/// The result as JSON: pretty for one document.
pub fn json(value: &impl Serialize) {
    line(&serde_json::to_string_pretty(value).unwrap_or_else(|e| format!("{{\"error\":\"{e}\"}}")));
}

/// One JSON document on one line, for streams of them.
pub fn json_line(value: &impl Serialize) {
    line(&serde_json::to_string(value).unwrap_or_else(|e| format!("{{\"error\":\"{e}\"}}")));
}

pub fn json_to_stderr(value: &impl Serialize) {
    eprintln!("{}", serde_json::to_string(value).unwrap_or_else(|e| format!("{{\"error\":\"{e}\"}}")));
}

/// Rows under a header, aligned.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    line(&table.to_string());
}
