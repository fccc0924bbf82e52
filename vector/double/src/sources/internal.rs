//! `internal_metrics`: the few figures about itself that our pipeline lets through.

use std::time::{Duration, Instant};

use chrono::Utc;

use super::Output;
use crate::event::{Event, Kind, Metric, MetricValue};

pub(super) fn start(namespace: &str, interval: Duration, output: Output) {
    let namespace = namespace.to_owned();
    let started = Instant::now();
    std::thread::spawn(move || {
        while !output.stopped() {
            output.send(collect(&namespace, started, &output));
            std::thread::sleep(interval);
        }
    });
}

fn collect(namespace: &str, started: Instant, output: &Output) -> Vec<Event> {
    let metric = |name: &str, value| {
        let mut metric = Metric::new(name, Kind::Absolute, value).with_namespace(namespace);
        metric.timestamp = Some(Utc::now());
        metric
    };
    let mut metrics = vec![
        metric("uptime_seconds", MetricValue::Gauge(started.elapsed().as_secs_f64().floor())),
        metric("build_info", MetricValue::Gauge(1.0))
            .with_tag("version", concat!("double-", env!("CARGO_PKG_VERSION"))),
    ];
    for (component, counts) in output.stats.snapshot() {
        let counter = |name: &str, value: u64| {
            metric(name, MetricValue::Counter(value as f64))
                .with_tag("component_id", &*component)
                .with_tag("component_kind", counts.section)
                .with_tag("component_type", &*counts.kind)
        };
        metrics.push(counter("component_received_events_total", counts.received));
        metrics.push(counter("component_sent_events_total", counts.sent));
        metrics.push(counter("component_errors_total", counts.errors));
        if counts.kind == "tag_cardinality_limit" {
            metrics.push(counter("tag_value_limit_exceeded_total", counts.discarded_meant));
        }
        for (intentional, value) in [("true", counts.discarded_meant), ("false", counts.discarded)] {
            metrics.push(
                counter("component_discarded_events_total", value).with_tag("intentional", intentional),
            );
        }
    }
    metrics.into_iter().map(Event::Metric).collect()
}
