//! The streams that took events, and when each was made: one that is younger than it was has been deleted and made anew by
//! somebody else, and nothing else need hint at that.

use std::collections::HashMap;

use futures::future::BoxFuture;
use time::OffsetDateTime;

use super::doubt::Extent;
use crate::connection::Connection;

#[derive(Debug, Default)]
pub(super) struct Streams {
    /// `None` until it was looked at.
    made: HashMap<String, Option<OffsetDateTime>>,
    unseen: bool,
}

impl Streams {
    pub(super) fn took_one(&mut self, stream: &str) {
        if !self.made.contains_key(stream) {
            self.made.insert(stream.to_owned(), None);
            self.unseen = true;
        }
    }

    /// Whether there is one that was never looked at. Says so once.
    pub(super) fn take_unseen(&mut self) -> bool {
        std::mem::take(&mut self.unseen)
    }

    /// Asks when each was made. Those that do not answer, or are not there, are left out.
    pub(super) fn look(&self, connection: &Connection) -> BoxFuture<'static, Vec<(String, OffsetDateTime)>> {
        let (names, jetstream) = (self.made.keys().cloned().collect::<Vec<_>>(), connection.jetstream().clone());
        Box::pin(async move {
            let mut made = Vec::new();
            for name in names {
                if let Ok(stream) = jetstream.get_stream(&name).await {
                    made.push((name, stream.cached_info().created));
                }
            }
            made
        })
    }

    /// What is doubtful then. One that is looked at for the first time may be another than the one that took the first event;
    /// a comparison finds that out by the time of its acknowledgement.
    pub(super) fn looked(&mut self, found: Vec<(String, OffsetDateTime)>) -> Option<Extent> {
        let mut doubtful = None;
        for (name, made) in found {
            doubtful = doubtful.max(match self.made.insert(name, Some(made)).flatten() {
                None => Some(Extent::EarlierRuns),
                Some(before) if before != made => Some(Extent::PresentRunToo),
                Some(_) => None,
            });
        }
        doubtful
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_was_made_anew_is_noticed_once_and_one_that_is_away_is_not_forgotten() {
        let (old, new) = (OffsetDateTime::UNIX_EPOCH, OffsetDateTime::UNIX_EPOCH + time::Duration::SECOND);
        let found = |made: OffsetDateTime| vec![("S".to_owned(), made)];
        let mut streams = Streams::default();
        streams.took_one("S");
        assert!(streams.take_unseen() && !streams.take_unseen());
        assert_eq!(streams.looked(found(old)), Some(Extent::EarlierRuns));
        streams.took_one("S");
        assert!(!streams.take_unseen());
        assert_eq!(streams.looked(found(old)), None);
        assert_eq!(streams.looked(Vec::new()), None);
        assert_eq!(streams.looked(found(new)), Some(Extent::PresentRunToo));
        assert_eq!(streams.looked(found(new)), None);
    }
}
