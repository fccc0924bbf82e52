//! The appender: the only one who writes segments. It never waits for a reader, and for an fsync only under
//! [`Fsync::Always`].
//!
//! A frame is whole in its file before anybody hears of it. What fails half-way is cut off again, the segment is closed,
//! and the next frame goes into a new one: so nothing that follows can be hurt by what was left behind.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::disk::{DiskFile, write_all_at};
use crate::error::Refused;
use crate::frame::{self, FRAME_HEADER, Frame, Head, Span};
use crate::header::{HEADER_AREA, SegmentHeader, segment_name};
use crate::log::{Segment, Shared, Unsynced};
use crate::options::Fsync;
use crate::scan::Place;
use crate::stats::count;
use crate::sync::SyncThread;

/// Appends frames; there is one per spool. When it is dropped, readers are told that nothing more will come.
#[derive(Debug)]
pub struct Appender {
    shared: Arc<Shared>,
    active: Option<Active>,
    /// The position of the next frame.
    next: u64,
    /// When the disk failed last, and until when it is left alone.
    failed: Option<(Instant, Refused)>,
    _thread: Arc<SyncThread>,
}

/// The segment that is appended to.
#[derive(Debug)]
struct Active {
    file: Arc<dyn DiskFile>,
    base: u64,
    id: u64,
    /// Its name is not on disk yet; only kept under [`Fsync::Always`].
    new: bool,
}

/// What went wrong.
enum Failure {
    Write(io::Error),
    Sync(io::Error),
}

impl Appender {
    pub(crate) fn new(shared: Arc<Shared>, thread: Arc<SyncThread>) -> Self {
        let next = shared.log().end;
        Self { shared, active: None, next, failed: None, _thread: thread }
    }

    /// Appends a frame whose payload is these parts, one behind the other. A copy of it is kept for readers, when the tail has
    /// room for it at all.
    ///
    /// When this returns, the frame survives a kill of the process; a power cut as [`crate::Options::fsync`] says.
    pub fn append(&mut self, head: &Head, parts: &[&[u8]]) -> Result<Span, Refused> {
        self.put(head, parts, None)
    }

    /// As [`Self::append`], without a copy: readers share these bytes (see [`Bytes::from_owner`]).
    pub fn append_bytes(&mut self, head: &Head, payload: &Bytes) -> Result<Span, Refused> {
        self.put(head, &[payload], Some(payload))
    }

    /// The position that the next frame will have.
    pub fn position(&self) -> u64 {
        self.next
    }

    fn put(&mut self, head: &Head, parts: &[&[u8]], shared: Option<&Bytes>) -> Result<Span, Refused> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let limit = u64::from(self.shared.options.max_frame_bytes);
        if len as u64 > limit {
            let refused = Refused::TooLarge { bytes: len as u64, limit };
            self.count_refused(&refused);
            return Err(refused);
        }
        let span = Span { start: self.next, end: self.next + (FRAME_HEADER + len) as u64 };
        self.check_room(span)?;
        let mut written = self.write(span, head, parts);
        if matches!(written, Err(Failure::Sync(_))) {
            // Its pages may be marked as clean without being on disk: only another file can be believed.
            written = self.write(span, head, parts);
        }
        if let Err(Failure::Write(error) | Failure::Sync(error)) = written {
            return Err(self.fail(&error));
        }
        self.publish(span, head, parts, shared);
        Ok(span)
    }

    /// Refuses what has no room, and what comes too soon after the disk failed.
    fn check_room(&mut self, span: Span) -> Result<(), Refused> {
        let options = &self.shared.options;
        let (segment_bytes, limit) = (options.segment_bytes, options.max_bytes);
        let (used, roll, refusing, room_made) = {
            let mut log = self.shared.log();
            let full = matches!(log.refusing, Some(Refused::Full { .. }));
            (log.bytes, std::mem::take(&mut log.roll), full, std::mem::take(&mut log.room_made))
        };
        if let Some((at, refused)) = &self.failed
            && at.elapsed() < options.retry_after
            && !(room_made && matches!(refused, Refused::DiskFull(_)))
        {
            let refused = refused.clone();
            self.count_refused(&refused);
            return Err(refused);
        }
        if roll {
            self.seal();
        }
        let header = if self.must_roll(span) { HEADER_AREA } else { 0 };
        // One long gap is better than many short ones: once refused, always refused until a whole segment fits.
        let least = if refusing { segment_bytes } else { 0 };
        if used + (span.bytes() + header).max(least) > limit {
            return Err(self.refuse(Refused::Full { used, limit }));
        }
        Ok(())
    }

    fn must_roll(&self, span: Span) -> bool {
        self.active.as_ref().is_none_or(|active| {
            let holds = HEADER_AREA + (span.start - active.base);
            holds > HEADER_AREA && holds + span.bytes() > self.shared.options.segment_bytes
        })
    }

    fn write(&mut self, span: Span, head: &Head, parts: &[&[u8]]) -> Result<(), Failure> {
        if self.must_roll(span) {
            self.seal();
            self.active = Some(self.create().map_err(Failure::Write)?);
        }
        let Some(active) = &mut self.active else { return Ok(()) };
        let header = frame::encode(active.id, span.start, head, parts);
        let mut slices = Vec::with_capacity(1 + parts.len());
        slices.push(IoSlice::new(&header));
        slices.extend(parts.iter().map(|part| IoSlice::new(part)));
        let offset = HEADER_AREA + (span.start - active.base);
        let written = write_all_at(&*active.file, &mut slices, offset).map_err(|error| {
            count(&self.shared.counters.write_errors);
            Failure::Write(error)
        });
        let durable = written.and_then(|()| {
            if self.shared.options.fsync == Fsync::Always {
                sync_frame(&self.shared, active).map_err(Failure::Sync)?;
            }
            Ok(())
        });
        if durable.is_err() {
            // If this fails too, what is left lies behind the segment's end, which the next one's header says.
            let _ = active.file.set_len(offset);
            self.seal();
        }
        durable
    }

    /// Makes the next segment file.
    fn create(&mut self) -> io::Result<Active> {
        let shared = &*self.shared;
        let now = shared.clock.now();
        let mut id = [0; 8];
        rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
        let (id, base) = (u64::from_be_bytes(id), self.next);
        let (header, frames_before) = {
            let log = shared.log();
            let header = SegmentHeader {
                id,
                base,
                follows: log.segments.back().map_or(base, |last| last.end),
                durable: log.durable,
                frames_before: log.frames,
                clock_micros: now.as_micros() as u64,
                identity: shared.options.identity.clone(),
                sessions: log.sessions.clone(),
            };
            (header.encode(), log.frames)
        };
        let name = segment_name(base);
        let made = shared.disk.create(&name).or_else(|error| {
            // Left by an attempt that failed: nothing was ever appended at this position.
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(error);
            }
            shared.disk.remove(&name)?;
            shared.disk.create(&name)
        });
        let written = made.and_then(|file| {
            write_all_at(&*file, &mut [IoSlice::new(&header)], 0).map(|()| file).inspect_err(|_| {
                // If it stays, the next attempt or the next start removes it.
                let _ = shared.disk.remove(&name);
            })
        });
        let file = written.inspect_err(|_| count(&shared.counters.write_errors))?;
        let place = Place { base, id: Some(id) };
        let mut log = shared.log();
        log.segments.push_back(Segment {
            place,
            end: base,
            frames_before,
            made: now,
            newest: now,
            sealed: false,
        });
        log.bytes += HEADER_AREA;
        log.unsynced.push(Unsynced { base, file: Arc::clone(&file), new: true, failed: false });
        Ok(Active { file, base, id, new: true })
    }

    /// Closes the segment; one without frames is removed.
    fn seal(&mut self) {
        let Some(active) = self.active.take() else { return };
        let empty = {
            let mut log = self.shared.log();
            let empty = log.segments.back().is_some_and(|last| last.end == active.base);
            if empty {
                log.segments.pop_back();
                log.bytes -= HEADER_AREA;
                log.unsynced.retain(|unsynced| unsynced.base != active.base);
            } else if let Some(last) = log.segments.back_mut() {
                last.sealed = true;
            }
            empty
        };
        if empty && self.shared.disk.remove(&segment_name(active.base)).is_err() {
            count(&self.shared.counters.remove_errors);
        }
    }

    /// Lets readers have the frame.
    fn publish(&mut self, span: Span, head: &Head, parts: &[&[u8]], payload: Option<&Bytes>) {
        let len = span.bytes() as usize - FRAME_HEADER;
        let shared = &*self.shared;
        let keeps = shared.log().tail.keeps(len);
        let kept = keeps.then(|| payload.cloned().unwrap_or_else(|| parts.concat().into()));
        let (now, always) = (shared.clock.now(), shared.options.fsync == Fsync::Always);
        let mut log = shared.log();
        if let Some(payload) = kept {
            log.tail.push(Frame { span, head: *head, payload });
        }
        if let Some(last) = log.segments.back_mut() {
            last.end = span.end;
            last.newest = now;
        }
        log.end = span.end;
        log.bytes += span.bytes();
        log.frames += 1;
        log.sessions.raise(head.session, head.block);
        log.mark(span.start, now);
        log.refusing = None;
        log.room_wanted = false;
        let mut first = false;
        if always {
            log.durable = span.end;
            log.fsync_error = None;
        } else if log.first_unsynced.is_none() {
            log.first_unsynced = Some(Instant::now());
            first = true;
        }
        drop(log);
        self.next = span.end;
        self.failed = None;
        shared.counters.appended_frames.fetch_add(1, Relaxed);
        shared.counters.appended_bytes.fetch_add(span.bytes(), Relaxed);
        shared.arrived.notify_all();
        if first {
            shared.dirty.notify_all();
        }
    }

    /// The disk failed: it is left alone for a while.
    fn fail(&mut self, error: &io::Error) -> Refused {
        // A closed segment can be trimmed or dropped, which makes room.
        self.seal();
        let refused = Refused::of(error);
        self.failed = Some((Instant::now(), refused.clone()));
        self.refuse(refused)
    }

    fn refuse(&self, refused: Refused) -> Refused {
        self.count_refused(&refused);
        let mut log = self.shared.log();
        log.room_wanted |= matches!(refused, Refused::Full { .. } | Refused::DiskFull(_));
        log.refusing = Some(refused.clone());
        drop(log);
        refused
    }

    fn count_refused(&self, refused: &Refused) {
        count(match refused {
            Refused::Full { .. } => &self.shared.counters.refused_full,
            Refused::DiskFull(_) => &self.shared.counters.refused_disk_full,
            Refused::Io(_) => &self.shared.counters.refused_io,
            Refused::TooLarge { .. } => &self.shared.counters.refused_too_large,
        });
    }

    /// For how long the disk is left alone after a failure; zero: it is not.
    pub fn retry_in(&self) -> Duration {
        let after = self.shared.options.retry_after;
        self.failed.as_ref().map_or(Duration::ZERO, |(at, _)| after.saturating_sub(at.elapsed()))
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.seal();
        self.shared.log().closed = true;
        self.shared.arrived.notify_all();
    }
}

/// Forces a frame onto the disk, and the name of its file.
fn sync_frame(shared: &Shared, active: &mut Active) -> io::Result<()> {
    let observer = &shared.options.fsync_observer;
    let synced = observer.timed(|| active.file.sync_data()).and_then(|()| {
        if active.new {
            shared.disk.sync_directory()?;
            active.new = false;
            shared.log().unsynced.retain(|unsynced| unsynced.base != active.base);
        }
        Ok(())
    });
    match &synced {
        Ok(()) => count(&shared.counters.fsyncs),
        Err(error) => {
            count(&shared.counters.fsync_errors);
            shared.log().fsync_error = Some(error.to_string());
        }
    }
    synced
}
