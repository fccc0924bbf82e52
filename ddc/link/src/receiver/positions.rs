//! How far each partition is settled at the destination: a bounded table, kept across restarts.
//!
//! Runs on the sink's thread. For each chunk: [`Positions::enter`] steps over a gap, [`Visit::disposition`] judges
//! each record, [`Visit::finish`] settles the chunk. The table is written by the egress to its state directory
//! each second; what it decides by is in `gaps.rs`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ddc_wire::{ChunkHeader, ChunkKind, Epoch, LedgerEntry, TopicId};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::gaps::{self, Claim, Disposition, Life, Missing, MissingReason, OffsetRange};

/// The version of the written form.
pub const FORMAT: u32 = 1;
/// Most partitions in the table; the one not touched longest makes way.
pub const MAX_PARTITIONS: usize = 65_536;
/// Most holes of one partition; the oldest is given up.
pub const MAX_HOLES: usize = 1024;

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

/// How far one partition is settled: every offset below `next` but the holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    next: i64,
    epoch: Epoch,
    origin: i64,
    /// Records that the sender had sent of everything below `next`.
    count: u64,
    /// Sorted, apart, not adjacent, all below `next`; at most [`MAX_HOLES`].
    holes: Vec<OffsetRange>,
    life: Life,
    /// The table's count of dropped batches when the position was judged last.
    drops: u64,
}

impl Position {
    fn new(next: i64, epoch: Epoch, origin: i64, count: u64) -> Self {
        Self { next, epoch, origin, count, holes: Vec::new(), life: Life::This, drops: 0 }
    }

    /// The next offset of the chain.
    pub fn next(&self) -> i64 {
        self.next
    }

    /// The greatest epoch seen.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The origin as last said by the sender.
    pub fn origin(&self) -> i64 {
        self.origin
    }

    /// Records that the sender had sent of everything below `next`.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What was reported missing and has not come since, ascending; at most [`MAX_HOLES`].
    pub fn holes(&self) -> &[OffsetRange] {
        &self.holes
    }

    /// Whether the offset lies in a hole.
    pub fn is_hole(&self, offset: i64) -> bool {
        let at = self.holes.partition_point(|hole| hole.last < offset);
        self.holes.get(at).is_some_and(|hole| hole.contains(offset))
    }

    /// Steps over what is missing: `next` goes behind it, the range becomes a hole.
    fn step_over(&mut self, missing: &Missing, claim: &Claim) -> Option<OffsetRange> {
        self.next = missing.range.last + 1;
        self.count = claim.count.unwrap_or(self.count);
        self.add_hole(missing.range)
    }

    /// Everything of `base..end` was read by the sender and is here: its holes close, `next` goes to its end.
    fn settle(&mut self, base: i64, end: i64) -> Option<OffsetRange> {
        self.next = self.next.max(end);
        if end <= base {
            // Nothing was read: a hole around `base` must not be cut in two.
            return None;
        }
        let from = self.holes.partition_point(|hole| hole.last < base);
        let to = self.holes.partition_point(|hole| hole.first < end);
        if from >= to {
            return None;
        }
        let below = OffsetRange { last: base.saturating_sub(1), ..self.holes[from] };
        let above = OffsetRange { first: end, ..self.holes[to - 1] };
        let rest = [below, above].into_iter().filter(|rest| rest.first <= rest.last);
        self.holes.splice(from..to, rest);
        self.bound_holes()
    }

    fn add_hole(&mut self, range: OffsetRange) -> Option<OffsetRange> {
        // Joined with what it touches; offsets are at most i64::MAX − 1 here, as `next` is above them.
        let from = self.holes.partition_point(|hole| hole.last.saturating_add(1) < range.first);
        let to = self.holes.partition_point(|hole| hole.first <= range.last.saturating_add(1));
        let first = self.holes.get(from).map_or(range.first, |hole| hole.first.min(range.first));
        let last = to.checked_sub(1).and_then(|at| self.holes.get(at));
        let last = last.map_or(range.last, |hole| hole.last.max(range.last));
        self.holes.splice(from..to.max(from), [OffsetRange { first, last }]);
        self.bound_holes()
    }

    /// At most one is too many after any one change.
    fn bound_holes(&mut self) -> Option<OffsetRange> {
        (self.holes.len() > MAX_HOLES).then(|| self.holes.remove(0))
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
    /// Batches dropped before the sink saw them.
    drops: u64,
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

    /// Settles the chunk: its records, and its offsets without records. Returns a hole that no longer fits the table
    /// (one hole cut in two may be one too many).
    pub fn finish(self) -> Option<OffsetRange> {
        let position = self.position?;
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

    /// Batches were dropped because the queue to the sink was full: gaps found next are reported with that reason.
    pub fn note_buffer_full(&mut self) {
        self.drops += 1;
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
        let life = match position.life {
            Life::This if position.drops < self.drops => Life::Dropped,
            life => life,
        };
        let missing = claim.missing(Some(position), life);
        let forgotten = missing.and_then(|missing| position.step_over(&missing, claim));
        (position.life, position.drops) = (Life::This, self.drops);
        position.epoch = position.epoch.max(epoch);
        (at, missing, forgotten, None)
    }

    fn insert(&mut self, key: PartitionKey, position: Position) -> (usize, Option<Arc<PartitionKey>>) {
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

/// A written table that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PositionsError {
    /// Written by another version.
    #[error(
        "positions have format {found}, this program reads format {FORMAT}; use the version that wrote them, or \
         remove the file: what is then not known to be delivered is named as missing"
    )]
    Format {
        /// The format found.
        found: u32,
    },
    /// More partitions than the table holds.
    #[error("positions name {found} partitions, at most {MAX_PARTITIONS} are possible")]
    TooMany {
        /// Partitions found.
        found: usize,
    },
    /// An entry that contradicts itself or another.
    #[error("position of topic `{topic}`, partition {partition}: {problem}")]
    Entry {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// What is wrong.
        problem: &'static str,
    },
}

/// The written form. `format` comes first, so that another version is refused before its entries are read.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(deserialize_with = "known_format")]
    format: u32,
    positions: Vec<WrittenPosition>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPosition {
    stream: String,
    topic: String,
    /// 32 hexadecimal digits, or `epoch-N`.
    topic_id: String,
    partition: i32,
    next: i64,
    epoch: u64,
    origin: i64,
    count: u64,
    holes: Vec<(i64, i64)>,
}

fn known_format<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        FORMAT => Ok(FORMAT),
        found => Err(D::Error::custom(PositionsError::Format { found })),
    }
}

impl Serialize for Positions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let positions = self.iter().map(|(key, position)| WrittenPosition {
            stream: key.stream.clone(),
            topic: key.topic.clone(),
            topic_id: key.topic_id.to_string(),
            partition: key.partition,
            next: position.next,
            epoch: position.epoch.0,
            origin: position.origin,
            count: position.count,
            holes: position.holes.iter().map(|hole| (hole.first, hole.last)).collect(),
        });
        Written { format: FORMAT, positions: positions.collect() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Positions {
    /// What is read is of a former life: gaps found next have the reason `restart`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        Self::try_from(written).map_err(D::Error::custom)
    }
}

impl TryFrom<Written> for Positions {
    type Error = PositionsError;

    fn try_from(written: Written) -> Result<Self, PositionsError> {
        let found = written.positions.len();
        if found > MAX_PARTITIONS {
            return Err(PositionsError::TooMany { found });
        }
        let mut positions = Self::default();
        for entry in written.positions {
            let (topic, partition) = (entry.topic.clone(), entry.partition);
            let wrong = |problem| PositionsError::Entry { topic, partition, problem };
            let (key, position) = match entry.parse() {
                Ok(read) => read,
                Err(problem) => return Err(wrong(problem)),
            };
            if positions.index.contains_key(&key) {
                return Err(wrong("appears twice"));
            }
            positions.insert(key, position);
        }
        Ok(positions)
    }
}

impl WrittenPosition {
    fn parse(self) -> Result<(PartitionKey, Position), &'static str> {
        let topic_id = match self.topic_id.strip_prefix("epoch-") {
            Some(epoch) => epoch.parse().ok().map(TopicId::Configured),
            None => hex(&self.topic_id).map(TopicId::Uuid),
        };
        let topic_id = topic_id.ok_or("its topic_id is neither 32 hexadecimal digits nor epoch-N")?;
        if self.next < 0 || self.partition < 0 {
            return Err("its partition or offset is negative");
        }
        let holes: Vec<_> = self.holes.iter().map(|&(first, last)| OffsetRange { first, last }).collect();
        let apart = holes.windows(2).all(|pair| pair[0].last.saturating_add(1) < pair[1].first);
        let within =
            holes.iter().all(|hole| 0 <= hole.first && hole.first <= hole.last && hole.last < self.next);
        if !apart || !within || holes.len() > MAX_HOLES {
            return Err("its holes are not ascending ranges below next, or too many");
        }
        let position = Position {
            holes,
            life: Life::Former,
            ..Position::new(self.next, Epoch(self.epoch), self.origin, self.count)
        };
        let key =
            PartitionKey { stream: self.stream, topic: self.topic, topic_id, partition: self.partition };
        Ok((key, position))
    }
}

/// The bytes of exactly `2·N` hexadecimal digits.
pub(super) fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = (digit(0)? << 4 | digit(1)?) as u8;
    }
    Some(bytes)
}
