//! What is missing, by name: to the log, the metric, the gap journal, and the list that `/status` shows.
//!
//! Every missing range is logged; nothing here is rate-limited, because this is the promise "what is lost is named".
//! What was missing and has come is said too. The journal ([`crate::gaps::journal`]) is written by the thread that
//! reports; when it cannot be written, the book in memory goes on, and all of it is written once it can be.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ddc_link::receiver::{OffsetRange, PartitionKey, Positions};
use ddc_telemetry::cells::Label;
use ddc_telemetry::log::RateLimit;
use ddc_telemetry::reasons::{GapRecordDrop, MissingReason};
use ddc_telemetry::{EgressMetrics, LinkMetrics};
use ddc_wire::Session;
use serde::Serialize;
use serde_json::{Value, json};

use super::shared::lock;
use crate::gaps::journal::Journal;
use crate::gaps::{Entry, Finding, Gap, GapBook, GapId, GapState, Timestamp};

/// Ranges that `/status` shows.
pub const KEPT: usize = 100;
/// Why a hole is not waited for any longer.
pub(crate) const TOO_MANY_HOLES: &str = "the partition has more than 1024 missing ranges";
/// That the journal cannot be written is logged this often at most.
const LOG_EVERY: Duration = Duration::from_secs(10);

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

/// Offsets that were sent and were not at the destination when they were reported.
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
    /// What has become of it: a [`GapState`]'s name.
    pub state: &'static str,
    /// How many of its offsets are still missing.
    pub open_offsets: u64,
}

/// What is reported as missing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    pub(crate) offsets: OffsetRange,
    /// Records among them; `None` when it cannot be known.
    pub(crate) records: Option<u64>,
    pub(crate) reason: MissingReason,
    /// The session by which it was found out.
    pub(crate) session: Option<Session>,
}

/// Where missing ranges are reported; clones share everything.
#[derive(Debug, Clone)]
pub struct MissingReport {
    metrics: Arc<LinkMetrics<EgressMetrics>>,
    list: Arc<Mutex<VecDeque<MissingRange>>>,
    /// Never held while the disk is waited for.
    book: Arc<Mutex<GapBook>>,
    disk: Arc<Mutex<Disk>>,
    trouble: Arc<Mutex<Option<String>>>,
    /// Up to this change all of it is in the topic of `[missing_records]`; the greatest number without such a topic.
    acknowledged: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Disk {
    /// `None`: nothing is kept over a restart.
    journal: Option<Journal>,
    limit: RateLimit<()>,
}

impl MissingReport {
    /// For the link of these metrics, with what is known of a former life. Without a journal nothing outlives the
    /// process.
    pub fn new(metrics: Arc<LinkMetrics<EgressMetrics>>, book: GapBook, journal: Option<Journal>) -> Self {
        let report = Self {
            metrics,
            list: Arc::default(),
            book: Arc::new(Mutex::new(book)),
            disk: Arc::new(Mutex::new(Disk { journal, limit: RateLimit::new(LOG_EVERY) })),
            trouble: Arc::default(),
            acknowledged: Arc::new(AtomicU64::new(u64::MAX)),
        };
        report.count();
        report
    }

    /// Without a journal and with nothing known.
    pub fn in_memory(metrics: Arc<LinkMetrics<EgressMetrics>>) -> Self {
        let book = GapBook::new(metrics.link());
        Self::new(metrics, book, None)
    }

    /// The link's name.
    pub fn link(&self) -> &str {
        self.metrics.link()
    }

    /// The last [`KEPT`] ranges that were reported, oldest first.
    pub fn last(&self) -> Vec<MissingRange> {
        let mut list: Vec<_> = lock(&self.list).iter().cloned().collect();
        let book = lock(&self.book);
        for range in &mut list {
            let Some(key) = range.partition.key() else { continue };
            let (state, open) = book.state(&key, OffsetRange { first: range.first, last: range.last });
            (range.state, range.open_offsets) = (state.as_str(), open);
        }
        list
    }

    /// How many gaps there are, and how the journal is: for `/status`.
    pub fn status(&self) -> Value {
        let counts = lock(&self.book).counts();
        json!({
            "open": counts.open,
            "given_up": counts.given_up,
            "closed": counts.closed,
            "open_offsets": counts.open_offsets,
            "journal_trouble": *lock(&self.trouble),
        })
    }

    /// Reports a range.
    pub(crate) fn report(&self, partition: &SourcePartition, range: Range, detail: &str) {
        let Range { offsets: OffsetRange { first, last }, records, reason, session } = range;
        let now = Timestamp::now();
        let key = partition.key();
        let id = key.as_ref().map(|key| GapId::of(self.link(), key, range.offsets).to_string());
        tracing::error!(
            link = self.link(),
            stream = partition.stream,
            topic = partition.topic,
            topic_id = partition.topic_id,
            partition = partition.partition,
            first,
            last,
            records = records.map_or_else(|| "unknown".to_owned(), |records| records.to_string()),
            reason = reason.as_str(),
            gap = id,
            detail,
            "records are missing"
        );
        // Without a count the width of the range is the most it can have held.
        let counted = records.unwrap_or_else(|| last.saturating_sub(first).saturating_add(1).max(0) as u64);
        self.metrics.records_missing.add(reason, counted);
        {
            let mut list = lock(&self.list);
            if list.len() >= KEPT {
                list.pop_front();
            }
            list.push_back(MissingRange {
                partition: partition.clone(),
                first,
                last,
                records,
                reason: reason.as_str(),
                found_at_millis: now.millis(),
                state: GapState::Open.as_str(),
                open_offsets: range.offsets.offsets(),
            });
        }
        let Some(key) = key else { return };
        let finding = Finding { range: range.offsets, records, reason, session };
        self.change(|book| book.found(&key, finding, now));
    }

    /// Reports that these offsets have arrived: all that was missing among them is closed.
    pub(crate) fn close(&self, partition: &SourcePartition, ranges: &[OffsetRange]) {
        let Some(key) = partition.key() else { return };
        let now = Timestamp::now();
        let changed =
            self.change(|book| ranges.iter().flat_map(|range| book.close(&key, *range, now)).collect());
        self.say_closed(changed);
    }

    /// The partitions in which something is missing.
    pub(crate) fn open_partitions(&self) -> Vec<PartitionKey> {
        lock(&self.book).open_partitions().cloned().collect()
    }

    /// Closes what the destination's progress says is settled, by whatever link's egress.
    pub(crate) fn close_settled(&self, positions: &Positions) {
        let now = Timestamp::now();
        let changed = self.change(|book| book.close_settled(positions, now));
        self.say_closed(changed);
    }

    fn say_closed(&self, changed: Vec<Entry>) {
        for Entry { gap, .. } in changed {
            tracing::info!(
                link = self.link(),
                stream = gap.stream,
                topic = gap.topic,
                topic_id = %gap.topic_id,
                partition = gap.partition,
                first = gap.first,
                last = gap.last,
                gap = %gap.id,
                state = gap.state.as_str(),
                still_missing = gap.open_offsets(),
                "records that were missing have arrived"
            );
        }
    }

    /// Reports that these offsets are no longer taken if they come.
    pub(crate) fn give_up(&self, partition: &SourcePartition, range: OffsetRange, why: &str) {
        let Some(key) = partition.key() else { return };
        let now = Timestamp::now();
        for Entry { gap, .. } in self.change(|book| book.give_up(&key, range, now)) {
            warn_given_up(self.link(), &gap, why);
        }
    }

    /// Agrees with what the destination's progress says at a start. How many gaps that changed.
    pub(crate) fn reconcile(&self, positions: &Positions, now: Timestamp) -> usize {
        self.change(|book| book.reconcile(positions, now)).len()
    }

    /// What was written of the journal is on disk when this returns, or it is said why not; to be called each second.
    /// A journal that could not be written is written anew.
    pub(crate) fn sync(&self) {
        let mut disk = lock(&self.disk);
        let Some(journal) = &mut disk.journal else { return };
        let done = if journal.is_broken() || journal.is_long() {
            let book = lock(&self.book).clone();
            journal.shorten(&book)
        } else {
            journal.sync().inspect_err(|_| journal.distrust())
        };
        self.told(&mut disk, done);
    }

    /// At most so many changes behind this one, in order: of each gap its latest.
    pub(crate) fn changes_after(&self, seq: u64, most: usize) -> Vec<Entry> {
        lock(&self.book).after(seq).take(most).cloned().collect()
    }

    /// When the oldest change behind this one happened.
    pub(crate) fn waiting_since(&self, seq: u64) -> Option<Timestamp> {
        lock(&self.book).after(seq).next().map(|entry| entry.at)
    }

    /// Everything up to this change is in the topic of `[missing_records]`; unlike [`Self::published`] no disk is asked.
    pub(crate) fn acknowledged(&self, seq: u64) {
        self.acknowledged.store(seq, Relaxed);
    }

    /// How many gaps have changed since this change.
    pub(crate) fn waiting(&self, seq: u64) -> usize {
        lock(&self.book).after(seq).count()
    }

    /// Everything up to this change is in the topic of `[missing_records]`.
    pub(crate) fn published(&self, seq: u64) {
        let mut disk = lock(&self.disk);
        if let Some(journal) = &mut disk.journal {
            let done = journal.published(seq);
            if !journal.is_broken() {
                self.told(&mut disk, done);
            }
        }
    }

    /// The book was changed before it came here: writes all of it to the journal.
    pub(crate) fn write_anew(&self) {
        if let Some(journal) = &mut lock(&self.disk).journal {
            journal.distrust();
        }
        self.sync();
    }

    /// Changes the book and appends to the journal. Returns the last change of each gap.
    fn change(&self, change: impl FnOnce(&mut GapBook) -> Vec<Entry>) -> Vec<Entry> {
        let acknowledged = self.acknowledged.load(Relaxed);
        let (changed, forgotten) = {
            let mut book = lock(&self.book);
            (last_of_each(change(&mut book)), book.make_room())
        };
        if changed.is_empty() {
            return changed;
        }
        for Entry { seq, gap, .. } in &forgotten {
            let unpublished = *seq > acknowledged;
            if unpublished {
                self.metrics.gap_records_dropped.inc(GapRecordDrop::Forgotten);
            }
            if gap.state != GapState::Closed {
                warn_given_up(self.link(), gap, "there are too many gaps to remember");
            } else if unpublished {
                warn_not_published(self.link(), gap);
            }
        }
        self.count();
        let mut disk = lock(&self.disk);
        if let Some(journal) = &mut disk.journal {
            if !forgotten.is_empty() {
                // What is forgotten must not come back at the next start.
                journal.distrust();
            }
            if !journal.is_broken() {
                let done = journal.append(&changed);
                self.told(&mut disk, done);
            }
        }
        changed
    }

    fn count(&self) {
        let counts = lock(&self.book).counts();
        self.metrics.gaps_open.set(counts.open as i64);
    }

    fn told(&self, disk: &mut Disk, done: io::Result<()>) {
        let Err(error) = done else {
            *lock(&self.trouble) = None;
            return;
        };
        *lock(&self.trouble) = Some(error.to_string());
        if let Some(suppressed) = disk.limit.allow((), Instant::now()) {
            tracing::error!(
                link = self.link(),
                %error,
                suppressed,
                "the gap journal cannot be written; make room on its file system, or make it writable: what is missing is kept in memory \
                 until then, and would be forgotten by a restart"
            );
        }
    }
}

impl SourcePartition {
    /// As the link's own tables name it. `None`: its topic id is none, which only a test can make.
    pub(crate) fn key(&self) -> Option<PartitionKey> {
        Some(PartitionKey {
            stream: self.stream.clone(),
            topic: self.topic.clone(),
            topic_id: self.topic_id.parse().ok()?,
            partition: self.partition,
        })
    }
}

/// Several changes of a gap at once are one for those who are told.
fn last_of_each(changed: Vec<Entry>) -> Vec<Entry> {
    let mut seen = std::collections::HashSet::new();
    let mut last: Vec<_> = changed.into_iter().rev().filter(|entry| seen.insert(entry.gap.id)).collect();
    last.reverse();
    last
}

fn warn_given_up(link: &str, gap: &Gap, why: &str) {
    tracing::warn!(
        link,
        stream = gap.stream,
        topic = gap.topic,
        topic_id = %gap.topic_id,
        partition = gap.partition,
        first = gap.first,
        last = gap.last,
        gap = %gap.id,
        why,
        "a gap, or a part of it, was given up: its records are no longer taken if they come"
    );
}

fn warn_not_published(link: &str, gap: &Gap) {
    tracing::warn!(
        link,
        stream = gap.stream,
        topic = gap.topic,
        topic_id = %gap.topic_id,
        partition = gap.partition,
        first = gap.first,
        last = gap.last,
        gap = %gap.id,
        "a gap was found and closed again, and is forgotten before the topic of [missing_records] could be told: there are too many to remember"
    );
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn partition(topic: &str) -> Arc<SourcePartition> {
        Arc::new(SourcePartition {
            stream: String::new(),
            topic: topic.into(),
            topic_id: "epoch-1".into(),
            partition: 3,
        })
    }

    /// The oldest of what waits tells since when; what is forgotten before it could be published is counted, and nothing
    /// else is.
    #[test]
    fn what_waits_to_be_published_is_known() {
        let report = MissingReport::in_memory(Arc::new(LinkMetrics::egress("l")));
        let partition = partition("a");
        let find = |first: i64| {
            let range = Range {
                offsets: OffsetRange { first, last: first },
                records: None,
                reason: MissingReason::Lost,
                session: None,
            };
            report.report(&partition, range, "");
        };
        assert_eq!(report.waiting_since(0), None);
        let before = Timestamp::now();
        find(0);
        find(2);
        let first = report.changes_after(0, 1)[0].at;
        assert!(before <= first && first <= Timestamp::now());
        assert_eq!(report.waiting_since(0), Some(first));
        assert_eq!(report.waiting_since(2), None);
        let dropped = || report.metrics.gap_records_dropped.value(GapRecordDrop::Forgotten);
        let find_many = |from: i64, count: i64| {
            let many = (0..count).map(|at| OffsetRange { first: from + 2 * at, last: from + 2 * at });
            let now = Timestamp::now();
            let finding =
                |range| Finding { range, records: None, reason: MissingReason::Lost, session: None };
            let key = partition.key().unwrap();
            report.change(|book| many.flat_map(|range| book.found(&key, finding(range), now)).collect());
        };
        find_many(1_000, 50_010);
        assert_eq!(dropped(), 0, "without a topic nothing waits for one");
        report.acknowledged(lock(&report.book).seq());
        find_many(1_000_000, 40_000);
        assert_eq!(dropped(), 0, "all that was forgotten had been published");
        find_many(2_000_000, 50_010);
        assert!(dropped() >= 40_000, "{}", dropped());
    }

    #[test]
    fn the_list_is_bounded_and_keeps_the_newest() {
        let report = MissingReport::in_memory(Arc::new(LinkMetrics::egress("l")));
        for first in 0..250 {
            let offsets = OffsetRange { first, last: first };
            let range = Range { offsets, records: None, reason: MissingReason::Lost, session: None };
            report.report(&partition("a"), range, "");
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
