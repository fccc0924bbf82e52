//! The lines, exactly; and read back by a reader that counts as Vector was seen to count.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::cells::{Counter, Histogram};
use crate::exposition::Identity;
use crate::reasons::{DropReason, SourceState, Thread};

fn flush(lines: &mut Lines, registry: &Registry) -> Vec<String> {
    let mut batch = Batch::default();
    lines.render(registry, &mut batch);
    let units: Vec<String> = batch.units().map(str::to_owned).collect();
    assert_eq!(batch.bytes(), units.iter().map(|unit| unit.len() + 1).sum::<usize>());
    units
}

fn of<'a>(lines: &'a [String], name: &str) -> Vec<&'a str> {
    let start = format!("{name}:");
    lines.iter().filter(|line| line.starts_with(&start)).map(String::as_str).collect()
}

#[test]
fn exact_lines() {
    let identity = Identity { process: "egress-a".to_owned(), site: Some("north".to_owned()) };
    let registry = Registry::new(std::sync::Arc::default(), identity);
    let egress = registry.egress("a").unwrap();
    let mut lines = Lines::default();
    let tags = "|#site:north,link:a,side:egress";

    let first = flush(&mut lines, &registry);
    assert_eq!(of(&first, "ddc.egress.packets_received"), [format!("ddc.egress.packets_received:0|c{tags}")]);
    assert_eq!(of(&first, "ddc.egress.source_lag").len(), 0, "a reading that was never told is not sent");
    assert_eq!(
        of(&first, "ddc.egress.sink_latency_seconds"),
        [format!("ddc.egress.sink_latency_seconds:0|h|@2{tags}")]
    );
    assert_eq!(of(&first, "ddc.process_ticks"), ["ddc.process_ticks:0|c|#site:north,process:egress-a"]);

    egress.packets_received.add(17);
    egress.common.dropped_packets.add(DropReason::Seal, 2);
    egress.queue_bytes.set(4096);
    egress.clock_difference_seconds.set(-0.004);
    egress.last_heartbeat_timestamp_seconds.set(1_760_000_000.25);
    egress.source_lag.set(-0.0);
    egress.source_state.set(SourceState::Full);
    egress.common.thread_cpu_seconds.set(Thread::Sink, Duration::from_micros(1_250));
    egress.sink_latency_seconds.observe_many(Duration::from_millis(3), 48);
    egress.sink_latency_seconds.observe_many(Duration::from_millis(4), 1);
    egress.sink_latency_seconds.observe(Duration::from_millis(30));
    let second = flush(&mut lines, &registry);
    for (name, expected) in [
        ("packets_received", vec!["17|c"]),
        ("queue_bytes", vec!["4096|g"]),
        (
            "clock_difference_seconds",
            vec!["0|g|#site:north,link:a,side:egress\nddc.egress.clock_difference_seconds:-0.004|g"],
        ),
        ("last_heartbeat_timestamp_seconds", vec!["1760000000.25|g"]),
        ("source_lag", vec!["0|g"]),
        // 48 × 3 ms and one of 4 ms; 1/49.25.
        ("sink_latency_seconds", vec!["0.003020408|h|@0.02030456852791878", "0.03|h"]),
    ] {
        let expected: Vec<String> =
            expected.iter().map(|value| format!("ddc.egress.{name}:{value}{tags}")).collect();
        assert_eq!(of(&second, &format!("ddc.egress.{name}")), expected);
    }
    assert!(second.contains(&format!("ddc.dropped_packets:2|c{tags},reason:seal")));
    assert!(second.contains(&format!("ddc.dropped_packets:0|c{tags},reason:magic")));
    assert!(second.contains(&format!("ddc.thread_cpu_seconds:0.00125|c{tags},thread:sink")));
    assert!(second.contains(&format!("ddc.egress.source_state:1|g{tags},state:full")));
    assert!(second.contains(&format!("ddc.egress.source_state:0|g{tags},state:running")));

    egress.packets_received.add(5);
    let third = flush(&mut lines, &registry);
    assert_eq!(of(&third, "ddc.egress.packets_received"), [format!("ddc.egress.packets_received:5|c{tags}")]);
    assert!(
        third.contains(&format!("ddc.dropped_packets:0|c{tags},reason:seal")),
        "repeated, not told twice"
    );
    assert!(third.contains(&format!("ddc.thread_cpu_seconds:0|c{tags},thread:sink")));
    assert_eq!(of(&third, "ddc.egress.queue_bytes"), [format!("ddc.egress.queue_bytes:4096|g{tags}")]);
    assert_eq!(of(&third, "ddc.egress.sink_latency_seconds").len(), 0, "nothing new was observed");
}

/// A line per series: none is missing, none is twice, whatever was added.
#[test]
fn every_series_of_the_page_has_a_line() {
    let registry = crate::vectors::example(&[crate::Side::Ingress, crate::Side::Egress]);
    let lines = flush(&mut Lines::default(), &registry);
    let page = registry.render();
    let series =
        page.lines().filter(|line| !line.starts_with('#') && !line.contains("_latency_seconds")).count();
    let histograms = 4;
    assert_eq!(lines.len(), series + histograms);
    let mut names: Vec<&str> = lines.iter().map(|line| line.split_once(':').unwrap().0).collect();
    names.dedup();
    let known: Vec<String> = crate::catalogue::all().map(crate::catalogue::Descriptor::statsd_name).collect();
    assert!(names.iter().all(|name| known.iter().any(|known| known == name)));
}

#[test]
fn a_link_that_comes_later_begins_at_0_and_moves_nobody() {
    let registry = Registry::default();
    let b = registry.egress("b").unwrap();
    let mut lines = Lines::default();
    flush(&mut lines, &registry);
    b.packets_received.add(3);
    registry.ingress("a").unwrap().packets_sent.add(9);
    let flushed = flush(&mut lines, &registry);
    assert!(flushed.contains(&"ddc.egress.packets_received:3|c|#link:b,side:egress".to_owned()));
    assert!(flushed.contains(&"ddc.ingress.packets_sent:9|c|#link:a,side:ingress".to_owned()));
    assert!(flushed.contains(&"ddc.buffer_full:0|c|#link:b,side:egress".to_owned()));
}

#[test]
fn a_label_value_cannot_leave_its_place() {
    let registry = Registry::default();
    registry.egress("a,b:c|d#e\nf\rg@h é\u{0}").unwrap();
    registry.ingress(&"x".repeat(10_000)).unwrap();
    registry.ingress(&format!("{}é", "y".repeat(248))).unwrap();
    let flushed = flush(&mut Lines::default(), &registry);
    assert!(flushed.contains(&"ddc.buffer_full:0|c|#link:a_b_c_d_e_f_g_h é_,side:egress".to_owned()));
    assert!(flushed.contains(&format!("ddc.buffer_full:0|c|#link:{},side:ingress", "y".repeat(248))));
    assert!(
        flushed.iter().all(|unit| unit.len() < super::super::DATAGRAM / 2),
        "a unit is far from a datagram's size"
    );
}

#[test]
fn infinity_is_not_sent_and_a_counter_that_wraps_is_a_difference() {
    let registry = Registry::default();
    let egress = registry.egress("a").unwrap();
    egress.source_lag.set(f64::INFINITY);
    egress.packets_received.add(u64::MAX);
    let mut lines = Lines::default();
    let first = flush(&mut lines, &registry);
    assert_eq!(of(&first, "ddc.egress.source_lag").len(), 0);
    assert!(
        first.contains(&"ddc.egress.packets_received:18446744073709551615|c|#link:a,side:egress".to_owned())
    );
    Counter::add(&egress.packets_received, 3);
    assert!(
        flush(&mut lines, &registry)
            .contains(&"ddc.egress.packets_received:3|c|#link:a,side:egress".to_owned())
    );
}

/// CPU times are rounded to nanoseconds; the sum of what was sent must not drift away from the total.
#[test]
fn parts_of_seconds_add_up() {
    let registry = Registry::default();
    let egress = registry.egress("a").unwrap();
    let mut lines = Lines::default();
    let mut sum = 0.0;
    let mut used = Duration::ZERO;
    for n in 0..1_000 {
        used += Duration::from_nanos(333_333 + n);
        egress.common.thread_cpu_seconds.set(Thread::Receive, used);
        let flushed = flush(&mut lines, &registry);
        let line = flushed.iter().find(|line| line.contains("thread:receive")).unwrap();
        let (_, value) = line.split_once(':').unwrap();
        sum += value.split_once('|').unwrap().0.parse::<f64>().unwrap();
    }
    assert!((sum - used.as_secs_f64()).abs() < 1e-9, "{sum} {used:?}");
}

/// Counts and sum of each series as Vector's StatsD source and exporter make them of histogram lines: a value counts the integer
/// part of 1/rate times, in the first bucket that is not smaller.
#[derive(Debug, Default, Clone, PartialEq)]
struct Reader {
    buckets: [u64; BUCKETS],
    sum: f64,
}

impl Reader {
    fn read(&mut self, line: &str, times: impl Fn(f64) -> u64) {
        let (_, body) = line.split_once(':').unwrap();
        let parts: Vec<&str> = body.split('|').collect();
        assert_eq!(parts[1], "h");
        let value: f64 = parts[0].parse().unwrap();
        let rate = parts[2].strip_prefix('@').map_or(1.0, |rate| rate.parse::<f64>().unwrap());
        assert!(parts.last().unwrap().starts_with('#'), "{line}");
        let n = times(1.0 / rate);
        let bucket = BOUNDS.iter().position(|bound| value <= *bound).unwrap_or(BUCKETS - 1);
        self.buckets[bucket] += n;
        self.sum += value * n as f64;
    }
}

/// What Vector was recorded to do.
fn cut(times: f64) -> u64 {
    times as u64
}

/// What other servers do; half to even, as C's `llrint`.
fn round(times: f64) -> u64 {
    times.round_ties_even() as u64
}

proptest! {
    /// Whatever is observed, in whatever bursts: counts read back are exact bucket by bucket, for servers that cut and for those
    /// that round; the sum is within a nanosecond per observation of what the cells hold.
    #[test]
    fn histograms_come_back(
        bursts in prop::collection::vec(
            prop::collection::vec((0u64..500_000_000_000, 0u32..40, prop_oneof![1u64..100, 1u64..3_000_000]), 0..12),
            1..12,
        ),
    ) {
        let registry = Registry::default();
        let egress = registry.egress("a").unwrap();
        let mut lines = Lines::default();
        let (mut cutting, mut rounding) = (Reader::default(), Reader::default());
        for burst in bursts {
            for (nanos, shift, n) in burst {
                // The shift makes small durations as likely as long ones.
                egress.sink_latency_seconds.observe_many(Duration::from_nanos(nanos >> shift), n);
            }
            let flushed = flush(&mut lines, &registry);
            for line in of(&flushed, "ddc.egress.sink_latency_seconds") {
                let was_empty = line.contains(":0|h|@2|");
                cutting.read(line, cut);
                if !was_empty {
                    rounding.read(line, round);
                }
            }
        }
        let snapshot = egress.sink_latency_seconds.snapshot();
        let counts: Vec<u64> = (0..BUCKETS).map(|bucket| snapshot.bucket_count(bucket)).collect();
        prop_assert_eq!(&cutting.buckets[..], &counts[..]);
        prop_assert_eq!(&rounding.buckets[..], &counts[..]);
        // What clamping and rounding take is owed to the next line of the bucket: half a nanosecond for each observation of the last
        // line, a whole one at a bucket's lower end; and the sums of floating-point numbers.
        let bound = snapshot.count() as f64 * 1e-9 + snapshot.sum() * 1e-12 + 1e-9;
        prop_assert!((cutting.sum - snapshot.sum()).abs() <= bound, "{} {}", cutting.sum, snapshot.sum());
    }
}

/// The sum's error does not grow with the number of flushes, even where every mean has to be clamped: all at a bucket's lower end.
#[test]
fn the_sum_stays_right_over_many_flushes() {
    let registry = Registry::default();
    let egress = registry.egress("a").unwrap();
    let (mut lines, mut reader) = (Lines::default(), Reader::default());
    let mut exact = 0.0;
    for n in 0..5_000u64 {
        for observed in [
            Duration::from_nanos(1_000_000_001 + n % 3),
            Duration::from_nanos(100_001),
            Duration::from_nanos(7_777_777 + n),
        ] {
            egress.sink_latency_seconds.observe_many(observed, 7);
            exact += observed.as_secs_f64() * 7.0;
        }
        for line in of(&flush(&mut lines, &registry), "ddc.egress.sink_latency_seconds") {
            reader.read(line, cut);
        }
    }
    assert_eq!(reader.buckets.iter().sum::<u64>(), 105_000);
    assert!((reader.sum - exact).abs() < exact * 1e-6, "{} {exact}", reader.sum);
}

/// A count that one line may not carry is split, and the parts add up.
#[test]
fn a_great_count_is_split() {
    let registry = Registry::default();
    let egress = registry.egress("a").unwrap();
    let histogram: &Histogram = &egress.end_to_end_latency_seconds;
    histogram.observe_many(Duration::from_millis(20), 2 * MAX_WEIGHT + 1);
    let flushed = flush(&mut Lines::default(), &registry);
    let lines = of(&flushed, "ddc.egress.end_to_end_latency_seconds");
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[2], "ddc.egress.end_to_end_latency_seconds:0.02|h|#link:a,side:egress");
    let mut reader = Reader::default();
    for line in lines {
        reader.read(line, cut);
    }
    assert_eq!(reader.buckets[7], 2 * MAX_WEIGHT + 1);
}

/// Every weight up to 20,000, and then some: both ways of reading a rate give the count.
#[test]
fn every_weight_is_read_exactly() {
    let weights = (2..=20_000u64).chain((0..2_000).map(|n| MAX_WEIGHT - n * 431));
    for n in weights {
        let rate: f64 = format!("{}", 1.0 / (n as f64 + 0.25)).parse().unwrap();
        assert_eq!((cut(1.0 / rate), round(1.0 / rate)), (n, n), "{n}");
    }
}

/// An example of every series goes through lines and page; the two must tell the same. The reader keeps to Vector's rules.
#[test]
fn vectors_agree_with_themselves() {
    let vectors = crate::vectors::vectors();
    let mut numbers: BTreeMap<String, f64> = BTreeMap::new();
    for line in vectors.lines.iter().flat_map(|unit| unit.split('\n')) {
        let (name, body) = line.split_once(':').unwrap();
        let parts: Vec<&str> = body.split('|').collect();
        let labels: Vec<String> = parts.last().unwrap()[1..]
            .split(',')
            .map(|tag| tag.split_once(':').map(|(key, value)| format!("{key}=\"{value}\"")).unwrap())
            .collect();
        let labels = labels.join(",");
        let name = name.replace('.', "_");
        let value: f64 = parts[0].parse().unwrap();
        match parts[1] {
            "c" => *numbers.entry(format!("{name}_total{{{labels}}}")).or_default() += value,
            "g" if parts[0].starts_with('-') => {
                *numbers.entry(format!("{name}{{{labels}}}")).or_default() += value;
            }
            "g" => drop(numbers.insert(format!("{name}{{{labels}}}"), value)),
            "h" => {
                let rate = parts[2].strip_prefix('@').map_or(1.0, |rate| rate.parse::<f64>().unwrap());
                let n = cut(1.0 / rate) as f64;
                for bound in BOUNDS.into_iter().chain([f64::INFINITY]) {
                    let le = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
                    let key = format!("{name}_bucket{{{labels},le=\"{le}\"}}");
                    *numbers.entry(key).or_default() += if value <= bound { n } else { 0.0 };
                }
                *numbers.entry(format!("{name}_sum{{{labels}}}")).or_default() += value * n;
                *numbers.entry(format!("{name}_count{{{labels}}}")).or_default() += n;
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(numbers.len(), vectors.expect.len());
    for line in &vectors.expect {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap();
        let found = numbers.get(series).unwrap_or_else(|| panic!("{series} is not in the lines"));
        assert!((found - value).abs() <= value.abs() * 1e-12, "{series}: {found} {value}");
    }
}
