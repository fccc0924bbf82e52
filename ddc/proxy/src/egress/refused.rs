//! Refused records that lie side by side become one range before it is reported, so that a destination that refuses
//! everything is a few lines a second, not one per record.

use std::collections::BTreeMap;
use std::sync::Arc;

use ddc_link::receiver::OffsetRange;
use ddc_telemetry::reasons::MissingReason;

use super::missing::{MissingReport, Range, SourcePartition};

/// Runs that are open at a time; when another one begins, all are reported.
const MAX_OPEN_RUNS: usize = 64;

/// See the module's text.
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
        let offsets = OffsetRange { first: self.first, last: self.last };
        let range = Range { offsets, records: Some(records), reason: MissingReason::Refused, session: None };
        report.report(&self.partition, range, &self.detail);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use ddc_telemetry::LinkMetrics;

    use super::super::missing::tests::partition;
    use super::*;

    #[test]
    fn neighbours_become_one_range_and_others_do_not() {
        let metrics = Arc::new(LinkMetrics::egress("l"));
        let report = MissingReport::in_memory(Arc::clone(&metrics));
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
}
