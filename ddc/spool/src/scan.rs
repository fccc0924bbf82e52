//! Reads the frames of one segment file in order, and finds the next one after damage.
//!
//! ```text
//!  header holds, payload holds ─▶ the frame
//!  header holds, payload does not ─▶ damage of exactly this frame: its length is known
//!  header does not hold ─▶ damage up to the next header that does: it is bound to its position, so payload is never taken for one
//! ```

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::{DiskFile, read_full_at};
use crate::frame::{self, FRAME_HEADER, Frame, Head, Header, MAGIC, Span};
use crate::header::{HEADER_AREA, segment_name};
use crate::stats::Counters;

/// Read ahead when frames are read in order, in bytes.
pub(crate) const SEQUENTIAL: usize = 1 << 20;
/// Read at once for a single frame.
pub(crate) const SINGLE: usize = 128 << 10;
/// What an unreadable place of a disk costs at least.
const SECTOR: u64 = 4096;

/// Bytes of the log that cannot be given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub segment: String,
    /// Where in the file the damage begins, in bytes.
    pub offset: u64,
    /// The positions that are lost; settle them when the loss is recorded.
    pub span: Span,
    /// The frame's header, when that is whole: then exactly this frame is lost.
    pub head: Option<Head>,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (bytes, what) =
            (self.span.bytes(), if self.head.is_some() { "one frame" } else { "at least one frame" });
        write!(
            f,
            "spool segment {}: {bytes} bytes at offset {} are damaged; {what} is lost",
            self.segment, self.offset
        )
    }
}

/// What is at a position.
#[derive(Debug)]
pub(crate) enum Found {
    Frame(Frame),
    Damage(Damage),
}

/// Where a segment's frames are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) base: u64,
    /// `None`: its header is damaged, so no frame in it can be told from rubbish.
    pub(crate) id: Option<u64>,
}

impl Place {
    pub(crate) fn file_offset(self, position: u64) -> u64 {
        HEADER_AREA + (position - self.base)
    }
}

/// An open segment file with a buffer.
#[derive(Debug)]
pub(crate) struct Scan {
    file: Arc<dyn DiskFile>,
    place: Place,
    counters: Arc<Counters>,
    /// Bytes of the file from position `start` on.
    buffer: Vec<u8>,
    start: u64,
    read_ahead: usize,
}

impl Scan {
    pub(crate) fn new(
        file: Arc<dyn DiskFile>,
        place: Place,
        read_ahead: usize,
        counters: Arc<Counters>,
    ) -> Self {
        Self { file, place, counters, buffer: Vec::new(), start: place.base, read_ahead }
    }

    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// What is at `position`, where a frame should begin, in a segment whose frames end at `end`.
    pub(crate) fn at(&mut self, position: u64, end: u64) -> io::Result<Found> {
        let Some(id) = self.place.id else {
            return Ok(self.damage(position, end, None));
        };
        let header =
            self.bytes(position, FRAME_HEADER, end)?.and_then(|bytes| frame::decode(id, position, bytes));
        let Some(header) = header else {
            let next = self.find_header(position + 1, end, false)?;
            return Ok(self.damage(position, next, None));
        };
        let frame_end = position + header.frame_len();
        if frame_end > end {
            return Ok(self.damage(position, end, Some(header.head)));
        }
        match self.payload(position, &header, end)? {
            Some(payload) => {
                let span = Span { start: position, end: frame_end };
                Ok(Found::Frame(Frame { span, head: header.head, payload }))
            }
            None => Ok(self.damage(position, frame_end, Some(header.head))),
        }
    }

    /// Gives up what is at `position`, which cannot be read, and finds what is behind it.
    pub(crate) fn skip(&mut self, position: u64, end: u64) -> Damage {
        // A header that can be read says where the next one is.
        let header = self.place.id.and_then(|id| {
            let bytes = self.bytes_of(position, FRAME_HEADER, end, 0).ok()??;
            frame::decode(id, position, bytes)
        });
        let known =
            header.map(|header| (position + header.frame_len(), header.head)).filter(|&(to, _)| to <= end);
        let (to, head) = match known {
            Some((to, head)) => (to, Some(head)),
            // Unreadable places are stepped over, so nothing is left to fail.
            None => (self.find_header(position + 1, end, true).unwrap_or(end), None),
        };
        self.damage_of(position, to, head)
    }

    fn payload(&mut self, position: u64, header: &Header, end: u64) -> io::Result<Option<Bytes>> {
        let frame = self.bytes(position, header.frame_len() as usize, end)?;
        let payload = frame.map(|frame| &frame[FRAME_HEADER..]).filter(|payload| header.holds_for(payload));
        Ok(payload.map(Bytes::copy_from_slice))
    }

    /// The first position from `from` on where a frame's header is, or `end`.
    fn find_header(&mut self, from: u64, end: u64, step_over: bool) -> io::Result<u64> {
        let (Some(id), mut position) = (self.place.id, from) else { return Ok(end) };
        let read_ahead = if step_over { 0 } else { self.read_ahead };
        while position + FRAME_HEADER as u64 <= end {
            let available = match self.bytes_of(position, FRAME_HEADER, end, read_ahead) {
                Ok(Some(_)) => &self.buffer[(position - self.start) as usize..],
                Ok(None) => return Ok(end),
                Err(_) if step_over => {
                    position += SECTOR - self.place.file_offset(position) % SECTOR;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let limit = ((end - position) as usize).min(available.len());
            let last = limit - FRAME_HEADER;
            let mut at = 0;
            while at <= last {
                let Some(step) = available[at..=last].iter().position(|&byte| byte == MAGIC[0]) else {
                    break;
                };
                at += step;
                if at > last {
                    break;
                }
                if frame::decode(id, position + at as u64, &available[at..]).is_some() {
                    return Ok(position + at as u64);
                }
                at += 1;
            }
            position += last as u64 + 1;
        }
        Ok(end)
    }

    /// `len` bytes from `position`; `None` when the file or the segment's frames end before.
    fn bytes(&mut self, position: u64, len: usize, end: u64) -> io::Result<Option<&[u8]>> {
        self.bytes_of(position, len, end, self.read_ahead)
    }

    fn bytes_of(
        &mut self,
        position: u64,
        len: usize,
        end: u64,
        read_ahead: usize,
    ) -> io::Result<Option<&[u8]>> {
        if position + len as u64 > end {
            return Ok(None);
        }
        let held = self.start..self.start + self.buffer.len() as u64;
        if position >= held.start && position + len as u64 <= held.end {
            let at = (position - self.start) as usize;
            return Ok(Some(&self.buffer[at..at + len]));
        }
        // What is held of it stays, the rest is read behind it.
        let keep = if held.contains(&position) { (held.end - position) as usize } else { 0 };
        let from = self.buffer.len() - keep;
        self.buffer.copy_within(from.., 0);
        let want = len.max(read_ahead).min((end - position) as usize);
        self.buffer.resize(want.max(keep), 0);
        self.start = position;
        let offset = self.place.file_offset(position) + keep as u64;
        let mut read = read_full_at(&*self.file, &mut self.buffer[keep..], offset);
        if read.is_err() && want > len {
            // Only what was read ahead may be unreadable.
            self.buffer.truncate(len.max(keep));
            read = read_full_at(&*self.file, &mut self.buffer[keep..], offset);
        }
        let Ok(read) = read else {
            self.buffer.clear();
            return read.map(|_| None);
        };
        self.counters.disk_read(read);
        self.buffer.truncate(keep + read);
        // A frame that was far longer than the others does not keep its memory for ever.
        if self.buffer.capacity() > 4 * SEQUENTIAL && self.buffer.len() <= SEQUENTIAL {
            self.buffer.shrink_to(SEQUENTIAL);
        }
        Ok(self.buffer.get(..len))
    }

    fn damage(&self, from: u64, to: u64, head: Option<Head>) -> Found {
        Found::Damage(self.damage_of(from, to, head))
    }

    fn damage_of(&self, start: u64, end: u64, head: Option<Head>) -> Damage {
        Damage {
            segment: segment_name(self.place.base),
            offset: self.place.file_offset(start),
            span: Span { start, end },
            head,
        }
    }
}
