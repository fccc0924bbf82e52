//! What the spool counts, and a snapshot of its state for metrics and `/status`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::frame::Span;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Counters; they only grow.
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: AtomicU64),+ }

        /// The counters of a spool since it was opened.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counts { $($(#[$doc])* pub $name: u64),+ }

        impl Counters {
            pub(crate) fn counts(&self) -> Counts {
                Counts { $($name: self.$name.load(Relaxed)),+ }
            }
        }
    };
}

counters! {
    /// Frames appended.
    appended_frames,
    /// Bytes of frames appended, headers included.
    appended_bytes,
    /// Frames refused because `max_bytes` was reached.
    refused_full,
    /// Frames refused because the disk was full.
    refused_disk_full,
    /// Frames refused because of an I/O error.
    refused_io,
    /// Frames refused because they were larger than `max_frame_bytes`.
    refused_too_large,
    /// Unsettled frames that went with a dropped segment.
    dropped_frames,
    /// Bytes that were not settled in dropped segments.
    dropped_bytes,
    /// Segment files removed.
    trimmed_segments,
    /// Their bytes.
    trimmed_bytes,
    /// Reads from segment files; none while readers keep up.
    disk_reads,
    /// Bytes of them.
    disk_read_bytes,
    /// Damaged places that readers met.
    damaged,
    /// Bytes of them.
    damaged_bytes,
    /// Calls of fdatasync on segments that succeeded.
    fsyncs,
    /// Errors when writing; a full disk included.
    write_errors,
    /// Errors when forcing data onto the disk.
    fsync_errors,
    /// Errors when reading.
    read_errors,
    /// Errors when replacing the checkpoint.
    checkpoint_errors,
    /// Segments that could not be removed.
    remove_errors,
}

impl Counters {
    pub(crate) fn disk_read(&self, bytes: usize) {
        self.disk_reads.fetch_add(1, Relaxed);
        self.disk_read_bytes.fetch_add(bytes as u64, Relaxed);
    }
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// The state of a spool at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// What was counted since it was opened.
    pub counts: Counts,
    /// Segment files.
    pub segments: usize,
    /// Bytes of all segments.
    pub bytes: u64,
    /// Frames in all segments, settled ones that are not trimmed yet included.
    pub frames: u64,
    /// The lowest unsettled position.
    pub lowest: u64,
    /// The position of the next frame.
    pub end: u64,
    /// Up to where everything is on disk, but for `doubtful`.
    pub durable: u64,
    /// How long ago the lowest unsettled frame was appended, within a second or so; for frames of a former process, time
    /// during which none had the spool open does not count. Zero when everything is settled.
    pub oldest_age: Duration,
    /// For how long the oldest frame that is not durable has been waiting for it.
    pub durable_lag: Duration,
    /// Ranges whose fsync failed: they may not be on disk, whatever is called afterwards.
    pub doubtful: Vec<Span>,
    /// Bytes of memory of the newest frames.
    pub tail_bytes: usize,
    /// Separate settled ranges above the lowest unsettled position.
    pub islands: usize,
    /// Why appends are refused now.
    pub refusing: Option<String>,
    /// Why the last fsync failed, until one succeeds.
    pub fsync_error: Option<String>,
    /// Why the last checkpoint failed, until one succeeds.
    pub checkpoint_error: Option<String>,
}
