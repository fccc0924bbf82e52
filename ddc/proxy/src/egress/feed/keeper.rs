//! The keeper: the spool's housekeeping on a thread of its own, since it waits for the disk, and since the sink thread can be held
//! for hours by a destination that is away.
//!
//! Once a second: a checkpoint, which trims what is settled, if anything has changed; the measurements; and what is wrong is said.
//! Oftener, when the oldest may be dropped: while there is no room the oldest segment is read, what is lost is said by partition, and then
//! it is let go. Its end leaves a last checkpoint, so that a planned restart reads nothing twice.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use ddc_link::receiver::{MissingReason, Unpacker};
use ddc_spool::{Condemned, Counts, Lost, Stats, WhenFull, Why};
use ddc_telemetry::log::RateLimit;
use ddc_telemetry::reasons::{SpoolDrop, SpoolOperation, SpoolRefusal};
use ddc_telemetry::{EgressMetrics, LinkMetrics};
use rustix::fs::statvfs;

use super::lost::Losses;
use super::spooled::{Common, lock};
use crate::egress::shared::{Shared, SpoolView};

/// Checkpoints and measurements.
const EACH: Duration = Duration::from_secs(1);
/// Looks for something that must go, when room is made by dropping: two segments of room last for seconds.
const LOOK_EACH: Duration = Duration::from_millis(100);
/// A checkpoint is written this often though nothing was settled or appended: the spool's clock is in it.
const CHECKPOINT_IDLE: Duration = Duration::from_mins(1);
/// One kind of trouble is logged this often at most.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// Partitions named in the log for each segment that goes; the number of the others is said.
const NAMED: usize = 64;

/// The thread; it ends, after a last checkpoint, when this is dropped.
pub(super) struct Keeper {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What it is made of.
pub(super) struct KeeperParts {
    pub(super) common: Arc<Common>,
    pub(super) when_full: WhenFull,
    pub(super) limit_bytes: u64,
    pub(super) directory: std::path::PathBuf,
    pub(super) max_batch_bytes: usize,
    pub(super) metrics: Arc<LinkMetrics<EgressMetrics>>,
    pub(super) shared: Arc<Shared>,
}

impl Keeper {
    /// Starts it.
    pub(super) fn start(parts: KeeperParts) -> std::io::Result<Self> {
        let (stop, stopped) = bounded(0);
        let name = format!("ddc-spool-{}", parts.common.link);
        let limit = RateLimit::new(LOG_EVERY);
        let mut running =
            Running { parts, told: Counts::default(), kept: None, kept_at: Instant::now(), limit };
        running.measure();
        let thread = thread::Builder::new().name(name).spawn(move || running.run(&stopped))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // Should it have panicked, the next start reads a little more again.
            let _ = thread.join();
        }
    }
}

struct Running {
    parts: KeeperParts,
    /// What telemetry has been told.
    told: Counts,
    /// Lowest unsettled position, end and table of the last checkpoint.
    kept: Option<(u64, u64, Vec<u8>)>,
    kept_at: Instant,
    limit: RateLimit<&'static str>,
}

impl Running {
    fn run(mut self, stopped: &Receiver<()>) {
        let each = if self.parts.when_full == WhenFull::DropOldest { LOOK_EACH } else { EACH };
        let mut kept_house = Instant::now();
        while stopped.recv_timeout(each) == Err(RecvTimeoutError::Timeout) {
            self.drop_oldest();
            if kept_house.elapsed() >= EACH {
                kept_house = Instant::now();
                self.checkpoint();
                self.measure();
            }
        }
        self.checkpoint();
        self.measure();
    }

    /// Replaces the checkpoint, if it would say something else.
    fn checkpoint(&mut self) {
        let spool = &self.parts.common.spool;
        let table = lock(&self.parts.common.notes).encode();
        let now = (spool.lowest(), spool.end(), table);
        let idle = now.0 == now.1 || self.kept_at.elapsed() < CHECKPOINT_IDLE;
        if idle && self.kept.as_ref() == Some(&now) {
            return;
        }
        match spool.checkpoint(&now.2) {
            Ok(_) => (self.kept, self.kept_at) = (Some(now), Instant::now()),
            Err(error) => self.trouble("checkpoint", &error.to_string()),
        }
    }

    /// Lets go of what must go: too old, or in the way of what comes.
    fn drop_oldest(&mut self) {
        // Ends: each turn removes a segment, or leaves.
        while let Some(condemned) = self.parts.common.spool.condemned() {
            if !self.let_go(condemned) {
                return;
            }
        }
    }

    /// Whether it is gone.
    fn let_go(&mut self, mut condemned: Condemned) -> bool {
        let common = Arc::clone(&self.parts.common);
        let (why, span) = (condemned.why(), condemned.span());
        let read_to = {
            let mut gate = lock(&common.gate);
            gate.closed_below = gate.closed_below.max(span.end);
            gate.read_to
        };
        let Ok(mut unpacker) = Unpacker::new(self.parts.max_batch_bytes) else { return false };
        let mut losses = Losses::default();
        loop {
            match condemned.next_lost() {
                Ok(None) => break,
                // What the sink thread has taken is in memory and on its way: not lost, unless this process dies.
                Ok(Some(Lost::Frame(frame))) if frame.span.start < read_to => {}
                Ok(Some(Lost::Frame(frame))) => losses.add(&frame, &mut unpacker),
                Ok(Some(Lost::Damaged(damage))) => {
                    self.trouble("damaged", &damage.to_string());
                    losses.unnamed += 1;
                }
                Err(error) => {
                    self.trouble("read", &error.to_string());
                    losses.unnamed += 1;
                    if condemned.skip().is_none() {
                        break;
                    }
                }
            }
        }
        let (reason, label) = match why {
            Why::Room => (MissingReason::SpoolFull, SpoolDrop::Room),
            Why::Age => (MissingReason::SpoolExpired, SpoolDrop::Age),
        };
        self.say(&losses, why);
        self.parts.metrics.spool_batches_dropped.add(label, losses.frames);
        // On disk before the segment goes: a restart in between must know the reason as well.
        lock(&common.notes).add(span, reason);
        let table = lock(&common.notes).encode();
        let gone = common.spool.checkpoint(&table).and_then(|_| condemned.let_go());
        self.kept = None;
        if let Err(error) = gone {
            self.trouble("checkpoint", &error.to_string());
            return false;
        }
        true
    }

    fn say(&self, losses: &Losses, why: Why) {
        let link = &self.parts.common.link;
        let why = match why {
            Why::Room => "the spool is full and when_full = \"drop_oldest\"",
            Why::Age => "it was older than max_age",
        };
        tracing::error!(
            link,
            batches = losses.frames,
            records = losses.records,
            unnamed = losses.unnamed,
            why,
            "the oldest file of the spool was dropped; what the destination lacks of it is named as missing when it takes what follows"
        );
        let mut partitions = losses.by_partition();
        for loss in partitions.by_ref().take(NAMED) {
            tracing::error!(
                link,
                stream = loss.stream,
                topic = loss.topic,
                topic_id = loss.topic_id,
                partition = loss.partition,
                first = loss.range.first,
                last = loss.range.last,
                records = loss.records,
                "dropped from the spool"
            );
        }
        let more = partitions.count();
        if more > 0 {
            tracing::error!(link, partitions = more, "dropped from the spool: more partitions");
        }
    }

    fn trouble(&mut self, kind: &'static str, error: &str) {
        if let Some(suppressed) = self.limit.allow(kind, Instant::now()) {
            tracing::error!(
                link = self.parts.common.link,
                kind,
                error,
                suppressed,
                "the spool is in trouble; what is not lost stays, and it is tried again"
            );
        }
    }

    /// Tells telemetry and `/status`.
    fn measure(&mut self) {
        let stats = self.parts.common.spool.stats();
        let metrics = Arc::clone(&self.parts.metrics);
        let (now, told) = (stats.counts, self.told);
        for (counter, now, told) in [
            (&metrics.spool_batches_appended, now.appended_frames, told.appended_frames),
            (&metrics.spool_appended_bytes, now.appended_bytes, told.appended_bytes),
            (&metrics.spool_read_bytes, now.disk_read_bytes, told.disk_read_bytes),
            (&metrics.spool_damaged_places, now.damaged, told.damaged),
            (&metrics.spool_fsyncs, now.fsyncs, told.fsyncs),
        ] {
            counter.add(now.saturating_sub(told));
        }
        for (reason, now, told) in [
            (SpoolRefusal::Full, now.refused_full, told.refused_full),
            (SpoolRefusal::DiskFull, now.refused_disk_full, told.refused_disk_full),
            (SpoolRefusal::Error, now.refused_io, told.refused_io),
            (SpoolRefusal::TooLarge, now.refused_too_large, told.refused_too_large),
        ] {
            metrics.spool_batches_refused.add(reason, now.saturating_sub(told));
        }
        for (operation, now, told) in [
            (SpoolOperation::Write, now.write_errors, told.write_errors),
            (SpoolOperation::Read, now.read_errors, told.read_errors),
            (SpoolOperation::Fsync, now.fsync_errors, told.fsync_errors),
            (SpoolOperation::Checkpoint, now.checkpoint_errors, told.checkpoint_errors),
            (SpoolOperation::Remove, now.remove_errors, told.remove_errors),
        ] {
            metrics.spool_errors.add(operation, now.saturating_sub(told));
        }
        if now.fsync_errors > told.fsync_errors {
            let error = stats.fsync_error.clone().unwrap_or_default();
            self.trouble("fsync", &format!("data cannot be forced onto the disk: {error}"));
        }
        self.told = now;
        self.show(&stats);
    }

    fn show(&self, stats: &Stats) {
        let metrics = &self.parts.metrics;
        let free = statvfs(&self.parts.directory).ok();
        let free = free.map(|system| system.f_bavail.saturating_mul(system.f_frsize));
        let doubtful: u64 = stats.doubtful.iter().map(|span| span.bytes()).sum();
        let waiting = stats.end.saturating_sub(stats.lowest);
        metrics.spool_bytes.set(stats.bytes as f64);
        metrics.spool_limit_bytes.set(self.parts.limit_bytes as f64);
        metrics.spool_waiting_bytes.set(waiting as f64);
        metrics.spool_oldest_age_seconds.set(stats.oldest_age.as_secs_f64());
        metrics.spool_unsynced_seconds.set(stats.durable_lag.as_secs_f64());
        metrics.spool_doubtful_bytes.set(doubtful as f64);
        metrics.spool_refusing.set(i64::from(stats.refusing.is_some()));
        if let Some(free) = free {
            metrics.spool_disk_free_bytes.set(free as f64);
        }
        let view = SpoolView {
            directory: self.parts.directory.display().to_string(),
            bytes: stats.bytes,
            limit_bytes: self.parts.limit_bytes,
            waiting_bytes: waiting,
            unread_bytes: stats.end.saturating_sub(lock(&self.parts.common.gate).read_to),
            oldest_age_seconds: stats.oldest_age.as_secs_f64(),
            segments: stats.segments,
            unsynced_seconds: stats.durable_lag.as_secs_f64(),
            doubtful_bytes: doubtful,
            disk_free_bytes: free,
            taken_batches: self.parts.common.taken.load(Relaxed),
            refusing: stats.refusing.clone(),
            fsync_error: stats.fsync_error.clone(),
            checkpoint_error: stats.checkpoint_error.clone(),
        };
        *crate::egress::shared::lock(&self.parts.shared.spool) = Some(view);
    }
}
