//! Dropping the oldest: first the caller is given what is lost by it, then the segment goes.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::error::{CheckpointError, ReadError};
use crate::frame::{Frame, Span};
use crate::log::{Segment, Shared};
use crate::options::WhenFull;
use crate::read::{open_segment, read_error};
use crate::scan::{Damage, Found, SEQUENTIAL, Scan};

/// The oldest segment, which must go. Take everything of [`Self::next_lost`], record it, then [`Self::let_go`].
/// Dropped without that, it stays.
#[derive(Debug)]
pub struct Condemned {
    shared: Arc<Shared>,
    segment: Segment,
    position: u64,
    scan: Option<Scan>,
    why: Why,
    lost_frames: u64,
}

/// Why a segment must go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// There is no room: [`crate::Options::max_bytes`], or the disk.
    Room,
    /// Its newest frame is older than [`crate::Options::max_age`].
    Age,
}

/// Something that is lost with a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// A frame that is not settled.
    Frame(Frame),
    /// Something not settled that cannot be read.
    Damaged(Damage),
}

impl Shared {
    /// The oldest segment, if it must go and holds something that is not settled.
    pub(crate) fn condemned(self: &Arc<Self>) -> Option<Condemned> {
        let (segment, why, settled) = {
            let log = self.log();
            let first = log.segments.front().filter(|first| first.sealed)?;
            let options = &self.options;
            let short = log.bytes + 2 * options.segment_bytes > options.max_bytes || log.room_wanted;
            let old = options.max_age.is_some_and(|age| self.clock.now().saturating_sub(first.newest) > age);
            let why = match options.when_full {
                WhenFull::DropOldest if short => Why::Room,
                _ if old => Why::Age,
                _ => return None,
            };
            (first.clone(), why, log.settled.lowest() >= first.end)
        };
        if settled {
            // Nothing is lost by it: a checkpoint trims it. If that fails, it is in the statistics.
            if self.checkpoint(None).is_ok() {
                self.log().room_wanted = false;
            }
            return None;
        }
        let position = segment.place.base;
        Some(Condemned { shared: Arc::clone(self), segment, position, scan: None, why, lost_frames: 0 })
    }
}

impl Condemned {
    /// Why it must go.
    pub fn why(&self) -> Why {
        self.why
    }

    /// Its positions.
    pub fn span(&self) -> Span {
        self.segment.span()
    }

    /// The next thing in it that is not settled; `None` when there is no more.
    ///
    /// After an error it can be asked again, or [`Self::skip`].
    pub fn next_lost(&mut self) -> Result<Option<Lost>, ReadError> {
        let (segment, end) = (self.segment.clone(), self.segment.end);
        let failed = |shared: &Shared, at, error| read_error(shared, &segment, at, error);
        while self.position < end {
            let scan = match &mut self.scan {
                Some(scan) => scan,
                none => {
                    let opened = open_segment(&self.shared, &segment, SEQUENTIAL);
                    let opened = opened.map_err(|error| failed(&self.shared, self.position, error))?;
                    // Somebody else has let it go.
                    let Some(scan) = opened else { return Ok(None) };
                    none.insert(scan)
                }
            };
            let at = self.position;
            let found = scan.at(at, end).map_err(|error| failed(&self.shared, at, error))?;
            let (span, lost) = match found {
                Found::Frame(frame) => (frame.span, Lost::Frame(frame)),
                Found::Damage(damage) => (damage.span, Lost::Damaged(damage)),
            };
            self.position = span.end;
            if !self.shared.log().settled.contains(span) {
                self.lost_frames += 1;
                return Ok(Some(lost));
            }
        }
        Ok(None)
    }

    /// Gives up what cannot be read; `None` at the end.
    pub fn skip(&mut self) -> Option<Damage> {
        let end = self.segment.end;
        if self.position >= end {
            return None;
        }
        let damage = match &mut self.scan {
            Some(scan) => scan.skip(self.position, end),
            None => crate::read::whole(&self.segment, self.position),
        };
        self.position = damage.span.end;
        self.lost_frames += 1;
        Some(damage)
    }

    /// Settles everything in it and removes it. If the checkpoint cannot be written now, the file goes with the next one.
    pub fn let_go(self) -> Result<(), CheckpointError> {
        let span = self.segment.span();
        {
            let mut log = self.shared.log();
            let from = log.settled.lowest().max(span.start);
            let bytes = Span { start: from, end: span.end }.bytes();
            self.shared.counters.dropped_bytes.fetch_add(bytes, Relaxed);
            self.shared.counters.dropped_frames.fetch_add(self.lost_frames, Relaxed);
            log.settled.add_void(span);
            log.room_wanted = false;
            log.dropped_below = span.end;
            log.tail.forget_below(span.end);
        }
        self.shared.checkpoint(None).map(|_| ())
    }
}
