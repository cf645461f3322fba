//! A deserializer for values that arrive as text: environment variables, flags, query strings. The type that is wanted
//! decides how a text is read, so a password of digits stays a text.

use serde::de::value::{Error, MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, Error as _, IntoDeserializer, Unexpected, Visitor};
use serde_json::Value;

/// Reads a tree of values, parsing texts where another scalar is wanted, and splitting them at commas where a list is.
pub(crate) struct Loose(pub(crate) Value);

impl<'de> IntoDeserializer<'de, Error> for Loose {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl Loose {
    fn mismatch<'de, V: Visitor<'de>>(&self, visitor: &V) -> Error {
        let unexpected = match &self.0 {
            Value::Null => Unexpected::Unit,
            Value::Bool(flag) => Unexpected::Bool(*flag),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(number), _) => Unexpected::Signed(number),
                (None, Some(number)) => Unexpected::Float(number),
                (None, None) => Unexpected::Other("a number"),
            },
            Value::String(text) => Unexpected::Str(text),
            Value::Array(_) => Unexpected::Seq,
            Value::Object(_) => Unexpected::Map,
        };
        Error::invalid_type(unexpected, visitor)
    }
}

macro_rules! number {
    ($($method:ident => $visit:ident, $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match &self.0 {
                Value::String(text) => match text.trim().parse::<$type>() {
                    Ok(number) => visitor.$visit(number),
                    Err(_) => Err(self.mismatch(&visitor)),
                },
                Value::Number(_) => self.deserialize_any(visitor),
                _ => Err(self.mismatch(&visitor)),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Loose {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(flag) => visitor.visit_bool(flag),
            Value::Number(number) => {
                if let Some(number) = number.as_u64() {
                    visitor.visit_u64(number)
                } else if let Some(number) = number.as_i64() {
                    visitor.visit_i64(number)
                } else {
                    visitor.visit_f64(number.as_f64().ok_or_else(|| Error::custom("expected a number"))?)
                }
            }
            Value::String(text) => visitor.visit_string(text),
            Value::Array(list) => visitor.visit_seq(SeqDeserializer::new(list.into_iter().map(Loose))),
            Value::Object(map) => {
                visitor.visit_map(MapDeserializer::new(map.into_iter().map(|(key, value)| (key, Loose(value)))))
            }
        }
    }

    number! {
        deserialize_i8 => visit_i64, i64;
        deserialize_i16 => visit_i64, i64;
        deserialize_i32 => visit_i64, i64;
        deserialize_i64 => visit_i64, i64;
        deserialize_u8 => visit_u64, u64;
        deserialize_u16 => visit_u64, u64;
        deserialize_u32 => visit_u64, u64;
        deserialize_u64 => visit_u64, u64;
        deserialize_f32 => visit_f64, f64;
        deserialize_f64 => visit_f64, f64;
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0 {
            Value::Bool(flag) => visitor.visit_bool(*flag),
            Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => visitor.visit_bool(true),
                "false" | "no" | "off" | "0" => visitor.visit_bool(false),
                _ => Err(self.mismatch(&visitor)),
            },
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::String(text) => visitor.visit_enum(text.into_deserializer()),
            other => other.deserialize_enum(name, variants, visitor).map_err(Error::custom),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::String(text) => {
                let parts: Vec<Loose> = split_list(&text).map(|part| Loose(Value::from(part))).collect();
                visitor.visit_seq(SeqDeserializer::new(parts.into_iter()))
            }
            other => Loose(other).deserialize_any(visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct identifier ignored_any
    }
}

/// The parts of a list written as a text.
pub(super) fn split_list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        Fast,
        Safe,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Wanted {
        port: u16,
        ratio: f64,
        enabled: bool,
        password: String,
        mode: Mode,
        hosts: Vec<String>,
        limit: Option<u32>,
        missing: Option<u32>,
    }

    #[test]
    fn texts_become_what_the_type_asks_for() {
        let value = serde_json::json!({
            "port": "8080", "ratio": "0.5", "enabled": "yes", "password": "12345", "mode": "safe",
            "hosts": "a, b,,c", "limit": 7,
        });
        let wanted = Wanted::deserialize(Loose(value)).unwrap();
        assert_eq!(
            wanted,
            Wanted {
                port: 8080,
                ratio: 0.5,
                enabled: true,
                password: "12345".into(),
                mode: Mode::Safe,
                hosts: vec!["a".into(), "b".into(), "c".into()],
                limit: Some(7),
                missing: None,
            }
        );
    }

    #[test]
    fn a_text_that_is_no_number_is_refused_with_what_was_expected() {
        let error = u16::deserialize(Loose("80x".into())).unwrap_err().to_string();
        assert_eq!(error, "invalid type: string \"80x\", expected u16");
        let error = u16::deserialize(Loose("70000".into())).unwrap_err().to_string();
        assert!(error.ends_with("expected u16"), "{error}");
    }
}
