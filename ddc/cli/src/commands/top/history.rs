//! The samples of one side of one link as rates and windows.
//!
//! Counters only rise while a process lives. A restart (another instance, or any counter that fell) starts anew: no
//! rate is ever computed across it, so none is negative or absurd.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::page::{Buckets, Process, Series};

/// Samples that a sparkline and a window have.
pub(super) const WINDOW: usize = 60;

/// A counter that is followed: its name, and the value of its further label if only that one is meant.
pub(super) type Counter = (&'static str, Option<&'static str>);

/// Every counter of which a rate or a window is shown; of others only the total is known.
pub(super) const FOLLOWED: [Counter; 24] = [
    ("ddc_ingress_records_sent_total", None),
    ("ddc_ingress_bytes_sent_total", None),
    ("ddc_ingress_packets_sent_total", None),
    ("ddc_ingress_source_symbols_total", None),
    ("ddc_ingress_repair_symbols_total", None),
    ("ddc_ingress_send_errors_total", None),
    ("ddc_ingress_records_skipped_total", None),
    ("ddc_egress_records_delivered_total", None),
    ("ddc_egress_bytes_received_total", None),
    ("ddc_egress_packets_received_total", None),
    ("ddc_egress_packet_loss_total", None),
    ("ddc_egress_packets_late_total", None),
    ("ddc_egress_socket_drops_total", None),
    ("ddc_egress_symbols_repaired_total", None),
    ("ddc_egress_blocks_received_total", None),
    ("ddc_egress_blocks_repaired_total", None),
    ("ddc_egress_blocks_unrepairable_total", None),
    ("ddc_egress_blocks_lost_total", None),
    ("ddc_egress_records_missing_total", None),
    ("ddc_egress_heartbeats_received_total", None),
    ("ddc_dropped_packets_total", None),
    ("ddc_dropped_packets_total", Some("seal")),
    ("ddc_dropped_packets_total", Some("send_error")),
    (CPU, None),
];

/// The histograms of which quantiles are shown.
pub(super) const HISTOGRAMS: [&str; 3] = [
    "ddc_egress_sink_latency_seconds",
    "ddc_egress_end_to_end_latency_seconds",
    "ddc_egress_transit_latency_seconds",
];

/// The threads of the data path, by the metric's label.
pub(super) const THREADS: [&str; 4] = ["source", "link", "receive", "sink"];
pub(super) const THREAD_CPU: &str = "ddc_thread_cpu_seconds_total";
/// A metric of the process, kept with the samples of each of its links.
pub(super) const CPU: &str = "ddc_process_cpu_seconds_total";

/// The values of one sample, in the order of the tables above.
#[derive(Debug, Clone)]
struct Point {
    at: Instant,
    counters: [Option<f64>; FOLLOWED.len()],
    threads: [Option<f64>; THREADS.len()],
    histograms: [Option<Buckets>; HISTOGRAMS.len()],
}

/// The last samples of one side, at most [`WINDOW`] and the one before them.
#[derive(Debug, Default)]
pub(super) struct History {
    points: VecDeque<Point>,
    process: Process,
    /// The last sample is the newest that was asked for; false after a failure.
    fresh: bool,
}

impl History {
    /// Takes a sample that came at `at`. Samples closer than `least` are not told apart: the rates stay.
    pub(super) fn push(&mut self, at: Instant, process: &Process, series: &Series, least: Duration) {
        let value = |(name, by): Counter| match by {
            _ if name == CPU => process.cpu_seconds,
            Some(by) => series.of(name, by),
            None => series.get(name),
        };
        let point = Point {
            at,
            counters: FOLLOWED.map(value),
            threads: THREADS.map(|thread| series.of(THREAD_CPU, thread)),
            histograms: HISTOGRAMS.map(|name| series.histogram(name).cloned()),
        };
        if self.restarted(process, &point) {
            self.points.clear();
        }
        self.process = process.clone();
        self.fresh = true;
        if self.points.back().is_some_and(|last| at.saturating_duration_since(last.at) < least) {
            return;
        }
        if self.points.len() > WINDOW {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }

    /// A sample that was asked for and did not come: there is no rate now.
    pub(super) fn miss(&mut self) {
        self.fresh = false;
    }

    /// Whether the values before `point` were another life's.
    fn restarted(&self, process: &Process, point: &Point) -> bool {
        let Some(last) = self.points.back() else { return false };
        let fell = |(old, new): (&Option<f64>, &Option<f64>)| matches!((old, new), (Some(old), Some(new)) if new < old);
        // An id that comes or goes is another program or another life too.
        process.instance != self.process.instance
            || last.counters.iter().zip(&point.counters).any(fell)
            || last.threads.iter().zip(&point.threads).any(fell)
            || last.histograms.iter().zip(&point.histograms).any(|(old, new)| match (old, new) {
                (Some(old), Some(new)) => difference(old, new).is_none(),
                _ => false,
            })
    }

    /// Per second, between the last two samples.
    pub(super) fn rate(&self, counter: Counter) -> Option<f64> {
        let index = place(counter)?;
        self.per_second(|point| point.counters[index])
    }

    /// Seconds of CPU per second, between the last two samples.
    pub(super) fn thread_cpu(&self, thread: usize) -> Option<f64> {
        self.per_second(|point| *point.threads.get(thread)?)
    }

    fn per_second(&self, value: impl Fn(&Point) -> Option<f64>) -> Option<f64> {
        let last = self.points.back().filter(|_| self.fresh)?;
        let before = self.points.get(self.points.len().checked_sub(2)?)?;
        let seconds = last.at.saturating_duration_since(before.at).as_secs_f64();
        let rise = value(last)? - value(before)?;
        (seconds > 0.0 && rise >= 0.0).then(|| rise / seconds)
    }

    /// How much a counter rose over all samples that are kept.
    pub(super) fn rise(&self, counter: Counter) -> Option<f64> {
        let index = place(counter)?;
        let (first, last) = (self.points.front()?, self.points.back()?);
        (self.points.len() > 1).then(|| Some(last.counters[index]? - first.counters[index]?)).flatten()
    }

    /// The quantile of what was observed over all samples that are kept; none when nothing was.
    pub(super) fn quantile(&self, histogram: &str, quantile: f64) -> Option<f64> {
        let index = HISTOGRAMS.iter().position(|name| *name == histogram)?;
        let (first, last) = (self.points.front()?, self.points.back()?);
        let newest = last.histograms[index].as_ref()?;
        // A metric that appeared within the window began at zero.
        let nothing: Buckets = newest.iter().map(|(bound, _)| (*bound, 0.0)).collect();
        let oldest = first.histograms[index].as_ref().unwrap_or(&nothing);
        if self.points.len() < 2 {
            return None;
        }
        quantile_of(&difference(oldest, newest)?, quantile)
    }
}

fn place(counter: Counter) -> Option<usize> {
    let place = FOLLOWED.iter().position(|followed| *followed == counter);
    debug_assert!(place.is_some(), "{counter:?} is not followed");
    place
}

/// The counts between two samples, or nothing when the buckets differ or a count fell.
fn difference(old: &Buckets, new: &Buckets) -> Option<Buckets> {
    let same = old.len() == new.len()
        && old.iter().zip(new).all(|(old, new)| old.0.total_cmp(&new.0).is_eq() && new.1 >= old.1);
    same.then(|| old.iter().zip(new).map(|(old, new)| (new.0, new.1 - old.1)).collect())
}

/// Interpolated within the bucket, as Prometheus' `histogram_quantile` does it; beyond the last finite bound, that bound.
fn quantile_of(buckets: &Buckets, quantile: f64) -> Option<f64> {
    let total = buckets.last()?.1;
    if total <= 0.0 {
        return None;
    }
    let rank = quantile * total;
    let index = buckets.iter().position(|(_, count)| *count >= rank)?;
    let (bound, count) = buckets[index];
    let (below, before) = index.checked_sub(1).map_or((0.0, 0.0), |index| buckets[index]);
    if bound.is_infinite() {
        return (index > 0 && below.is_finite()).then_some(below);
    }
    let inside = count - before;
    Some(if inside > 0.0 { below + (bound - below) * (rank - before) / inside } else { bound })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::super::page::{Page, Side};
    use super::*;

    const SENT: Counter = ("ddc_ingress_records_sent_total", None);
    const LEAST: Duration = Duration::from_millis(100);

    fn sample(sent: u64, instance: &str) -> (Process, Series) {
        let page = Page::parse(&format!(
            "ddc_build_info{{instance_id=\"{instance}\",version=\"1\"}} 1\nddc_process_cpu_seconds_total {}\n\
             ddc_ingress_records_sent_total{{link=\"a\",side=\"ingress\"}} {sent}\n",
            sent as f64 / 1000.0
        ))
        .unwrap();
        (page.process, page.sides[&("a".to_owned(), Side::Ingress)].clone())
    }

    fn push(history: &mut History, at: Instant, sent: u64, instance: &str) {
        let (process, series) = sample(sent, instance);
        history.push(at, &process, &series, LEAST);
    }

    #[test]
    fn a_rate_needs_two_samples_of_one_life() {
        let (mut history, start) = (History::default(), Instant::now());
        let second = Duration::from_secs(1);
        push(&mut history, start, 1000, "a");
        assert_eq!(history.rate(SENT), None);
        push(&mut history, start + 2 * second, 1500, "a");
        assert_eq!(history.rate(SENT), Some(250.0));
        assert_eq!(history.rate((CPU, None)), Some(0.25));
        // A restart by its id, though the counter is higher already.
        push(&mut history, start + 3 * second, 9000, "b");
        assert_eq!((history.rate(SENT), history.rise(SENT)), (None, None));
        push(&mut history, start + 4 * second, 9010, "b");
        assert_eq!(history.rate(SENT), Some(10.0));
        // A restart that only the counter shows.
        push(&mut history, start + 5 * second, 3, "b");
        assert_eq!(history.rate(SENT), None);
        push(&mut history, start + 6 * second, 4, "b");
        assert_eq!((history.rate(SENT), history.rise(SENT)), (Some(1.0), Some(1.0)));
        history.miss();
        assert_eq!(history.rate(SENT), None, "what is old is not shown as now");
        push(&mut history, start + 10 * second, 12, "b");
        assert_eq!(history.rate(SENT), Some(2.0), "an average over the hole");
    }

    #[test]
    fn samples_that_lie_too_close_do_not_make_spikes() {
        let (mut history, start) = (History::default(), Instant::now());
        push(&mut history, start, 0, "a");
        push(&mut history, start + Duration::from_secs(1), 100, "a");
        push(&mut history, start + Duration::from_micros(1_000_001), 150, "a");
        push(&mut history, start, 150, "a");
        assert_eq!(history.rate(SENT), Some(100.0));
    }

    #[test]
    fn the_window_is_bounded() {
        let (mut history, start) = (History::default(), Instant::now());
        for n in 0..500 {
            push(&mut history, start + Duration::from_secs(n), n * 10, "a");
        }
        assert_eq!(history.points.len(), WINDOW + 1);
        assert_eq!(history.rise(SENT), Some(10.0 * WINDOW as f64));
    }

    #[test]
    fn quantiles_are_those_of_the_window() {
        let infinity = f64::INFINITY;
        let buckets = |a, b, c| vec![(0.1, a), (1.0, b), (infinity, c)];
        assert_eq!(quantile_of(&buckets(10.0, 10.0, 10.0), 0.5), Some(0.05));
        assert_eq!(quantile_of(&buckets(0.0, 10.0, 10.0), 0.5), Some(0.1 + 0.9 * 0.5));
        assert_eq!(quantile_of(&buckets(0.0, 0.0, 10.0), 0.99), Some(1.0), "the last finite bound");
        assert_eq!(quantile_of(&buckets(0.0, 0.0, 0.0), 0.5), None);
        assert_eq!(quantile_of(&vec![(infinity, 5.0)], 0.5), None);
        assert_eq!(quantile_of(&Buckets::new(), 0.5), None);
        assert_eq!(
            difference(&buckets(1.0, 2.0, 3.0), &buckets(1.0, 5.0, 7.0)),
            Some(buckets(0.0, 3.0, 4.0))
        );
        assert_eq!(difference(&buckets(1.0, 2.0, 3.0), &buckets(0.0, 5.0, 7.0)), None);
        assert_eq!(difference(&vec![(1.0, 1.0)], &vec![(2.0, 1.0)]), None);
    }
}
