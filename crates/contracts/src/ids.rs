//! Identifiers. Text ids are limited so that they fit subjects, headers, keys and log lines everywhere.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// An order, named by the order service (UUIDv7) or by the foreign system that published it (any UUID).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(transparent)]
pub struct OrderId(pub Uuid);

impl OrderId {
    /// A new id that sorts by time.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for OrderId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Uuid::parse_str(text).map(Self).map_err(|_| InvalidId { what: "order_id", rule: "a UUID" })
    }
}

/// Says what an id has to look like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {rule}")]
pub struct InvalidId {
    pub what: &'static str,
    pub rule: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $example:literal, $max:tt, $pattern:tt, $rule:literal, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String", extend("minLength" = 1, "maxLength" = $max, "pattern" = $pattern))]
        #[schema(value_type = String, min_length = 1, max_length = $max, pattern = $pattern, example = $example)]
        pub struct $name(String);

        impl $name {
            /// The longest it may be, in bytes.
            pub const MAX_LEN: usize = $max;

            pub fn new(text: impl Into<String>) -> Result<Self, InvalidId> {
                let text = text.into();
                let allowed: fn(u8) -> bool = $allowed;
                if text.is_empty() || text.len() > Self::MAX_LEN || !text.bytes().all(allowed) {
                    return Err(InvalidId { what: $what, rule: $rule });
                }
                Ok(Self(text))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// A product, as the catalog names it; also its key in the catalog bucket.
    ProductId,
    "product_id",
    "espresso-cup",
    64,
    "^[A-Za-z0-9_-]+$",
    "1 to 64 letters, digits, '-' or '_'",
    |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')
);

text_id!(
    /// A customer, as the shop in front of Millrace names them.
    CustomerId,
    "customer_id",
    "customer-7",
    128,
    "^[!-~]+$",
    "1 to 128 visible ASCII characters without spaces",
    |b| b.is_ascii_graphic()
);
