//! Outbox rows in memory, by lane.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::Row;

/// Pause before a row the broker refused is tried again, doubling up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(100);
pub(super) const RETRY_MOST: Duration = Duration::from_secs(5);
/// Refusals in a row after which a lane is no longer taken for unlucky.
pub(super) const PERSISTENT: u32 = 3;

/// Of each lane at most one row is being published, so that a lane's rows keep their order even when a publish has to be
/// repeated; a lane whose row is refused waits by itself.
#[derive(Default)]
pub(super) struct Queue {
    lanes: HashMap<String, Lane>,
    ready: VecDeque<String>,
    parked: BTreeMap<(Instant, String), ()>,
    known: HashSet<i64>,
    failing: HashSet<String>,
    aside: HashSet<String>,
}

#[derive(Default)]
struct Lane {
    waiting: BTreeMap<i64, Row>,
    publishing: Option<i64>,
    failures: u32,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether nothing can be published at this moment.
    pub(super) fn nothing_ready(&self) -> bool {
        self.ready.is_empty()
    }

    /// Takes a row, unless it is here already or its lane was set aside.
    pub(super) fn add(&mut self, row: Row) {
        if self.aside.contains(&row.message.lane) || !self.known.insert(row.id) {
            return;
        }
        let name = row.message.lane.clone();
        let lane = self.lanes.entry(name.clone()).or_default();
        let idle = lane.waiting.is_empty() && lane.publishing.is_none();
        lane.waiting.insert(row.id, row);
        if idle {
            self.ready.push_back(name);
        }
    }

    /// The next row to be published.
    pub(super) fn next(&mut self) -> Option<Row> {
        while let Some(name) = self.ready.pop_front() {
            let Some(lane) = self.lanes.get_mut(&name) else { continue };
            if lane.publishing.is_none()
                && let Some((id, row)) = lane.waiting.pop_first()
            {
                lane.publishing = Some(id);
                return Some(row);
            }
        }
        None
    }

    /// The row that was being published in this lane is with the broker.
    pub(super) fn done(&mut self, name: &str) {
        let Some(lane) = self.lanes.get_mut(name) else { return };
        if let Some(id) = lane.publishing.take() {
            self.known.remove(&id);
        }
        if lane.failures >= PERSISTENT {
            self.failing.remove(name);
        }
        lane.failures = 0;
        if lane.waiting.is_empty() {
            self.lanes.remove(name);
        } else {
            self.ready.push_back(name.to_owned());
        }
    }

    /// Puts a row that failed back in front of its lane, and the lane off for a while. Returns how often the lane has
    /// failed in a row, and the pause.
    pub(super) fn park(&mut self, row: Row) -> (u32, Duration) {
        let name = row.message.lane.clone();
        let lane = self.lanes.entry(name.clone()).or_default();
        lane.publishing = None;
        lane.failures += 1;
        let failures = lane.failures;
        lane.waiting.insert(row.id, row);
        if failures == PERSISTENT {
            self.failing.insert(name.clone());
        }
        let most = RETRY_FIRST.saturating_mul(1 << failures.min(10)).min(RETRY_MOST);
        let pause = most.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.parked.insert((Instant::now() + pause, name), ());
        (failures, pause)
    }

    pub(super) async fn next_retry(&self) {
        match self.parked.first_key_value() {
            Some(((until, _), ())) => tokio::time::sleep_until(*until).await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn unpark_due(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.parked.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let ((_, name), ()) = entry.remove_entry();
            self.ready.push_back(name);
        }
    }

    pub(super) fn unpark_all(&mut self) {
        for ((_, name), ()) in std::mem::take(&mut self.parked) {
            self.ready.push_back(name);
        }
    }

    /// Forgets the lanes that the broker keeps refusing, so that they do not take all the room there is. Their rows are in
    /// the table; until [`reopen`](Self::reopen) no later row of such a lane is taken, which would overtake them.
    pub(super) fn set_failing_aside(&mut self) {
        for name in std::mem::take(&mut self.failing) {
            match self.lanes.get(&name) {
                Some(lane) if lane.publishing.is_some() => {
                    self.failing.insert(name);
                }
                Some(_) => {
                    let lane = self.lanes.remove(&name).unwrap_or_default();
                    lane.waiting.keys().for_each(|id| {
                        self.known.remove(id);
                    });
                    self.aside.insert(name);
                }
                None => {}
            }
        }
        let aside = &self.aside;
        self.parked.retain(|(_, name), ()| !aside.contains(name));
    }

    /// Whether there are lanes that were set aside.
    pub(super) fn has_aside(&self) -> bool {
        !self.aside.is_empty()
    }

    /// Takes rows of all lanes again: to be called when the table is about to be read from its beginning.
    pub(super) fn reopen(&mut self) {
        self.aside.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::NewRow;

    fn row(id: i64, lane: &str) -> Row {
        let message = NewRow {
            message_id: id.to_string(),
            subject: "s".into(),
            lane: lane.into(),
            headers: Vec::new(),
            body: bytes::Bytes::new(),
        };
        Row { id, message }
    }

    fn ids(queue: &mut Queue) -> Vec<i64> {
        std::iter::from_fn(|| queue.next()).map(|row| row.id).collect()
    }

    #[test]
    fn of_a_lane_one_row_is_published_at_a_time_and_in_order() {
        let mut queue = Queue::default();
        [row(2, "a"), row(1, "a"), row(3, "b"), row(1, "a")].into_iter().for_each(|r| queue.add(r));
        assert_eq!((queue.len(), ids(&mut queue)), (3, vec![1, 3]));
        queue.done("a");
        queue.done("b");
        assert_eq!(ids(&mut queue), [2]);
        queue.done("a");
        assert_eq!(queue.len(), 0);
    }

    #[tokio::test]
    async fn a_refused_row_stays_in_front_of_its_lane_and_in_nobody_elses_way() {
        let mut queue = Queue::default();
        [row(1, "a"), row(2, "a"), row(3, "b")].into_iter().for_each(|r| queue.add(r));
        let first = queue.next().unwrap();
        queue.park(first);
        assert_eq!(ids(&mut queue), [3]);
        queue.unpark_all();
        assert_eq!(ids(&mut queue), [1]);
    }

    #[tokio::test]
    async fn a_lane_that_is_set_aside_makes_room_and_lets_no_later_row_overtake() {
        let mut queue = Queue::default();
        [row(1, "a"), row(2, "a")].into_iter().for_each(|r| queue.add(r));
        for _ in 0..PERSISTENT {
            let refused = queue.next().unwrap();
            assert_eq!(refused.id, 1);
            queue.park(refused);
            queue.unpark_all();
        }
        queue.add(row(3, "b"));
        queue.set_failing_aside();
        assert_eq!(queue.len(), 1);
        queue.add(row(4, "a"));
        assert_eq!(ids(&mut queue), [3]);
        assert!(queue.has_aside());
        queue.reopen();
        [row(1, "a"), row(2, "a"), row(4, "a")].into_iter().for_each(|r| queue.add(r));
        assert_eq!(ids(&mut queue), [1]);
    }
}
