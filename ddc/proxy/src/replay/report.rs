//! How far a replay is, for whoever asked for it: `GET /v1/replay`, `/status`, the log.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ddc_link::sender::ReplaySlice;
use serde::{Deserialize, Serialize};

use super::answer::At;
use super::plan::{Gone, Planned};
use super::request::{Asked, Checked, Request};

/// Ranges of offsets without a record that one replay names; further ones are only counted.
pub const MAX_GONE: usize = 10_000;
/// Records that the link cannot carry which one replay names; the log names all.
const MAX_NOT_CARRIED: usize = 10_000;
/// The same of one range.
const MAX_NOT_CARRIED_OF_RANGE: usize = 100;

/// What a replay does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The brokers are asked what there is.
    Planning,
    /// Records are read and sent.
    Sending,
    /// Everything was handed to the kernel.
    Done,
    /// Somebody ended it before.
    Cancelled,
    /// It ended before; `problem` says why.
    Failed,
}

impl State {
    /// The name in answers and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Planning => "planning",
            Self::Sending => "sending",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled | Self::Failed)
    }
}

/// A replay as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its id.
    pub id: String,
    /// Who asked for it.
    pub by: String,
    /// What it does.
    pub state: State,
    /// Why it failed.
    pub problem: Option<String>,
    /// When it began, in s since 1970.
    pub started_timestamp_seconds: u64,
    /// Ranges that were joined with another one.
    pub merged: usize,
    /// Offsets asked for.
    pub offsets: u64,
    /// Offsets answered for, of these.
    pub offsets_sent: u64,
    /// Offsets answered for that hold no record: deleted, compacted, aborted, transaction markers, an older topic.
    pub offsets_gone: u64,
    /// Records sent.
    pub records: u64,
    /// Offsets in `offsets_gone` that no range names, because there were more than [`MAX_GONE`] ranges of them.
    pub gone_not_named: u64,
    /// Range by range.
    pub ranges: Vec<RangeReport>,
}

/// One range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeReport {
    /// The topic at the source.
    pub topic: String,
    /// Which life of the topic; unknown until the brokers told it.
    pub topic_id: Option<String>,
    /// The partition.
    pub partition: i32,
    /// First offset.
    pub from: i64,
    /// Last offset that was asked for.
    pub to: i64,
    /// The next offset to be answered for; above `to`: all is.
    pub next: i64,
    /// Records sent.
    pub records: u64,
    /// Offsets without a record, as far as named.
    pub gone: Vec<(i64, i64)>,
    /// Why some are known to be gone without reading.
    pub gone_because: Option<Gone>,
    /// From this offset on nothing is in the log yet: not answered for.
    pub not_yet: Option<i64>,
    /// Offsets of records that the wire cannot carry, such as too large ones; answered for and not sent. At most 100 of a range, 10,000 of a replay.
    pub not_carried: Vec<i64>,
}

/// A replay that is under way or over.
#[derive(Debug)]
pub struct Job {
    /// As asked, to know the same request again.
    pub request: Request,
    cancelled: AtomicBool,
    told: Mutex<Told>,
}

#[derive(Debug)]
struct Told {
    report: Report,
    /// Stretches that its ranges name, to be bounded.
    gone: usize,
    /// Records that they name as not carried.
    not_carried: usize,
}

impl Told {
    fn of(report: Report) -> Self {
        let sum = |count: fn(&RangeReport) -> usize| report.ranges.iter().map(count).sum();
        let (gone, not_carried) = (sum(|range| range.gone.len()), sum(|range| range.not_carried.len()));
        Self { report, gone, not_carried }
    }
}

impl Job {
    /// Begins to plan.
    pub(super) fn new(request: Request, checked: &Checked, by: String, now_seconds: u64) -> Self {
        let ranges: Vec<RangeReport> = checked
            .ranges
            .iter()
            .map(|wanted| RangeReport {
                topic: wanted.topic.clone(),
                topic_id: wanted.topic_id.map(|id| id.to_string()),
                partition: wanted.partition,
                from: wanted.first,
                to: wanted.last,
                next: wanted.first,
                records: 0,
                gone: Vec::new(),
                gone_because: None,
                not_yet: None,
                not_carried: Vec::new(),
            })
            .collect();
        let report = Report {
            id: request.id.clone(),
            by,
            state: State::Planning,
            problem: None,
            started_timestamp_seconds: now_seconds,
            merged: checked.merged,
            offsets: checked.ranges.iter().map(super::request::Wanted::offsets).sum(),
            offsets_sent: 0,
            offsets_gone: 0,
            records: 0,
            gone_not_named: 0,
            ranges,
        };
        Self::told(request, report)
    }

    /// As it was told before.
    pub(super) fn told(request: Request, report: Report) -> Self {
        Self { request, cancelled: AtomicBool::new(false), told: Mutex::new(Told::of(report)) }
    }

    /// Where it goes on, if its process ended in the middle: everything before was sent.
    pub(super) fn reached(&self) -> At {
        let ranges = &self.lock().report.ranges;
        ranges
            .iter()
            .enumerate()
            .rfind(|(_, range)| range.next > range.from)
            .map_or((0, i64::MIN), |(at, range)| (at, range.next))
    }

    /// Whether this asks for the same.
    pub(super) fn is(&self, ranges: &[Asked]) -> bool {
        self.request.ranges == ranges
    }

    /// How far it is.
    pub fn report(&self) -> Report {
        self.lock().report.clone()
    }

    /// The same, to be kept over a restart: one that shall end is over.
    pub(super) fn to_be_kept(&self) -> Report {
        let mut report = self.report();
        if self.is_cancelled() && !report.state.is_over() {
            report.state = State::Cancelled;
        }
        report
    }

    /// What it does.
    pub fn state(&self) -> State {
        self.lock().report.state
    }

    /// The same without its ranges, for `/status`.
    pub fn summary(&self) -> serde_json::Value {
        let report = &self.lock().report;
        serde_json::json!({
            "id": report.id, "by": report.by, "state": report.state.as_str(), "problem": report.problem,
            "started_timestamp_seconds": report.started_timestamp_seconds, "ranges": report.ranges.len(),
            "offsets": report.offsets, "offsets_sent": report.offsets_sent, "offsets_gone": report.offsets_gone,
            "records": report.records,
        })
    }

    /// Ends it soon; what is on its way goes on.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(super) fn end(&self, state: State, problem: Option<String>) {
        let report = &mut self.lock().report;
        (report.state, report.problem) = (state, problem);
    }

    /// `plan` is that of the ranges from the `skipped`th on.
    pub(super) fn planned(&self, skipped: usize, plan: &[Planned]) {
        let report = &mut self.lock().report;
        for (range, planned) in report.ranges.iter_mut().skip(skipped).zip(plan) {
            range.topic_id = Some(planned.topic_id.to_string());
            range.gone_because = planned.gone;
            range.not_yet = planned.cut;
        }
        report.state = State::Sending;
    }

    /// A slice was handed to the kernel; `gone` are its offsets without records.
    pub(super) fn sent(&self, range: usize, slice: &SentSlice) {
        let mut told = self.lock();
        let Told { report, gone: named, .. } = &mut *told;
        let offsets = slice.end.abs_diff(slice.base);
        report.offsets_sent += offsets;
        report.records += u64::from(slice.records);
        report.offsets_gone += offsets - u64::from(slice.records);
        let Some(range) = report.ranges.get_mut(range) else { return };
        range.next = slice.end;
        range.records += u64::from(slice.records);
        for (first, last) in &slice.gone {
            match range.gone.last_mut() {
                // A stretch may go over the end of a slice.
                Some(before) if before.1 + 1 == *first => before.1 = *last,
                _ if *named < MAX_GONE => {
                    range.gone.push((*first, *last));
                    *named += 1;
                }
                _ => report.gone_not_named += last.abs_diff(*first) + 1,
            }
        }
    }

    /// Reading ended below the range's end: what follows is not in the log.
    pub(super) fn cut(&self, range: usize, end: i64) {
        if let Some(range) = self.lock().report.ranges.get_mut(range) {
            range.not_yet = Some(end);
        }
    }

    pub(super) fn older_topic(&self, range: usize) {
        if let Some(range) = self.lock().report.ranges.get_mut(range) {
            range.gone_because = Some(Gone::OlderTopic);
        }
    }

    pub(super) fn not_carried(&self, range: usize, offset: i64) {
        let mut told = self.lock();
        let Told { report, not_carried, .. } = &mut *told;
        if let Some(range) = report.ranges.get_mut(range)
            && range.not_carried.len() < MAX_NOT_CARRIED_OF_RANGE
            && *not_carried < MAX_NOT_CARRIED
            && !range.not_carried.contains(&offset)
        {
            range.not_carried.push(offset);
            *not_carried += 1;
        }
    }

    /// What is guarded here is valid after every statement, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is kept of a slice until it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SentSlice {
    pub(super) base: i64,
    pub(super) end: i64,
    pub(super) records: u32,
    pub(super) gone: Vec<(i64, i64)>,
}

impl SentSlice {
    /// `offsets` are those of its records, ascending, and maybe those of later slices behind them; its own are taken.
    pub(super) fn of(slice: &ReplaySlice, offsets: &mut std::collections::VecDeque<i64>) -> Self {
        let (mut gone, mut next) = (Vec::new(), slice.base);
        while let Some(offset) = offsets.pop_front_if(|offset| *offset < slice.end) {
            if offset > next {
                gone.push((next, offset - 1));
            }
            next = offset + 1;
        }
        if next < slice.end {
            gone.push((next, slice.end - 1));
        }
        Self { base: slice.base, end: slice.end, records: slice.records, gone }
    }
}
