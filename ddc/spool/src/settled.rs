//! What is settled: everything below the lowest unsettled position, and islands above it.

use std::collections::BTreeMap;

use crate::frame::Span;

/// Why a span was not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SettleError {
    /// There are as many separate settled ranges as [`crate::Options::max_islands`] allows.
    #[error(
        "{0} separate ranges of the spool are settled above the lowest unsettled position; settle what is held back, or read no further until it is"
    )]
    TooManyIslands(usize),
    /// Nothing was appended there.
    #[error("positions up to {end} cannot be settled: the spool ends at {log_end}")]
    Beyond {
        /// What was to be settled.
        end: u64,
        /// The end of the log.
        log_end: u64,
    },
}

/// Ranges of settled positions; touching ones are one.
#[derive(Debug)]
pub(crate) struct Settled {
    lowest: u64,
    islands: BTreeMap<u64, u64>,
    limit: usize,
}

impl Settled {
    pub(crate) fn new(lowest: u64, limit: usize) -> Self {
        Self { lowest, islands: BTreeMap::new(), limit }
    }

    /// The lowest position that is not settled.
    pub(crate) fn lowest(&self) -> u64 {
        self.lowest
    }

    pub(crate) fn islands(&self) -> usize {
        self.islands.len()
    }

    /// Whether all of the span is.
    pub(crate) fn contains(&self, span: Span) -> bool {
        span.end <= self.lowest
            || self.islands.range(..=span.start).next_back().is_some_and(|(_, &end)| span.end <= end)
    }

    /// Adds a span. When there would be too many islands nothing changes.
    pub(crate) fn add(&mut self, span: Span) -> Result<(), SettleError> {
        self.add_up_to(span, self.limit)
    }

    /// As [`Self::add`], whatever the limit: for positions that hold nothing, of which there are few.
    pub(crate) fn add_void(&mut self, span: Span) {
        // No island can be one too many.
        let _ = self.add_up_to(span, usize::MAX);
    }

    fn add_up_to(&mut self, span: Span, limit: usize) -> Result<(), SettleError> {
        let (mut start, mut end) = (span.start.max(self.lowest), span.end);
        if end <= start {
            return Ok(());
        }
        if start > self.lowest
            && self.islands.len() >= limit
            && self.islands.range(..=end).next_back().is_none_or(|(_, &last)| last < start)
        {
            return Err(SettleError::TooManyIslands(self.islands.len()));
        }
        while let Some((&first, &last)) =
            self.islands.range(..=end).next_back().filter(|&(_, &last)| last >= start)
        {
            self.islands.remove(&first);
            start = start.min(first);
            end = end.max(last);
        }
        if start == self.lowest {
            self.lowest = end;
        } else {
            self.islands.insert(start, end);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a table with a flag for each position.
        #[test]
        fn as_a_table_of_flags(spans in prop::collection::vec((0u64..60, 0u64..8), 0..60)) {
            let mut settled = Settled::new(5, usize::MAX);
            let mut flags = [false; 80];
            flags[..5].fill(true);
            for (start, len) in spans {
                prop_assert_eq!(settled.add(Span { start, end: start + len }), Ok(()));
                flags[start as usize..(start + len) as usize].fill(true);
                let lowest = flags.iter().position(|&flag| !flag).unwrap_or(80);
                prop_assert_eq!(settled.lowest(), lowest as u64);
                let above = flags[lowest..].windows(2).filter(|pair| pair == &[false, true]).count();
                prop_assert_eq!(settled.islands(), above);
                for (a, b) in (0..70).flat_map(|a| (a + 1..72).map(move |b| (a, b))) {
                    let expected = flags[a..b].iter().all(|&flag| flag);
                    prop_assert_eq!(settled.contains(Span { start: a as u64, end: b as u64 }), expected, "{}..{}", a, b);
                }
            }
        }
    }

    #[test]
    fn islands_are_bounded_and_what_joins_them_is_taken() {
        let mut settled = Settled::new(0, 2);
        let span = |start, end| Span { start, end };
        assert_eq!(settled.add(span(10, 20)), Ok(()));
        assert_eq!(settled.add(span(30, 40)), Ok(()));
        assert_eq!(settled.add(span(50, 60)), Err(SettleError::TooManyIslands(2)));
        assert_eq!(settled.add(span(5, 6)), Err(SettleError::TooManyIslands(2)));
        assert!(!settled.contains(span(50, 60)));
        assert_eq!(settled.add(span(20, 30)), Ok(()));
        assert_eq!(settled.add(span(50, 60)), Ok(()));
        assert_eq!(settled.add(span(0, 10)), Ok(()));
        assert_eq!((settled.lowest(), settled.islands()), (40, 1));
        settled.add_void(span(70, 80));
        settled.add_void(span(90, 95));
        assert_eq!(settled.islands(), 3);
    }
}
