//! Chunks that cannot be written yet: their partition is not this egress's to write, or their topic is not there.
//!
//! They are found again by the place of their batch: in the spool, or in memory where there is none. Nothing of other
//! partitions waits for them; what comes later of their own partition does, where order demands it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ddc_spool::Span;

use crate::egress::feed::Item;

/// Where a chunk is in the order of arrival: its batch, and its place there.
pub(super) type At = (u64, u32);

/// Why a chunk is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The steps towards ownership are on their way, or it is to be judged again.
    Ownership,
    /// Its topic is not there, or not as it is needed.
    Topic,
    /// The progress topic cannot be used for its partition.
    Unusable,
    /// Another link writes its partition: it is settled when that one's progress says so.
    Elsewhere,
    /// It is of an epoch that is over, and reaches beyond what is written.
    Beyond,
    /// A gap lies before it, and its ingress may be sent back to where the gap begins. What comes later of its partition is
    /// judged for itself: it waits too, or is what fills the gap.
    Rewind,
}

impl Why {
    /// Whether later chunks of the partition wait for this one.
    fn blocks(self) -> bool {
        matches!(self, Self::Ownership | Self::Topic | Self::Unusable)
    }
}

/// One chunk of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeldPart {
    /// Its place among the chunks of its batch.
    pub(super) part: u32,
    /// The number of its partition.
    pub(super) slot: u32,
    /// The offsets it answers for: from here …
    pub(super) base: i64,
    /// … up to before this one.
    pub(super) end: i64,
    pub(super) why: Why,
}

/// How a batch is found again.
#[derive(Debug, Clone)]
pub(super) enum Kept {
    /// It is in the spool, and costs no memory.
    Spool(Span),
    /// There is no spool.
    Memory(Arc<Item>),
}

/// A batch of which chunks are held.
#[derive(Debug)]
struct HeldFrame {
    kept: Kept,
    parts: Vec<HeldPart>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// In the order of arrival.
    frames: BTreeMap<u64, HeldFrame>,
    /// By partition: its chunks that block.
    blocking: HashMap<u32, BTreeSet<At>>,
    parts: usize,
}

impl Held {
    /// Holds chunks of a batch; those of one batch may come in several calls.
    pub(super) fn add(&mut self, number: u64, item: &Arc<Item>, parts: &[HeldPart]) {
        self.insert(number, parts, || item.span.map_or_else(|| Kept::Memory(Arc::clone(item)), Kept::Spool));
    }

    /// Holds chunks on that were taken out and cannot be judged now.
    pub(super) fn put_back(&mut self, number: u64, span: Span, parts: &[HeldPart]) {
        self.insert(number, parts, || Kept::Spool(span));
    }

    fn insert(&mut self, number: u64, parts: &[HeldPart], kept: impl FnOnce() -> Kept) {
        if parts.is_empty() {
            return;
        }
        for part in parts {
            self.parts += 1;
            if part.why.blocks() {
                self.blocking.entry(part.slot).or_default().insert((number, part.part));
            }
        }
        let frame =
            self.frames.entry(number).or_insert_with(|| HeldFrame { kept: kept(), parts: Vec::new() });
        frame.parts.extend_from_slice(parts);
        frame.parts.sort_by_key(|part| part.part);
    }

    /// Takes out the chunks that are wanted of the first batch at or behind `from` that has any.
    pub(super) fn take(
        &mut self,
        from: u64,
        wanted: impl Fn(&HeldPart) -> bool,
    ) -> Option<(u64, Kept, Vec<HeldPart>)> {
        let found = self.frames.range(from..).find(|(_, frame)| frame.parts.iter().any(&wanted));
        let number = *found?.0;
        let frame = self.frames.get_mut(&number)?;
        let kept = frame.kept.clone();
        let (taken, rest): (Vec<_>, Vec<_>) = frame.parts.iter().copied().partition(|part| wanted(part));
        frame.parts = rest;
        if frame.parts.is_empty() {
            self.frames.remove(&number);
        }
        for part in &taken {
            self.parts -= 1;
            if part.why.blocks()
                && let Some(blocking) = self.blocking.get_mut(&part.slot)
            {
                blocking.remove(&(number, part.part));
                if blocking.is_empty() {
                    self.blocking.remove(&part.slot);
                }
            }
        }
        Some((number, kept, taken))
    }

    /// Whether a chunk of the partition has to wait for one before it.
    pub(super) fn blocks(&self, slot: u32, at: At) -> bool {
        self.blocking.get(&slot).and_then(BTreeSet::first).is_some_and(|first| *first < at)
    }

    /// All that is held, in the order of arrival.
    pub(super) fn parts(&self) -> impl Iterator<Item = &HeldPart> {
        self.frames.values().flat_map(|frame| &frame.parts)
    }

    /// Whether anything is held that will be written as soon as its partition or topic is there.
    pub(super) fn is_blocking(&self) -> bool {
        !self.blocking.is_empty()
    }

    /// Whether a batch has chunks here.
    pub(super) fn has(&self, number: u64) -> bool {
        self.frames.contains_key(&number)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Chunks held.
    pub(super) fn len(&self) -> usize {
        self.parts
    }
}

/// What is held so long for the progress topic or for another link is told: nobody else may ever settle it.
const LONG: Duration = Duration::from_mins(1);
/// A partition that is seen again within this time was only being judged meanwhile.
const BLINK: Duration = Duration::from_secs(10);

/// For how long partitions have been waiting for somebody else.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// By partition: since when, when last, and why.
    since: HashMap<u32, (Instant, Instant, Why)>,
}

impl Waiting {
    /// Looks at what is held now. The partition that waits longest, if that is long; since when, and why.
    pub(super) fn look(&mut self, held: &Held, now: Instant) -> Option<(u32, Instant, Why)> {
        for part in held.parts().filter(|part| matches!(part.why, Why::Elsewhere | Why::Unusable)) {
            let (_, last, why) = self.since.entry(part.slot).or_insert((now, now, part.why));
            (*last, *why) = (now, part.why);
        }
        self.since.retain(|_, (_, last, _)| now.saturating_duration_since(*last) <= BLINK);
        let (slot, (since, _, why)) = self.since.iter().min_by_key(|(_, (since, ..))| *since)?;
        (now.saturating_duration_since(*since) >= LONG).then_some((*slot, *since, *why))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;

    #[test]
    fn who_waits_long_for_somebody_else_is_told() {
        let part = |slot, why| HeldPart { part: slot, slot, base: 0, end: 1, why };
        let span = Kept::Spool(Span { start: 0, end: 64 });
        let mut held = Held::default();
        held.insert(1, &[part(1, Why::Topic), part(2, Why::Elsewhere)], || span.clone());
        let (mut waiting, begin) = (Waiting::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        for second in 0..60 {
            assert_eq!(waiting.look(&held, at(second)), None);
        }
        assert_eq!(waiting.look(&held, at(60)), Some((2, begin, Why::Elsewhere)));
        // Taken out to be judged, and back with another reason.
        let (number, kept, _) = held.take(0, |part| part.slot == 2).unwrap();
        assert_eq!(waiting.look(&held, at(61)), Some((2, begin, Why::Elsewhere)));
        held.insert(number, &[part(2, Why::Unusable)], || kept);
        assert_eq!(waiting.look(&held, at(62)), Some((2, begin, Why::Unusable)));
        held.take(0, |part| part.slot == 2);
        assert_eq!(waiting.look(&held, at(80)), None, "a topic that is not there is told by others");
    }
}
