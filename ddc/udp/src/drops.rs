//! The kernel's 32-bit drop counter, made into one that only rises.
//!
//! The kernel stamps every queued datagram with the socket's drop count at that moment (`SO_RXQ_OVFL`); the count
//! starts at zero with the socket and wraps at 2^32, which takes under an hour of total loss at 10 Gbit/s.

/// Datagrams dropped by one socket since it was opened.
#[derive(Debug, Default)]
pub(crate) struct DropCounter {
    last: u32,
    total: u64,
}

impl DropCounter {
    /// Takes a reading of the kernel's counter.
    ///
    /// Readings come from two places (the stamp on a datagram, which may have lain in the queue for a while, and the
    /// socket itself), so one may be older than the last: a step of 2^31 or more is a step back and is ignored.
    pub(crate) fn observe(&mut self, reading: u32) {
        let step = reading.wrapping_sub(self.last);
        if step < 1 << 31 {
            self.total += u64::from(step);
            self.last = reading;
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wraps_without_losing_or_inventing_drops() {
        let mut counter = DropCounter { last: u32::MAX - 2, total: 7 };
        counter.observe(u32::MAX);
        assert_eq!(counter.total(), 9);
        counter.observe(4);
        assert_eq!(counter.total(), 14);
    }

    #[test]
    fn an_older_reading_changes_nothing() {
        let mut counter = DropCounter::default();
        counter.observe(100);
        counter.observe(60);
        assert_eq!(counter.total(), 100);
        counter.observe(101);
        assert_eq!(counter.total(), 101);
    }

    proptest! {
        /// Against the naive model: a 64-bit counter of which only the low half is seen.
        #[test]
        fn follows_a_64_bit_counter(steps in prop::collection::vec(0u64..(1 << 31), 0..200)) {
            let mut counter = DropCounter::default();
            let mut truth = 0u64;
            for step in steps {
                truth += step;
                counter.observe(truth as u32);
                prop_assert_eq!(counter.total(), truth);
            }
        }
    }
}
