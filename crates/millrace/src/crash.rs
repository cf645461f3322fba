//! Crash points: named places at which a process under test kills itself, so that a test can show what a crash at that
//! very moment leaves behind. The toolkit has its own; a service declares more with [`crash_points!`](crate::crash_points).
//!
//! Nothing of this acts in an ordinary start: the variables are read by [`arm`] alone, which the `millrace` binary calls
//! only for a process that was started to be tested, and it refuses to start when it finds one set otherwise.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::process::{Signal, getpid, kill_process};

/// Where to die, and at which time of getting there: `after-commit`, `after-commit:3`.
pub const AT: &str = "MILLRACE_CRASH_AT";
/// A file that gets the point's name right before the end, so that whoever asked for it knows that it came to that.
pub const MARK: &str = "MILLRACE_CRASH_MARK";

static IS_ARMED: AtomicBool = AtomicBool::new(false);
static ARMED: OnceLock<Armed> = OnceLock::new();

#[derive(Debug)]
struct Armed {
    point: &'static str,
    /// How often it is passed before it is the end.
    spared: AtomicU32,
    mark: Option<PathBuf>,
}

/// A place in the code where a crash is interesting.
#[derive(Debug)]
pub struct Point(&'static str);

impl Point {
    /// The name is kebab-case and unique in the binary.
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    pub const fn name(&self) -> &'static str {
        self.0
    }

    /// Does not return when this process was told to die here. Otherwise it costs a relaxed load.
    #[inline]
    pub fn reach(&self) {
        if IS_ARMED.load(Ordering::Relaxed) {
            self.die_if_meant();
        }
    }

    #[cold]
    fn die_if_meant(&self) {
        let Some(armed) = ARMED.get().filter(|armed| armed.point == self.0) else { return };
        let spare = |left: u32| left.checked_sub(1);
        if armed.spared.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spare).is_ok() {
            return;
        }
        if let Some(mark) = &armed.mark {
            // Without the mark the test says that the point was not reached.
            let _ = std::fs::write(mark, self.0);
        }
        let _ = kill_process(getpid(), Signal::KILL);
        // The signal may take a moment, in which nothing more may happen here.
        loop {
            std::thread::park();
        }
    }
}

/// Declares points, and `ALL` of them in their order.
#[macro_export]
macro_rules! crash_points {
    ($($(#[$doc:meta])+ $name:ident = $text:literal),+ $(,)?) => {
        $($(#[$doc])+ pub static $name: $crate::crash::Point = $crate::crash::Point::new($text);)+
        /// All of these.
        pub static ALL: &[&$crate::crash::Point] = &[$(&$name),+];
    };
}

crash_points! {
    /// The toolkit's tables are there, the service's own are not.
    BETWEEN_MIGRATIONS = "between-migrations",
    /// The tables are there and nothing else was done.
    AFTER_MIGRATION = "after-migration",
    /// A message is in hand and nothing was done about it.
    BEFORE_EFFECT = "before-effect",
    /// State, inbox mark and events of a batch that publishes are written, and nothing is committed.
    BEFORE_COMMIT = "before-commit",
    /// They are committed; nobody was told, and nothing is published.
    AFTER_COMMIT = "after-commit",
    /// The broker has confirmed an event, and its outbox row does not say so.
    AFTER_PUBLISH = "after-publish",
    /// The outbox rows say so, and the relay was not told.
    AFTER_MARKED = "after-marked",
    /// All that a message asks for is committed, and the broker was not told.
    AFTER_EFFECT_BEFORE_ACK = "after-effect-before-ack",
    /// The audit says that a dead letter is being replayed, and nothing was sent.
    AFTER_REPLAY_WRITTEN_DOWN = "after-replay-written-down",
    /// A replay has taken effect, and the audit does not say so.
    BEFORE_REPLAY_AUDIT = "before-replay-audit",
    /// The copy of a message that cannot be handled is a dead letter at the broker, and nobody else knows of it.
    AFTER_DEAD_LETTER_COPY = "after-dead-letter-copy",
    /// The copy is in the outbox too, and the original has not ended.
    AFTER_DEAD_LETTER_KEPT = "after-dead-letter-kept",
    /// A message that was never answered is a dead letter, and the broker's word about it is not acknowledged.
    AFTER_ADVISORY_LETTER = "after-advisory-letter",
}

/// What a process under test was told makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArmError {
    #[error("{AT} names {0:?}, which is no crash point; those there are: {1}")]
    Unknown(String, String),
    #[error("{AT} is {0:?}; after the colon belongs a number from 1 on")]
    NotANumber(String),
}

/// Arms the point that the environment names, among `known` ones. Returns its name, if there is one.
///
/// # Errors
/// When the variable names no point.
pub fn arm<'a>(known: impl IntoIterator<Item = &'a &'static Point>) -> Result<Option<&'static str>, ArmError> {
    let Some(text) = std::env::var_os(AT).map(|text| text.to_string_lossy().into_owned()).filter(|t| !t.is_empty())
    else {
        return Ok(None);
    };
    let (point, spared) = parse(&text, known)?;
    let mark = std::env::var_os(MARK).filter(|path| !path.is_empty()).map(PathBuf::from);
    // Once per process; a second call finds the same environment.
    let _ = ARMED.set(Armed { point, spared: AtomicU32::new(spared), mark });
    IS_ARMED.store(true, Ordering::SeqCst);
    Ok(Some(point))
}

/// The point, and how often it is to be passed before.
fn parse<'a>(text: &str, known: impl IntoIterator<Item = &'a &'static Point>) -> Result<(&'static str, u32), ArmError> {
    let (name, nth) = text.split_once(':').unwrap_or((text, "1"));
    let names: Vec<_> = known.into_iter().map(|point| point.name()).collect();
    let Some(point) = names.iter().find(|known| **known == name) else {
        return Err(ArmError::Unknown(name.to_owned(), names.join(", ")));
    };
    let spared = nth.parse::<u32>().ok().and_then(|nth| nth.checked_sub(1));
    Ok((*point, spared.ok_or_else(|| ArmError::NotANumber(text.to_owned()))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_named_with_the_time_at_which_it_is_the_end() {
        assert_eq!(parse("after-commit", ALL), Ok(("after-commit", 0)));
        assert_eq!(parse("after-commit:3", ALL), Ok(("after-commit", 2)));
        for text in ["after-commit:0", "after-commit:", "after-commit:often", "after-commit:1:2"] {
            assert_eq!(parse(text, ALL), Err(ArmError::NotANumber(text.into())));
        }
        let error = parse("after-lunch", ALL).unwrap_err().to_string();
        assert!(error.contains("after-lunch") && error.contains("between-migrations, after-migration"), "{error}");
    }

    #[test]
    fn a_process_that_was_not_armed_passes_every_point() {
        ALL.iter().for_each(|point| point.reach());
    }
}
