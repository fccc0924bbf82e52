//! Where each partition stood, and when: what a rewind goes back to.
//!
//! ```text
//!  time    ──┬────────┬────────┬────────┬──▶ now       a step a second, more with very many partitions
//!  end       100      180      180 (no entry)  260
//!                       └── rewind to here: everything from 180 on goes again
//! ```
//!
//! Fed with what was handed to the kernel. A point in time is answered with the newest entry that was *complete* by then:
//! whatever was sent later lies at or behind its `end`, so too much may go again (a step's worth), never too little.
//! Going back cuts the entries that lie ahead of it: a second rewind to a time before the first one never skips forward.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use ddc_link::sender::{Mark, Slot};
use serde::{Deserialize, Serialize};

/// Time between two entries of a partition, while they all fit.
const STEP: Duration = Duration::from_secs(1);
/// Entries of all partitions together (64 bytes each), and at most two more for each partition. When so many partitions
/// are read that the span would need more, the step grows: the history stays as long and becomes coarser.
const MAX_ENTRIES: u32 = 65_536;

/// How near a rewind came to the time asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// To that time.
    Time,
    /// To where this ingress began to read the partition, which was later: it was taken over, or started anew.
    Start,
    /// To the oldest entry: the history is not that long.
    History,
}

/// Where a partition stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// The position; what is sent again begins at its `end`.
    pub mark: Mark,
    /// When the last record before it was sent, or the reading began there.
    pub at: Instant,
    /// Whether that is the time asked for.
    pub reach: Reach,
}

/// The positions of all partitions, by time.
#[derive(Debug)]
pub struct History {
    span: Duration,
    slots: BTreeMap<Slot, Past>,
}

/// The positions of one partition, the oldest first; ends do not fall.
#[derive(Debug, Clone, Default)]
pub struct Past {
    entries: VecDeque<Entry>,
    /// The oldest entry is where the reading began: nothing was forgotten.
    from_start: bool,
}

/// The last position reached between two times that are at most a step apart.
#[derive(Debug, Clone, Copy)]
struct Entry {
    first: Instant,
    last: Instant,
    mark: Mark,
}

impl History {
    /// A history that reaches `span` back.
    pub fn new(span: Duration) -> Self {
        Self { span, slots: BTreeMap::new() }
    }

    /// A partition's reading begins here.
    pub fn start(&mut self, now: Instant, mark: Mark) {
        let entries = VecDeque::from([Entry { first: now, last: now, mark }]);
        self.slots.insert(mark.slot, Past { entries, from_start: true });
    }

    /// Goes on with the past of a partition that was cut, under its new slot.
    pub fn resume(&mut self, slot: Slot, mut past: Past) {
        for entry in &mut past.entries {
            entry.mark.slot = slot;
        }
        self.slots.insert(slot, past);
    }

    /// Takes a partition out, and what lies ahead of offset `end` off its past.
    pub fn cut(&mut self, slot: Slot, end: i64) -> Past {
        let mut past = self.slots.remove(&slot).unwrap_or_default();
        past.entries.retain(|entry| entry.mark.end <= end);
        past
    }

    /// Forgets a partition.
    pub fn forget(&mut self, slot: Slot) {
        self.slots.remove(&slot);
    }

    /// Forgets all.
    pub fn forget_all(&mut self) {
        self.slots.clear();
    }

    /// Everything up to `mark` has been handed to the kernel, at the latest `now`.
    pub fn sent(&mut self, now: Instant, mark: Mark) {
        let step = self.step();
        let Some(past) = self.slots.get_mut(&mark.slot) else { return };
        // Not into the first one: where the reading began must stay known.
        let alone = past.entries.len() < 2;
        match past.entries.back_mut() {
            Some(entry) if !alone && now.duration_since(entry.first) < step => {
                (entry.last, entry.mark) = (now, mark);
            }
            _ => past.entries.push_back(Entry { first: now, last: now, mark }),
        }
        let Some(oldest) = now.checked_sub(self.span) else { return };
        // The newest entry beyond the span stays: it answers for all of the span.
        while past.entries.get(1).is_some_and(|entry| entry.last <= oldest) {
            past.entries.pop_front();
            past.from_start = false;
        }
    }

    /// Where a partition stood at a time; `None` is before every clock. `None` when it is not known.
    pub fn at(&self, slot: Slot, time: Option<Instant>) -> Option<Point> {
        let past = self.slots.get(&slot)?;
        let by = |entry: &Entry| time.is_some_and(|time| entry.last <= time);
        let behind = past.entries.partition_point(by);
        let (entry, reach) = match behind.checked_sub(1).and_then(|at| past.entries.get(at)) {
            Some(entry) => (entry, Reach::Time),
            None if past.from_start => (past.entries.front()?, Reach::Start),
            None => (past.entries.front()?, Reach::History),
        };
        Some(Point { mark: entry.mark, at: entry.last, reach })
    }

    fn step(&self) -> Duration {
        let slots = self.slots.len().min(u32::MAX as usize) as u32;
        STEP.max(self.span.saturating_mul(slots) / MAX_ENTRIES)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.slots.values().map(|past| past.entries.len()).sum()
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
