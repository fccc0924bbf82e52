//! How far one partition is settled: every offset below `next`, but the holes. Pure; the table is in `positions.rs`.

use ddc_wire::Epoch;

use super::gaps::{Claim, Life, Missing, OffsetRange};

/// Most holes of one partition; the oldest is given up.
pub const MAX_HOLES: usize = 1024;

/// How far one partition is settled: every offset below `next` but the holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub(super) next: i64,
    pub(super) epoch: Epoch,
    pub(super) origin: i64,
    /// Records that the sender had sent of everything below `next`.
    pub(super) count: u64,
    /// Sorted, apart, not adjacent, all below `next`; at most [`MAX_HOLES`].
    pub(super) holes: Vec<OffsetRange>,
    pub(super) life: Life,
    /// The table's count of dropped batches when the position was judged last.
    pub(super) drops: u64,
}

impl Position {
    pub(super) fn new(next: i64, epoch: Epoch, origin: i64, count: u64) -> Self {
        Self { next, epoch, origin, count, holes: Vec::new(), life: Life::This, drops: 0 }
    }

    /// A position that was stored: gaps found next have the reason [`MissingReason::Restart`](super::MissingReason).
    ///
    /// Refused with the reason when it contradicts itself: holes ascend, lie apart and below `next`, at most
    /// [`MAX_HOLES`]; offsets are not negative.
    pub fn stored(
        next: i64,
        epoch: Epoch,
        origin: i64,
        count: u64,
        holes: Vec<OffsetRange>,
    ) -> Result<Self, &'static str> {
        if next < 0 {
            return Err("its next offset is negative");
        }
        let apart = holes.windows(2).all(|pair| pair[0].last.saturating_add(1) < pair[1].first);
        let within = holes.iter().all(|hole| 0 <= hole.first && hole.first <= hole.last && hole.last < next);
        if !apart || !within || holes.len() > MAX_HOLES {
            return Err("its holes are not ascending ranges below next, or too many");
        }
        Ok(Self { holes, life: Life::Former, ..Self::new(next, epoch, origin, count) })
    }

    /// As it would be read back once stored under this epoch.
    pub fn to_stored(&self, epoch: Epoch) -> Self {
        Self { epoch, life: Life::Former, drops: 0, ..self.clone() }
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

    /// Whether the destination has the offset or never will: it is below `next` and in no hole.
    pub fn is_settled(&self, offset: i64) -> bool {
        offset < self.next && !self.is_hole(offset)
    }

    /// Steps over what is missing: `next` goes behind it, the range becomes a hole.
    pub(super) fn step_over(&mut self, missing: &Missing, claim: &Claim) -> Option<OffsetRange> {
        self.next = missing.range.last + 1;
        self.count = claim.count.unwrap_or(self.count);
        self.add_hole(missing.range)
    }

    /// Everything of `base..end` was read by the sender and is here: its holes close, `next` goes to its end.
    pub(super) fn settle(&mut self, base: i64, end: i64) -> Settled {
        self.next = self.next.max(end);
        if end <= base {
            // Nothing was read: a hole around `base` must not be cut in two.
            return Settled::default();
        }
        let from = self.holes.partition_point(|hole| hole.last < base);
        let to = self.holes.partition_point(|hole| hole.first < end);
        if from >= to {
            return Settled::default();
        }
        let within =
            |hole: &OffsetRange| OffsetRange { first: hole.first.max(base), last: hole.last.min(end - 1) };
        let filled = self.holes[from..to].iter().map(within).collect();
        let below = OffsetRange { last: base.saturating_sub(1), ..self.holes[from] };
        let above = OffsetRange { first: end, ..self.holes[to - 1] };
        let rest = [below, above].into_iter().filter(|rest| rest.first <= rest.last);
        self.holes.splice(from..to, rest);
        Settled { filled, forgotten: self.bound_holes() }
    }

    pub(super) fn add_hole(&mut self, range: OffsetRange) -> Option<OffsetRange> {
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

/// What became of holes when a chunk was settled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settled {
    /// What was missing and is no longer: ascending parts of holes.
    pub filled: Vec<OffsetRange>,
    /// A hole that no longer fits the table (one hole cut in two may be one too many): it stays missing for good.
    pub forgotten: Option<OffsetRange>,
}
