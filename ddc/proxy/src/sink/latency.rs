//! How long records take: from handing over to acknowledgement, and from their own timestamp to acknowledgement.
//!
//! ```text
//!  tick (clocks, once a burst) ─▶ times of a record, 16 bytes ─▶ … in flight … ─▶ acknowledged ─▶ flush (once a burst)
//! ```
//!
//! Every record is counted, so the way of a record has additions only: no clock, no atomic, no allocation. The clocks
//! are read by [`Latencies::tick`] where the thread begins a batch and where it fetches answers, so a figure is exact to
//! the length of a burst. An acknowledgement is counted when the thread sees it.

use std::time::{Duration, Instant};

use ddc_telemetry::{EgressMetrics, Histogram, HistogramBuffer};
use ddc_udp::clock::wall_clock_micros;
use ddc_wire::Timestamp;

/// What must be known of a record until it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// When it was handed over, in µs since the [`Latencies`] began.
    handed_micros: u64,
    /// Its own time, in ms since 1970; [`Times::NO_TIME`] without one.
    created_millis: i64,
}

impl Times {
    const NO_TIME: i64 = i64::MIN;
}

impl Default for Times {
    /// Of a record without a time, handed over at the beginning.
    fn default() -> Self {
        Self { handed_micros: 0, created_millis: Self::NO_TIME }
    }
}

/// Clocks as they were at the last tick, and what was observed since the last flush.
#[derive(Debug)]
pub struct Latencies {
    began: Instant,
    now_micros: u64,
    wall_millis: i64,
    sink: Runs,
    end_to_end: Runs,
}

/// Equal durations in a row, which are the rule inside a burst: they are sorted into their bucket once.
#[derive(Debug, Default)]
struct Runs {
    buffer: HistogramBuffer,
    micros: u64,
    length: u64,
}

impl Runs {
    #[inline]
    fn observe(&mut self, micros: u64) {
        if micros != self.micros {
            self.end();
            self.micros = micros;
        }
        self.length += 1;
    }

    fn end(&mut self) {
        if self.length > 0 {
            let length = std::mem::take(&mut self.length);
            self.buffer.observe_many(Duration::from_micros(self.micros), length);
        }
    }

    fn flush(&mut self, histogram: &Histogram) {
        self.end();
        self.buffer.flush(histogram);
    }
}

impl Default for Latencies {
    fn default() -> Self {
        let mut fresh = Self {
            began: Instant::now(),
            now_micros: 0,
            wall_millis: 0,
            sink: Runs::default(),
            end_to_end: Runs::default(),
        };
        fresh.tick();
        fresh
    }
}

impl Latencies {
    /// Reads the clocks.
    pub fn tick(&mut self) {
        self.set(self.began.elapsed(), wall_clock_micros());
    }

    fn set(&mut self, since_began: Duration, wall_micros: u64) {
        self.now_micros = since_began.as_micros() as u64;
        self.wall_millis = (wall_micros / 1_000) as i64;
    }

    /// Of a record that is handed over now.
    #[inline]
    pub fn times(&self, timestamp: Option<Timestamp>) -> Times {
        // Kafka writes -1 where there is no time, and programs that know none write 0.
        let created_millis = timestamp.map(Timestamp::millis).filter(|millis| *millis > 0);
        Times { handed_micros: self.now_micros, created_millis: created_millis.unwrap_or(Times::NO_TIME) }
    }

    /// The destination has the record. A time in the future counts as no time at all passed: the clocks of the two
    /// sides differ.
    #[inline]
    pub fn acknowledged(&mut self, times: Times) {
        self.sink.observe(self.now_micros.saturating_sub(times.handed_micros));
        if times.created_millis != Times::NO_TIME {
            let passed = self.wall_millis.saturating_sub(times.created_millis).max(0);
            self.end_to_end.observe((passed as u64).saturating_mul(1_000));
        }
    }

    /// Tells telemetry what was observed.
    pub fn flush(&mut self, metrics: &EgressMetrics) {
        self.sink.flush(&metrics.sink_latency_seconds);
        self.end_to_end.flush(&metrics.end_to_end_latency_seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: u64 = 1_800_000_000_000_000;

    fn at(latencies: &mut Latencies, millis: u64) {
        latencies.set(Duration::from_millis(millis), WALL + millis * 1_000);
    }

    #[test]
    fn each_record_is_counted_once_with_both_its_times() {
        let (mut latencies, metrics) = (Latencies::default(), EgressMetrics::default());
        let created = |before: i64| Some(Timestamp::Create(WALL as i64 / 1_000 - before));
        at(&mut latencies, 1_000);
        let times = [created(500), Some(Timestamp::LogAppend(-1)), None, created(-5_000)]
            .map(|timestamp| latencies.times(timestamp));
        at(&mut latencies, 1_004);
        for times in times {
            latencies.acknowledged(times);
        }
        let sums = |metrics: &EgressMetrics| {
            let histograms = [&metrics.sink_latency_seconds, &metrics.end_to_end_latency_seconds];
            histograms.map(|histogram| (histogram.snapshot().count(), histogram.snapshot().sum()))
        };
        assert_eq!(sums(&metrics), [(0, 0.0); 2], "not before the flush");
        latencies.flush(&metrics);
        latencies.flush(&metrics);
        let [(acknowledged, sink), (timed, end_to_end)] = sums(&metrics);
        assert_eq!((acknowledged, timed), (4, 2), "a record without a time has no age");
        assert!((sink - 4.0 * 0.004).abs() < 1e-9, "{sink}");
        // 500 ms old when the clocks began, 1,004 ms later; the other one is from the future.
        assert!((end_to_end - 1.504).abs() < 0.002, "{end_to_end}");
    }

    #[test]
    fn no_timestamp_panics() {
        let mut latencies = Latencies::default();
        for millis in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX] {
            let times = latencies.times(Some(Timestamp::Create(millis)));
            latencies.acknowledged(times);
        }
        latencies.acknowledged(Times { handed_micros: u64::MAX, created_millis: i64::MAX });
    }
}
