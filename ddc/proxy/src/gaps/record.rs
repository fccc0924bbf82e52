//! What the topic of `[missing_records]` gets: a change of a gap, as JSON; its schema is docs/missing-records.schema.json.

use ddc_telemetry::cells::Label as _;
use ddc_wire::LinkId;
use schemars::{JsonSchema, schema_for};
use serde::Serialize;
use serde_json::Value;

use super::{Entry, Gap, GapEvent, GapState};
use crate::config::LinkName;

/// What `kind` says.
const KIND: &str = "ddc-missing-records";
/// The version of the record's format.
const FORMAT: u32 = 1;

/// A change of a gap, and the gap as it is since. The record's key is the gap's id, so the newest record of a key says how the gap
/// stands; of two the one with the higher sequence is newer. A record can come twice. While the topic could not be
/// written, several changes of a gap become one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, title = "DDC missing records")]
pub struct GapRecord {
    /// Always `ddc-missing-records`.
    kind: &'static str,
    /// 1; rises when a field goes or changes its meaning.
    format: u32,
    /// What happened: `found` (something is missing that was not known to be), `closed` (something of it has arrived; the state
    /// says whether all), `given_up` (something of it is not taken any more if it comes).
    event: GapEvent,
    /// When it happened, by the egress's clock: RFC 3339, UTC, with milliseconds.
    changed_at: String,
    /// Rises with every change of any gap of the link.
    sequence: u64,
    /// The egress's `[telemetry] site`.
    site: Option<String>,
    /// The link's name.
    link: String,
    /// The set under which the link keeps its progress: its own name, or the one of all links that may take over from each other.
    set: String,
    /// The link's number.
    link_id: u16,
    /// The gap's id, which follows from link, stream, topic, topic id, partition, first and last.
    #[schemars(regex(pattern = r"^[0-9a-f]{32}$"))]
    id: String,
    /// The ingress's session by which the gap was found out.
    #[schemars(regex(pattern = r"^[0-9a-f]{24}$"))]
    session: Option<String>,
    /// The source's stream; empty when there is only one.
    stream: String,
    /// The topic at the source.
    topic: String,
    /// Which life of the topic: Kafka's UUID in hexadecimal, or `epoch-` and a number.
    topic_id: String,
    /// The partition at the source.
    partition: i32,
    /// The first offset that was missing.
    first: i64,
    /// The last offset that was missing, included.
    last: i64,
    /// Records among these offsets when the gap was found; null when that cannot be known.
    records: Option<u64>,
    /// Why they are missing: a value of MissingReason in docs/metrics.md.
    reason: String,
    /// When the gap was found: RFC 3339, UTC, with milliseconds.
    found_at: String,
    /// What has become of the gap.
    state: GapState,
    /// Since when nothing of it is open; null while something is.
    closed_at: Option<String>,
    /// What is still missing and is taken when it comes: pairs of first and last offset.
    open: Vec<(i64, i64)>,
    /// What is still missing and is not taken any more, in the same form.
    given_up: Vec<(i64, i64)>,
}

impl GapRecord {
    /// The record of a change.
    pub fn new(site: Option<String>, link: &LinkName, link_id: LinkId, set: &str, entry: &Entry) -> Self {
        let Gap {
            id,
            session,
            stream,
            topic,
            topic_id,
            partition,
            first,
            last,
            records,
            reason,
            found_at,
            state,
            closed_at,
            open,
            given_up,
        } = &entry.gap;
        Self {
            kind: KIND,
            format: FORMAT,
            event: entry.event,
            changed_at: entry.at.to_string(),
            sequence: entry.seq,
            site,
            link: link.to_string(),
            set: set.to_owned(),
            link_id: link_id.0,
            id: id.to_string(),
            session: session.map(|session| session.to_string()),
            stream: stream.clone(),
            topic: topic.clone(),
            topic_id: topic_id.to_string(),
            partition: *partition,
            first: *first,
            last: *last,
            records: *records,
            reason: reason.as_str().to_owned(),
            found_at: found_at.to_string(),
            state: *state,
            closed_at: closed_at.map(|at| at.to_string()),
            open: open.iter().map(|range| (range.first, range.last)).collect(),
            given_up: given_up.iter().map(|range| (range.first, range.last)).collect(),
        }
    }

    /// The JSON Schema of the record.
    pub fn schema() -> Value {
        let mut schema = schema_for!(GapRecord).to_value();
        join_lines(&mut schema);
        schema
    }
}

/// Doc comments are broken into lines; descriptions are not.
fn join_lines(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "description" => *text = text.replace('\n', " "),
                    _ => join_lines(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(join_lines),
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use std::collections::BTreeSet;

    use ddc_link::receiver::{OffsetRange, PartitionKey};
    use ddc_telemetry::reasons::MissingReason;

    use super::*;
    use crate::gaps::Timestamp;

    #[test]
    fn a_record_is_as_its_schema_and_as_the_gap_file() {
        let key = PartitionKey { topic: "orders".into(), partition: 3, ..PartitionKey::default() };
        let range = OffsetRange { first: 5, last: 9 };
        let at = Timestamp::from_millis(1_700_000_000_000);
        let gap = Gap::found("plant-a", &key, range, None, MissingReason::Lost, None, at);
        let entry = Entry {
            seq: 7,
            event: GapEvent::Found,
            at: Timestamp::from_millis(1_700_000_000_123),
            gap: gap.clone(),
        };
        let link = "plant-a".parse().unwrap();
        let record = GapRecord::new(Some("north".into()), &link, LinkId(2), "plant", &entry);
        let record = serde_json::to_value(record).unwrap();
        let mut expected = serde_json::to_value(&gap).unwrap();
        for (name, value) in [
            ("kind", Value::from(KIND)),
            ("format", 1.into()),
            ("event", "found".into()),
            ("changed_at", "2023-11-14T22:13:20.123Z".into()),
            ("sequence", 7.into()),
            ("site", "north".into()),
            ("link", "plant-a".into()),
            ("set", "plant".into()),
            ("link_id", 2.into()),
        ] {
            expected[name] = value;
        }
        assert_eq!(record, expected, "a gap is the same in both");
        let schema = GapRecord::schema();
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(keys(&record), keys(&schema["properties"]));
        assert_eq!(schema["additionalProperties"], false);
        for (name, property) in schema["properties"].as_object().unwrap() {
            assert!(property["description"].as_str().is_some_and(|text| !text.contains('\n')), "{name}");
        }
    }
}
