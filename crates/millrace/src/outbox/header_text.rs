//! Headers as an outbox row keeps them: a line for each, as they will stand in the message. Rows of earlier releases hold
//! a JSON list of pairs.

use crate::event::HeaderPairs;

/// Headers that no message could carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the header {name} cannot be stored: {problem}")]
pub struct Unstorable {
    pub name: String,
    pub problem: &'static str,
}

/// What a row holds that nobody here has written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the headers of an outbox row are unreadable: {0}")]
pub struct Unreadable(String);

/// # Errors
/// Names a header that would not arrive as it is: NATS ends a header at the line's end and its name at the first colon.
pub fn write(headers: &HeaderPairs) -> Result<String, Unstorable> {
    let length = headers.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    let mut text = String::with_capacity(length);
    for (name, value) in headers {
        let refused = |problem| Unstorable { name: name.clone(), problem };
        if name.is_empty() || name.bytes().any(|byte| matches!(byte, b':' | b'\r' | b'\n')) {
            return Err(refused("its name is empty, or has a colon or a line break"));
        }
        if value.bytes().any(|byte| matches!(byte, b'\r' | b'\n')) {
            return Err(refused("its value has a line break"));
        }
        text.extend([name, ":", value, "\n"]);
    }
    Ok(text)
}

/// # Errors
/// Says which line is no header.
pub fn read(text: &str) -> Result<HeaderPairs, Unreadable> {
    if text.starts_with('[') {
        return serde_json::from_str(text).map_err(|error| Unreadable(error.to_string()));
    }
    let pair = |line: &str| {
        let (name, value) = line.split_once(':').ok_or_else(|| Unreadable(format!("{line:?} has no colon")))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    text.lines().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(of: &[(&str, &str)]) -> HeaderPairs {
        of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn rows_of_earlier_releases_are_read() {
        assert_eq!(read(r#"[["ce-id","a:b"],["x",""]]"#).unwrap(), pairs(&[("ce-id", "a:b"), ("x", "")]));
    }

    #[test]
    fn what_no_message_can_carry_is_refused_by_name() {
        for wrong in [("a:b", "1"), ("", "1"), ("a\nb", "1"), ("a", "1\r\nNats-Msg-Id: 2")] {
            assert_eq!(write(&pairs(&[("ok", "1"), wrong])).unwrap_err().name, wrong.0);
        }
        assert!(read("no colon here\n").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(headers in prop::collection::vec(("[!-9;-Z\\\\-~][!-9;-~]{0,9}", "[ -~]{0,20}"), 0..6)) {
            prop_assert_eq!(read(&write(&headers).unwrap()).unwrap(), headers);
        }
    }
}
