//! What is missing, by name: to the log, the metric, and the list that `/status` shows.
//!
//! Every missing range is logged; nothing here is rate-limited, because this is the promise "what is lost is named".
//! Refused records that lie side by side become one range.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ddc_telemetry::cells::Label;
use ddc_telemetry::reasons::MissingReason;
use ddc_telemetry::{EgressMetrics, LinkMetrics};
use serde::Serialize;

/// Ranges that `/status` shows.
pub const KEPT: usize = 100;

/// A source partition, as reports name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct SourcePartition {
    /// The source's stream; empty when there is only one.
    pub stream: String,
    /// The topic at the source.
    pub topic: String,
    /// Which life of the topic.
    pub topic_id: String,
    /// The partition at the source.
    pub partition: i32,
}

/// Offsets that were sent and are not at the destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingRange {
    /// Whose offsets.
    #[serde(flatten)]
    pub partition: SourcePartition,
    /// First offset.
    pub first: i64,
    /// Last offset, included.
    pub last: i64,
    /// Records in the range; `None` when it cannot be known.
    pub records: Option<u64>,
    /// Why: a value of the metric's label.
    pub reason: &'static str,
    /// When it was found, in ms since 1970.
    pub found_at_millis: u64,
}

/// Where missing ranges are reported; clones share the list.
#[derive(Debug, Clone)]
pub struct MissingReport {
    metrics: Arc<LinkMetrics<EgressMetrics>>,
    list: Arc<Mutex<VecDeque<MissingRange>>>,
}

impl MissingReport {
    /// For the link of these metrics.
    pub fn new(metrics: Arc<LinkMetrics<EgressMetrics>>) -> Self {
        Self { metrics, list: Arc::default() }
    }

    /// The link's name.
    pub fn link(&self) -> &str {
        self.metrics.link()
    }

    /// The last [`KEPT`] ranges, oldest first.
    pub fn last(&self) -> Vec<MissingRange> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Reports a range.
    pub(crate) fn report(
        &self,
        partition: &SourcePartition,
        first: i64,
        last: i64,
        records: Option<u64>,
        reason: MissingReason,
        detail: &str,
    ) {
        let link = self.metrics.link();
        tracing::error!(
            link,
            stream = partition.stream,
            topic = partition.topic,
            topic_id = partition.topic_id,
            partition = partition.partition,
            first,
            last,
            records = records.map_or_else(|| "unknown".to_owned(), |records| records.to_string()),
            reason = reason.as_str(),
            detail,
            "records are missing"
        );
        // Without a count the width of the range is the most it can have held.
        let counted = records.unwrap_or_else(|| last.saturating_sub(first).saturating_add(1).max(0) as u64);
        self.metrics.records_missing.add(reason, counted);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() >= KEPT {
            list.pop_front();
        }
        list.push_back(MissingRange {
            partition: partition.clone(),
            first,
            last,
            records,
            reason: reason.as_str(),
            found_at_millis: now.as_millis() as u64,
        });
    }
}

/// Runs that are open at a time; when another one begins, all are reported.
const MAX_OPEN_RUNS: usize = 64;

/// Joins refused records that lie side by side into one range before it is reported, so that a destination that refuses
/// everything is a few lines a second, not one per record.
#[derive(Debug, Default)]
pub(crate) struct RefusedRuns {
    /// By the partition's number; at most [`MAX_OPEN_RUNS`].
    open: BTreeMap<u32, Run>,
}

#[derive(Debug)]
struct Run {
    partition: Arc<SourcePartition>,
    first: i64,
    last: i64,
    detail: String,
}

impl RefusedRuns {
    /// One more refused record. `detail` says why, and is kept from the first of a run.
    pub(crate) fn push(
        &mut self,
        slot: u32,
        partition: &Arc<SourcePartition>,
        offset: i64,
        detail: impl FnOnce() -> String,
        report: &MissingReport,
    ) {
        if let Some(run) = self.open.get_mut(&slot) {
            if run.last + 1 == offset {
                run.last = offset;
                return;
            }
            run.report(report);
        } else if self.open.len() >= MAX_OPEN_RUNS {
            self.flush(report);
        }
        let run = Run { partition: Arc::clone(partition), first: offset, last: offset, detail: detail() };
        self.open.insert(slot, run);
    }

    /// Reports what is open.
    pub(crate) fn flush(&mut self, report: &MissingReport) {
        for run in std::mem::take(&mut self.open).into_values() {
            run.report(report);
        }
    }
}

impl Run {
    fn report(&self, report: &MissingReport) {
        let records = self.last.abs_diff(self.first) + 1;
        report.report(
            &self.partition,
            self.first,
            self.last,
            Some(records),
            MissingReason::Refused,
            &self.detail,
        );
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;

    fn partition(topic: &str) -> Arc<SourcePartition> {
        Arc::new(SourcePartition {
            stream: String::new(),
            topic: topic.into(),
            topic_id: "x".into(),
            partition: 3,
        })
    }

    #[test]
    fn neighbours_become_one_range_and_others_do_not() {
        let metrics = Arc::new(LinkMetrics::egress("l"));
        let report = MissingReport::new(Arc::clone(&metrics));
        let (a, b) = (partition("a"), partition("b"));
        let mut runs = RefusedRuns::default();
        for (slot, whose, offset) in [(0, &a, 5), (0, &a, 6), (0, &a, 9), (1, &b, 10), (1, &b, 11)] {
            runs.push(slot, whose, offset, || "too large".into(), &report);
        }
        runs.flush(&report);
        runs.flush(&report);
        let ranges: Vec<_> =
            report.last().iter().map(|r| (r.partition.topic.clone(), r.first, r.last, r.records)).collect();
        let expected = [("a", 5, 6, 2), ("a", 9, 9, 1), ("b", 10, 11, 2)];
        assert_eq!(ranges, expected.map(|(t, f, l, n)| (t.to_owned(), f, l, Some(n))));
        assert_eq!(metrics.records_missing.value(MissingReason::Refused), 5);
        assert_eq!(metrics.records_missing.total(), 5);
    }

    #[test]
    fn the_list_is_bounded_and_keeps_the_newest() {
        let report = MissingReport::new(Arc::new(LinkMetrics::egress("l")));
        for first in 0..250 {
            report.report(&partition("a"), first, first, None, MissingReason::Lost, "");
        }
        let last = report.last();
        assert_eq!((last.len(), last[0].first, last[KEPT - 1].first), (KEPT, 150, 249));
        let json = serde_json::to_value(&last[0]).unwrap();
        assert_eq!(
            (&json["topic"], &json["reason"], &json["records"]),
            (&"a".into(), &"lost".into(), &serde_json::Value::Null)
        );
    }
}
