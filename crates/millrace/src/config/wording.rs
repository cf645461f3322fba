//! serde's error messages in the words of somebody who does not know Rust's types.

/// What was expected, from a message such as ``invalid type: string "x", expected u16``. The whole message when it does
/// not say.
pub(crate) fn expectation(message: &str) -> String {
    let message = without_position(message);
    if message.contains("UUID parsing failed") {
        return "a UUID".into();
    }
    if message.contains("invalid socket address") {
        return "an IP address with a port, such as \"127.0.0.1:8080\"".into();
    }
    let Some((_, expected)) = message.rsplit_once(", expected ").or_else(|| message.split_once("expected ")) else {
        return message.to_owned();
    };
    plain(expected)
}

/// The field named by "missing field `x`", "unknown field `x`" or "duplicate field `x`", with that word.
pub(crate) fn field_in_message(message: &str) -> Option<(&'static str, &str)> {
    ["missing", "unknown", "duplicate"].into_iter().find_map(|kind| {
        let rest = message.strip_prefix(kind)?.strip_prefix(" field `")?;
        Some((kind, rest.split_once('`')?.0))
    })
}

fn plain(expected: &str) -> String {
    let whole = |max: u64| format!("a whole number from 0 to {max}");
    match expected.trim() {
        "u8" => whole(u8::MAX.into()),
        "u16" => whole(u16::MAX.into()),
        "u32" => whole(u32::MAX.into()),
        "u64" | "usize" => "a whole number, 0 or greater".into(),
        "a nonzero u16" => "a whole number from 1 to 65535".into(),
        "a nonzero u32" | "a nonzero u64" | "a nonzero usize" => "a whole number greater than 0".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        "a boolean" => "true or false".into(),
        "a string" | "string" | "str" => "a text".into(),
        "a sequence" => "a list".into(),
        "unit" => "nothing".into(),
        "a map" => "an object".into(),
        text if text.starts_with("struct ") => "an object".into(),
        text if text.starts_with("enum ") || text.starts_with("variant identifier") => "one of the known names".into(),
        text => text.replace('`', "\""),
    }
}

fn without_position(message: &str) -> &str {
    message.rsplit_once(" at line ").map_or(message, |(text, _)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_names_become_words() {
        assert_eq!(expectation("invalid type: string \"x\", expected u16"), "a whole number from 0 to 65535");
        assert_eq!(expectation("invalid type: map, expected a string at line 3 column 4"), "a text");
        assert_eq!(expectation("unknown variant `x`, expected one of `a`, `b`"), "one of \"a\", \"b\"");
        assert_eq!(expectation("unknown variant `x`, expected `a` or `b`"), "\"a\" or \"b\"");
        assert_eq!(expectation("invalid type: map, expected struct Order"), "an object");
        assert_eq!(expectation("UUID parsing failed: invalid length: expected length 32, found 2"), "a UUID");
        let address = "an IP address with a port, such as \"127.0.0.1:8080\"";
        assert_eq!(expectation("invalid socket address syntax"), address);
        assert_eq!(expectation("something else"), "something else");
    }

    #[test]
    fn fields_are_found_in_messages() {
        assert_eq!(field_in_message("missing field `a_b` at line 1"), Some(("missing", "a_b")));
        assert_eq!(field_in_message("unknown field `x`, expected `y`"), Some(("unknown", "x")));
        assert_eq!(field_in_message("invalid type"), None);
    }
}
