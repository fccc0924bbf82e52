//! All gaps of one link, and what becomes of them: a bounded table, pure.
//!
//! ```text
//!  found ──▶ open ──▶ closed          what arrives (late, replayed, sent again) leaves `open`
//!             │  ▲       │
//!             ▼  └───────┤           refused, or not yet stored before a crash: open again, under its old name
//!          given up ─────┘
//! ```
//!
//! No two gaps of a partition overlap: what is found anew within a gap opens that again, only the rest is a new gap.
//! Each change gets a number, so that a reader knows what he has seen.

use std::collections::{BTreeMap, HashMap};

use ddc_link::receiver::{OffsetRange, PartitionKey, Positions};
use ddc_telemetry::reasons::MissingReason;
use ddc_wire::Session;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Gap, GapId, GapState, MAX_RANGES, Timestamp, is_name, ranges};

/// Bounds the table: a gap counts 4, and 1 for each range that is open or given up. Room for 50,000 gaps of
/// one range, some 20 MB; never more than a gap file holds.
pub const MAX_COST: usize = 250_000;
/// What a gap counts by itself.
const GAP_COST: usize = 4;
/// When the bound is hit, room for so much is made at once.
const MAKE_ROOM: usize = MAX_COST / 50;

/// What has happened to a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GapEvent {
    /// It was found, or found again: something of it is open that was not.
    Found,
    /// Something of it has arrived; the state says whether all.
    Closed,
    /// Something of it is no longer taken if it comes.
    GivenUp,
}

impl GapEvent {
    /// The event's name in files and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Closed => "closed",
            Self::GivenUp => "given_up",
        }
    }
}

/// A gap, what happened to it last, and the number of that change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Rises with every change in the table; never 0.
    pub seq: u64,
    /// The change.
    pub event: GapEvent,
    /// When it happened. Journals written before this field was there lack it: then it is when the gap was found.
    #[serde(default)]
    pub at: Timestamp,
    /// The gap as it has been since.
    pub gap: Gap,
}

/// What makes a range known.
#[derive(Debug, Clone, Copy)]
pub struct Finding {
    /// The offsets.
    pub range: OffsetRange,
    /// Records among them, if known.
    pub records: Option<u64>,
    /// Why.
    pub reason: MissingReason,
    /// The ingress's session by which it was found out.
    pub session: Option<Session>,
}

/// How many gaps there are, by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Open ones.
    pub open: u64,
    /// Given up.
    pub given_up: u64,
    /// Closed.
    pub closed: u64,
    /// Offsets of the open ones that are still missing.
    pub open_offsets: u64,
}

impl Counts {
    fn change(&mut self, gap: &Gap, by: impl Fn(u64, u64) -> u64) {
        let count = match gap.state {
            GapState::Open => &mut self.open,
            GapState::GivenUp => &mut self.given_up,
            GapState::Closed => &mut self.closed,
        };
        *count = by(*count, 1);
        self.open_offsets = by(self.open_offsets, gap.open_offsets());
    }
}

/// See the module's text.
#[derive(Debug, Clone)]
pub struct GapBook {
    link: String,
    /// By partition, then by the gap's first offset.
    partitions: HashMap<PartitionKey, BTreeMap<i64, Entry>>,
    by_id: HashMap<GapId, (PartitionKey, i64)>,
    by_seq: BTreeMap<u64, GapId>,
    seq: u64,
    cost: usize,
    counts: Counts,
}

impl GapBook {
    /// Empty; `link` is the link's name.
    pub fn new(link: &str) -> Self {
        Self {
            link: link.to_owned(),
            partitions: HashMap::new(),
            by_id: HashMap::new(),
            by_seq: BTreeMap::new(),
            seq: 0,
            cost: 0,
            counts: Counts::default(),
        }
    }

    /// A range is missing. Returns the gaps that this changed; none when all of it was open already, or when the
    /// partition's name is none (nothing but our own ingress makes such a thing up).
    pub fn found(&mut self, key: &PartitionKey, finding: Finding, now: Timestamp) -> Vec<Entry> {
        let Finding { range, records, reason, session } = finding;
        let named = is_name(&key.topic) && (key.stream.is_empty() || is_name(&key.stream));
        if !named
            || key.partition < 0
            || range.first < 0
            || range.last < range.first
            || range.last == i64::MAX
        {
            return Vec::new();
        }
        let known = self.overlapping(key, range);
        let covered: Vec<_> = known.iter().map(Gap::range).collect();
        let mut changed = Vec::new();
        for mut gap in known {
            let within = intersection(gap.range(), range);
            let anew = ranges::outside(&gap.open, within);
            if anew.is_empty() {
                continue;
            }
            if gap.state == GapState::Closed {
                (gap.reason, gap.found_at) = (reason, now);
            }
            for range in anew {
                ranges::remove(&mut gap.given_up, range);
                ranges::add(&mut gap.open, range);
            }
            changed.push(self.put(gap, GapEvent::Found, now));
        }
        for part in ranges::outside(&covered, range) {
            let records = records.filter(|_| part == range);
            let gap = Gap::found(&self.link, key, part, records, reason, session, now);
            changed.push(self.put(gap, GapEvent::Found, now));
        }
        changed
    }

    /// These offsets have arrived, or never will have to. Returns the gaps that this changed.
    pub fn close(&mut self, key: &PartitionKey, range: OffsetRange, now: Timestamp) -> Vec<Entry> {
        let mut changed = Vec::new();
        for mut gap in self.overlapping(key, range) {
            if !ranges::remove(&mut gap.open, range).is_empty() {
                changed.push(self.put(gap, GapEvent::Closed, now));
            }
        }
        changed
    }

    /// These offsets are no longer taken if they come. Returns the gaps that this changed.
    pub fn give_up(&mut self, key: &PartitionKey, range: OffsetRange, now: Timestamp) -> Vec<Entry> {
        let mut changed = Vec::new();
        for mut gap in self.overlapping(key, range) {
            let lost = ranges::remove(&mut gap.open, range);
            if lost.is_empty() {
                continue;
            }
            for range in lost {
                ranges::add(&mut gap.given_up, range);
            }
            changed.push(self.put(gap, GapEvent::GivenUp, now));
        }
        changed
    }

    /// Agrees with the positions that an egress starts with: they are what decides which records it takes. Below a
    /// partition's `next` exactly its holes are open. Returns the gaps that this changed.
    pub fn reconcile(&mut self, positions: &Positions, now: Timestamp) -> Vec<Entry> {
        let mut changed = self.close_settled(positions, now);
        for (key, position) in positions.iter() {
            for hole in position.holes() {
                let finding =
                    Finding { range: *hole, records: None, reason: MissingReason::Restart, session: None };
                changed.extend(self.found(key, finding, now));
            }
        }
        changed
    }

    /// Closes what is open here and settled by these positions, whoever has written them. Returns the gaps that this changed.
    pub fn close_settled(&mut self, positions: &Positions, now: Timestamp) -> Vec<Entry> {
        let mut changed = Vec::new();
        for (key, position) in positions.iter() {
            let open: Vec<_> = self.partitions.get(key).into_iter().flat_map(BTreeMap::values).collect();
            let open: Vec<_> = open.iter().flat_map(|entry| entry.gap.open.iter().copied()).collect();
            for range in open.into_iter().filter(|range| range.first < position.next()) {
                let range = OffsetRange { last: range.last.min(position.next() - 1), ..range };
                for arrived in ranges::outside(position.holes(), range) {
                    changed.extend(self.close(key, arrived, now));
                }
            }
        }
        changed
    }

    /// The partitions in which something is open.
    pub fn open_partitions(&self) -> impl Iterator<Item = &PartitionKey> {
        let is_open =
            |entries: &BTreeMap<i64, Entry>| entries.values().any(|entry| !entry.gap.open.is_empty());
        self.partitions.iter().filter(move |(_, entries)| is_open(entries)).map(|(key, _)| key)
    }

    /// Open offsets that a partition's position has not come to: after a crash they can still arrive in order. By
    /// partition, the offset behind the last of them.
    pub fn ahead(&self, positions: &Positions) -> HashMap<PartitionKey, i64> {
        let last = |entries: &BTreeMap<i64, Entry>| {
            entries.values().filter_map(|entry| entry.gap.open.last()).map(|range| range.last + 1).max()
        };
        let ends = self.partitions.iter().filter_map(|(key, entries)| Some((key, last(entries)?)));
        let ahead =
            ends.filter(|(key, end)| positions.get(key).is_none_or(|position| position.next() < *end));
        ahead.map(|(key, end)| (key.clone(), end)).collect()
    }

    /// Makes room if need be: first the gaps closed longest, then those found longest, whatever their state. Returns
    /// what was forgotten, for those that were not closed, or not published yet, must be named.
    pub fn make_room(&mut self) -> Vec<Entry> {
        if self.cost <= MAX_COST {
            return Vec::new();
        }
        let mut entries: Vec<_> = self.entries().collect();
        entries.sort_by_key(|Entry { gap, .. }| match (gap.state, gap.closed_at) {
            (GapState::Closed, Some(closed_at)) => (0, closed_at),
            _ => (1, gap.found_at),
        });
        let mut room = 0;
        let enough = self.cost - MAX_COST + MAKE_ROOM;
        let fits = |entry: &&&Entry| {
            let before = room;
            room += cost(&entry.gap);
            before < enough
        };
        let forgotten: Vec<GapId> = entries.iter().take_while(fits).map(|entry| entry.gap.id).collect();
        forgotten.iter().filter_map(|id| self.take(*id)).collect()
    }

    /// Takes up an entry of a former life; a later one of the same gap replaces an earlier one. `false`: it contradicts
    /// itself or overlaps another gap.
    pub fn restore(&mut self, mut entry: Entry) -> bool {
        if entry.at == Timestamp::default() {
            entry.at = entry.gap.found_at;
        }
        let Entry { seq, ref gap, .. } = entry;
        if gap.check(&self.link).is_err() || seq == 0 || self.by_seq.contains_key(&seq) {
            return false;
        }
        if self.overlapping(&gap.key(), gap.range()).iter().any(|other| other.id != gap.id) {
            return false;
        }
        self.take(gap.id);
        self.seq = self.seq.max(seq);
        self.insert(entry);
        true
    }

    /// All gaps, the one changed longest ago first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.after(0)
    }

    /// What has changed since the change of this number, in order.
    pub fn after(&self, seq: u64) -> impl Iterator<Item = &Entry> {
        self.by_seq.range(seq.saturating_add(1)..).filter_map(|(_, id)| self.get(*id))
    }

    /// A gap by its name.
    pub fn get(&self, id: GapId) -> Option<&Entry> {
        let (key, first) = self.by_id.get(&id)?;
        self.partitions.get(key)?.get(first)
    }

    /// The number of the last change; 0 before the first.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Goes on counting from this number, if it is higher.
    pub fn continue_from(&mut self, seq: u64) {
        self.seq = self.seq.max(seq);
    }

    /// How many gaps there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// What has become of a range: whether something of it is open or given up, and how many offsets are open.
    pub fn state(&self, key: &PartitionKey, range: OffsetRange) -> (GapState, u64) {
        let (mut open, mut given_up) = (0, false);
        for gap in self.overlapping(key, range) {
            let within = |part: &OffsetRange| part.first <= range.last && range.first <= part.last;
            let parts = gap.open.iter().filter(|part| within(part));
            open += parts.map(|part| intersection(*part, range).offsets()).sum::<u64>();
            given_up |= gap.given_up.iter().any(within);
        }
        let state = match (open, given_up) {
            (0, false) => GapState::Closed,
            (0, true) => GapState::GivenUp,
            _ => GapState::Open,
        };
        (state, open)
    }

    /// How many gaps there are, by state.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn overlapping(&self, key: &PartitionKey, range: OffsetRange) -> Vec<Gap> {
        let Some(entries) = self.partitions.get(key) else { return Vec::new() };
        // They do not overlap, so only one can begin before the range and reach into it.
        let before = entries.range(..range.first).next_back().filter(|(_, e)| e.gap.last >= range.first);
        let within = entries.range(range.first..=range.last);
        before.into_iter().chain(within).map(|(_, entry)| entry.gap.clone()).collect()
    }

    fn put(&mut self, mut gap: Gap, event: GapEvent, now: Timestamp) -> Entry {
        // As many as a file holds; what does not fit is the oldest, and is not taken any more either (the positions
        // have the same bound).
        while gap.open.len() > MAX_RANGES {
            let oldest = gap.open.remove(0);
            ranges::add(&mut gap.given_up, oldest);
        }
        // The two lowest become one, with what lies between: rather too much is named than too little.
        while gap.given_up.len() > MAX_RANGES {
            let joined = OffsetRange { first: gap.given_up[0].first, last: gap.given_up[1].last };
            ranges::remove(&mut gap.open, joined);
            ranges::add(&mut gap.given_up, joined);
        }
        gap.state = match (gap.open.is_empty(), gap.given_up.is_empty()) {
            (false, _) => GapState::Open,
            (true, false) => GapState::GivenUp,
            (true, true) => GapState::Closed,
        };
        gap.closed_at = (gap.state != GapState::Open).then_some(now);
        self.take(gap.id);
        self.seq += 1;
        let entry = Entry { seq: self.seq, event, at: now, gap };
        self.insert(entry.clone());
        entry
    }

    fn insert(&mut self, entry: Entry) {
        let key = entry.gap.key();
        self.cost += cost(&entry.gap);
        self.counts.change(&entry.gap, u64::saturating_add);
        self.by_seq.insert(entry.seq, entry.gap.id);
        self.by_id.insert(entry.gap.id, (key.clone(), entry.gap.first));
        self.partitions.entry(key).or_default().insert(entry.gap.first, entry);
    }

    fn take(&mut self, id: GapId) -> Option<Entry> {
        let (key, first) = self.by_id.remove(&id)?;
        let entries = self.partitions.get_mut(&key)?;
        let entry = entries.remove(&first)?;
        if entries.is_empty() {
            self.partitions.remove(&key);
        }
        self.by_seq.remove(&entry.seq);
        self.cost -= cost(&entry.gap);
        self.counts.change(&entry.gap, u64::saturating_sub);
        Some(entry)
    }
}

fn cost(gap: &Gap) -> usize {
    GAP_COST + gap.open.len() + gap.given_up.len()
}

fn intersection(a: OffsetRange, b: OffsetRange) -> OffsetRange {
    OffsetRange { first: a.first.max(b.first), last: a.last.min(b.last) }
}
