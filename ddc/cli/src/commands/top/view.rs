//! What is shown: on the screen, in the table of `--once`, and, field by field, in its JSON. Unknown is `None`, null.
//!
//! The names of the fields are an interface for scripts; docs/top.md says what each means, and a test holds it to this file.

use serde::Serialize;
use serde_json::Value;

use super::status::{Gap, Session};

/// Everything at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct View {
    /// Rises when a field changes its meaning or goes; new fields do not change it.
    pub(super) format: u32,
    pub(super) version: &'static str,
    pub(super) interval_seconds: f64,
    pub(super) listeners: Vec<Listener>,
    pub(super) links: Vec<Link>,
}

/// A listener that is asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Listener {
    pub(super) address: String,
    pub(super) answers: bool,
    /// Why it does not, or what is wrong with its answer.
    pub(super) problem: Option<String>,
    /// The link and side it belongs to.
    pub(super) link: Option<String>,
    pub(super) side: Option<&'static str>,
}

/// How a link or a side is, best first: the worse of two is the greater.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// It does its work.
    Ready,
    /// It answers, and does not say whether it is ready.
    #[default]
    Unknown,
    /// It says that it is not, and why.
    NotReady,
    /// It answers, but its threads have not moved for a while.
    Stalled,
    /// Its listener does not answer.
    Silent,
}

impl State {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Unknown => "unknown",
            Self::NotReady => "not ready",
            Self::Stalled => "stalled",
            Self::Silent => "silent",
        }
    }
}

/// A link, as far as its sides were found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[expect(
    clippy::struct_field_names,
    reason = "the metrics' label has this name, and so has the JSON's field"
)]
pub(super) struct Link {
    pub(super) link: String,
    /// The worse of the two sides.
    pub(super) state: State,
    pub(super) ingress: Option<Ingress>,
    pub(super) egress: Option<Egress>,
}

/// What both sides have.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Common {
    pub(super) address: String,
    pub(super) site: Option<String>,
    pub(super) state: State,
    pub(super) reasons: Vec<String>,
    pub(super) maintenance: Option<bool>,
    pub(super) version: Option<String>,
    pub(super) instance_id: Option<String>,
    pub(super) uptime_seconds: Option<f64>,
    pub(super) process_cpu_ratio: Option<f64>,
    pub(super) process_memory_bytes: Option<f64>,
    pub(super) thread_cpu_ratio: Vec<ThreadCpu>,
    pub(super) records_per_second: Option<f64>,
    pub(super) bits_per_second: Option<f64>,
    pub(super) datagrams_per_second: Option<f64>,
    pub(super) queue_bytes: Option<f64>,
    pub(super) key_id: Option<f64>,
    pub(super) sessions: Vec<Session>,
    pub(super) certificate_expiry_timestamp_seconds: Option<f64>,
    #[serde(skip)]
    pub(super) sparks: Sparks,
}

/// A thread of the data path; 1 is a whole core.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct ThreadCpu {
    pub(super) thread: &'static str,
    pub(super) ratio: f64,
}

/// The last rates, oldest first; what was not known is a hole.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sparks {
    pub(super) records: Vec<Option<f64>>,
    pub(super) bits: Vec<Option<f64>>,
    pub(super) datagrams: Vec<Option<f64>>,
}

/// The source side.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Ingress {
    #[serde(flatten)]
    pub(super) common: Common,
    pub(super) source_state: Option<String>,
    pub(super) kafka_paused: Option<bool>,
    pub(super) rate_limit_bits_per_second: Option<f64>,
    pub(super) lag_records: Option<f64>,
    pub(super) lag_by_topic: Vec<TopicLag>,
    pub(super) repair_symbol_ratio: Option<f64>,
    pub(super) send_errors: Count,
    pub(super) send_drops: Count,
    pub(super) records_skipped: Count,
}

/// Records of a topic that wait to be sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct TopicLag {
    pub(super) topic: String,
    pub(super) records: f64,
}

/// The destination side.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Egress {
    #[serde(flatten)]
    pub(super) common: Common,
    pub(super) sessions_open: Option<f64>,
    pub(super) loss: Loss,
    pub(super) latency: Latency,
    pub(super) heartbeat: Heartbeat,
    pub(super) gaps: Vec<Gap>,
}

/// What was lost, layer by layer: each has a cure of its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Loss {
    pub(super) path: Count,
    pub(super) path_ratio: Option<f64>,
    pub(super) socket_drops: Count,
    pub(super) seal_rejects: Count,
    pub(super) other_rejects: Count,
    pub(super) rejects_by_reason: Vec<Reason>,
    pub(super) repaired_symbols: Count,
    pub(super) repaired_block_ratio: Option<f64>,
    pub(super) unrepairable_blocks: Count,
    pub(super) lost_blocks: Count,
    pub(super) missing_records: Count,
    pub(super) missing_by_reason: Vec<Reason>,
}

/// A counter since the start of the process, and over the last interval.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Count {
    pub(super) total: Option<f64>,
    pub(super) per_second: Option<f64>,
}

/// The part of a counter that has one reason.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Reason {
    pub(super) reason: String,
    pub(super) total: f64,
}

/// Quantiles over the samples that are kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[expect(clippy::struct_field_names, reason = "the JSON's names end with their unit")]
pub(super) struct Latency {
    pub(super) sink_p50_seconds: Option<f64>,
    pub(super) sink_p99_seconds: Option<f64>,
    pub(super) end_to_end_p50_seconds: Option<f64>,
    pub(super) end_to_end_p99_seconds: Option<f64>,
    pub(super) transit_p50_seconds: Option<f64>,
    pub(super) transit_p99_seconds: Option<f64>,
}

/// What the ingress says of itself across the link.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Heartbeat {
    /// Since this reader saw the count of heartbeats change; since it began to look when `seen` is false.
    pub(super) age_seconds: Option<f64>,
    pub(super) seen: bool,
    pub(super) source_state: Option<String>,
    pub(super) source_lag_records: Option<f64>,
    pub(super) source_rate_limit_bits_per_second: Option<f64>,
    pub(super) clock_difference_seconds: Option<f64>,
}

/// The same with whole numbers written without a decimal point, as scripts expect counts.
pub(super) fn whole(value: Value) -> Value {
    /// Up to here every whole number is exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, whole(value))).collect(),
        Value::Array(values) => values.into_iter().map(whole).collect(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if float.fract() == 0.0 && float.abs() < EXACT => Value::from(float as i64),
            _ => Value::Number(number),
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_no_decimal_point() {
        let value = serde_json::json!({ "a": [1.0, 0.5, -2.0, 1e300], "b": u64::MAX, "c": null });
        assert_eq!(whole(value).to_string(), r#"{"a":[1,0.5,-2,1e+300],"b":18446744073709551615,"c":null}"#);
    }

    #[test]
    fn the_worse_of_two_states_is_the_greater() {
        let states = [State::Ready, State::Unknown, State::NotReady, State::Stalled, State::Silent];
        assert!(states.is_sorted());
        assert_eq!(serde_json::json!(State::NotReady), "not_ready");
    }
}
