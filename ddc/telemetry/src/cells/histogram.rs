//! Durations by size: a histogram with fixed buckets.
//!
//! ```text
//!   observe(3 ms) ─► the bucket "≤ 5 ms": count += 1, sum += 3 ms       two relaxed additions, nothing else
//! ```
//! Every bucket holds its own count and its own sum, so that the StatsD reporter can say what the mean of a bucket was: one line
//! carries it. The total of both is added up by the reader.
//!
//! A bucket's sum is kept in a unit that fits its size ([`unit`]), since nanoseconds of hundred thousands of records that are five
//! minutes old would wrap 64 bits within hours. The rounding is below 0.05 % of an observation.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::{Describe, Emit, Kind, Metric, Sample, Side};

/// Upper bounds of the buckets in nanoseconds; an observation belongs to the first bucket that is not smaller than it.
const BOUNDS_NANOS: [u64; 19] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
    300_000_000_000,
];

/// Upper bounds of the buckets in seconds, as they are written: here, in Vector's `buckets` and in the documentation. Behind the last
/// stands the bucket without bound, `+Inf`.
pub const BOUNDS: [f64; 19] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0, 300.0,
];

/// Number of buckets, the one without bound included.
pub const BUCKETS: usize = BOUNDS.len() + 1;

/// What is longer counts as this long: it keeps the sum from wrapping when a backlog of years is read.
pub const LONGEST: Duration = Duration::from_hours(24);

/// Nanoseconds in one step of a bucket's sum: 1 ns up to a millisecond, 1 µs up to a second, 1 ms above. With 100,000 observations
/// a second a sum of bounded buckets wraps after 5 years, that of the last after 24 days of nothing but records a day old.
const fn unit(bucket: usize) -> u64 {
    match bucket {
        0..=3 => 1,
        4..=12 => 1_000,
        _ => 1_000_000,
    }
}

/// The bucket of an observation and what it adds to the bucket's sum.
#[inline]
fn place(observed: Duration) -> (usize, u64) {
    // Not above a day, so it fits 64 bits by far.
    let nanos = observed.min(LONGEST).as_nanos() as u64;
    let bucket = BOUNDS_NANOS.partition_point(|bound| *bound < nanos);
    let unit = unit(bucket);
    (bucket, (nanos + unit / 2) / unit)
}

/// Durations by size. Shared between threads; see [`HistogramBuffer`] for a thread that observes very often.
#[derive(Debug, Default)]
pub struct Histogram([Cell; BUCKETS]);

#[derive(Debug, Default)]
struct Cell {
    count: AtomicU64,
    sum: AtomicU64,
}

impl Histogram {
    /// Counts one duration; above [`LONGEST`] it counts as [`LONGEST`]. Two relaxed atomic additions.
    #[inline]
    pub fn observe(&self, observed: Duration) {
        let (bucket, sum) = place(observed);
        self.add(bucket, 1, sum);
    }

    /// Counts `n` equal durations, at the cost of one.
    #[inline]
    pub fn observe_many(&self, observed: Duration, n: u64) {
        let (bucket, sum) = place(observed);
        self.add(bucket, n, sum.wrapping_mul(n));
    }

    #[inline]
    fn add(&self, bucket: usize, count: u64, sum: u64) {
        let cell = &self.0[bucket];
        cell.count.fetch_add(count, Relaxed);
        cell.sum.fetch_add(sum, Relaxed);
    }

    /// What was counted so far. Threads may be between the two additions of an observation, so a sum may lag behind its count by one.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (bucket, cell) in self.0.iter().enumerate() {
            snapshot.buckets[bucket] = (cell.count.load(Relaxed), cell.sum.load(Relaxed));
        }
        snapshot
    }
}

impl Describe for Histogram {
    const KIND: Kind = Kind::Histogram;
}

impl Metric for Histogram {
    fn read(&self, _side: Option<Side>, emit: &mut Emit<'_>) {
        emit(&[], Sample::Histogram(&self.snapshot()));
    }

    /// In five buckets, the first and the last among them; the sum is exact in binary.
    fn example(&self, n: u64, side: Option<Side>, emit: &mut Emit<'_>) {
        let histogram = Self::default();
        histogram.observe_many(Duration::ZERO, n);
        histogram.observe(Duration::from_nanos(7_812_500));
        histogram.observe_many(Duration::from_millis(250), 2);
        histogram.observe_many(Duration::from_millis(1_500), 3 * n);
        histogram.observe(Duration::from_secs(400));
        histogram.read(side, emit);
    }
}

/// The same buckets without atomics, for one thread that observes each record: [`HistogramBuffer::flush`] once per burst.
/// What was not flushed is not seen by anybody and is lost with the buffer.
#[derive(Debug, Default)]
pub struct HistogramBuffer {
    buckets: [(u64, u64); BUCKETS],
    /// A bit for each bucket that has something, so that a flush of a short burst is short.
    used: u32,
}

impl HistogramBuffer {
    /// Counts one duration.
    #[inline]
    pub fn observe(&mut self, observed: Duration) {
        self.observe_many(observed, 1);
    }

    /// Counts `n` equal durations, at the cost of one.
    #[inline]
    pub fn observe_many(&mut self, observed: Duration, n: u64) {
        let (bucket, sum) = place(observed);
        let (count, total) = &mut self.buckets[bucket];
        *count += n;
        *total = total.wrapping_add(sum.wrapping_mul(n));
        self.used |= 1 << bucket;
    }

    /// Moves everything to `histogram`: two atomic additions for each bucket that has something.
    pub fn flush(&mut self, histogram: &Histogram) {
        while self.used != 0 {
            let bucket = self.used.trailing_zeros() as usize;
            let (count, sum) = std::mem::take(&mut self.buckets[bucket]);
            histogram.add(bucket, count, sum);
            self.used &= self.used - 1;
        }
    }
}

/// A histogram as it was at one moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Count and sum of each bucket, not cumulative; the sum in the bucket's unit.
    buckets: [(u64, u64); BUCKETS],
}

impl Snapshot {
    /// All observations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(count, _)| count).sum()
    }

    /// Sum of all observations in seconds.
    pub fn sum(&self) -> f64 {
        (0..BUCKETS).map(|bucket| self.bucket_sum(bucket)).sum()
    }

    /// Observations of bucket `bucket` alone.
    pub fn bucket_count(&self, bucket: usize) -> u64 {
        self.buckets[bucket].0
    }

    /// Sum of the observations of bucket `bucket` alone, in seconds.
    pub fn bucket_sum(&self, bucket: usize) -> f64 {
        self.buckets[bucket].1 as f64 * (unit(bucket) as f64 / 1e9)
    }

    /// What came since `before`, an earlier snapshot of the same histogram.
    pub fn since(&self, before: &Self) -> Self {
        let mut delta = Self::default();
        for (bucket, delta) in delta.buckets.iter_mut().enumerate() {
            let (now, then) = (self.buckets[bucket], before.buckets[bucket]);
            *delta = (now.0.wrapping_sub(then.0), now.1.wrapping_sub(then.1));
        }
        delta
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two lists are one list in two units.
    #[test]
    fn bounds_agree_and_rise() {
        for (nanos, seconds) in BOUNDS_NANOS.iter().zip(BOUNDS) {
            assert_eq!(*nanos, (seconds * 1e9).round() as u64);
        }
        assert!(BOUNDS.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(BUCKETS <= u32::BITS as usize, "HistogramBuffer keeps a bit for each bucket");
    }

    #[test]
    fn a_bound_belongs_to_its_bucket_and_a_nanosecond_more_to_the_next() {
        for (bucket, nanos) in BOUNDS_NANOS.into_iter().enumerate() {
            assert_eq!(place(Duration::from_nanos(nanos)).0, bucket);
            assert_eq!(place(Duration::from_nanos(nanos + 1)).0, bucket + 1);
        }
        assert_eq!(place(Duration::ZERO), (0, 0));
        assert_eq!(place(Duration::MAX), (BUCKETS - 1, 86_400_000));
    }

    #[test]
    fn counts_are_exact_and_the_sum_is_within_its_bound() {
        let histogram = Histogram::default();
        let mut exact = 0.0;
        for n in 0..2_000u32 {
            let observed = Duration::from_nanos(1 << (n % 42)) + Duration::from_nanos(u64::from(n) * 977);
            histogram.observe(observed);
            exact += observed.as_secs_f64();
        }
        histogram.observe_many(Duration::from_millis(7), 1_000);
        exact += 7.0;
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.count(), 3_000);
        assert!((snapshot.sum() - exact).abs() <= exact * 0.0005, "{} {exact}", snapshot.sum());
    }

    #[test]
    fn a_buffer_carries_the_same_and_is_empty_after_a_flush() {
        let (direct, buffered) = (Histogram::default(), Histogram::default());
        let mut buffer = HistogramBuffer::default();
        for n in 0..500u64 {
            let observed = Duration::from_micros(n * n * n);
            direct.observe(observed);
            buffer.observe(observed);
            if n % 60 == 0 {
                buffer.flush(&buffered);
            }
        }
        assert_ne!(direct.snapshot(), buffered.snapshot(), "the last part was not flushed yet");
        buffer.flush(&buffered);
        buffer.flush(&buffered);
        assert_eq!(direct.snapshot(), buffered.snapshot());
        assert_eq!(buffer.buckets, [(0, 0); BUCKETS]);
    }

    #[test]
    fn a_difference_is_what_came_between() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_millis(1));
        let before = histogram.snapshot();
        histogram.observe(Duration::from_secs(2));
        let delta = histogram.snapshot().since(&before);
        assert_eq!((delta.count(), delta.bucket_count(13)), (1, 1));
        assert!((delta.sum() - 2.0).abs() < 1e-9);
    }

    /// Two relaxed additions for the shared cell, none for the buffer; printed, and bounded far above what they take.
    #[test]
    fn observing_is_cheap() {
        let (histogram, mut buffer) = (Histogram::default(), HistogramBuffer::default());
        let time = |work: &mut dyn FnMut(Duration)| {
            let began = crate::process::thread_cpu();
            (0..1_000_000u64).for_each(|n| work(Duration::from_nanos(std::hint::black_box(n * 331))));
            crate::process::thread_cpu().saturating_sub(began) / 1_000_000
        };
        let shared = time(&mut |observed| histogram.observe(observed));
        let buffered = time(&mut |observed| buffer.observe(observed));
        println!("shared {shared:?}, buffered {buffered:?}");
        assert!(shared.max(buffered) < Duration::from_micros(2), "{shared:?} {buffered:?}");
        assert_eq!((histogram.snapshot().count(), buffer.used.count_ones() > 5), (1_000_000, true));
    }

    #[test]
    fn threads_lose_no_observation() {
        let histogram = Histogram::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..25_000).for_each(|n| histogram.observe(Duration::from_micros(n))));
            }
        });
        assert_eq!(histogram.snapshot().count(), 100_000);
    }
}
