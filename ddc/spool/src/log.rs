//! What appender, readers, sync thread and settling share: which segments there are, and what is known of them.
//!
//! The mutex is held for bookkeeping only, never during I/O.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::checkpoint::Checkpointing;
use crate::disk::{Disk, DiskFile};
use crate::error::Refused;
use crate::frame::{Frame, Span};
use crate::header::HEADER_AREA;
use crate::options::Options;
use crate::scan::Place;
use crate::sessions::Sessions;
use crate::settled::Settled;
use crate::stats::{Counters, Stats};
use crate::tail::Tail;

/// Times of appends that are remembered for the age of the oldest frame.
const MAX_MARKS: usize = 4096;
/// They are at least so far apart.
const MARK_EVERY: Duration = Duration::from_secs(1);

/// Everything that the handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) log: Mutex<Log>,
    /// Something was appended, or the appender is gone.
    pub(crate) arrived: Condvar,
    /// Something is to be synced, or the sync thread is to end.
    pub(crate) dirty: Condvar,
    /// One sync at a time.
    pub(crate) syncing: Mutex<()>,
    /// One checkpoint at a time.
    pub(crate) checkpointing: Mutex<Checkpointing>,
    pub(crate) clock: Clock,
    /// Held until the last handle is gone.
    pub(crate) _lock: Option<File>,
}

/// Time during which a process had the spool open. No step of the system's clock can change it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) before: Duration,
    pub(crate) opened: Instant,
}

impl Clock {
    pub(crate) fn now(&self) -> Duration {
        self.before + self.opened.elapsed()
    }
}

/// A segment file.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) place: Place,
    /// The position behind its last frame.
    pub(crate) end: u64,
    /// Frames that were ever appended before it.
    pub(crate) frames_before: u64,
    pub(crate) made: Duration,
    /// When its last frame was appended.
    pub(crate) newest: Duration,
    /// Nothing will be appended to it.
    pub(crate) sealed: bool,
}

impl Segment {
    pub(crate) fn span(&self) -> Span {
        Span { start: self.place.base, end: self.end }
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        HEADER_AREA + self.span().bytes()
    }
}

/// A segment with bytes that may not be on disk.
#[derive(Debug, Clone)]
pub(crate) struct Unsynced {
    pub(crate) base: u64,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Its name may not be on disk either.
    pub(crate) new: bool,
    /// An fsync of it failed: no later one is believed.
    pub(crate) failed: bool,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Log {
    /// By position; the last one is being appended to, unless it is sealed.
    pub(crate) segments: VecDeque<Segment>,
    /// The position of the next frame.
    pub(crate) end: u64,
    pub(crate) tail: Tail,
    /// What is below was dropped and recorded as lost: nobody gets it any more, even if it is still there.
    pub(crate) dropped_below: u64,
    /// The positions of the readers by their numbers.
    pub(crate) readers: Vec<(u64, u64)>,
    pub(crate) next_reader: u64,
    pub(crate) settled: Settled,
    pub(crate) sessions: Sessions,
    /// Frames that were ever appended.
    pub(crate) frames: u64,
    /// Bytes of all segments.
    pub(crate) bytes: u64,
    /// When positions were appended; the first is at or below the lowest unsettled one.
    pub(crate) marks: VecDeque<(u64, Duration)>,
    pub(crate) unsynced: Vec<Unsynced>,
    /// When the first frame was appended that no sync has begun for.
    pub(crate) first_unsynced: Option<Instant>,
    /// The same of the sync that is going on.
    pub(crate) being_synced: Option<Instant>,
    pub(crate) durable: u64,
    pub(crate) doubtful: Vec<Span>,
    /// The segment that is appended to is not to be trusted any more.
    pub(crate) roll: bool,
    pub(crate) refusing: Option<Refused>,
    /// A frame was refused for want of room, and nothing was dropped for it yet.
    pub(crate) room_wanted: bool,
    /// A segment was removed: a disk that was full need not be left alone any longer.
    pub(crate) room_made: bool,
    pub(crate) fsync_error: Option<String>,
    pub(crate) checkpoint_error: Option<String>,
    /// The appender is gone.
    pub(crate) closed: bool,
    /// The sync thread is to end.
    pub(crate) stop: bool,
}

/// What a reader finds at its position.
#[derive(Debug)]
pub(crate) enum Located {
    /// Nothing yet.
    End,
    /// It is in memory.
    Memory(Frame),
    /// It is in this segment's file.
    Disk(Segment),
    /// Nothing is here; the next frame is there. True: what was here is gone.
    Jump(u64, bool),
}

impl Log {
    pub(crate) fn locate(&self, position: u64) -> Located {
        if position >= self.end {
            return Located::End;
        }
        if position < self.dropped_below {
            return Located::Jump(self.dropped_below, true);
        }
        if let Some(frame) = self.tail.get(position) {
            return Located::Memory(frame.clone());
        }
        let at = self.segments.partition_point(|segment| segment.end <= position);
        match self.segments.get(at) {
            Some(segment) if segment.place.base <= position => Located::Disk(segment.clone()),
            Some(segment) => Located::Jump(segment.place.base, at == 0),
            None => Located::Jump(self.end, self.segments.is_empty()),
        }
    }

    /// Notes where a reader is; frames that all have passed leave the memory.
    pub(crate) fn reader_at(&mut self, number: u64, position: u64) {
        if let Some(reader) = self.readers.iter_mut().find(|reader| reader.0 == number) {
            reader.1 = position;
        }
        if let Some(passed) = self.readers.iter().map(|reader| reader.1).min() {
            self.tail.forget_below(passed);
        }
    }

    /// Notes that what is appended from `position` on is appended now.
    pub(crate) fn mark(&mut self, position: u64, now: Duration) {
        if self.marks.back().is_some_and(|&(_, last)| now < last + MARK_EVERY) {
            return;
        }
        let lowest = self.settled.lowest();
        while self.marks.get(1).is_some_and(|&(second, _)| second <= lowest) {
            self.marks.pop_front();
        }
        if self.marks.len() >= MAX_MARKS {
            let mut keep = false;
            self.marks.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.marks.push_back((position, now));
    }

    fn oldest_age(&self, now: Duration) -> Duration {
        let lowest = self.settled.lowest();
        if lowest >= self.end {
            return Duration::ZERO;
        }
        let behind = self.marks.partition_point(|&(position, _)| position <= lowest);
        let mark = self.marks.get(behind.saturating_sub(1));
        mark.map_or(Duration::ZERO, |&(_, at)| now.saturating_sub(at))
    }
}

impl Shared {
    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }

    pub(crate) fn stats(&self) -> Stats {
        let log = self.log();
        let first = log.segments.front().map_or(log.frames, |segment| segment.frames_before);
        Stats {
            counts: self.counters.counts(),
            segments: log.segments.len(),
            bytes: log.bytes,
            frames: log.frames - first,
            lowest: log.settled.lowest(),
            end: log.end,
            durable: log.durable,
            oldest_age: log.oldest_age(self.clock.now()),
            durable_lag: log
                .being_synced
                .or(log.first_unsynced)
                .map_or(Duration::ZERO, |since| since.elapsed()),
            doubtful: log.doubtful.clone(),
            tail_bytes: log.tail.bytes(),
            islands: log.settled.islands(),
            refusing: log.refusing.as_ref().map(ToString::to_string),
            fsync_error: log.fsync_error.clone(),
            checkpoint_error: log.checkpoint_error.clone(),
        }
    }
}

/// A thread that panicked while it held a lock left nothing half done: only bookkeeping is done under them.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
