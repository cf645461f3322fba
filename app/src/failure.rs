//! How a command fails: one sentence on what is wrong, one on what to do, and a code that `millrace explain` knows.

use std::process::ExitCode;

use serde_json::json;

use crate::output;

/// Why a command could not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub message: String,
    pub remedy: Option<String>,
    /// `MR0001`
    pub code: Option<String>,
    pub exit: u8,
}

pub type CommandResult = Result<ExitCode, Failure>;

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: None, code: None, exit: 1 }
    }

    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// The command line or a setting is wrong, as opposed to something that failed.
    pub fn usage(mut self) -> Self {
        self.exit = 2;
        self
    }
}

/// Prints a failure the way the user asked for and gives the exit code.
pub fn report(failure: &Failure, json: bool) -> ExitCode {
    if json {
        output::json_to_stderr(&json!({
            "error": failure.message, "remedy": failure.remedy, "code": failure.code,
        }));
    } else {
        output::note(&format!("error: {}", failure.message));
        if let Some(remedy) = &failure.remedy {
            output::note(&format!("  try: {remedy}"));
        }
        if let Some(code) = &failure.code {
            output::note(&format!("  more: millrace explain {code}"));
        }
    }
    ExitCode::from(failure.exit)
}
