use std::fmt;
use std::io;
use std::path::PathBuf;

use super::Origin;
use crate::codes::{self, Coded};

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// What an operator has to correct.
    #[error("{}", list(.0))]
    Problems(Vec<Problem>),
    #[error("the configuration file {} cannot be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the configuration file {} is not valid TOML: {reason}", path.display())]
    Syntax { path: PathBuf, reason: String },
    /// The default TOML and the settings type disagree: a defect of the program.
    #[error("the built-in configuration is wrong, please report this: {0}")]
    BuiltIn(String),
}

impl Coded for ConfigError {
    fn code(&self) -> Option<&'static str> {
        Some(codes::WRONG_SETTING)
    }
}

/// One thing to correct. Values of secret settings are masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// `shown` is the name as given: a key, a variable or a flag.
    Unknown {
        shown: String,
        origin: Origin,
        did_you_mean: Option<String>,
    },
    Invalid {
        setting: String,
        value: String,
        origin: Origin,
        expected: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { shown, origin, did_you_mean } => {
                match origin {
                    Origin::Environment(_) => write!(f, "there is no setting for the environment variable {shown}")?,
                    _ => write!(f, "there is no setting {shown} ({origin})")?,
                }
                match did_you_mean {
                    Some(name) => write!(f, "; did you mean {name}?"),
                    None => f.write_str("; remove it"),
                }
            }
            Self::Invalid { setting, value, origin, expected } => {
                write!(f, "{setting} is {value} ({origin}); expected {expected}")
            }
        }
    }
}

fn list(problems: &[Problem]) -> String {
    match problems {
        [one] => format!("wrong setting: {one}"),
        many => {
            let lines: Vec<String> = many.iter().map(|problem| format!("\n  - {problem}")).collect();
            format!("{} wrong settings:{}", many.len(), lines.concat())
        }
    }
}
