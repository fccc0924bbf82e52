//! The table of the egress's spool.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::choices;
use crate::config::units::{ByteSize, Span};
use crate::config::values::FilePath;

/// What was received and the destination has not acknowledged lies on disk, so that nothing is lost while the destination is away,
/// and nothing when the egress is killed. For `[sink.kafka]` with a seal; `seal = "none"` writes nothing that came from the link to a disk, and
/// `[sink.udp]` has no use for it. docs/spool.md says how large it should be, and what to do when it is full.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(crate) struct RawSpool {
    /// `false`: what waits is in memory only, at most `[sink] buffer`; it is lost when the egress is killed, and named.
    pub(crate) enabled: bool,
    /// The directory of its files. Every link needs its own; nothing else may lie in it. Best on a file system of its own: what fills that one then
    /// does not stop the spool, and the other way round. Without it: `spool` in the link's `state_dir`.
    pub(crate) directory: Option<FilePath>,
    /// What its files may take at most. At least four times `segment_size`, and four times the largest record. Without it: 10 GiB, or half of
    /// the file system if that is less.
    pub(crate) max_size: Option<ByteSize>,
    /// What has waited longer is dropped, and named, such as `72h`; `0s` drops nothing for its age. Time in which no egress runs does not count. It goes file by
    /// file, by each file's newest batch.
    pub(crate) max_age: Span,
    /// How large one file gets, 64KiB to 256MiB: what is settled is removed file by file. Without it: 64 MiB, or an eighth of `max_size` if that is less.
    pub(crate) segment_size: Option<ByteSize>,
    /// When data is forced onto the disk. A killed process loses nothing in any case; this is about power cuts.
    pub(crate) fsync: FsyncWhen,
    /// With `fsync = "interval"`: how long after the first batch that is not on the disk.
    pub(crate) fsync_interval: Span,
    /// What happens when `max_size` is reached, or the disk is full. Either way it is said, counted and named by topic, partition and offset, and it ends
    /// without a restart.
    pub(crate) when_full: WhenSpoolFull,
}

impl Default for RawSpool {
    fn default() -> Self {
        Self {
            enabled: true,
            directory: None,
            max_size: None,
            max_age: Span(Duration::ZERO),
            segment_size: None,
            fsync: FsyncWhen::Interval,
            fsync_interval: Span(Duration::from_millis(100)),
            when_full: WhenSpoolFull::DropNewest,
        }
    }
}

choices! {
    /// When data of the spool is forced onto the disk.
    FsyncWhen {
        /// `fsync_interval` after the first batch that is not: a power cut loses at most that, and what the call itself takes.
        Interval = "interval",
        /// Before the next batch is taken: a power cut loses nothing, and the link must be slow, since nothing is received meanwhile.
        Always = "always",
        /// When the kernel likes to: a power cut loses up to some 30 s.
        Never = "never",
    }
}

choices! {
    /// What happens when the spool is full.
    WhenSpoolFull {
        /// What comes is refused until there is room: what is oldest still arrives.
        DropNewest = "drop_newest",
        /// The oldest file goes: what is newest still arrives.
        DropOldest = "drop_oldest",
    }
}
