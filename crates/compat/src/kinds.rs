//! The kinds of JSON values, as a set. A number is of one of two kinds, so that `integer` is a part of `number`.

use serde_json::Value;

use crate::number::Num;

/// A set of kinds of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kinds(u8);

impl Kinds {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const NULL: Self = Self(1);
    pub(crate) const BOOLEAN: Self = Self(2);
    pub(crate) const OBJECT: Self = Self(4);
    pub(crate) const ARRAY: Self = Self(8);
    pub(crate) const STRING: Self = Self(16);
    pub(crate) const INTEGER: Self = Self(32);
    pub(crate) const FRACTION: Self = Self(64);
    pub(crate) const NUMBER: Self = Self(32 | 64);
    pub(crate) const ALL: Self = Self(127);

    /// What a `type` keyword allows; `None` if it is not one.
    pub(crate) fn of_type(value: &Value) -> Option<Self> {
        match value {
            Value::String(name) => Some(match name.as_str() {
                "null" => Self::NULL,
                "boolean" => Self::BOOLEAN,
                "object" => Self::OBJECT,
                "array" => Self::ARRAY,
                "string" => Self::STRING,
                "integer" => Self::INTEGER,
                "number" => Self::NUMBER,
                _ => return None,
            }),
            Value::Array(names) => names.iter().try_fold(Self::NONE, |all, name| {
                let one = if name.is_string() { Self::of_type(name)? } else { return None };
                Some(all.or(one))
            }),
            _ => None,
        }
    }

    pub(crate) fn of_value(value: &Value) -> Self {
        match value {
            Value::Null => Self::NULL,
            Value::Bool(_) => Self::BOOLEAN,
            Value::Object(_) => Self::OBJECT,
            Value::Array(_) => Self::ARRAY,
            Value::String(_) => Self::STRING,
            // 1.0 is an integer in JSON Schema.
            Value::Number(number) if Num::of(number).is_integer() => Self::INTEGER,
            Value::Number(_) => Self::FRACTION,
        }
    }

    pub(crate) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn has(self, other: Self) -> bool {
        !self.and(other).is_empty()
    }

    /// In words, as what a value may be.
    pub(crate) fn in_words(self) -> String {
        let all = [
            (Self::NULL, "null"),
            (Self::BOOLEAN, "a boolean"),
            (Self::OBJECT, "an object"),
            (Self::ARRAY, "an array"),
            (Self::STRING, "a string"),
        ];
        let mut words: Vec<&str> = all.iter().filter(|(kind, _)| self.has(*kind)).map(|(_, word)| *word).collect();
        match (self.has(Self::INTEGER), self.has(Self::FRACTION)) {
            (true, true) => words.push("a number"),
            (true, false) => words.push("an integer"),
            (false, true) => words.push("a number with a fraction"),
            (false, false) => {}
        }
        words.join(" or ")
    }

    /// One by one, as `type` names them; both kinds of numbers together.
    pub(crate) fn each(self) -> impl Iterator<Item = Self> {
        [Self::NULL, Self::BOOLEAN, Self::OBJECT, Self::ARRAY, Self::STRING, Self::NUMBER]
            .into_iter()
            .map(move |kind| self.and(kind))
            .filter(|kind| !kind.is_empty())
    }
}
