//! From a body to a type, or to the place in the body that is wrong.

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_path_to_error::{Path, Segment};

use super::DecodeError;

/// Reads a body. `event` names it in errors: `orders.created v1`.
pub(crate) fn read<T: DeserializeOwned>(event: &str, body: &[u8]) -> Result<T, DecodeError> {
    let error = match serde_json::from_slice(body) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    // The path costs something, so it is looked for only once something is wrong.
    let failed = match serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_slice(body)) {
        Err(failed) if serde_json::from_slice::<IgnoredAny>(body).is_ok() => failed,
        _ => return Err(DecodeError::body(event, error)),
    };
    let reason = failed.inner().to_string();
    Err(DecodeError::Schema { event: event.to_owned(), path: pointer(failed.path(), missing(&reason)), reason })
}

/// serde says of a missing field where it is missing, and names it in words.
fn missing(reason: &str) -> Option<&str> {
    reason.strip_prefix("missing field `")?.split('`').next()
}

fn pointer(path: &Path, missing: Option<&str>) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } | Segment::Enum { variant: key } => pointer.push_str(&format!("/{}", escaped(key))),
            Segment::Unknown => {}
        }
    }
    missing.into_iter().for_each(|name| pointer.push_str(&format!("/{}", escaped(name))));
    if pointer.is_empty() { "/".into() } else { pointer }
}

/// RFC 6901.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Outer {
        #[expect(dead_code, reason = "only read")]
        items: Vec<BTreeMap<String, u32>>,
    }

    #[test]
    fn what_cannot_be_read_is_named_by_its_json_pointer() {
        let path_of = |body: &str| match read::<Outer>("things.happened v1", body.as_bytes()) {
            Err(DecodeError::Schema { path, .. }) => path,
            Err(DecodeError::Body { .. }) => "not JSON".into(),
            other => panic!("{other:?}"),
        };
        assert_eq!(path_of(r#"{"items":[{"a":1},{"b/c":-1}]}"#), "/items/1/b~1c");
        assert_eq!(path_of(r#"{"item":[]}"#), "/items");
        assert_eq!(path_of("7"), "/");
        assert_eq!(path_of(r#"{"items":[}"#), "not JSON");
        assert!(read::<Outer>("things.happened v1", br#"{"items":[]}"#).is_ok());
    }
}
