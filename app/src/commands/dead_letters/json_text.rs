//! JSON laid out for people, character by character: a number such as 19.990 must come out of an editor as it went in.

/// The text with line breaks and indentation; `None` when it is no JSON.
pub fn pretty(text: &str) -> Option<String> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut rest = text.chars().filter(|c| !c.is_control()).peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&"  ".repeat(depth));
    };
    while let Some(c) = rest.next() {
        if in_string {
            out.push(c);
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            ' ' => {}
            '"' => {
                in_string = true;
                out.push(c);
            }
            '{' | '[' => {
                while rest.next_if_eq(&' ').is_some() {}
                out.push(c);
                if let Some(end) = rest.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::pretty;

    #[test]
    fn layout_changes_and_content_does_not() {
        let text = "{\"amount\" :19.990,\r\n \"big\":123456789012345678901234567890, \"name\":\"a: {\\\"b\\\", \\\\\", \"none\": [ ], \"list\":[1,{}]}";
        let expected = r#"{
  "amount": 19.990,
  "big": 123456789012345678901234567890,
  "name": "a: {\"b\", \\",
  "none": [],
  "list": [
    1,
    {}
  ]
}"#;
        assert_eq!(pretty(text).as_deref(), Some(expected));
        assert_eq!(pretty("{\"amount\": twelve}"), None);
        assert_eq!(pretty("\"x\"").as_deref(), Some("\"x\""));
    }
}
