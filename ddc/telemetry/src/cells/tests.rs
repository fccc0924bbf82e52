//! What each kind of cell reads, in words and order.

use std::time::Duration;

use super::*;
use crate::reasons::{DropReason, MissingReason};

fn series(metric: &dyn Metric, side: Option<Side>) -> Vec<(String, String)> {
    let mut all = Vec::new();
    metric.read(side, &mut |labels, sample| match sample {
        Sample::One(value) => all.push((format!("{labels:?}"), value.to_string())),
        Sample::Histogram(_) => panic!("not a number"),
    });
    all
}

#[test]
fn counters_are_there_from_zero_and_only_theirs_moves() {
    let counters = Counters::<MissingReason>::default();
    let before = series(&counters, Some(Side::Egress));
    assert_eq!(before.len(), MissingReason::ALL.len());
    assert!(before.iter().all(|(_, value)| value == "0"));

    counters.add(MissingReason::Restart, 7);
    counters.inc(MissingReason::Restart);
    for reason in MissingReason::ALL {
        let expected = if matches!(reason, MissingReason::Restart) { 8 } else { 0 };
        assert_eq!(counters.value(*reason), expected, "{reason:?}");
    }
    assert_eq!(counters.total(), 8);
}

#[test]
fn a_reason_is_exposed_only_on_the_side_where_it_occurs() {
    let counters = Counters::<DropReason>::default();
    let ingress = series(&counters, Some(Side::Ingress));
    assert_eq!(ingress, [("[(\"reason\", \"send_error\")]".to_owned(), "0".to_owned())]);
    let egress = series(&counters, Some(Side::Egress));
    assert_eq!(egress.len(), DropReason::ALL.len() - 1);
    assert!(egress.iter().all(|(labels, _)| !labels.contains("send_error")));
}

#[test]
fn a_reading_is_absent_until_set_and_after_clear() {
    let reading = Reading::default();
    assert_eq!((reading.value(), series(&reading, None).len()), (None, 0));
    reading.set_time(UNIX_EPOCH + Duration::from_millis(1_500));
    assert_eq!(reading.value(), Some(1.5));
    reading.set_time(UNIX_EPOCH - Duration::from_secs(2));
    assert_eq!(reading.value(), Some(-2.0));
    reading.set(0.0);
    assert_eq!(series(&reading, None), [("[]".to_owned(), "0".to_owned())]);
    reading.clear();
    assert_eq!(reading.value(), None);
}

#[test]
fn a_gauge_goes_both_ways() {
    let gauge = Gauge::default();
    gauge.add(10);
    gauge.sub(12);
    assert_eq!(series(&gauge, None), [("[]".to_owned(), "-2".to_owned())]);
    gauge.set(5);
    assert_eq!(gauge.value(), 5);
}

#[test]
fn threads_lose_no_count() {
    let counter = Counter::default();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..25_000).for_each(|_| counter.inc()));
        }
    });
    assert_eq!(counter.value(), 100_000);
}

#[test]
fn values_are_written_as_prometheus_reads_them() {
    assert_eq!(Value::Unsigned(u64::MAX).to_string(), "18446744073709551615");
    assert_eq!(Value::Signed(-3).to_string(), "-3");
    assert_eq!(Value::Float(1_760_000_000.25).to_string(), "1760000000.25");
    assert_eq!(Value::Float(f64::INFINITY).to_string(), "+Inf");
    assert_eq!(Value::Float(f64::NEG_INFINITY).to_string(), "-Inf");
}
