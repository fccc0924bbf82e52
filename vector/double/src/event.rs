//! What flows through the pipeline: log events (VRL values) and metrics, as Vector has them.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::json;
use vrl::value::Value;

/// One event.
#[derive(Clone, Debug)]
pub enum Event {
    /// A log event: an object of fields.
    Log(Value),
    /// A metric.
    Metric(Metric),
}

/// The labels of a metric; `None` is a bare tag (`#name` without a value).
pub type Tags = BTreeMap<String, Option<String>>;

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// The name without the namespace.
    pub name: String,
    /// Written before the name with an underscore.
    pub namespace: Option<String>,
    /// The labels.
    pub tags: Tags,
    /// Whether the value is a change or the whole.
    pub kind: Kind,
    /// The value.
    pub value: MetricValue,
    /// When it was measured; StatsD does not say.
    pub timestamp: Option<DateTime<Utc>>,
}

/// Whether a value is a change or the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A change since the last one.
    Incremental,
    /// The whole.
    Absolute,
}

impl Kind {
    /// As VRL shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Incremental => "incremental",
            Self::Absolute => "absolute",
        }
    }
}

/// The value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricValue {
    /// Only grows, until its sender starts again.
    Counter(f64),
    /// Goes up and down.
    Gauge(f64),
    /// Distinct texts.
    Set(BTreeSet<String>),
    /// Observations: value and how often it was observed.
    Distribution {
        /// Value and weight.
        samples: Vec<(f64, u32)>,
        /// `d` in StatsD asks for a summary, `h` and `ms` for a histogram; the exporter makes histograms of both.
        summary: bool,
    },
}

impl MetricValue {
    /// The type as VRL shows it in `.type`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Counter(_) => "counter",
            Self::Gauge(_) => "gauge",
            Self::Set(_) => "set",
            Self::Distribution { .. } => "distribution",
        }
    }
}

impl Metric {
    /// A metric without namespace, tags or time.
    pub fn new(name: impl Into<String>, kind: Kind, value: MetricValue) -> Self {
        Self { name: name.into(), namespace: None, tags: Tags::new(), kind, value, timestamp: None }
    }

    /// The same with this namespace.
    pub fn with_namespace(mut self, namespace: &str) -> Self {
        self.namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
        self
    }

    /// The same with one more tag.
    pub fn with_tag(mut self, key: &str, value: impl Into<String>) -> Self {
        self.tags.insert(key.to_owned(), Some(value.into()));
        self
    }
}

impl Event {
    /// The event as one JSON object, as the `json` codec of Vector's sinks writes it.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            // The conversion of a VRL value cannot fail: every variant has a JSON form.
            Self::Log(value) => serde_json::to_value(value).unwrap_or(serde_json::Value::Null),
            Self::Metric(metric) => metric_json(metric),
        }
    }
}

fn metric_json(metric: &Metric) -> serde_json::Value {
    let tags: serde_json::Map<_, _> =
        metric.tags.iter().filter_map(|(k, v)| Some((k.clone(), json!(v.as_ref()?)))).collect();
    let value = match &metric.value {
        MetricValue::Counter(value) | MetricValue::Gauge(value) => json!({ "value": value }),
        MetricValue::Set(values) => json!({ "values": values }),
        MetricValue::Distribution { samples, summary } => json!({
            "samples": samples.iter().map(|(value, rate)| json!({ "value": value, "rate": rate })).collect::<Vec<_>>(),
            "statistic": if *summary { "summary" } else { "histogram" },
        }),
    };
    let mut object = serde_json::Map::new();
    object.insert("name".into(), json!(metric.name));
    if let Some(namespace) = &metric.namespace {
        object.insert("namespace".into(), json!(namespace));
    }
    if !tags.is_empty() {
        object.insert("tags".into(), tags.into());
    }
    if let Some(timestamp) = metric.timestamp {
        object.insert("timestamp".into(), json!(timestamp.to_rfc3339()));
    }
    object.insert("kind".into(), json!(metric.kind.as_str()));
    object.insert(metric.value.type_name().into(), value);
    object.into()
}
