//! Entries that no event explains: removed if the streams hold everything about their order, otherwise left and counted.

use std::collections::{BTreeSet, HashSet};

use contracts::OrderId;
use contracts::orders::OrderCreated;
use millrace::event::{Event, EventId, message_id};
use millrace::history::History;
use uuid::Uuid;

use super::Error;
use super::fold::Told;
use super::rebuild::{Rebuild, Seen};
use crate::model::{Entry, Mending, SERVICE};

/// Entries read in one go.
const PAGE: u32 = 2_000;
/// Entries removed in one go.
const CHUNK: usize = 256;

impl Rebuild<'_> {
    pub(super) async fn strays(&mut self, seen: &Seen) -> Result<(), Error> {
        let mut older = BTreeSet::new();
        let unexplained = self.unexplained(seen, &mut older).await?;
        for entry in self.still_unexplained(unexplained, seen).await? {
            self.older(&mut older, &entry);
        }
        self.found.older_orders += older.len() as u64;
        Ok(())
    }

    /// Entries without an event in the history. What is older than the streams is counted at once: it may be a lot.
    async fn unexplained(&mut self, seen: &Seen, older: &mut BTreeSet<OrderId>) -> Result<Vec<Entry>, Error> {
        let mut unexplained = Vec::new();
        let mut behind = (OrderId(Uuid::nil()), 0);
        loop {
            let page = match self.request.order_id {
                Some(only) => self.parts.reads.timelines(&[only]).await?,
                None => self.parts.reads.entries_behind(behind.0, behind.1, PAGE).await?,
            };
            let Some(last) = page.last().map(|entry| (entry.order_id, entry.seq)) else { break };
            for entry in page.into_iter().filter(|entry| !seen.explains(entry)) {
                if seen.whole.contains(&entry.order_id) || entry.what.at.0 >= seen.complete_since {
                    unexplained.push(entry);
                } else {
                    self.older(older, &entry);
                }
            }
            if self.request.order_id.is_some() {
                break;
            }
            behind = last;
        }
        Ok(unexplained)
    }

    /// Removes those that have no event either in what was stored since the history was opened, or in the outbox, whence
    /// this service's own events go to the stream. Returns what cannot be judged.
    async fn still_unexplained(&mut self, entries: Vec<Entry>, seen: &Seen) -> Result<Vec<Entry>, Error> {
        if entries.is_empty() {
            return Ok(entries);
        }
        // In this order: what leaves the outbox meanwhile is on the stream by the time that is looked at.
        let mut explained = self.in_outbox(&entries).await?;
        let stood = |name: &str| seen.stood.iter().find(|s| s.stream == name).map_or(0, |s| s.last_sequence);
        let mut since = History::open(&self.parts.connection, &self.fold.events(stood)).await?;
        while let Some(message) = since.next().await? {
            if let Told::Entry(_, entry) = self.fold.understand(&message).await {
                explained.insert(entry.event_id);
            }
        }
        // A server that was away may have come back without the end of its streams, and numbers given anew.
        if self.nats.has_changed().unwrap_or(true) {
            return Err(Error::Interrupted);
        }
        let left = entries.into_iter().filter(|entry| !explained.contains(&entry.what.event_id));
        let (stray, unjudged): (Vec<_>, Vec<_>) = left.partition(|entry| seen.whole.contains(&entry.order_id));
        for chunk in stray.chunks(CHUNK) {
            let stray = chunk.iter().map(|entry| (entry.order_id, entry.what.event_id.clone())).collect();
            self.mend(Mending { stray, ..Mending::default() }).await?;
        }
        Ok(unjudged)
    }

    async fn in_outbox(&self, entries: &[Entry]) -> Result<HashSet<String>, Error> {
        let own: Vec<&str> = entries
            .iter()
            .filter(|entry| entry.what.service == SERVICE)
            .map(|entry| entry.what.event_id.as_str())
            .collect();
        let mut found = HashSet::new();
        for chunk in own.chunks(CHUNK) {
            let versions = |id: &&str| {
                let id = EventId::from((*id).to_owned());
                (1..=OrderCreated::VERSION).map(move |version| message_id(&id, version))
            };
            let wanted: Vec<String> = chunk.iter().flat_map(versions).collect();
            let waiting: HashSet<String> = self.parts.reads.in_outbox(&wanted).await?.into_iter().collect();
            let is_waiting = |id: &&&str| versions(id).any(|message_id| waiting.contains(&message_id));
            found.extend(chunk.iter().filter(is_waiting).map(|id| (*id).to_owned()));
        }
        Ok(found)
    }

    /// Counts an entry that stays because the streams do not reach back to its order's beginning.
    fn older(&mut self, older: &mut BTreeSet<OrderId>, entry: &Entry) {
        self.found.older_entries += 1;
        older.insert(entry.order_id);
    }
}
