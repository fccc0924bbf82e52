//! Where a reader stands in its partition, and whether the next range is near enough to read on to it. Pure.

/// Up to so many bytes are read and dropped between two ranges; beyond, reading begins anew at the next one. librdkafka
/// has fetched about as much already.
const READ_OVER: f64 = (2 << 20) as f64;
/// What an offset is taken to take before a record was seen, in bytes.
const UNSEEN: f64 = 1024.0;
/// What a record takes beside its key and value, about, in bytes.
const RECORD_FRAME: usize = 16;
/// Records over which their size is averaged.
const SEEN: f64 = 32.0;

/// What the next read gives.
#[derive(Debug, PartialEq)]
pub(super) struct Standing {
    partition: i32,
    /// Its first offset, or a later one.
    next: i64,
    /// Bytes that an offset takes in this partition, as far as was seen.
    bytes_per_offset: f64,
}

impl Standing {
    /// Reading begins here. What was seen of the same partition `before` counts.
    pub(super) fn new(partition: i32, next: i64, before: Option<Standing>) -> Self {
        let before = before.filter(|before| before.partition == partition);
        Self { partition, next, bytes_per_offset: before.map_or(UNSEEN, |before| before.bytes_per_offset) }
    }

    /// Whether reading on to `offset` costs less than beginning to read there.
    pub(super) fn is_near(&self, partition: i32, offset: i64) -> bool {
        let between = offset.checked_sub(self.next).filter(|between| *between >= 0);
        self.partition == partition
            && between.is_some_and(|between| between as f64 * self.bytes_per_offset <= READ_OVER)
    }

    /// A record with `size` bytes of key and value was read, or stepped over.
    pub(super) fn pass(&mut self, offset: i64, size: usize) {
        let offsets = offset.saturating_add(1).saturating_sub(self.next);
        if offsets > 0 {
            let seen = (size + RECORD_FRAME) as f64 / offsets as f64;
            self.bytes_per_offset += (seen - self.bytes_per_offset) / SEEN;
            self.next += offsets;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2 MiB are as far as 2,048 records of 1 KiB, or 20,000 of 100 bytes, or two of a megabyte.
    #[test]
    fn what_is_near_is_told_by_what_records_take() {
        let mut standing = Standing::new(3, 100, None);
        assert!(standing.is_near(3, 100) && standing.is_near(3, 100 + 2048));
        assert!(!standing.is_near(3, 101 + 2048) && !standing.is_near(4, 100));
        assert!(!standing.is_near(3, 99), "what was read is gone");
        assert!(!standing.is_near(3, i64::MAX - 1) && !Standing::new(3, -5, None).is_near(3, i64::MAX));
        (100..400).for_each(|offset| standing.pass(offset, 84));
        assert!(standing.is_near(3, 400 + 20_000) && !standing.is_near(3, 400 + 22_000));
        standing.pass(399, 1 << 30);
        assert_eq!(standing.next, 400, "it was seen before");
        (400..600).for_each(|offset| standing.pass(offset, 1 << 20));
        assert!(standing.is_near(3, 601) && !standing.is_near(3, 604));
    }

    #[test]
    fn what_was_seen_is_of_one_partition() {
        let mut seen = Standing::new(3, 0, None);
        (0..200).for_each(|offset| seen.pass(offset, 1 << 20));
        let again = Standing::new(3, 5000, Some(seen));
        assert!(!again.is_near(3, 5010));
        assert_eq!(Standing::new(4, 5000, Some(again)), Standing::new(4, 5000, None));
    }
}
