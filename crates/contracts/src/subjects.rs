//! Which event travels on a subject, so that nobody else has to know where its versions do.

use std::collections::BTreeMap;
use std::sync::LazyLock;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Travelling {
    /// `orders.created`, whatever the version.
    pub event: &'static str,
    pub version: u32,
    /// Not a copy for those who read an older version.
    pub newest: bool,
}

/// `None` for the subject of no event.
pub fn event_on(subject: &str) -> Option<Travelling> {
    static KNOWN: LazyLock<BTreeMap<&'static str, Travelling>> = LazyLock::new(|| {
        let schemas = crate::all_schemas();
        let newest = |event: &str| schemas.iter().filter(|s| s.event_type == event).map(|s| s.version).max();
        let travelling = |schema: &millrace::event::Schema| Travelling {
            event: schema.event_type,
            version: schema.version,
            newest: newest(schema.event_type) == Some(schema.version),
        };
        schemas.iter().map(|schema| (schema.subject, travelling(schema))).collect()
    });
    KNOWN.get(subject).copied()
}

/// The event whose newest version travels on this subject.
pub fn newest_on(subject: &str) -> Option<&'static str> {
    event_on(subject).filter(|travelling| travelling.newest).map(|travelling| travelling.event)
}

/// Whether it carries copies of an event in an older version.
pub fn is_older(subject: &str) -> bool {
    event_on(subject).is_some_and(|travelling| !travelling.newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_one_subject_that_is_its_newest_and_any_other_is_older() {
        for schema in crate::all_schemas() {
            let travelling = event_on(schema.subject).unwrap();
            assert_eq!((travelling.event, travelling.version), (schema.event_type, schema.version));
            assert_ne!(newest_on(schema.subject).is_some(), is_older(schema.subject), "{}", schema.subject);
        }
        assert_eq!((newest_on("orders.created.v2"), newest_on("orders.created")), (Some("orders.created"), None));
        assert!(is_older("orders.created") && !is_older("orders.unknown"));
        assert_eq!(event_on("orders.unknown"), None);
    }
}
