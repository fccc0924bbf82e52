//! Holes that were filled, until the destination has what filled them.
//!
//! ```text
//!  chunk ─ filled ─▶ gathering ─ checkpoint ─▶ under way ─ acknowledged ─▶ the report: closed
//!                        └─ a record of them is refused: taken out ─┘
//!
//! A record can be refused before its chunk is settled, or long after.
//! ```
//!
//! A gap is closed when its records are *at the destination*, not when they were handed over. The two generations are
//! those of the positions: what lies behind a checkpoint is acknowledged with it.

use std::collections::HashMap;

use ddc_link::receiver::OffsetRange;

use crate::gaps::ranges;

/// Ranges of one partition that may wait; when more come, they are said to be closed before the destination has answered. Should the
/// egress crash then, the next start opens them again.
const MAX_WAITING: usize = 65_536;

/// See the module's text. Partitions are named by their number in [`super::partitions`].
#[derive(Debug, Default)]
pub(crate) struct Filled {
    gathering: Ranges,
    under_way: Ranges,
    /// Refused while the chunk at hand is delivered; bounded by its records.
    of_this_chunk: Vec<(u32, i64)>,
}

type Ranges = HashMap<u32, Vec<OffsetRange>>;

impl Filled {
    /// A hole, or a part of one, was filled by what is being handed over. `false`: there is no room to remember that.
    pub(crate) fn add(&mut self, slot: u32, range: OffsetRange) -> bool {
        let ranges = self.gathering.entry(slot).or_default();
        if ranges.len() >= MAX_WAITING {
            return false;
        }
        ranges::add(ranges, range);
        for (_, offset) in self.of_this_chunk.iter().filter(|(refused, _)| *refused == slot) {
            ranges::remove(ranges, OffsetRange { first: *offset, last: *offset });
        }
        true
    }

    /// The chunk at hand is settled: what it fills was added.
    pub(crate) fn chunk_done(&mut self) {
        self.of_this_chunk.clear();
    }

    /// Everything added so far lies before a checkpoint. What lay before an earlier one is settled by then.
    pub(crate) fn checkpoint(&mut self) {
        for (slot, gathered) in std::mem::take(&mut self.gathering) {
            let ranges = self.under_way.entry(slot).or_default();
            for range in gathered {
                ranges::add(ranges, range);
            }
        }
    }

    /// The destination will never have this record, so it fills nothing.
    pub(crate) fn refused(&mut self, slot: u32, offset: i64) {
        self.of_this_chunk.push((slot, offset));
        let range = OffsetRange { first: offset, last: offset };
        for generation in [&mut self.gathering, &mut self.under_way] {
            if let Some(ranges) = generation.get_mut(&slot) {
                ranges::remove(ranges, range);
            }
        }
    }

    /// The last checkpoint is acknowledged: what lay before it.
    pub(crate) fn acknowledged(&mut self) -> Vec<(u32, Vec<OffsetRange>)> {
        std::mem::take(&mut self.under_way).into_iter().filter(|(_, ranges)| !ranges.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: i64, last: i64) -> OffsetRange {
        OffsetRange { first, last }
    }

    #[test]
    fn only_what_lies_before_the_checkpoint_and_was_not_refused_is_closed() {
        let mut filled = Filled::default();
        assert!(filled.add(1, range(10, 19)) && filled.add(1, range(20, 24)) && filled.add(2, range(5, 5)));
        filled.chunk_done();
        assert!(filled.acknowledged().is_empty(), "no checkpoint yet");
        filled.checkpoint();
        assert!(filled.add(1, range(30, 34)));
        filled.refused(1, 12);
        filled.refused(1, 30);
        filled.refused(2, 5);
        filled.refused(7, 5);
        assert_eq!(filled.acknowledged(), [(1, vec![range(10, 11), range(13, 24)])]);
        assert!(filled.acknowledged().is_empty());
        filled.checkpoint();
        assert_eq!(filled.acknowledged(), [(1, vec![range(31, 34)])]);
    }

    #[test]
    fn what_is_refused_before_its_chunk_is_settled_fills_nothing_either() {
        let mut filled = Filled::default();
        filled.refused(1, 12);
        assert!(filled.add(1, range(10, 14)) && filled.add(2, range(10, 14)));
        filled.chunk_done();
        // It comes once more, and is taken this time.
        assert!(filled.add(1, range(12, 12)));
        filled.refused(2, 10);
        filled.checkpoint();
        let mut closed = filled.acknowledged();
        closed.sort_by_key(|(slot, _)| *slot);
        assert_eq!(closed, [(1, vec![range(10, 14)]), (2, vec![range(11, 14)])]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut filled = Filled::default();
        for at in 0..MAX_WAITING as i64 {
            assert!(filled.add(1, range(at * 2, at * 2)));
        }
        assert!(!filled.add(1, range(-9, -9)));
    }
}
