//! What only a process under test may be told by its environment: to die at a named point, or to do without a safety. An
//! ordinary start that finds such a variable refuses, so that no such switch is ever on by accident.

use millrace::crash::{self, Point};
use millrace::sabotage::{self, Sabotage};

use crate::failure::Failure;

/// Every crash point of this binary.
fn points() -> impl Iterator<Item = &'static &'static Point> {
    let services = [payment::under_test::ALL, inventory::under_test::ALL, notification::under_test::ALL];
    crash::ALL.iter().chain(services.into_iter().flatten())
}

/// Everything that can be switched off in this binary.
fn sabotages() -> impl Iterator<Item = &'static &'static Sabotage> {
    let services = [payment::under_test::SABOTAGES, inventory::under_test::SABOTAGES];
    sabotage::ALL.iter().chain(services.into_iter().flatten())
}

/// For an ordinary start.
pub fn refuse() -> Result<(), Failure> {
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match [crash::AT, crash::MARK, sabotage::VARIABLE].into_iter().find(is_set) {
        None => Ok(()),
        Some(name) => {
            Err(Failure::new(format!("the environment has {name}, which only a process under test may have"))
                .remedy(format!("unset {name}, and start again"))
                .code(millrace::codes::TEST_SWITCH)
                .usage())
        }
    }
}

/// For `serve --under-test`.
pub fn arm() -> Result<(), Failure> {
    let refused =
        |reason: &dyn std::fmt::Display| Failure::new(reason.to_string()).code(millrace::codes::TEST_SWITCH).usage();
    let crash_at = crash::arm(points()).map_err(|e| refused(&e))?;
    let sabotaged = sabotage::arm(sabotages()).map_err(|e| refused(&e))?;
    if crash_at.is_some() || sabotaged.is_some() {
        crate::output::note(&format!("Under test: crash at {crash_at:?}, without {sabotaged:?}."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_crash_points_have_the_same_name() {
        let names: Vec<_> = points().map(|point| point.name()).collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "{names:?}");
    }
}
