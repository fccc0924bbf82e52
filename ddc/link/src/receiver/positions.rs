//! How far each partition is settled at the destination: a bounded table, kept across restarts.
//!
//! Runs on the sink's thread. For each chunk: [`Positions::enter`] steps over a gap, [`Visit::disposition`] judges
//! each record, [`Visit::finish`] settles the chunk. The table is written by the egress to its state directory
//! each second (`stored.rs`); what it decides by is in `gaps.rs` and `position.rs`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ddc_wire::{ChunkHeader, ChunkKind, Epoch, LedgerEntry, TopicId};

use super::gaps::{self, Claim, Disposition, Life, Missing, MissingReason, OffsetRange};
use super::position::{Position, Settled};

/// Most partitions in the table; the one not touched longest makes way.
pub const MAX_PARTITIONS: usize = 65_536;

/// One partition of one life of a topic at the source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PartitionKey {
    /// The source's stream.
    pub stream: String,
    /// The topic's name at the source.
    pub topic: String,
    /// Which life of the topic.
    pub topic_id: TopicId,
    /// The partition at the source.
    pub partition: i32,
}

impl PartitionKey {
    fn set(&mut self, stream: &str, topic: &str, topic_id: TopicId, partition: i32) {
        self.stream.clear();
        self.stream.push_str(stream);
        self.topic.clear();
        self.topic.push_str(topic);
        (self.topic_id, self.partition) = (topic_id, partition);
    }
}

/// Where all partitions stand; at most [`MAX_PARTITIONS`].
#[derive(Debug, Clone, Default)]
pub struct Positions {
    index: HashMap<Arc<PartitionKey>, usize>,
    slots: Vec<Slot>,
    /// Slots by the time of their last touch, the oldest first.
    by_touch: BTreeMap<u64, usize>,
    touches: u64,
    /// How often batches were dropped before the sink saw them, and why the last time.
    drops: u64,
    dropped: Option<MissingReason>,
    /// Kept to look up without allocating.
    scratch: PartitionKey,
}

#[derive(Debug, Clone)]
struct Slot {
    key: Arc<PartitionKey>,
    position: Position,
    touched: u64,
}

/// A chunk on its way into the table. Its gap, if any, is stepped over; its records are not settled before
/// [`Self::finish`].
#[derive(Debug)]
#[must_use = "the chunk's records are settled by finish()"]
pub struct Visit<'a> {
    /// What is missing before the chunk.
    pub missing: Option<Missing>,
    /// A hole that no longer fits the table: it stays missing for good.
    pub forgotten: Option<OffsetRange>,
    /// A partition that no longer fits the table: what comes of it next is judged as if for the first time.
    pub evicted: Option<Arc<PartitionKey>>,
    /// The chunk is of an older epoch than the position: its offsets decide all the same.
    pub older_epoch: bool,
    position: Option<&'a mut Position>,
    kind: ChunkKind,
    epoch: Epoch,
    origin: i64,
    count: u64,
    base: i64,
    end: i64,
}

impl Visit<'_> {
    /// What to do with a record of this chunk.
    pub fn disposition(&self, offset: i64) -> Disposition {
        gaps::disposition(self.kind, offset, self.position.as_deref())
    }

    /// Settles the chunk: its records, and its offsets without records.
    pub fn finish(self) -> Settled {
        let Some(position) = self.position else { return Settled::default() };
        if self.kind == ChunkKind::Replay {
            // It stands outside of the chain: it closes holes and moves nothing, also not the owner's epoch.
            return position.settle(self.base, self.end.min(position.next));
        }
        let end = self.end;
        if end >= position.next {
            (position.count, position.origin) = (self.count, self.origin);
        }
        position.epoch = position.epoch.max(self.epoch);
        position.settle(self.base, end)
    }
}

/// What a ledger entry revealed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LedgerVerdict {
    /// What was sent and is not here.
    pub missing: Option<Missing>,
    /// See [`Visit::forgotten`].
    pub forgotten: Option<OffsetRange>,
    /// See [`Visit::evicted`].
    pub evicted: Option<Arc<PartitionKey>>,
}

impl Positions {
    /// Begins with a chunk, steps over the gap before it.
    pub fn enter(&mut self, header: &ChunkHeader<'_>, record_count: u32) -> Visit<'_> {
        self.scratch.set(header.stream, header.topic, header.topic_id, header.partition);
        let mut visit = Visit {
            missing: None,
            forgotten: None,
            evicted: None,
            older_epoch: false,
            position: None,
            kind: header.kind,
            epoch: header.epoch,
            origin: header.origin,
            count: header.count,
            base: header.base(),
            end: header.end,
        };
        let known = self.index.get(&self.scratch).copied();
        if header.kind == ChunkKind::Replay {
            // It never makes a gap and never a position; it may close holes.
            visit.position = known.map(|at| &mut self.slots[at].position);
            return visit;
        }
        visit.older_epoch = known.is_some_and(|at| header.epoch < self.slots[at].position.epoch);
        let claim = Claim::of_chunk(header, record_count);
        let at;
        (at, visit.missing, visit.forgotten, visit.evicted) = self.judge(known, &claim, header.epoch);
        visit.position = Some(&mut self.slots[at].position);
        visit
    }

    /// Judges an entry of a ledger whose batch was released: everything it speaks of was released or given up.
    pub fn ledger(&mut self, entry: &LedgerEntry<'_>) -> LedgerVerdict {
        self.scratch.set(entry.stream, entry.topic, entry.topic_id, entry.partition);
        if entry.last.is_none() {
            // Nothing is known to have been sent, so there is nothing to know of the partition yet.
            return LedgerVerdict::default();
        }
        let known = self.index.get(&self.scratch).copied();
        let claim = Claim::of_ledger(entry);
        let (_, missing, forgotten, evicted) = self.judge(known, &claim, entry.epoch);
        LedgerVerdict { missing, forgotten, evicted }
    }

    /// Whether [`Self::enter`] would step over a gap before this chunk. Changes nothing.
    pub fn leaves_gap(&self, key: &PartitionKey, header: &ChunkHeader<'_>) -> bool {
        header.kind == ChunkKind::Live
            && Claim::of_chunk(header, 0).missing(self.get(key), Life::This).is_some()
    }

    /// Whether [`Self::ledger`] would step over a gap. Changes nothing.
    pub fn ledger_leaves_gap(&self, key: &PartitionKey, entry: &LedgerEntry<'_>) -> bool {
        entry.last.is_some() && Claim::of_ledger(entry).missing(self.get(key), Life::This).is_some()
    }

    /// The destination refuses a record for ever: once settled, it becomes a hole of its own. Returns what to
    /// report, and a hole that no longer fits the table.
    pub fn refuse(&mut self, key: &PartitionKey, offset: i64) -> (Missing, Option<OffsetRange>) {
        let range = OffsetRange { first: offset, last: offset };
        let missing = Missing { range, records: Some(1), reason: MissingReason::Refused };
        let position = self.index.get(key).map(|at| &mut self.slots[*at].position);
        // At or above `next` it is not settled yet: a hole there would hide what lies before it.
        let settled = position.filter(|position| offset < position.next);
        (missing, settled.and_then(|position| position.add_hole(range)))
    }

    /// Batches were dropped between the receiver and here: the next gap of each partition is reported with that reason.
    pub fn note_dropped(&mut self, reason: MissingReason) {
        self.drops += 1;
        self.dropped = Some(reason);
    }

    /// As [`Self::note_dropped`], for who judges out of order: how often batches were dropped before the one that is judged next, and why
    /// the last time. What was dropped behind it has no part in its gap.
    pub fn dropped_before(&mut self, drops: u64, reason: Option<MissingReason>) {
        (self.drops, self.dropped) = (drops, reason);
    }

    /// Puts a position into the table, in the place of the one that is there. Returns a partition that made way.
    pub fn restore(&mut self, key: &PartitionKey, position: Position) -> Option<Arc<PartitionKey>> {
        if let Some(at) = self.index.get(key).copied() {
            self.slots[at].position = position;
            self.touch(at);
            return None;
        }
        self.insert(key.clone(), position).1
    }

    /// Forgets a partition: what comes of it next is judged as if for the first time.
    pub fn remove(&mut self, key: &PartitionKey) -> Option<Position> {
        let at = self.index.remove(key)?;
        let removed = self.slots.swap_remove(at);
        self.by_touch.remove(&removed.touched);
        if let Some(moved) = self.slots.get(at) {
            // The last slot has taken the place of the removed one.
            self.by_touch.insert(moved.touched, at);
            if let Some(slot) = self.index.get_mut(&moved.key) {
                *slot = at;
            }
        }
        Some(removed.position)
    }

    /// The position of a partition.
    pub fn get(&self, key: &PartitionKey) -> Option<&Position> {
        self.index.get(key).map(|at| &self.slots[*at].position)
    }

    /// All positions, the one not touched longest first.
    pub fn iter(&self) -> impl Iterator<Item = (&PartitionKey, &Position)> {
        self.by_touch.values().map(|at| (&*self.slots[*at].key, &self.slots[*at].position))
    }

    /// How many partitions are known.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Judges a claim on the partition in `scratch` and steps over what is missing. Returns its slot.
    fn judge(
        &mut self,
        known: Option<usize>,
        claim: &Claim,
        epoch: Epoch,
    ) -> (usize, Option<Missing>, Option<OffsetRange>, Option<Arc<PartitionKey>>) {
        let Some(at) = known else {
            let missing = claim.missing(None, Life::This);
            let first = claim.previous.map_or(claim.origin, |previous| previous + 1);
            let mut position = Position::new(first, epoch, claim.origin, claim.count.unwrap_or(0));
            position.drops = self.drops;
            let forgotten = missing.and_then(|missing| position.step_over(&missing, claim));
            let (at, evicted) = self.insert(self.scratch.clone(), position);
            return (at, missing, forgotten, evicted);
        };
        self.touch(at);
        let position = &mut self.slots[at].position;
        // What was dropped in this life is known; what a restart has cost is a guess.
        let dropped = self.dropped.filter(|_| position.drops < self.drops);
        let life = dropped.map_or(position.life, Life::Dropped);
        let missing = claim.missing(Some(position), life);
        let forgotten = missing.and_then(|missing| position.step_over(&missing, claim));
        (position.life, position.drops) = (Life::This, position.drops.max(self.drops));
        position.epoch = position.epoch.max(epoch);
        (at, missing, forgotten, None)
    }

    pub(super) fn insert(
        &mut self,
        key: PartitionKey,
        position: Position,
    ) -> (usize, Option<Arc<PartitionKey>>) {
        let key = Arc::new(key);
        self.touches += 1;
        let slot = Slot { key: Arc::clone(&key), position, touched: self.touches };
        let oldest = if self.slots.len() < MAX_PARTITIONS { None } else { self.by_touch.pop_first() };
        let (at, evicted) = if let Some((_, at)) = oldest {
            let old = std::mem::replace(&mut self.slots[at], slot);
            self.index.remove(&old.key);
            (at, Some(old.key))
        } else {
            self.slots.push(slot);
            (self.slots.len() - 1, None)
        };
        self.index.insert(key, at);
        self.by_touch.insert(self.touches, at);
        (at, evicted)
    }

    fn touch(&mut self, at: usize) {
        self.touches += 1;
        self.by_touch.remove(&self.slots[at].touched);
        self.slots[at].touched = self.touches;
        self.by_touch.insert(self.touches, at);
    }
}
