//! Readers: frames in order, from memory where they still are, else from the files.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::error::ReadError;
use crate::frame::{Frame, Span};
use crate::header::segment_name;
use crate::log::{Located, Segment, Shared};
use crate::scan::{Damage, Found, SEQUENTIAL, SINGLE, Scan};
use crate::stats::count;
use crate::sync::SyncThread;

/// Reads the log in order from some position on. Several may read at once, each at its own pace.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    number: u64,
    position: u64,
    scan: Option<Scan>,
    _thread: Arc<SyncThread>,
}

/// What a reader got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The next frame.
    Frame(Frame),
    /// Something that cannot be given back; the reader stands behind it. Settle its span when the loss is recorded.
    Damaged(Damage),
    /// What was here has been trimmed or dropped meanwhile; the reader stands behind it.
    Skipped(Span),
    /// Nothing came in time.
    Nothing,
    /// The appender is gone and everything was read.
    Closed,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, thread: Arc<SyncThread>, position: u64) -> Self {
        let number = {
            let mut log = shared.log();
            log.next_reader += 1;
            let number = log.next_reader;
            log.readers.push((number, position));
            number
        };
        Self { shared, number, position, scan: None, _thread: thread }
    }

    /// Where it stands: the position of the next frame.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next frame, waited for at most so long. After an error the reader stands where it stood.
    pub fn next(&mut self, wait: Duration) -> Result<Next, ReadError> {
        let deadline = Instant::now() + wait;
        loop {
            let segment = {
                let mut log = self.shared.log();
                match log.locate(self.position) {
                    Located::Memory(frame) => {
                        self.position = frame.span.end;
                        log.reader_at(self.number, self.position);
                        drop(log);
                        // It would be of no use when the reader falls behind again.
                        self.scan = None;
                        return Ok(Next::Frame(frame));
                    }
                    Located::Disk(segment) => segment,
                    Located::Jump(to, gone) => {
                        let span = Span { start: self.position, end: to };
                        self.position = to;
                        log.reader_at(self.number, to);
                        if gone {
                            return Ok(Next::Skipped(span));
                        }
                        continue;
                    }
                    Located::End if log.closed => return Ok(Next::Closed),
                    Located::End => {
                        let left = deadline.saturating_duration_since(Instant::now());
                        if left.is_zero() {
                            return Ok(Next::Nothing);
                        }
                        // Woken for nothing or in time: the loop looks again.
                        drop(self.shared.arrived.wait_timeout(log, left));
                        continue;
                    }
                }
            };
            if let Some(next) = self.read_file(&segment)? {
                return Ok(next);
            }
        }
    }

    /// Gives up what cannot be read at the reader's position (after [`ReadError::Io`] that does not go away), up to the next
    /// frame that can be. `None` when the reader is at the end.
    pub fn skip(&mut self) -> Option<Damage> {
        let located = self.shared.log().locate(self.position);
        let Located::Disk(segment) = located else { return None };
        let opened = self.open(&segment);
        let damage = match (&mut self.scan, opened) {
            (Some(scan), Ok(())) => scan.skip(self.position, segment.end),
            (None, Ok(())) => return None,
            (_, Err(_)) => whole(&segment, self.position),
        };
        self.advance(damage.span.end);
        self.note(&damage);
        Some(damage)
    }

    fn read_file(&mut self, segment: &Segment) -> Result<Option<Next>, ReadError> {
        let position = self.position;
        self.open(segment).map_err(|error| read_error(&self.shared, segment, position, error))?;
        // Trimmed or dropped between the look and the opening: look again.
        let Some(scan) = &mut self.scan else { return Ok(None) };
        let found = scan.at(position, segment.end).map_err(|error| {
            // The buffer may be half filled.
            self.scan = None;
            read_error(&self.shared, segment, position, error)
        })?;
        Ok(Some(match found {
            Found::Frame(frame) => {
                self.advance(frame.span.end);
                Next::Frame(frame)
            }
            Found::Damage(damage) => {
                self.advance(damage.span.end);
                self.note(&damage);
                Next::Damaged(damage)
            }
        }))
    }

    /// Opens the segment's file, unless it is open already; there is no scan when it is gone.
    fn open(&mut self, segment: &Segment) -> io::Result<()> {
        if self.scan.as_ref().is_none_or(|scan| scan.place() != segment.place) {
            self.scan = None;
            self.scan = open_segment(&self.shared, segment, SEQUENTIAL)?;
        }
        Ok(())
    }

    fn advance(&mut self, to: u64) {
        self.position = to;
        self.shared.log().reader_at(self.number, to);
    }

    fn note(&self, damage: &Damage) {
        note_damage(&self.shared, damage);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.log().readers.retain(|reader| reader.0 != self.number);
    }
}

/// The frame at a position that was given out before, from memory or disk.
pub(crate) fn read_one(shared: &Shared, position: u64) -> Result<Frame, ReadError> {
    // The segment can go between look and opening; then the second look says so.
    for _ in 0..2 {
        let located = shared.log().locate(position);
        let segment = match located {
            Located::Memory(frame) => return Ok(frame),
            Located::Disk(segment) => segment,
            Located::End | Located::Jump(..) => return Err(ReadError::Absent(position)),
        };
        let scan = open_segment(shared, &segment, SINGLE);
        let Some(mut scan) = scan.map_err(|error| read_error(shared, &segment, position, error))? else {
            continue;
        };
        let found =
            scan.at(position, segment.end).map_err(|error| read_error(shared, &segment, position, error))?;
        return match found {
            Found::Frame(frame) => Ok(frame),
            Found::Damage(damage) => {
                note_damage(shared, &damage);
                Err(ReadError::Damaged(damage))
            }
        };
    }
    Err(ReadError::Absent(position))
}

/// Opens a segment's file; `None` when it is gone.
pub(crate) fn open_segment(
    shared: &Shared,
    segment: &Segment,
    read_ahead: usize,
) -> io::Result<Option<Scan>> {
    match shared.disk.open(&segment_name(segment.place.base)) {
        Ok(file) => Ok(Some(Scan::new(file, segment.place, read_ahead, Arc::clone(&shared.counters)))),
        // Unlinked by trimming, which takes it off the list first.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_listed(shared, segment) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_listed(shared: &Shared, segment: &Segment) -> bool {
    shared.log().segments.iter().any(|listed| listed.place == segment.place)
}

pub(crate) fn read_error(shared: &Shared, segment: &Segment, position: u64, error: io::Error) -> ReadError {
    count(&shared.counters.read_errors);
    let offset = segment.place.file_offset(position);
    ReadError::Io { segment: segment_name(segment.place.base), offset, error }
}

fn note_damage(shared: &Shared, damage: &Damage) {
    count(&shared.counters.damaged);
    shared.counters.damaged_bytes.fetch_add(damage.span.bytes(), Relaxed);
}

/// The rest of a segment from a position on, as lost.
pub(crate) fn whole(segment: &Segment, position: u64) -> Damage {
    Damage {
        segment: segment_name(segment.place.base),
        offset: segment.place.file_offset(position),
        span: Span { start: position, end: segment.end },
        head: None,
    }
}
