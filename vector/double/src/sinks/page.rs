//! The page as Vector's exporter writes it: names and label names as they are, label values with `\` and `"` escaped, HELP is the name.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::aggregate::{Aggregate, Key, Series, Stored};
use crate::event::Tags;

impl Aggregate {
    /// The whole page.
    pub fn page(&self) -> String {
        let mut families: BTreeMap<String, Vec<(&Key, &Series)>> = BTreeMap::new();
        for (key, series) in self.series.iter().filter(|(_, series)| !series.expired) {
            let namespace = key.namespace.as_ref().or(self.settings.namespace.as_ref());
            let name =
                namespace.map_or_else(|| key.name.clone(), |namespace| format!("{namespace}_{}", key.name));
            families.entry(name).or_default().push((key, series));
        }
        let mut page = String::new();
        for (name, all) in &families {
            // The first series decides about the type, also when a later one has another.
            let (key, first) = all[0];
            let _ = writeln!(page, "# HELP {name} {}\n# TYPE {name} {}", key.name, first.value.type_name());
            for (key, series) in all {
                self.series_lines(&mut page, name, key, series);
            }
        }
        page
    }

    fn series_lines(&self, page: &mut String, name: &str, key: &Key, series: &Series) {
        let time = match series.timestamp {
            Some(time) if !self.settings.suppress_timestamp => format!(" {}", time.timestamp_millis()),
            _ => String::new(),
        };
        let mut line = |suffix: &str, extra: Option<(&str, String)>, value: f64| {
            let _ = writeln!(page, "{name}{suffix}{} {value}{time}", labels(&key.tags, extra));
        };
        match &series.value {
            Stored::Counter(value) | Stored::Gauge(value) => line("", None, *value),
            Stored::Set(values) => line("", None, values.len() as f64),
            Stored::Histogram { counts, sum, count } => {
                let mut below = 0;
                for (bound, bucket) in self.settings.buckets.iter().zip(counts) {
                    below += bucket;
                    line("_bucket", Some(("le", bound.to_string())), below as f64);
                }
                line("_bucket", Some(("le", "+Inf".into())), *count as f64);
                line("_sum", None, *sum);
                line("_count", None, *count as f64);
            }
            Stored::Summary { samples, sum, count } => {
                for quantile in &self.settings.quantiles {
                    line("", Some(("quantile", quantile.to_string())), quantile_of(samples, *quantile));
                }
                line("_sum", None, *sum);
                line("_count", None, *count as f64);
            }
        }
    }
}

/// `{a="b",c="d"}`; nothing without tags; `{}` when all are bare.
fn labels(tags: &Tags, extra: Option<(&str, String)>) -> String {
    if tags.is_empty() && extra.is_none() {
        return String::new();
    }
    let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"");
    let mut all: Vec<(&str, String)> =
        tags.iter().filter_map(|(key, value)| Some((key.as_str(), escape(value.as_ref()?)))).collect();
    all.extend(extra);
    all.sort();
    let inner: Vec<String> = all.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
    format!("{{{}}}", inner.join(","))
}

/// The value at this part of the sorted samples, the lower one on a border, as recorded in `distributions_as_summaries`.
fn quantile_of(samples: &[(f64, u32)], quantile: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total: u64 = sorted.iter().map(|(_, rate)| u64::from(*rate)).sum();
    let rank = (quantile * total as f64).ceil().max(1.0) as u64;
    let mut seen = 0;
    for (value, rate) in &sorted {
        seen += u64::from(*rate);
        if seen >= rank {
            return *value;
        }
    }
    0.0
}
