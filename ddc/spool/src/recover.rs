//! From a directory to a log: what is there, what is whole, where to go on.
//!
//! 1. The checkpoint and the headers of all segments are read; another version or another link ends it here.
//! 2. Files at the end that have no header yet are removed or set aside.
//! 3. The end of every segment but the last is known from the header of the next one. The last one is read whole; what is no
//!    frame at its end is cut.
//! 4. Everything else is verified when it is read: so a large spool is open as quickly as a small one.
//!
//! A new segment is made for the first frame that is appended; an old one is never written again.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::{BESIDE, CHECKPOINT, Checkpoint, RESERVE};
use crate::disk::{Disk, DiskFile, read_full_at};
use crate::error::{Identity, OpenError};
use crate::frame::Span;
use crate::header::{HEADER_AREA, NoHeader, SegmentHeader, base_of_name, segment_name};
use crate::log::{Segment, Unsynced};
use crate::options::Options;
use crate::report::{Finding, OpenReport};
use crate::scan::{Damage, Found, Place, SEQUENTIAL, Scan};
use crate::sessions::Sessions;
use crate::stats::Counters;

/// Held by the process that has the directory open.
pub(crate) const LOCK: &str = "lock";
/// Behind the name of a file that was set aside.
const ASIDE: &str = ".bad";
/// No segment is longer: the largest frame behind an almost full segment, and some.
const LONGEST: u64 = 512 << 20;

/// What was found; [`crate::Spool`] makes a log of it.
pub(crate) struct Recovered {
    pub(crate) segments: VecDeque<Segment>,
    /// The position of the next frame.
    pub(crate) next: u64,
    pub(crate) lowest: u64,
    /// Positions at or above `lowest` that hold nothing.
    pub(crate) voids: Vec<Span>,
    pub(crate) sessions: Sessions,
    pub(crate) frames: u64,
    pub(crate) clock: Duration,
    pub(crate) durable: u64,
    pub(crate) unsynced: Vec<Unsynced>,
    pub(crate) table: Vec<u8>,
    pub(crate) has_reserve: bool,
    pub(crate) report: OpenReport,
}

/// A segment file as it was found.
struct SegmentFile {
    base: u64,
    file: Arc<dyn DiskFile>,
    len: u64,
    header: Option<SegmentHeader>,
}

impl SegmentFile {
    /// The position behind everything the file can hold.
    fn data_end(&self) -> u64 {
        self.base + self.len.saturating_sub(HEADER_AREA).min(LONGEST)
    }
}

/// What the last segment says, once it was read.
#[derive(Default)]
struct LastRead {
    end: u64,
    frames: u64,
}

/// Reads a directory that this process has locked, and mends what must be mended.
pub(crate) fn recover(
    disk: &dyn Disk,
    options: &Options,
    counters: &Arc<Counters>,
) -> Result<Recovered, OpenError> {
    Recovery { disk, options, counters, report: OpenReport::default() }.run()
}

struct Recovery<'a> {
    disk: &'a dyn Disk,
    options: &'a Options,
    counters: &'a Arc<Counters>,
    report: OpenReport,
}

impl Recovery<'_> {
    fn run(mut self) -> Result<Recovered, OpenError> {
        let (bases, has_reserve) = self.list()?;
        let checkpoint = self.checkpoint(!bases.is_empty())?;
        let mut found = self.headers(bases)?;
        let set_aside_end = self.drop_headless(&mut found)?;
        let mut sessions =
            checkpoint.as_ref().map(|checkpoint| checkpoint.sessions.clone()).unwrap_or_default();
        let mut clock = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.clock_micros);
        let (mut durable, mut frames, mut follows) = (0, 0, 0);
        let mut last_end = None;
        if let Some(last) = found.last() {
            let read = self.read_last(last, &mut sessions)?;
            if let Some(header) = &last.header {
                (durable, frames, follows) =
                    (header.durable, header.frames_before + read.frames, header.base);
                clock = clock.max(header.clock_micros);
            }
            last_end = Some(read.end);
        }
        let mut segments = ends(&found, last_end, clock);
        if let Some(empty) = segments.pop_back_if(|last| last.end == last.place.base) {
            self.io("segment cannot be removed:", &segment_name(empty.place.base), |disk, name| {
                disk.remove(name)
            })?;
            found.pop();
        }
        let first = segments.front().map_or(0, |first| first.place.base);
        let lowest = checkpoint.as_ref().map_or(first, |checkpoint| checkpoint.lowest);
        let stored_end = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.end);
        let (voids, cursor) = self.missing(&segments, &found, lowest);
        if stored_end > cursor {
            self.report.find(Finding::Missing(Span { start: cursor, end: stored_end }));
        }
        let next = cursor.max(stored_end).max(set_aside_end).max(follows);
        let unsynced = self.unsynced(&segments, found, durable);
        let all_durable = segments.iter().all(|segment| segment.end <= durable);
        let durable = if all_durable { next } else { durable.min(next) };
        let mut recovered = Recovered {
            segments,
            next,
            lowest,
            voids,
            sessions,
            frames,
            clock: Duration::from_micros(clock),
            durable,
            unsynced,
            table: checkpoint.map(|checkpoint| checkpoint.table).unwrap_or_default(),
            has_reserve,
            report: self.report,
        };
        recovered.voids.push(Span { start: cursor, end: next });
        Ok(recovered)
    }

    /// Tells segments from other files; a checkpoint that was not finished is removed.
    fn list(&mut self) -> Result<(Vec<u64>, bool), OpenError> {
        let entries = self.io("directory cannot be read:", "", |disk, _| disk.list())?;
        let (mut bases, mut has_reserve) = (Vec::new(), false);
        for entry in entries {
            match (base_of_name(&entry.name), entry.name.as_str()) {
                (Some(base), _) if entry.is_file => bases.push(base),
                (None, BESIDE) if entry.is_file => {
                    self.io("file cannot be removed:", BESIDE, |disk, name| disk.remove(name))?;
                }
                (None, RESERVE) if entry.is_file => has_reserve = true,
                (None, LOCK | CHECKPOINT) if entry.is_file => {}
                _ => self.report.find(Finding::Stranger(entry.name)),
            }
        }
        bases.sort_unstable();
        Ok((bases, has_reserve))
    }

    fn checkpoint(&mut self, has_segments: bool) -> Result<Option<Checkpoint>, OpenError> {
        match self.io("checkpoint cannot be read:", CHECKPOINT, |disk, _| Checkpoint::read(disk))? {
            None if has_segments => self.report.find(Finding::NoCheckpoint),
            None => {}
            Some(Ok(checkpoint)) => {
                self.check_identity(CHECKPOINT, &checkpoint.identity)?;
                return Ok(Some(checkpoint));
            }
            Some(Err(NoHeader::Version(version))) => return Err(self.version(CHECKPOINT, version)),
            Some(Err(NoHeader::Damaged)) => self.report.find(Finding::CheckpointDamaged),
        }
        Ok(None)
    }

    fn headers(&mut self, bases: Vec<u64>) -> Result<Vec<SegmentFile>, OpenError> {
        let mut found = Vec::with_capacity(bases.len());
        let mut bytes = vec![0; HEADER_AREA as usize];
        for base in bases {
            let name = segment_name(base);
            let file = self.io("segment cannot be opened:", &name, |disk, name| disk.open(name))?;
            let len = self.io("segment cannot be read:", &name, |_, _| file.len())?;
            // A place of the disk that cannot be read is damage like any other.
            let read = read_full_at(&*file, &mut bytes, 0).unwrap_or(0);
            let header = match SegmentHeader::decode(&bytes[..read]) {
                Ok((header, whole)) => {
                    self.check_identity(&name, &header.identity)?;
                    if header.base != base {
                        let should_be = segment_name(header.base);
                        self.report.find(Finding::Misnamed { file: name, should_be });
                        continue;
                    }
                    if !whole {
                        self.report.find(Finding::HeaderCopy { segment: name });
                    }
                    Some(header)
                }
                Err(NoHeader::Version(version)) => return Err(self.version(&name, version)),
                Err(NoHeader::Damaged) => None,
            };
            found.push(SegmentFile { base, file, len, header });
        }
        Ok(found)
    }

    /// Removes or sets aside what has no header at the end: made just before the power was cut, or damaged. Returns the
    /// position behind it, so that none of its positions is given out again.
    fn drop_headless(&mut self, found: &mut Vec<SegmentFile>) -> Result<u64, OpenError> {
        let mut behind = 0;
        while let Some(last) = found.pop_if(|last| last.header.is_none()) {
            let name = segment_name(last.base);
            if is_blank(&*last.file, last.len) {
                self.io("segment cannot be removed:", &name, |disk, name| disk.remove(name))?;
                self.report.find(Finding::Unfinished { segment: name });
                continue;
            }
            let file = format!("{name}{ASIDE}");
            self.io("segment cannot be renamed:", &name, |disk, name| disk.rename(name, &file))?;
            behind = behind.max(last.data_end());
            self.report
                .find(Finding::SetAside { file, span: Span { start: last.base, end: last.data_end() } });
        }
        Ok(behind)
    }

    /// Reads the frames of the last segment, notes their sessions, and cuts off what is none.
    fn read_last(&mut self, last: &SegmentFile, sessions: &mut Sessions) -> Result<LastRead, OpenError> {
        let Some(header) = &last.header else { return Ok(LastRead { end: last.data_end(), frames: 0 }) };
        sessions.merge(&header.sessions);
        let (name, end) = (segment_name(last.base), last.data_end());
        let place = Place { base: last.base, id: Some(header.id) };
        let mut scan = Scan::new(Arc::clone(&last.file), place, SEQUENTIAL, Arc::clone(self.counters));
        let (mut position, mut frames, mut pending) = (last.base, 0, Vec::<Damage>::new());
        let mut whole_end = position;
        while position < end {
            match scan.at(position, end) {
                Ok(Found::Frame(frame)) => {
                    for damage in pending.drain(..) {
                        self.report.find(Finding::Damaged(damage));
                    }
                    sessions.raise(frame.head.session, frame.head.block);
                    frames += 1;
                    position = frame.span.end;
                    whole_end = position;
                }
                Ok(Found::Damage(damage)) => {
                    position = damage.span.end;
                    // Of damage at the end only the sum is told.
                    pending.push(damage);
                }
                Err(error) => {
                    self.report.find(Finding::Unreadable { segment: name, error: error.to_string() });
                    return Ok(LastRead { end, frames });
                }
            }
        }
        let frames_cut = pending.iter().filter(|damage| damage.head.is_some()).count() as u64;
        let offset = place.file_offset(whole_end);
        let bytes = last.len.saturating_sub(offset);
        if bytes > 0 {
            self.io("segment cannot be cut:", &name, |_, _| {
                last.file.set_len(offset)?;
                last.file.sync_data()
            })?;
            self.report.find(Finding::TornTail { segment: name, offset, bytes, frames: frames_cut });
        }
        Ok(LastRead { end: whole_end, frames })
    }

    /// Finds what is missing between segments from `lowest` on. Returns what holds nothing, and the end of what holds something.
    fn missing(
        &mut self,
        segments: &VecDeque<Segment>,
        found: &[SegmentFile],
        lowest: u64,
    ) -> (Vec<Span>, u64) {
        let (mut voids, mut cursor) = (Vec::new(), lowest);
        for (segment, found) in segments.iter().zip(found) {
            if segment.end <= cursor {
                continue;
            }
            let base = segment.place.base;
            if base > cursor {
                let end = found.header.as_ref().map_or(base, |header| header.follows);
                if end > cursor {
                    self.report.find(Finding::Missing(Span { start: cursor, end }));
                }
                voids.push(Span { start: cursor, end: base });
            }
            if segment.place.id.is_none() {
                self.report.find(Finding::Header { segment: segment_name(base), span: segment.span() });
            }
            cursor = segment.end;
        }
        (voids, cursor)
    }

    /// Files that a former process may not have synced.
    fn unsynced(&self, segments: &VecDeque<Segment>, found: Vec<SegmentFile>, durable: u64) -> Vec<Unsynced> {
        if self.options.fsync == crate::options::Fsync::Never {
            return Vec::new();
        }
        let pairs = segments.iter().zip(found).filter(|(segment, _)| segment.end > durable);
        pairs
            .map(|(_, found)| Unsynced { base: found.base, file: found.file, new: true, failed: false })
            .collect()
    }

    fn check_identity(&self, name: &str, identity: &[u8]) -> Result<(), OpenError> {
        if identity == self.options.identity {
            return Ok(());
        }
        Err(OpenError::Foreign {
            path: self.path(name),
            found: Identity(identity.to_vec()),
            expected: Identity(self.options.identity.clone()),
        })
    }

    fn version(&self, name: &str, version: u32) -> OpenError {
        OpenError::Version { path: self.path(name), version }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.options.directory.join(name)
    }

    fn io<T>(
        &self,
        what: &'static str,
        name: &str,
        act: impl FnOnce(&dyn Disk, &str) -> io::Result<T>,
    ) -> Result<T, OpenError> {
        act(self.disk, name).map_err(|error| OpenError::Io {
            what,
            path: self.path(name),
            directory: self.options.directory.clone(),
            error,
        })
    }
}

/// Where each segment ends: where the next one says, but not behind its own file's end.
fn ends(found: &[SegmentFile], last_end: Option<u64>, clock_micros: u64) -> VecDeque<Segment> {
    let mut segments = VecDeque::with_capacity(found.len());
    for (at, this) in found.iter().enumerate() {
        let next = found.get(at + 1);
        let limit = next.map(|next| next.header.as_ref().map_or(next.base, |header| header.follows));
        let end = match limit {
            Some(limit) => this.data_end().min(limit).max(this.base),
            None => last_end.unwrap_or(this.base),
        };
        let newest =
            next.and_then(|next| next.header.as_ref()).map_or(clock_micros, |header| header.clock_micros);
        segments.push_back(Segment {
            place: Place { base: this.base, id: this.header.as_ref().map(|header| header.id) },
            end,
            frames_before: this.header.as_ref().map_or(0, |header| header.frames_before),
            made: Duration::from_micros(this.header.as_ref().map_or(newest, |header| header.clock_micros)),
            newest: Duration::from_micros(newest),
            sealed: true,
        });
    }
    segments
}

/// Whether a file that should be a segment has nothing in it: empty, or zeros only, as a power cut leaves it.
fn is_blank(file: &dyn DiskFile, len: u64) -> bool {
    let mut bytes = vec![0; SEQUENTIAL];
    let mut offset = 0;
    while offset < len.min(LONGEST) {
        match read_full_at(file, &mut bytes, offset) {
            Ok(0) => break,
            Ok(read) if bytes[..read].iter().all(|&byte| byte == 0) => offset += read as u64,
            _ => return false,
        }
    }
    true
}
