//! Opening a spool, and the handle for everything that is neither appending nor reading in order.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use crate::append::Appender;
use crate::checkpoint::Checkpointing;
use crate::condemned::Condemned;
use crate::disk::{Disk, RealDisk};
use crate::error::{CheckpointError, OpenError, ReadError};
use crate::frame::{Frame, Span};
use crate::log::{Clock, Log, Shared};
use crate::options::{Fsync, Options};
use crate::read::{Reader, read_one};
use crate::recover::{LOCK, Recovered, recover};
use crate::report::{Finding, OpenReport};
use crate::sessions::SessionMark;
use crate::settled::{SettleError, Settled};
use crate::stats::{Counters, Stats};
use crate::sync::SyncThread;
use crate::tail::Tail;

/// A handle of an open spool; clones are the same spool. It is closed when all handles, readers and the appender are gone.
#[derive(Debug, Clone)]
pub struct Spool {
    pub(crate) shared: Arc<Shared>,
    thread: Arc<SyncThread>,
}

/// What [`Spool::open`] gives.
#[derive(Debug)]
pub struct Opened {
    /// Settling, single frames, checkpoints, statistics.
    pub spool: Spool,
    /// The only one who appends.
    pub appender: Appender,
    /// Begins at the lowest unsettled position.
    pub reader: Reader,
    /// What was found.
    pub report: OpenReport,
}

impl Spool {
    /// Opens the spool of a directory, which is made if it is missing, and locks it.
    pub fn open(options: Options) -> Result<Opened, OpenError> {
        options.check()?;
        let (disk, lock) = lock_directory(&options.directory)?;
        Self::open_on(Arc::new(disk), options, Some(lock))
    }

    pub(crate) fn open_on(
        disk: Arc<dyn Disk>,
        options: Options,
        lock: Option<File>,
    ) -> Result<Opened, OpenError> {
        let opened = Instant::now();
        let counters = Arc::new(Counters::default());
        let directory = options.directory.clone();
        let mut recovered = recover(&*disk, &options, &counters)?;
        let mut report = std::mem::take(&mut recovered.report);
        let clock = Clock { before: recovered.clock, opened };
        let table = std::mem::take(&mut recovered.table);
        let checkpointing =
            Mutex::new(Checkpointing { table: table.clone(), has_reserve: recovered.has_reserve });
        let shared = Arc::new(Shared {
            log: Mutex::new(log_of(recovered, &options)),
            options,
            disk,
            counters,
            arrived: Condvar::new(),
            dirty: Condvar::new(),
            syncing: Mutex::new(()),
            checkpointing,
            clock,
            _lock: lock,
        });
        // What a former process left unsynced comes before anything that this one calls durable.
        if shared.options.fsync == Fsync::Always {
            // What fails is doubtful from now on, and the statistics say so: no reason not to go on.
            let _ = shared.sync();
        }
        if let Err(error) = shared.checkpoint(None) {
            report.find(Finding::CheckpointFailed(error.to_string()));
        }
        let failed = |error| OpenError::Io {
            what: "sync thread cannot be started for",
            path: directory.clone(),
            directory,
            error,
        };
        let thread = Arc::new(SyncThread::start(&shared).map_err(failed)?);
        let spool = Self { shared: Arc::clone(&shared), thread };
        let stats = spool.stats();
        report.segments = stats.segments;
        report.bytes = stats.bytes;
        report.frames = stats.frames;
        report.lowest = stats.lowest;
        report.end = stats.end;
        report.sessions = spool.sessions();
        report.table = table;
        report.took = opened.elapsed();
        let appender = Appender::new(shared, Arc::clone(&spool.thread));
        let reader = spool.reader_at(report.lowest);
        Ok(Opened { spool, appender, reader, report })
    }

    /// One more reader, from a position that a frame has or had, or [`Self::lowest`].
    pub fn reader_at(&self, position: u64) -> Reader {
        Reader::new(Arc::clone(&self.shared), Arc::clone(&self.thread), position)
    }

    /// The frame at a position, from memory or from its file. The position must be one that a frame has.
    pub fn read(&self, position: u64) -> Result<Frame, ReadError> {
        read_one(&self.shared, position)
    }

    /// Notes that a frame, or a range whose loss is recorded, need not be kept any longer. Order does not matter.
    pub fn settle(&self, span: Span) -> Result<(), SettleError> {
        let mut log = self.shared.log();
        if span.end > log.end {
            return Err(SettleError::Beyond { end: span.end, log_end: log.end });
        }
        log.settled.add(span)
    }

    /// Settles everything below a position: what the destination's progress says after a restart.
    pub fn settle_below(&self, position: u64) -> Result<(), SettleError> {
        self.settle(Span { start: 0, end: position })
    }

    /// Whether all of a span is settled.
    pub fn is_settled(&self, span: Span) -> bool {
        self.shared.log().settled.contains(span)
    }

    /// The lowest position that is not settled.
    pub fn lowest(&self) -> u64 {
        self.shared.log().settled.lowest()
    }

    /// The position of the next frame.
    pub fn end(&self) -> u64 {
        self.shared.log().end
    }

    /// Up to where everything is on disk, but for [`Stats::doubtful`].
    pub fn synced(&self) -> u64 {
        self.shared.log().durable
    }

    /// Forces everything that was appended so far onto the disk, and waits for it.
    pub fn sync(&self) -> io::Result<()> {
        self.shared.sync()
    }

    /// Replaces the checkpoint and then removes segments below the lowest unsettled position. `table` (at most
    /// [`crate::MAX_TABLE`] bytes) comes back in [`OpenReport::table`]. Returns the lowest unsettled position it says.
    ///
    /// Waits for the disk: not for a thread that must not. Once a second is often enough.
    pub fn checkpoint(&self, table: &[u8]) -> Result<u64, CheckpointError> {
        self.shared.checkpoint(Some(table))
    }

    /// The highest block of each session.
    pub fn sessions(&self) -> Vec<SessionMark> {
        self.shared.log().sessions.marks().to_vec()
    }

    /// The oldest segment, when it must go: see [`crate::WhenFull::DropOldest`] and [`Options::max_age`]. To be asked each second
    /// or so, and after an append was refused, until it says `None`.
    pub fn condemned(&self) -> Option<Condemned> {
        self.shared.condemned()
    }

    /// What was counted, and how it stands.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }
}

fn log_of(recovered: Recovered, options: &Options) -> Log {
    let mut settled = Settled::new(recovered.lowest, options.max_islands);
    for void in recovered.voids {
        settled.add_void(void);
    }
    let made: Vec<_> = recovered.segments.iter().map(|segment| (segment.place.base, segment.made)).collect();
    Log {
        bytes: recovered.segments.iter().map(crate::log::Segment::file_bytes).sum(),
        segments: recovered.segments,
        end: recovered.next,
        tail: Tail::new(options.tail_bytes),
        dropped_below: 0,
        readers: Vec::new(),
        next_reader: 0,
        settled,
        sessions: recovered.sessions,
        frames: recovered.frames,
        marks: made.into(),
        first_unsynced: (!recovered.unsynced.is_empty()).then(Instant::now),
        being_synced: None,
        unsynced: recovered.unsynced,
        durable: recovered.durable,
        doubtful: Vec::new(),
        roll: false,
        refusing: None,
        room_wanted: false,
        room_made: false,
        fsync_error: None,
        checkpoint_error: None,
        closed: false,
        stop: false,
    }
}

/// Opens the directory, makes it when it is missing, and locks it as the state directory is locked.
fn lock_directory(path: &Path) -> Result<(RealDisk, File), OpenError> {
    let failed = |what, error| OpenError::Io { what, path: path.into(), directory: path.into(), error };
    if !path.is_dir() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| failed("directory cannot be created:", error))?;
        // Its name must survive a power cut as well; a parent that cannot be opened was not ours to make it in.
        let _ = path.parent().map(|parent| File::open(parent).and_then(|parent| parent.sync_all()));
    }
    let disk = RealDisk::open(path.into()).map_err(|error| failed("directory cannot be opened:", error))?;
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    let lock = options.open(path.join(LOCK)).map_err(|error| failed("lock cannot be opened in", error))?;
    match lock.try_lock() {
        Ok(()) => Ok((disk, lock)),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.into())),
        Err(TryLockError::Error(error)) => Err(failed("directory cannot be locked:", error)),
    }
}
