//! Forces data onto the disk, on a thread of its own, so that no append waits for it.
//!
//! Order: the files, oldest first; then their directory, if one is new; only then is anything called durable. So a frame is
//! durable only when its file's name is, and everything before it.
//!
//! After an fsync that failed the kernel may have marked pages as clean that are not on disk, so a later one that succeeds
//! says nothing about them (PostgreSQL learned this in 2018). Such a segment is never believed again: what was not durable
//! is called doubtful, and the appender goes on in a new segment.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::frame::Span;
use crate::log::{Log, Segment, Shared, Unsynced};
use crate::options::Fsync;
use crate::stats::count;

/// The thread; it ends, after a last sync, when the last handle is dropped.
#[derive(Debug)]
pub(crate) struct SyncThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl SyncThread {
    /// Starts it under [`Fsync::Interval`]; otherwise there is nothing for it to do.
    pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        let thread = match shared.options.fsync {
            Fsync::Interval(interval) => {
                let shared = Arc::clone(shared);
                let builder = thread::Builder::new().name("ddc-spool-sync".into());
                Some(builder.spawn(move || shared.sync_each(interval))?)
            }
            Fsync::Always | Fsync::Never => None,
        };
        Ok(Self { shared: Arc::clone(shared), thread })
    }
}

impl Drop for SyncThread {
    fn drop(&mut self) {
        self.shared.log().stop = true;
        self.shared.dirty.notify_all();
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, its last sync is made up for here.
            let _ = thread.join();
        }
        if self.shared.options.fsync != Fsync::Never {
            // What fails is counted; there is nobody left to tell.
            let _ = self.shared.sync();
        }
    }
}

impl Shared {
    fn sync_each(&self, interval: Duration) {
        loop {
            let mut log = self.log();
            loop {
                if log.stop {
                    return;
                }
                let left = match log.first_unsynced {
                    Some(since) => interval.saturating_sub(since.elapsed()),
                    None => Duration::MAX,
                };
                if left.is_zero() {
                    break;
                }
                // A day is as good as for ever, and no system overflows.
                let waited = self.dirty.wait_timeout(log, left.min(Duration::from_hours(24)));
                log = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
            }
            drop(log);
            if self.sync().is_err() {
                // It is tried again after the interval, not at once.
                self.log().first_unsynced.get_or_insert_with(Instant::now);
            }
        }
    }

    /// Forces everything that was appended so far onto the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let _one = crate::log::lock(&self.syncing);
        let (targets, end) = {
            let mut log = self.log();
            log.being_synced = log.first_unsynced.take();
            (log.targets(), log.end)
        };
        let (mut failed, mut first_error) = (Vec::new(), None);
        for target in &targets {
            let synced = if target.failed {
                Err(io::Error::other("an earlier fsync of the segment failed"))
            } else {
                self.options.fsync_observer.timed(|| target.file.sync_data())
            };
            match synced {
                Ok(()) => count(&self.counters.fsyncs),
                Err(error) => {
                    count(&self.counters.fsync_errors);
                    failed.push(target.base);
                    first_error.get_or_insert(error);
                }
            }
        }
        let names = if targets.iter().any(|target| target.new) { self.disk.sync_directory() } else { Ok(()) };
        let mut log = self.log();
        log.being_synced = None;
        if let Err(error) = names {
            count(&self.counters.fsync_errors);
            log.fsync_error = Some(error.to_string());
            for unsynced in &mut log.unsynced {
                unsynced.failed |= failed.contains(&unsynced.base);
            }
            return Err(error);
        }
        log.synced(&targets, &failed, end);
        log.fsync_error = first_error.as_ref().map(ToString::to_string);
        first_error.map_or(Ok(()), Err)
    }
}

impl Log {
    /// What is to be synced: not what failed before and has got nothing new since.
    fn targets(&self) -> Vec<Unsynced> {
        let is_new = |base| self.segment(base).is_some_and(|segment| segment.end > self.durable);
        self.unsynced.iter().filter(|unsynced| !unsynced.failed || is_new(unsynced.base)).cloned().collect()
    }

    fn segment(&self, base: u64) -> Option<&Segment> {
        let at = self.segments.binary_search_by_key(&base, |segment| segment.place.base);
        at.ok().and_then(|at| self.segments.get(at))
    }

    /// Takes note of a sync of everything before `end`.
    fn synced(&mut self, targets: &[Unsynced], failed: &[u64], end: u64) {
        let durable = self.durable;
        for segment in self.segments.iter().filter(|segment| failed.contains(&segment.place.base)) {
            let span = Span { start: durable.max(segment.place.base), end: end.min(segment.end) };
            match self.doubtful.last_mut().filter(|last| last.end == span.start) {
                Some(last) => last.end = span.end,
                None if span.bytes() > 0 => self.doubtful.push(span),
                None => {}
            }
        }
        let lowest = self.settled.lowest();
        self.doubtful.retain(|span| span.end > lowest);
        self.durable = durable.max(end);
        self.roll |= !failed.is_empty();
        let mut unsynced = std::mem::take(&mut self.unsynced);
        for done in unsynced.iter_mut().filter(|done| targets.iter().any(|target| target.base == done.base)) {
            done.new = false;
            done.failed |= failed.contains(&done.base);
        }
        // What is still appended to stays, and what got more since `end` was taken.
        unsynced.retain(|left| {
            self.segment(left.base).is_some_and(|segment| !segment.sealed || segment.end > end)
        });
        self.unsynced = unsynced;
    }
}
