//! JSON Schema validation at the edges, for bodies that come from somebody else.

use std::sync::Arc;

use jsonschema::error::ValidationErrorKind;

use super::{DecodeError, Event};

/// A compiled JSON Schema for one event version.
#[derive(Clone)]
pub struct Validator {
    event: String,
    compiled: Arc<jsonschema::Validator>,
}

impl std::fmt::Debug for Validator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Validator").field("event", &self.event).finish_non_exhaustive()
    }
}

/// A contract as it is written to `schemas/`.
#[derive(Debug, Clone)]
pub struct Schema {
    pub event_type: &'static str,
    pub version: u32,
    pub subject: &'static str,
    pub schema: serde_json::Value,
}

impl Schema {
    /// The schemas of every version of `E`, newest first.
    pub fn all_of<E: Event>() -> Vec<Self> {
        let newest = Self {
            event_type: E::TYPE,
            version: E::VERSION,
            subject: E::SUBJECT,
            schema: schemars::schema_for!(E).to_value(),
        };
        let older = E::OLDER.iter().map(|older| Self {
            event_type: E::TYPE,
            version: older.version,
            subject: older.subject,
            schema: (older.schema)().to_value(),
        });
        std::iter::once(newest).chain(older).collect()
    }
}

impl Validator {
    /// Fails only on a schema that is itself wrong, which a test of the contracts finds.
    pub fn new(event: &str, schema: &serde_json::Value) -> Result<Self, DecodeError> {
        let compiled = jsonschema::options()
            .should_validate_formats(true)
            .build(schema)
            .map_err(|e| DecodeError::body(event, format!("its schema does not compile: {e}")))?;
        Ok(Self { event: event.to_owned(), compiled: Arc::new(compiled) })
    }

    /// Names the first place that breaks the schema.
    pub fn check(&self, body: &[u8]) -> Result<(), DecodeError> {
        let value: serde_json::Value = serde_json::from_slice(body).map_err(|e| DecodeError::body(&self.event, e))?;
        match self.compiled.iter_errors(&value).next() {
            None => Ok(()),
            Some(error) => {
                let mut path = error.instance_path().to_string();
                // Where something is missing, the place is where it should be.
                if let ValidationErrorKind::Required { property: serde_json::Value::String(name) } = error.kind() {
                    path = format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
                }
                Err(DecodeError::Schema {
                    event: self.event.clone(),
                    path: if path.is_empty() { "/".into() } else { path },
                    reason: error.to_string(),
                })
            }
        }
    }
}

/// The validator of one version of `E`; `None` for a version it does not have.
pub fn validator_for<E: Event>(version: u32) -> Option<Result<Validator, DecodeError>> {
    Schema::all_of::<E>()
        .into_iter()
        .find(|s| s.version == version)
        .map(|s| Validator::new(&format!("{} v{}", s.event_type, s.version), &s.schema))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_missing_is_named_by_the_place_where_it_should_be() {
        let item = json!({ "type": "object", "required": ["quantity"] });
        let schema = json!({ "required": ["a/b"], "properties": { "items": { "items": item } } });
        let validator = Validator::new("shop.opened v1", &schema).unwrap();
        for (body, expected) in [(r#"{}"#, "/a~1b"), (r#"{"a/b": 1, "items": [{}]}"#, "/items/0/quantity")] {
            match validator.check(body.as_bytes()) {
                Err(DecodeError::Schema { path, .. }) => assert_eq!(path, expected),
                other => panic!("{other:?}"),
            }
        }
    }
}
