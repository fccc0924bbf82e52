//! The demo's records: made from a seed, and made again to compare what arrived. No Kafka, no clock.
//!
//! A record is known by its *slot* (one partition of one topic) and its *sequence* there (0, 1, 2 …), which is also the
//! offset that the source gives it. So nothing has to be remembered: a million records are checked without a copy.
//!
//! Among them is everything that Kafka lets a record be: null and empty keys, tombstones, empty values and 1 MiB, headers
//! that repeat, are null, are empty, are not ASCII, or bear the name of one of DDC's own.

use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The largest value that is made, in bytes: 1 MiB.
pub(super) const LARGEST_VALUE: u32 = 1 << 20;

/// The topics of a run, without the run's prefix, and their partitions.
pub(super) const TOPICS: [(&str, u32); 3] = [("orders", 6), ("sensors", 4), ("documents", 2)];

/// A partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    /// Index into [`TOPICS`].
    pub(super) topic: usize,
    pub(super) partition: u32,
}

/// Which records a run consists of.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    seed: u64,
    records: u64,
    value_bytes: Option<u32>,
    slots: Vec<Slot>,
    paced: Option<Paced>,
}

/// Records that are made as time goes by carry the time of their making, so that latencies mean something.
#[derive(Debug, Clone)]
struct Paced {
    per_second: NonZeroU32,
    /// When the first one was due, in ms since 1970; set once, before any record is made.
    start: Arc<OnceLock<i64>>,
}

/// One record, in a buffer that is used again.
#[derive(Debug, Default)]
pub(super) struct Sample {
    bytes: Vec<u8>,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers: Vec<(&'static str, Option<Range<usize>>)>,
    /// Milliseconds since 1970.
    pub(super) timestamp: i64,
}

impl Plan {
    /// `value_bytes`: every value that is not null has this many; without it they differ, mostly small, some large.
    pub(super) fn new(seed: u64, records: u64, value_bytes: Option<u32>) -> Self {
        let slots = TOPICS.iter().enumerate().flat_map(|(topic, (_, partitions))| {
            (0..*partitions).map(move |partition| Slot { topic, partition })
        });
        Self { seed, records, value_bytes, slots: slots.collect(), paced: None }
    }

    /// So many records a second are made; clones of the plan know of the start that one of them is told.
    pub(super) fn paced(mut self, per_second: NonZeroU32) -> Self {
        self.paced = Some(Paced { per_second, start: Arc::default() });
        self
    }

    /// The first record is due now. Only the first call counts.
    pub(super) fn begin(&self, now_millis: i64) {
        if let Some(paced) = &self.paced {
            paced.start.get_or_init(|| now_millis);
        }
    }

    /// When record `index` is due, after the start; at once when nobody asked for a pace.
    pub(super) fn due(&self, index: u64) -> Duration {
        self.paced.as_ref().map_or(Duration::ZERO, |paced| {
            let rate = u64::from(paced.per_second.get());
            Duration::from_secs(index / rate) + Duration::from_nanos(index % rate * 1_000_000_000 / rate)
        })
    }

    /// In steps, and not quite in order, as clocks of producers are.
    fn timestamp(&self, slot: usize, sequence: u64, random: &mut Random) -> i64 {
        let jitter = random.below(1000) as i64;
        match self.paced.as_ref().and_then(|paced| paced.start.get()) {
            Some(start) => {
                let due = self.due(sequence * self.slots.len() as u64 + slot as u64);
                start + due.as_millis() as i64 - jitter / 200
            }
            None => 1_600_000_000_000 + (sequence as i64) * 3 + jitter,
        }
    }

    /// All records of the run.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// The partitions that records go to, in turn.
    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The index of a partition in [`Plan::slots`].
    pub(super) fn slot_of(&self, topic: usize, partition: i32) -> Option<usize> {
        let partition = u32::try_from(partition).ok()?;
        self.slots.iter().position(|slot| *slot == Slot { topic, partition })
    }

    /// Where the record that is produced as number `index` goes: slot and sequence.
    pub(super) fn place(&self, index: u64) -> (usize, u64) {
        let slots = self.slots.len() as u64;
        ((index % slots) as usize, index / slots)
    }

    /// How many records a slot gets.
    pub(super) fn count(&self, slot: usize) -> u64 {
        let slots = self.slots.len() as u64;
        self.records / slots + u64::from((slot as u64) < self.records % slots)
    }

    /// About how many bytes the record takes in a topic; cheap.
    pub(super) fn weight(&self, slot: usize, sequence: u64) -> u64 {
        let mut random = self.random(slot, sequence);
        // Keys, headers (provenance too) and framing: about this much more than the value.
        self.value_size(&mut random, slot, sequence).map_or(0, u64::from) + 256
    }

    /// Makes the record.
    pub(super) fn fill(&self, slot: usize, sequence: u64, sample: &mut Sample) {
        let mut random = self.random(slot, sequence);
        let value_size = self.value_size(&mut random, slot, sequence);
        sample.bytes.clear();
        sample.headers.clear();
        sample.timestamp = self.timestamp(slot, sequence, &mut random);
        sample.key = match random.below(20) {
            0 | 1 => None,
            2 => Some(0..0),
            _ => {
                let device = random.below(100_000);
                Some(sample.append(format_args!("device-{device:05}")))
            }
        };
        sample.fill_headers(random.below(16), &mut random);
        sample.value = value_size.map(|size| sample.append_value(size as usize, &mut random));
    }

    /// The size of the value; `None` is a tombstone. Draws the same numbers whatever the size.
    fn value_size(&self, random: &mut Random, slot: usize, sequence: u64) -> Option<u32> {
        let (kind, size) = (random.below(1000), random.next());
        let within = |low: u32, high: u32| Some(low + (size % u64::from(high - low)) as u32);
        match (kind, self.value_bytes) {
            (0..30, _) => None,
            (_, Some(fixed)) => Some(fixed),
            // However short the run, the smallest and the largest are there.
            _ if sequence == 0 && slot == 0 => Some(0),
            _ if sequence == 0 && slot == 1 => Some(LARGEST_VALUE),
            (30..60, None) => Some(0),
            (60..900, None) => within(16, 512),
            (900..990, None) => within(512, 8 << 10),
            (990..999, None) => within(8 << 10, 64 << 10),
            (_, None) => within(64 << 10, LARGEST_VALUE + 1),
        }
    }

    fn random(&self, slot: usize, sequence: u64) -> Random {
        let mut random = Random(self.seed ^ (slot as u64 + 1).wrapping_mul(0xA24B_AED4_963E_E407));
        // One step between, so that neighbouring sequences of neighbouring seeds do not meet.
        Random(random.next() ^ sequence.wrapping_mul(0x9FB2_1C65_1E98_DF25))
    }
}

impl Sample {
    /// The key; `None` is null.
    pub(super) fn key(&self) -> Option<&[u8]> {
        self.key.clone().map(|range| &self.bytes[range])
    }

    /// The value; `None` is null, a tombstone.
    pub(super) fn value(&self) -> Option<&[u8]> {
        self.value.clone().map(|range| &self.bytes[range])
    }

    /// The headers in order; a value of `None` is null.
    pub(super) fn headers(&self) -> impl ExactSizeIterator<Item = (&'static str, Option<&[u8]>)> {
        self.headers.iter().map(|(name, value)| (*name, value.clone().map(|range| &self.bytes[range])))
    }

    fn append(&mut self, text: std::fmt::Arguments<'_>) -> Range<usize> {
        use std::io::Write as _;
        let start = self.bytes.len();
        // Writing into a Vec cannot fail.
        let _ = self.bytes.write_fmt(text);
        start..self.bytes.len()
    }

    fn fill_headers(&mut self, kind: u64, random: &mut Random) {
        match kind {
            0..9 => {}
            9 | 10 => self.header("trace", random),
            11 => {
                self.header("tag", random);
                self.header("tag", random);
            }
            12 => self.headers.push(("null", None)),
            13 => self.headers.push(("empty", Some(0..0))),
            14 => {
                self.header("größe", random);
                self.headers.push(("tag", None));
                self.header("tag", random);
            }
            // A header of the user's own keeps its place before those that DDC adds under the same name.
            _ => self.header(SOURCE_OFFSET, random),
        }
    }

    fn header(&mut self, name: &'static str, random: &mut Random) {
        let value = random.next();
        let range = self.append(format_args!("{value:x}"));
        self.headers.push((name, Some(range)));
    }

    /// Bytes that shrink to about a third, as real records do.
    fn append_value(&mut self, size: usize, random: &mut Random) -> Range<usize> {
        const TEXT: &[u8; 24] = b" unit=bar state=nominal\n";
        let start = self.bytes.len();
        self.bytes.reserve(size + 32);
        while self.bytes.len() < start + size {
            self.bytes.extend_from_slice(&random.next().to_le_bytes());
            self.bytes.extend_from_slice(TEXT);
        }
        self.bytes.truncate(start + size);
        start..start + size
    }
}

pub(super) const SOURCE_TOPIC: &str = "sourceTopic";
pub(super) const SOURCE_PARTITION: &str = "sourcePartition";
pub(super) const SOURCE_OFFSET: &str = "sourceOffset";

/// SplitMix64: small, fast, the same everywhere. (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014.)
#[derive(Debug, Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is small: the bias is far below what a demo shows.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;

    fn filled(plan: &Plan, slot: usize, sequence: u64) -> Sample {
        let mut sample = Sample::default();
        plan.fill(slot, sequence, &mut sample);
        sample
    }

    fn owned(sample: &Sample) -> impl PartialEq + std::fmt::Debug + use<> {
        let headers: Vec<_> =
            sample.headers().map(|(name, value)| (name, value.map(<[u8]>::to_vec))).collect();
        (sample.key().map(<[u8]>::to_vec), sample.value().map(<[u8]>::to_vec), headers, sample.timestamp)
    }

    #[test]
    fn paced_records_are_due_evenly_and_carry_their_time() {
        let plan = Plan::new(1, 100, Some(10)).paced(NonZeroU32::new(3).unwrap());
        let due = |index| plan.due(index).as_nanos();
        assert_eq!([due(0), due(1), due(2), due(3)], [0, 333_333_333, 666_666_666, 1_000_000_000]);
        assert_eq!(due(3_000_000_000), 1_000_000_000 * 1_000_000_000);

        let verifier = plan.clone();
        plan.begin(1_790_000_000_000);
        plan.begin(5);
        let mut sample = Sample::default();
        for index in 0..100 {
            let (slot, sequence) = plan.place(index);
            verifier.fill(slot, sequence, &mut sample);
            let due = 1_790_000_000_000 + plan.due(index).as_millis() as i64;
            assert!((due - 5..=due).contains(&sample.timestamp), "{index}: {}", sample.timestamp);
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_record_whatever_was_in_the_buffer() {
        let plan = Plan::new(7, 1000, None);
        let mut used = Sample::default();
        plan.fill(3, 40, &mut used);
        plan.fill(1, 11, &mut used);
        assert_eq!(owned(&used), owned(&filled(&plan, 1, 11)));
        for (other, slot, sequence) in
            [(Plan::new(8, 1000, None), 1, 11), (plan.clone(), 2, 11), (plan, 1, 12)]
        {
            assert_ne!(owned(&used), owned(&filled(&other, slot, sequence)));
        }
    }

    #[test]
    fn every_record_has_one_place_and_the_counts_add_up() {
        let plan = Plan::new(1, 1003, None);
        let mut seen = vec![0; plan.slots().len()];
        for index in 0..plan.records() {
            let (slot, sequence) = plan.place(index);
            assert_eq!(sequence, seen[slot]);
            seen[slot] += 1;
        }
        for (slot, seen) in seen.iter().enumerate() {
            assert_eq!(*seen, plan.count(slot));
            let Slot { topic, partition } = plan.slots()[slot];
            assert_eq!(plan.slot_of(topic, partition as i32), Some(slot));
        }
        assert_eq!((plan.slot_of(0, 6), plan.slot_of(0, -1)), (None, None));
    }

    #[test]
    fn all_that_kafka_allows_is_among_them_and_the_whole_stays_small() {
        let plan = Plan::new(42, 100_000, None);
        let (mut sample, mut bytes) = (Sample::default(), 0);
        let (mut null_keys, mut empty_keys, mut tombstones, mut empty, mut large) = (0, 0, 0, 0, 0);
        let (mut repeated, mut null_headers, mut empty_headers, mut own_name) = (0, 0, 0, 0);
        for index in 0..plan.records() {
            let (slot, sequence) = plan.place(index);
            plan.fill(slot, sequence, &mut sample);
            let value = sample.value().map_or(0, <[u8]>::len);
            assert!(value <= LARGEST_VALUE as usize);
            let header_bytes: usize =
                sample.headers().map(|(n, v)| n.len() + v.map_or(0, <[u8]>::len) + 8).sum();
            let least = value + sample.key().map_or(0, <[u8]>::len) + header_bytes + 100;
            assert!(plan.weight(slot, sequence) >= least as u64, "the window would be overrun");
            bytes += value;
            null_keys += usize::from(sample.key().is_none());
            empty_keys += usize::from(sample.key() == Some(b""));
            tombstones += usize::from(sample.value().is_none());
            empty += usize::from(sample.value() == Some(b""));
            large += usize::from(value == LARGEST_VALUE as usize);
            let names: Vec<_> = sample.headers().map(|(name, _)| name).collect();
            repeated += usize::from(names.windows(2).any(|pair| pair[0] == pair[1]));
            null_headers += usize::from(sample.headers().any(|(_, value)| value.is_none()));
            empty_headers += usize::from(sample.headers().any(|(_, value)| value == Some(b"")));
            own_name += usize::from(names.contains(&SOURCE_OFFSET));
        }
        for count in
            [null_keys, empty_keys, tombstones, empty, repeated, null_headers, empty_headers, own_name]
        {
            assert!((1000..20_000).contains(&count), "{count}");
        }
        assert!(large >= 1);
        assert!((50 << 20..300 << 20).contains(&bytes), "{bytes}");
    }

    #[test]
    fn a_fixed_size_is_the_size_of_every_value_that_is_not_null() {
        for size in [0, 1, 100, LARGEST_VALUE] {
            let plan = Plan::new(3, 200, Some(size));
            let mut tombstones = 0;
            for index in 0..plan.records() {
                let (slot, sequence) = plan.place(index);
                match filled(&plan, slot, sequence).value() {
                    Some(value) => assert_eq!(value.len(), size as usize),
                    None => tombstones += 1,
                }
            }
            assert!((1..40).contains(&tombstones), "{tombstones}");
        }
    }
}
