//! What was found when a spool was opened.

use std::fmt;
use std::time::Duration;

use crate::frame::Span;
use crate::scan::Damage;
use crate::sessions::SessionMark;

/// Findings that are kept; more are only counted.
pub const MAX_FINDINGS: usize = 256;

/// What was found when a spool was opened. Log each finding.
#[derive(Debug, Clone, Default)]
pub struct OpenReport {
    /// What is not as it was left.
    pub findings: Vec<Finding>,
    /// Findings beyond [`MAX_FINDINGS`].
    pub more_findings: u64,
    /// Segment files.
    pub segments: usize,
    /// Bytes of all segments.
    pub bytes: u64,
    /// Frames in all segments.
    pub frames: u64,
    /// The lowest position that the checkpoint does not call settled: the reader begins here.
    pub lowest: u64,
    /// The position of the next frame.
    pub end: u64,
    /// The highest block of each session, from checkpoint and frames.
    pub sessions: Vec<SessionMark>,
    /// The caller's table as of the last checkpoint; empty when there was none.
    pub table: Vec<u8>,
    /// How long opening took.
    pub took: Duration,
}

/// Something that is not as it was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The end of the last segment was no whole frame and was cut off.
    TornTail {
        /// The file.
        segment: String,
        /// The length it was cut to, in bytes.
        offset: u64,
        /// Bytes cut off.
        bytes: u64,
        /// Frames in it whose header was whole: at least so many are lost.
        frames: u64,
    },
    /// A damaged place in the last segment, with whole frames behind it. Others are found when they are read.
    Damaged(Damage),
    /// One of the two copies of a segment's header is damaged; the other served.
    HeaderCopy {
        /// The file.
        segment: String,
    },
    /// Both copies are damaged: the frames in it are lost.
    Header {
        /// The file.
        segment: String,
        /// Its positions.
        span: Span,
    },
    /// A new segment without anything in it; removed.
    Unfinished {
        /// The file.
        segment: String,
    },
    /// The last file has a segment's name, but no readable header: it was renamed.
    SetAside {
        /// The file's new name.
        file: String,
        /// The positions it would have had.
        span: Span,
    },
    /// Positions that were appended and are in no file.
    Missing(Span),
    /// A segment's name and header do not agree; the file is left alone.
    Misnamed {
        /// The file.
        file: String,
        /// The name it was made with.
        should_be: String,
    },
    /// There are segments, but no checkpoint.
    NoCheckpoint,
    /// The checkpoint cannot be read; it will be replaced.
    CheckpointDamaged,
    /// The first checkpoint could not be written.
    CheckpointFailed(String),
    /// A file or directory that is none of the spool's; it is left alone.
    Stranger(String),
    /// The last segment could not be read to its end.
    Unreadable {
        /// The file.
        segment: String,
        /// The system's error.
        error: String,
    },
}

impl Finding {
    /// Whether frames were lost, or may have been.
    pub fn is_loss(&self) -> bool {
        match self {
            Self::TornTail { .. }
            | Self::Damaged(_)
            | Self::Header { .. }
            | Self::SetAside { .. }
            | Self::Missing(_) => true,
            Self::HeaderCopy { .. }
            | Self::Unfinished { .. }
            | Self::Misnamed { .. }
            | Self::NoCheckpoint
            | Self::CheckpointDamaged
            | Self::CheckpointFailed(_)
            | Self::Stranger(_)
            | Self::Unreadable { .. } => false,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TornTail { segment, offset, bytes, frames } => write!(
                f,
                "spool segment {segment} ended in the middle of a frame: cut at offset {offset}, {bytes} bytes with {frames} whole headers are gone"
            ),
            Self::Damaged(damage) => damage.fmt(f),
            Self::HeaderCopy { segment } => write!(
                f,
                "spool segment {segment}: one copy of its header is damaged, the other served; check the disk"
            ),
            Self::Header { segment, span } => write!(
                f,
                "spool segment {segment}: both copies of its header are damaged; its {} bytes are lost; check the disk",
                span.bytes()
            ),
            Self::Unfinished { segment } => {
                write!(f, "spool segment {segment} was made but never filled; removed")
            }
            Self::SetAside { file, span } => write!(
                f,
                "the last spool file has no readable header: renamed to {file}, its {} bytes are lost; remove it when you have looked at it",
                span.bytes()
            ),
            Self::Missing(span) => write!(
                f,
                "positions {} to {} of the spool are in no file: {} bytes are lost; were files removed, or was the power cut?",
                span.start,
                span.end,
                span.bytes()
            ),
            Self::Misnamed { file, should_be } => write!(
                f,
                "spool file {file} was made as {should_be}: not read; rename it back with DDC stopped, or remove it"
            ),
            Self::NoCheckpoint => write!(
                f,
                "the spool has segments but no checkpoint: everything in it is read again; was the file removed?"
            ),
            Self::CheckpointDamaged => {
                write!(
                    f,
                    "the spool's checkpoint is damaged: everything in the spool is read again; check the disk"
                )
            }
            Self::CheckpointFailed(error) => {
                write!(f, "the spool's checkpoint cannot be written: {error}; it is tried again")
            }
            Self::Stranger(name) => {
                write!(
                    f,
                    "{name:?} in the spool's directory is none of its files; left alone, please move it away"
                )
            }
            Self::Unreadable { segment, error } => {
                write!(f, "spool segment {segment} cannot be read to its end: {error}; check the disk")
            }
        }
    }
}

impl OpenReport {
    pub(crate) fn find(&mut self, finding: Finding) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        } else {
            self.more_findings += 1;
        }
    }
}
