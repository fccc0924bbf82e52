//! The validated spool of an egress.

use std::path::PathBuf;
use std::time::Duration;

use ddc_spool::{Fsync, MAX_FRAME_BYTES, MIN_SEGMENTS, Options, SEGMENT_BYTES, WhenFull};

use super::common::{Checker, LinkSettings};
use super::raw::{FsyncWhen, RawSpool, WhenSpoolFull};
use super::units::{ByteSize, Span};

/// What the spool's files take at most, unless the file says otherwise.
const LARGEST_DEFAULT: ByteSize = ByteSize::mib(10 << 10);
/// How large one file gets, unless the file says otherwise or the spool is small.
const LARGEST_SEGMENT: ByteSize = ByteSize::mib(64);
/// Bytes of a batch besides its largest record: as the receiver counts.
const BATCH_OVERHEAD: u64 = 1 << 20;
/// A segment's header.
const SEGMENT_HEADER: u64 = 8192;

/// Where and how the egress keeps what is not settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolConfig {
    /// The directory of its files.
    pub directory: PathBuf,
    /// What they take at most; `None`: see [`SpoolConfig::size`].
    pub max_size: Option<ByteSize>,
    /// What has waited longer is dropped.
    pub max_age: Option<Duration>,
    /// How large one file gets; `None`: see [`SpoolConfig::size`].
    pub segment_size: Option<ByteSize>,
    /// When data is forced onto the disk.
    pub fsync: Fsync,
    /// What happens when it is full.
    pub when_full: WhenFull,
    /// The largest batch.
    pub max_batch_bytes: u64,
}

/// How large a spool gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolSize {
    /// All files.
    pub max: ByteSize,
    /// One file.
    pub segment: ByteSize,
}

impl SpoolConfig {
    /// How large it gets on a file system of so many bytes. Half of it at most by default: whoever does not choose shall not fill a disk
    /// that others need, the link's own state first of all. The error says what to write.
    pub fn size(&self, file_system: u64) -> Result<SpoolSize, String> {
        let half = (file_system / 2) & !(ByteSize::mib(1).bytes() - 1);
        let max = self.max_size.unwrap_or(ByteSize(LARGEST_DEFAULT.bytes().min(half)));
        let small = (max.bytes() / 8).clamp(*SEGMENT_BYTES.start(), LARGEST_SEGMENT.bytes());
        let segment = self.segment_size.unwrap_or(ByteSize(small));
        let least = self.least(segment);
        if max.bytes() < least {
            return Err(format!(
                "the spool can have {max} (half of a file system of {file_system} bytes), and needs {}; write max_size in [spool], choose a `directory` on a larger file system, or lower max_record_bytes in [link.receive]",
                ByteSize(least)
            ));
        }
        Ok(SpoolSize { max, segment })
    }

    /// Bytes of files that are there now; `None` when there are none.
    pub fn used(&self) -> Option<u64> {
        let entries = std::fs::read_dir(&self.directory).ok()?;
        let bytes = entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum();
        (bytes > 0).then_some(bytes)
    }

    /// The least that the files must be allowed to take.
    fn least(&self, segment: ByteSize) -> u64 {
        MIN_SEGMENTS * segment.bytes().max(self.max_batch_bytes + SEGMENT_HEADER)
    }

    /// How it is opened. `memory` is what may be held of it before it is read from the disk, in bytes.
    pub fn options(&self, link: &LinkSettings, size: SpoolSize, memory: usize) -> Options {
        let identity = format!("link {}, id {}", link.name, link.id.0);
        Options {
            segment_bytes: size.segment.bytes(),
            max_bytes: size.max.bytes(),
            max_age: self.max_age,
            max_frame_bytes: u32::try_from(self.max_batch_bytes)
                .map_or(MAX_FRAME_BYTES, |bytes| bytes.min(MAX_FRAME_BYTES)),
            tail_bytes: memory,
            fsync: self.fsync,
            when_full: self.when_full,
            ..Options::new(&self.directory, identity)
        }
    }
}

pub(crate) fn spool(
    raw: &RawSpool,
    link: &LinkSettings,
    max_record_bytes: ByteSize,
    why_not: Option<&str>,
    checker: &mut Checker<'_>,
) -> Option<SpoolConfig> {
    if let Some(why_not) = why_not {
        if raw.enabled && checker.is_written(&["spool"]) {
            checker.notice(&["spool"], format!("[spool] is not used: {why_not}"));
        }
        return None;
    }
    if !raw.enabled {
        return None;
    }
    let directory = match &raw.directory {
        None => link.state_dir.join("spool"),
        Some(path) => {
            let located = checker.locate(path).map_err(|why| format!("`directory` in [spool]: {why}"));
            checker.take(&["spool", "directory"], located).map_or_else(PathBuf::new, |located| located.path)
        }
    };
    let segments = ByteSize(*SEGMENT_BYTES.start())..=ByteSize(*SEGMENT_BYTES.end());
    if let Some(segment) = raw.segment_size.filter(|size| !segments.contains(size)) {
        let message =
            format!("`segment_size` in [spool]: {segment} is out of range; it can be 64KiB to 256MiB");
        checker.problem(&["spool", "segment_size"], message);
    }
    if !(Span(Duration::from_millis(1))..=Span(Duration::from_mins(1))).contains(&raw.fsync_interval) {
        let message = format!(
            "`fsync_interval` in [spool]: {} is out of range; it can be 1ms to 60s",
            raw.fsync_interval
        );
        checker.problem(&["spool", "fsync_interval"], message);
    }
    let max_age = (raw.max_age.0 > Duration::ZERO).then_some(raw.max_age.0);
    if max_age.is_some_and(|age| age < Duration::from_secs(10)) {
        let message =
            format!("`max_age` in [spool]: {} is less than 10s; write 0s for no limit", raw.max_age);
        checker.problem(&["spool", "max_age"], message);
    }
    let max_batch_bytes = max_record_bytes.bytes() + BATCH_OVERHEAD;
    if max_batch_bytes > u64::from(MAX_FRAME_BYTES) {
        let message = format!(
            "`max_record_bytes` in [link.receive]: {max_record_bytes} is more than a spool takes (63MiB); lower it, or write enabled = false in [spool]"
        );
        checker.problem(&["link", "receive", "max_record_bytes"], message);
    }
    let config = SpoolConfig {
        directory,
        max_size: raw.max_size,
        max_age,
        segment_size: raw.segment_size,
        fsync: match raw.fsync {
            FsyncWhen::Interval => Fsync::Interval(raw.fsync_interval.0),
            FsyncWhen::Always => Fsync::Always,
            FsyncWhen::Never => Fsync::Never,
        },
        when_full: match raw.when_full {
            WhenSpoolFull::DropNewest => WhenFull::DropNewest,
            WhenSpoolFull::DropOldest => WhenFull::DropOldest,
        },
        max_batch_bytes,
    };
    if let Some(max) = config.max_size {
        let segment = config.segment_size.unwrap_or(ByteSize(*SEGMENT_BYTES.start()));
        let least = config.least(segment);
        if max.bytes() < least {
            let message = format!(
                "`max_size` in [spool]: {max} is too small; four files of segment_size and four of the largest record (max_record_bytes in [link.receive]) must fit: at least {}",
                ByteSize(least)
            );
            checker.problem(&["spool", "max_size"], message);
        }
    }
    Some(config)
}
