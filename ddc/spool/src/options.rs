//! How a spool is opened.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::frame::MAX_FRAME_BYTES;
use crate::header::MAX_IDENTITY;

/// The least and the largest segment file, in bytes. The last one is read whole at a start, hence the upper bound.
pub const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = (64 << 10)..=(256 << 20);
/// A spool has room for so many segments at least.
pub const MIN_SEGMENTS: u64 = 4;

/// How a spool is opened; [`Options::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where its files are; made if it is missing (mode 0700).
    pub directory: PathBuf,
    /// Whose spool it is: a spool of another is refused. At most [`MAX_IDENTITY`] bytes.
    pub identity: Vec<u8>,
    /// A segment is closed when the next frame would make it longer; 64 MiB. Within [`SEGMENT_BYTES`].
    pub segment_bytes: u64,
    /// Bytes of all segments; 10 GiB. At least [`MIN_SEGMENTS`] segments, and as many of the largest frame.
    pub max_bytes: u64,
    /// Segments whose last frame is older are dropped, by [`crate::Spool::condemned`]; `None` (the default): never. Time
    /// during which no process had the spool open does not count, and steps of the clock do neither.
    pub max_age: Option<Duration>,
    /// The largest payload, in bytes; 32 MiB. At most [`MAX_FRAME_BYTES`].
    pub max_frame_bytes: u32,
    /// Payload bytes of the newest frames that are kept in memory until every reader has passed them; 32 MiB.
    pub tail_bytes: usize,
    /// When data is forced onto the disk.
    pub fsync: Fsync,
    /// What happens when there is no room.
    pub when_full: WhenFull,
    /// Separate ranges of settled positions above the lowest unsettled one; 262,144 (some 8 MiB).
    pub max_islands: usize,
    /// After a full disk or an I/O error, how long appends are refused before the disk is tried again; 250 ms.
    pub retry_after: Duration,
    /// Is told how long each fsync of a segment took; by default nobody.
    pub fsync_observer: FsyncObserver,
}

/// Is told how long each call of fdatasync on a segment took, whether it succeeded or not, on the thread that called it:
/// that one waits meanwhile.
#[derive(Clone, Default)]
pub struct FsyncObserver(Option<Arc<dyn Fn(Duration) + Send + Sync>>);

impl FsyncObserver {
    /// Tells this function.
    pub fn new(tell: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    /// Calls, and tells how long it took.
    pub(crate) fn timed<T>(&self, call: impl FnOnce() -> T) -> T {
        let Some(tell) = &self.0 else { return call() };
        let began = Instant::now();
        let result = call();
        tell(began.elapsed());
        result
    }
}

impl fmt::Debug for FsyncObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "FsyncObserver(_)" } else { "FsyncObserver(nobody)" })
    }
}

/// When data is forced onto the disk. Whatever it is, a killed process loses nothing that was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// This long after the first append that is not, on a thread of the spool's own. A power cut loses at most so much, and
    /// what is appended while the call takes.
    Interval(Duration),
    /// Before an append returns. A power cut loses nothing.
    Always,
    /// When the kernel likes to. A power cut can lose everything the kernel has not written (by default some 30 s).
    Never,
}

/// What happens when there is no room: the size is reached, or the disk is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// New frames are refused until there is room for a segment again.
    DropNewest,
    /// The oldest segment is offered by [`crate::Spool::condemned`] while two segments are still free, so that the
    /// appender need not wait; when nobody takes it, new frames are refused all the same.
    DropOldest,
}

/// Why options cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("spool option {option} is {value}; {remedy}")]
pub struct BadOption {
    /// The field of [`Options`].
    pub option: &'static str,
    /// What it is.
    pub value: u64,
    /// What it may be.
    pub remedy: &'static str,
}

impl Options {
    /// The defaults, with fsync each 100 ms.
    pub fn new(directory: impl Into<PathBuf>, identity: impl Into<Vec<u8>>) -> Self {
        Self {
            directory: directory.into(),
            identity: identity.into(),
            segment_bytes: 64 << 20,
            max_bytes: 10 << 30,
            max_age: None,
            max_frame_bytes: 32 << 20,
            tail_bytes: 32 << 20,
            fsync: Fsync::Interval(Duration::from_millis(100)),
            when_full: WhenFull::DropNewest,
            max_islands: 1 << 18,
            retry_after: Duration::from_millis(250),
            fsync_observer: FsyncObserver::default(),
        }
    }

    /// Whether the values go together.
    pub fn check(&self) -> Result<(), BadOption> {
        let bad = |option, value, remedy| Err(BadOption { option, value, remedy });
        if self.identity.len() > MAX_IDENTITY {
            return bad("identity", self.identity.len() as u64, "at most 256 bytes");
        }
        if !SEGMENT_BYTES.contains(&self.segment_bytes) {
            return bad("segment_bytes", self.segment_bytes, "from 64 KiB to 256 MiB");
        }
        if self.max_frame_bytes == 0 || self.max_frame_bytes > MAX_FRAME_BYTES {
            return bad("max_frame_bytes", u64::from(self.max_frame_bytes), "from 1 byte to 64 MiB");
        }
        let largest = self.segment_bytes.max(u64::from(self.max_frame_bytes) + crate::header::HEADER_AREA);
        if self.max_bytes < MIN_SEGMENTS * largest {
            return bad(
                "max_bytes",
                self.max_bytes,
                "room for four segments, and for four of the largest frame",
            );
        }
        if self.max_islands == 0 {
            return bad("max_islands", 0, "at least 1");
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_go_together_is_named() {
        let good = Options::new("/s", *b"link");
        assert_eq!(good.check(), Ok(()));
        let cases = [
            ("identity", Options { identity: vec![0; 257], ..good.clone() }),
            ("segment_bytes", Options { segment_bytes: 65_535, ..good.clone() }),
            ("segment_bytes", Options { segment_bytes: 1 << 30, ..good.clone() }),
            ("max_frame_bytes", Options { max_frame_bytes: MAX_FRAME_BYTES + 1, ..good.clone() }),
            ("max_bytes", Options { max_bytes: 4 * (64 << 20) - 1, ..good.clone() }),
            ("max_bytes", Options { segment_bytes: 1 << 20, max_bytes: 4 << 20, ..good.clone() }),
            ("max_islands", Options { max_islands: 0, ..good.clone() }),
        ];
        for (option, options) in cases {
            assert_eq!(options.check().unwrap_err().option, option);
        }
    }
}
