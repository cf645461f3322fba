//! Sabotage: one safety of a process under test is switched off, so that it can be seen that somebody notices.
//!
//! As with [crash points](crate::crash), nothing of this acts in an ordinary start: only [`arm`] reads the variable, and the
//! `millrace` binary calls it only for a process that was started to be tested. Every place that asks is marked with the
//! word "Sabotage".

use std::sync::OnceLock;

use time::OffsetDateTime;

use crate::inbox::Mark;

/// Which safety is off.
pub const VARIABLE: &str = "MILLRACE_SABOTAGE";

static ARMED: OnceLock<&'static str> = OnceLock::new();

/// A safety that can be switched off, or a wrong that can be done.
#[derive(Debug)]
pub struct Sabotage(&'static str);

impl Sabotage {
    /// The name is kebab-case.
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    pub const fn name(&self) -> &'static str {
        self.0
    }

    /// Whether this process was told to do without the safety.
    #[inline]
    pub fn is_on(&self) -> bool {
        ARMED.get().is_some_and(|armed| *armed == self.0)
    }
}

/// Stands in the inbox behind the id of an event that was handled again.
pub const AGAIN: &str = " again ";

/// A mark beside the one there is, so that it can be counted how often an event was handled.
pub(crate) fn handled_again(mark: &Mark, now: OffsetDateTime) -> Mark {
    Mark { event_id: format!("{}{AGAIN}{}", mark.event_id, now.unix_timestamp_nanos()), ..mark.clone() }
}

/// Nobody looks up which events were handled.
pub static INBOX: Sabotage = Sabotage::new("inbox");
/// Events are published from memory alone.
pub static OUTBOX: Sabotage = Sabotage::new("outbox");
/// Messages are acknowledged on receipt.
pub static ACK_BEFORE_COMMIT: Sabotage = Sabotage::new("ack-before-commit");

/// The toolkit's own.
pub static ALL: &[&Sabotage] = &[&INBOX, &OUTBOX, &ACK_BEFORE_COMMIT];

/// The variable names nothing that could be switched off.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{VARIABLE} names {0:?}, which cannot be switched off; what can is {1}")]
pub struct UnknownSabotage(String, String);

/// Switches off what the environment names, among `known`. Returns its name, if there is one.
///
/// # Errors
/// When the variable names nothing that could be switched off.
pub fn arm<'a>(
    known: impl IntoIterator<Item = &'a &'static Sabotage>,
) -> Result<Option<&'static str>, UnknownSabotage> {
    let Some(text) =
        std::env::var_os(VARIABLE).map(|text| text.to_string_lossy().into_owned()).filter(|t| !t.is_empty())
    else {
        return Ok(None);
    };
    let mut names: Vec<_> = known.into_iter().map(|sabotage| sabotage.name()).collect();
    // Several services may have one of the same name.
    let mut said = std::collections::HashSet::new();
    names.retain(|name| said.insert(*name));
    let Some(name) = names.iter().find(|known| **known == text) else {
        return Err(UnknownSabotage(text, names.join(", ")));
    };
    // Once per process; a second call finds the same environment.
    let _ = ARMED.set(name);
    Ok(Some(name))
}
