//! What was dropped before it came here, by the batch that tells of it: chunks are not judged in the order of their batches, and a
//! gap has the reason of what was dropped *before* its chunk.

use std::collections::VecDeque;

use ddc_link::receiver::MissingReason;

/// Notes that are kept; of what was dropped before them, the last reason is.
const MAX_NOTES: usize = 1024;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Drops {
    /// Number of the batch that told of it, and the reason; in ascending order.
    notes: VecDeque<(u64, MissingReason)>,
    /// How many are not kept any more, and the reason of the last of them.
    former: u64,
    last_former: Option<MissingReason>,
}

impl Drops {
    /// Something was dropped between this batch and the one before it.
    pub(super) fn note(&mut self, number: u64, reason: MissingReason) {
        self.notes.push_back((number, reason));
        if self.notes.len() > MAX_NOTES
            && let Some((_, reason)) = self.notes.pop_front()
        {
            (self.former, self.last_former) = (self.former + 1, Some(reason));
        }
    }

    /// How often something was dropped before this batch, and why the last time.
    pub(super) fn before(&self, number: u64) -> (u64, Option<MissingReason>) {
        let count = self.notes.partition_point(|(at, _)| *at <= number);
        let last = count.checked_sub(1).map(|at| self.notes[at].1);
        (self.former + count as u64, last.or(self.last_former))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_batch_has_what_was_dropped_before_it() {
        let mut drops = Drops::default();
        assert_eq!(drops.before(7), (0, None));
        drops.note(3, MissingReason::SpoolDamaged);
        drops.note(5, MissingReason::SpoolFull);
        let damaged = (1, Some(MissingReason::SpoolDamaged));
        assert_eq!([drops.before(2), drops.before(3), drops.before(4)], [(0, None), damaged, damaged]);
        assert_eq!(drops.before(5), (2, Some(MissingReason::SpoolFull)));
        for number in 10..10 + MAX_NOTES as u64 {
            drops.note(number, MissingReason::DiskFull);
        }
        assert_eq!(drops.before(9), (2, Some(MissingReason::SpoolFull)));
        assert_eq!(drops.before(10), (3, Some(MissingReason::DiskFull)));
        assert_eq!(drops.notes.len(), MAX_NOTES);
    }
}
