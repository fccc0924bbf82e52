//! Why something was not done, where, and what helps.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::header::FORMAT_VERSION;
use crate::options::BadOption;
use crate::scan::Damage;

/// Why a spool cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Options that do not go together.
    #[error(transparent)]
    Option(#[from] BadOption),
    /// The system refused.
    #[error("spool {what} {}: {error}; the directory must be readable and writable for this user: install -d -m 0700 -o \"$(id -un)\" {}", path.display(), directory.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The spool's directory, for the remedy.
        directory: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// Another process has it open.
    #[error("spool directory {} is in use by another process; each egress link needs its own", .0.display())]
    InUse(PathBuf),
    /// It is the spool of another link.
    #[error("spool file {} belongs to {found}, this is {expected}; give each link its own spool directory, or move the files away", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: Identity,
        /// Who wants to open it.
        expected: Identity,
    },
    /// Another version of DDC wrote it.
    #[error("spool file {} has format version {version}, this program knows {FORMAT_VERSION}; run the version of DDC that wrote it until the spool is empty, or move the files away", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
}

/// An identity as people read it: text, or hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity(pub Vec<u8>);

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.contains(char::is_control) => write!(f, "{text:?}"),
            _ => self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

/// Why a frame was not appended. Nothing of it is in the spool: the caller records the loss.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// [`crate::Options::max_bytes`] is reached.
    #[error(
        "the spool is full ({used} of {limit} bytes); bring the destination back, or give the spool more room"
    )]
    Full {
        /// Bytes of all segments.
        used: u64,
        /// The limit.
        limit: u64,
    },
    /// The file system is full.
    #[error("the disk of the spool is full: {0}; make room on its file system, it is tried again")]
    DiskFull(String),
    /// Another error of the disk.
    #[error("the spool cannot be written: {0}; look at the kernel's log, it is tried again")]
    Io(String),
    /// [`crate::Options::max_frame_bytes`] is less.
    #[error("a payload of {bytes} bytes is larger than the spool takes ({limit})")]
    TooLarge {
        /// Its bytes.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
}

impl Refused {
    /// From an error of the disk.
    pub(crate) fn of(error: &io::Error) -> Self {
        if is_full(error) { Self::DiskFull(error.to_string()) } else { Self::Io(error.to_string()) }
    }

    /// A short constant name for metrics and gap records.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Full { .. } => "spool_full",
            Self::DiskFull(_) => "disk_full",
            Self::Io(_) => "spool_error",
            Self::TooLarge { .. } => "too_large",
        }
    }
}

/// Whether an error says that there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::WriteZero
    )
}

/// Why something was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk failed; nothing was skipped, so it can be tried again. [`crate::Reader::skip`] gives the place up.
    #[error("spool segment {segment} cannot be read at offset {offset}: {error}")]
    Io {
        /// The file.
        segment: String,
        /// Where in it, in bytes.
        offset: u64,
        /// The system's error.
        error: io::Error,
    },
    /// What was there is lost.
    #[error("{0}")]
    Damaged(Damage),
    /// It was trimmed or dropped, or nothing was appended there.
    #[error("nothing is in the spool at position {0}")]
    Absent(u64),
}

/// Why the checkpoint was not replaced. The old one is still there, and nothing was trimmed.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The system refused.
    #[error(
        "the spool's checkpoint cannot be written: {0}; it is tried again, until then nothing is trimmed"
    )]
    Io(#[from] io::Error),
    /// The caller's table is too large.
    #[error("the table for the spool's checkpoint has {bytes} bytes, more than {limit}")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// [`crate::MAX_TABLE`].
        limit: usize,
    },
}
