//! What every way out keeps of what it was given, whatever the destination: partitions by number, refusals, reports, and
//! what survives a restart.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ddc_link::receiver::{OffsetRange, Positions};
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
    filled: Filled,
    pub(crate) limit: RateLimit<&'static str>,
    pub(crate) control: Arc<Control>,
    pub(crate) tick: Tick,
    settler: Settler,
    pub(crate) shared: Arc<Shared>,
    store: Store,
    stored_at: Instant,
}

impl Books {
    pub(crate) fn new(parts: BooksParts) -> Self {
        Self {
            partitions: Partitions::default(),
            metrics: parts.metrics,
            report: parts.report,
            refused: RefusedRuns::default(),
            filled: Filled::default(),
            limit: RateLimit::new(LOG_EVERY),
            control: parts.control,
            tick: parts.tick,
            settler: parts.settler,
            shared: parts.shared,
            store: parts.store,
            stored_at: Instant::now(),
        }
    }

    /// The destination will never have the record: it becomes a missing range.
    pub(crate) fn report_refused(&mut self, slot: u32, offset: i64, why: impl FnOnce() -> String) {
        self.filled.refused(slot, offset);
        let Some(partition) = self.partitions.name(slot) else { return };
        self.refused.push(slot, partition, offset, why, &self.report);
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

    /// Everything of a batch is settled.
    pub(crate) fn recycle(&self, item: Arc<Item>) {
        self.settler.settle(item);
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
    }

    /// Everything that these positions say was handed over before the last [`Self::checkpoint`] is acknowledged.
    pub(crate) fn acknowledged(&mut self, positions: &Positions) {
        let written = self.store.write_positions(positions);
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
