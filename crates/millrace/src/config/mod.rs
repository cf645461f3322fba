//! Layered configuration: a commented default TOML built into the binary, a file, the environment, flags; later ones win.
//!
//! A setting has one name everywhere. `http.max_body` of the file is `MILLRACE_HTTP_MAX_BODY` in the environment; the names
//! are found by walking through the default TOML, so there is nothing to guess about separators. Hence its rules: every
//! setting appears in it, and an optional one appears as `""`, which means "not set" (its field is an `Option`).
//!
//! An unknown name is an error, with the name that was probably meant. Errors say which setting, which value, where it came
//! from and what would be right; all of them at once.
//!
//! ```
//! use millrace::config::{HumanDuration, Invalid, Loader, Validate};
//!
//! #[derive(serde::Deserialize)]
//! struct Settings { http: Http }
//! #[derive(serde::Deserialize)]
//! struct Http { port: u16, proxy: Option<String>, deadline: HumanDuration }
//! impl Validate for Settings {}
//!
//! let defaults = "[http]\nport = 8080\nproxy = \"\"\ndeadline = \"15s\"\n";
//! let loaded = Loader::new(defaults).set("http.port", "9000").load::<Settings>()?;
//! assert_eq!(loaded.settings.http.port, 9000);
//! assert_eq!(loaded.settings.http.proxy, None);
//! # Ok::<(), millrace::config::ConfigError>(())
//! ```

mod dump;
mod error;
mod flat;
mod loader;
mod loose;
mod mask;
mod suggest;
mod units;
mod wording;

pub use dump::{Effective, SettingDoc, reference};
pub use error::{ConfigError, Problem};
pub use loader::{Loaded, Loader};
pub(crate) use loose::Loose;
pub use mask::mask_url;
pub use units::{ByteSize, HumanDuration};
pub(crate) use wording::{expectation, field_in_message};

use std::fmt;
use std::path::PathBuf;

/// What the types alone cannot say: ranges, and settings that belong together.
pub trait Validate {
    /// Every setting that is wrong.
    fn validate(&self) -> Result<(), Vec<Invalid>> {
        Ok(())
    }
}

/// A setting that was read but cannot be right. The loader adds where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Its name: `http.port`.
    pub setting: String,
    /// As it should be shown.
    pub value: String,
    /// What would be right, to follow "expected": "a number from 1 to 1000".
    pub expected: String,
}

impl Invalid {
    pub fn new(setting: impl Into<String>, value: impl fmt::Display, expected: impl Into<String>) -> Self {
        Self { setting: setting.into(), value: value.to_string(), expected: expected.into() }
    }
}

/// Where the value of a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The default TOML.
    BuiltIn,
    File {
        path: PathBuf,
        line: usize,
    },
    /// The variable's name.
    Environment(String),
    /// The flag as typed: `--http-port`.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built-in default"),
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}
