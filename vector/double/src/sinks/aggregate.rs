//! What the exporter keeps of the metrics: for each series its last absolute value.
//!
//! Recorded behaviour: a series that was silent longer than the flush period leaves the page only when another event comes. Read from Vector's
//! code, not recorded: the sum of a counter that left the page goes on when it comes back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use indexmap::IndexMap;
use serde_yaml_ng::Value as Yaml;

use crate::event::{Kind, Metric, MetricValue, Tags};

/// The exporter's settings that decide about values.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Upper bounds of the histogram's buckets.
    pub buckets: Vec<f64>,
    /// Quantiles of summaries.
    pub quantiles: Vec<f64>,
    /// Summaries instead of histograms.
    pub summaries: bool,
    /// For metrics without a namespace.
    pub namespace: Option<String>,
    /// When a silent series leaves the page.
    pub flush_period: Duration,
    /// No time stamps on the page.
    pub suppress_timestamp: bool,
}

impl Settings {
    /// From the sink's options, with Vector's defaults.
    pub fn read(options: &Yaml) -> Self {
        let numbers = |key: &str| -> Option<Vec<f64>> {
            Some(options[key].as_sequence()?.iter().filter_map(Yaml::as_f64).collect())
        };
        let default_buckets = || vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        Self {
            buckets: numbers("buckets").unwrap_or_else(default_buckets),
            quantiles: numbers("quantiles").unwrap_or_else(|| vec![0.5, 0.75, 0.9, 0.95, 0.99]),
            summaries: options["distributions_as_summaries"].as_bool().unwrap_or(false),
            namespace: options["default_namespace"].as_str().map(ToOwned::to_owned),
            flush_period: Duration::from_secs(options["flush_period_secs"].as_u64().unwrap_or(60)),
            suppress_timestamp: options["suppress_timestamp"].as_bool().unwrap_or(false),
        }
    }
}

/// A summary keeps at most so many samples; further ones only count.
const SUMMARY_SAMPLES: usize = 10_000;

/// What tells series apart: two types under one name are two series (and a broken page).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) tags: Tags,
    kind: &'static str,
}

#[derive(Clone, Debug)]
pub(super) enum Stored {
    Counter(f64),
    Gauge(f64),
    Set(BTreeSet<String>),
    /// Observations at most as large as each bound (not cumulative), their sum and count.
    Histogram {
        counts: Vec<u64>,
        sum: f64,
        count: u64,
    },
    Summary {
        samples: Vec<(f64, u32)>,
        sum: f64,
        count: u64,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) value: Stored,
    pub(super) timestamp: Option<DateTime<Utc>>,
    /// Left the page, its sum is kept.
    pub(super) expired: bool,
    seen: Instant,
}

/// All series of one exporter.
#[derive(Debug)]
pub struct Aggregate {
    pub(super) settings: Settings,
    pub(super) series: IndexMap<Key, Series>,
    last_flush: Instant,
}

impl Aggregate {
    /// Empty.
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self { settings, series: IndexMap::new(), last_flush: now }
    }

    /// Takes one metric.
    pub fn take(&mut self, metric: Metric, now: Instant) {
        if now.duration_since(self.last_flush) > self.settings.flush_period {
            self.last_flush = now;
            let period = self.settings.flush_period;
            for series in self.series.values_mut().filter(|series| now.duration_since(series.seen) >= period)
            {
                series.expired = true;
            }
        }
        let kind = match (&metric.value, self.settings.summaries) {
            (MetricValue::Distribution { .. }, true) => "summary",
            (MetricValue::Distribution { .. }, false) => "histogram",
            (value, _) => value.type_name(),
        };
        let key = Key { namespace: metric.namespace, name: metric.name, tags: metric.tags, kind };
        let buckets = &self.settings.buckets;
        let series = self.series.entry(key).or_insert_with(|| Series {
            value: match (&metric.value, kind) {
                (MetricValue::Counter(_), _) => Stored::Counter(0.0),
                (MetricValue::Gauge(_), _) => Stored::Gauge(0.0),
                (MetricValue::Set(_), _) => Stored::Set(BTreeSet::new()),
                (MetricValue::Distribution { .. }, "summary") => {
                    Stored::Summary { samples: Vec::new(), sum: 0.0, count: 0 }
                }
                (MetricValue::Distribution { .. }, _) => {
                    Stored::Histogram { counts: vec![0; buckets.len()], sum: 0.0, count: 0 }
                }
            },
            timestamp: None,
            expired: false,
            seen: now,
        });
        series.seen = now;
        series.expired = false;
        series.timestamp = metric.timestamp;
        series.value.add(metric.kind, metric.value, buckets);
    }
}

impl Stored {
    fn add(&mut self, kind: Kind, value: MetricValue, buckets: &[f64]) {
        match (self, value) {
            (Self::Counter(total), MetricValue::Counter(value))
            | (Self::Gauge(total), MetricValue::Gauge(value)) => {
                *total = if kind == Kind::Incremental { *total + value } else { value };
            }
            (Self::Set(all), MetricValue::Set(values)) => all.extend(values),
            (Self::Histogram { counts, sum, count }, MetricValue::Distribution { samples, .. }) => {
                for (value, rate) in samples {
                    if let Some(bucket) = buckets.iter().position(|bound| value <= *bound) {
                        counts[bucket] += u64::from(rate);
                    }
                    *sum += value * f64::from(rate);
                    *count += u64::from(rate);
                }
            }
            (Self::Summary { samples: all, sum, count }, MetricValue::Distribution { samples, .. }) => {
                for (value, rate) in samples {
                    *sum += value * f64::from(rate);
                    *count += u64::from(rate);
                    if all.len() < SUMMARY_SAMPLES {
                        all.push((value, rate));
                    }
                }
            }
            // The key contains the type, so no other pair meets.
            _ => {}
        }
    }

    /// The type on the page.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Counter(_) => "counter",
            Self::Gauge(_) | Self::Set(_) => "gauge",
            Self::Histogram { .. } => "histogram",
            Self::Summary { .. } => "summary",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(aggregate: &Aggregate) -> String {
        aggregate.page()
    }

    #[test]
    fn a_silent_series_stays_until_another_event_comes_and_its_sum_goes_on() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let settings = Settings::read(&serde_yaml_ng::from_str("{flush_period_secs: 10}").unwrap());
        let mut aggregate = Aggregate::new(settings, start);
        let counter = |name: &str| Metric::new(name, Kind::Incremental, MetricValue::Counter(5.0));
        aggregate.take(counter("a"), at(0));
        assert!(page(&aggregate).contains("a 5\n"));
        aggregate.take(counter("b"), at(11));
        assert!(!page(&aggregate).contains("a 5\n"));
        assert!(page(&aggregate).contains("b 5\n"));
        aggregate.take(counter("a"), at(12));
        assert!(page(&aggregate).contains("a 10\n"));
    }

    #[test]
    fn an_observation_on_a_bound_belongs_to_that_bucket() {
        let now = Instant::now();
        let settings = Settings::read(&serde_yaml_ng::from_str("{buckets: [1, 2]}").unwrap());
        let mut aggregate = Aggregate::new(settings, now);
        let samples = vec![(1.0, 2), (2.5, 1)];
        let value = MetricValue::Distribution { samples, summary: false };
        aggregate.take(Metric::new("h", Kind::Incremental, value).with_tag("link", "a\"\\"), now);
        assert_eq!(
            page(&aggregate),
            "# HELP h h\n# TYPE h histogram\n\
             h_bucket{le=\"1\",link=\"a\\\"\\\\\"} 2\nh_bucket{le=\"2\",link=\"a\\\"\\\\\"} 2\nh_bucket{le=\"+Inf\",link=\"a\\\"\\\\\"} 3\n\
             h_sum{link=\"a\\\"\\\\\"} 4.5\nh_count{link=\"a\\\"\\\\\"} 3\n"
        );
    }
}
