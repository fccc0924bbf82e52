//! What every way out keeps of what it was given, whatever the destination: partitions by number, refusals, reports, and
//! what survives a restart.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ddc_link::receiver::{OffsetRange, Positions};
use ddc_spool::Span;
use ddc_telemetry::log::RateLimit;
use ddc_telemetry::notify::Tick;
use ddc_telemetry::process::thread_cpu;
use ddc_telemetry::reasons::Thread;
use ddc_telemetry::{EgressMetrics, LinkMetrics};

use super::control::Control;
use super::feed::{Item, Settler};
use super::filled::Filled;
use super::missing::{MissingReport, SourcePartition};
use super::partitions::Partitions;
use super::refused::RefusedRuns;
use super::shared::{Shared, lock};
use super::store::Store;
use crate::state::StateError;

/// One kind of trouble is logged this often at most.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// Sessions are stored this often, if they have changed.
const STORE_EVERY: Duration = Duration::from_secs(1);

/// What [`Books`] are made of.
pub(crate) struct BooksParts {
    pub(crate) metrics: Arc<LinkMetrics<EgressMetrics>>,
    pub(crate) report: MissingReport,
    pub(crate) control: Arc<Control>,
    pub(crate) tick: Tick,
    /// Where batches come from.
    pub(crate) settler: Settler,
    pub(crate) shared: Arc<Shared>,
    pub(crate) store: Store,
}

/// See the module's text.
pub(crate) struct Books {
    pub(crate) partitions: Partitions,
    pub(crate) metrics: Arc<LinkMetrics<EgressMetrics>>,
    report: MissingReport,
    refused: RefusedRuns,
    /// Refused for ever and not yet fetched by [`Self::take_refusals`]; bounded by what is in flight.
    refusals: Vec<(u32, i64)>,
    filled: Filled,
    pub(crate) limit: RateLimit<&'static str>,
    pub(crate) control: Arc<Control>,
    pub(crate) tick: Tick,
    settler: Settler,
    unstored: Unstored,
    pub(crate) shared: Arc<Shared>,
    store: Store,
    stored_at: Instant,
}

/// What is settled at the destination and not in the positions on disk: in the spool it must stay until it is.
#[derive(Debug, Default)]
struct Unstored {
    /// Neighbours are joined; at most what was taken since the positions were written last.
    spans: Vec<Span>,
    /// The end of what was taken last.
    taken: u64,
    /// The same when the positions were copied that are on their way.
    copied: u64,
}

impl Books {
    pub(crate) fn new(parts: BooksParts) -> Self {
        Self {
            partitions: Partitions::default(),
            metrics: parts.metrics,
            report: parts.report,
            refused: RefusedRuns::default(),
            refusals: Vec::new(),
            filled: Filled::default(),
            limit: RateLimit::new(LOG_EVERY),
            control: parts.control,
            tick: parts.tick,
            settler: parts.settler,
            unstored: Unstored::default(),
            shared: parts.shared,
            store: parts.store,
            stored_at: Instant::now(),
        }
    }

    /// The destination will never have the record: it becomes a missing range.
    pub(crate) fn refuse(&mut self, slot: u32, offset: i64, why: impl FnOnce() -> String) {
        if self.report_refused(slot, offset, why) {
            self.refusals.push((slot, offset));
        }
    }

    /// As [`Self::refuse`], for a destination to which nothing is ever given again: the positions need not know.
    /// `false`: the partition has no number.
    pub(crate) fn report_refused(&mut self, slot: u32, offset: i64, why: impl FnOnce() -> String) -> bool {
        self.filled.refused(slot, offset);
        let Some(partition) = self.partitions.name(slot) else { return false };
        self.refused.push(slot, partition, offset, why, &self.report);
        true
    }

    /// The partitions and offsets refused since the last call.
    pub(crate) fn take_refusals(&mut self) -> Vec<(u32, i64)> {
        std::mem::take(&mut self.refusals)
    }

    /// Reports the ranges of refused records that are still open; to be called now and then.
    pub(crate) fn flush_refused(&mut self) {
        self.refused.flush(&self.report);
    }

    /// Where gaps are reported.
    pub(crate) fn report(&self) -> &MissingReport {
        &self.report
    }

    /// The name of a partition, for reports.
    pub(crate) fn name(&self, slot: u32) -> Option<Arc<SourcePartition>> {
        self.partitions.name(slot).cloned()
    }

    /// A batch was taken and is about to be judged.
    pub(crate) fn took(&mut self, item: &Item) {
        if let Some(span) = item.span {
            self.unstored.taken = self.unstored.taken.max(span.end);
        }
    }

    /// Everything of a batch is settled at the destination. In the spool it is settled once the positions that say so are stored.
    pub(crate) fn recycle(&mut self, item: Arc<Item>) {
        self.unstored.add(&item);
        self.settler.recycle(item);
    }

    /// What is handed over fills a hole, or a part of one.
    pub(crate) fn fills(&mut self, slot: u32, range: OffsetRange) {
        if !self.filled.add(slot, range) {
            self.close(slot, &[range]);
        }
    }

    /// The chunk at hand is settled.
    pub(crate) fn chunk_done(&mut self) {
        self.filled.chunk_done();
    }

    /// Copies of the positions as they are now are on their way to [`Self::acknowledged`].
    pub(crate) fn checkpoint(&mut self) {
        self.filled.checkpoint();
        self.unstored.copied = self.unstored.taken;
    }

    /// Everything that these positions say was handed over before the last [`Self::checkpoint`] is acknowledged.
    pub(crate) fn acknowledged(&mut self, positions: &Positions) {
        let written = self.store.write_positions(positions);
        if written.is_ok() {
            for span in self.unstored.take_stored() {
                self.settler.settle_span(span);
            }
        }
        self.stored(written);
        // After the positions: a crash between the two opens gaps again that are closed, never the other way round.
        for (slot, ranges) in self.filled.acknowledged() {
            self.close(slot, &ranges);
        }
    }

    fn close(&self, slot: u32, ranges: &[OffsetRange]) {
        if let Some(partition) = self.partitions.name(slot) {
            self.report.close(partition, ranges);
        }
    }

    /// Nothing is on its way: what was handed over is acknowledged, and the numbers of partitions are given anew.
    pub(crate) fn begin_partitions_anew(&mut self) {
        self.filled.checkpoint();
        for (slot, ranges) in self.filled.acknowledged() {
            self.close(slot, &ranges);
        }
        self.partitions = Partitions::default();
    }

    /// Writes the sessions, if they have changed and a second has passed.
    pub(crate) fn store_sessions_in_time(&mut self) {
        if self.stored_at.elapsed() >= STORE_EVERY {
            self.store_sessions();
        }
    }

    /// Writes the sessions, if they have changed. Called once a second, it also tells what the thread has cost, and has the gap
    /// journal brought to the disk.
    pub(crate) fn store_sessions(&mut self) {
        self.stored_at = Instant::now();
        self.metrics.common.thread_cpu_seconds.set(Thread::Sink, thread_cpu());
        let sessions = lock(&self.shared.stored).clone();
        let written = self.store.write_sessions(sessions);
        self.stored(written);
        self.report.sync();
    }

    fn stored(&mut self, written: Result<(), StateError>) {
        let Err(error) = written else { return };
        if let Some(suppressed) = self.limit.allow("store", Instant::now()) {
            tracing::error!(
                link = self.metrics.link(), %error, suppressed,
                "the state cannot be stored; a restart would begin further back"
            );
        }
    }
}

impl Unstored {
    fn add(&mut self, item: &Item) {
        for span in item.places() {
            match self.spans.last_mut().filter(|last| last.end == span.start) {
                Some(last) => last.end = span.end,
                None => self.spans.push(span),
            }
        }
    }

    /// What the positions cover that are stored now: everything settled that was taken before they were copied.
    fn take_stored(&mut self) -> Vec<Span> {
        let copied = self.copied;
        let mut stored = Vec::new();
        self.spans.retain_mut(|span| {
            let end = span.end.min(copied);
            if span.start < end {
                stored.push(Span { start: span.start, end });
                span.start = end;
            }
            span.start < span.end
        });
        stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_after_the_copy_of_the_positions_stays_in_the_spool() {
        let span = |start, end| Span { start, end };
        let spans = vec![span(0, 200), span(300, 400), span(500, 600)];
        let mut unstored = Unstored { spans, taken: 600, copied: 350 };
        // A copy is made between batches, so no batch is cut; a joined span may be.
        assert_eq!(unstored.take_stored(), [span(0, 200), span(300, 350)]);
        assert_eq!(unstored.spans, [span(350, 400), span(500, 600)]);
        assert_eq!(unstored.take_stored(), []);
        unstored.copied = unstored.taken;
        assert_eq!(unstored.take_stored(), [span(350, 400), span(500, 600)]);
        assert_eq!(unstored.spans, []);
    }
}
