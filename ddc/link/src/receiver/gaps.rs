//! What is missing and what was there before: the one place where gaps are decided. Pure.
//!
//! ```text
//!  position:  settled │ hole │ settled      next                 (everything below `next` but the holes is settled)
//!  chunk:                                          previous │ base … records … │ end
//!                                            └─ missing ─┘
//! ```
//!
//! A sender *claims*, with every live chunk and every ledger entry, up to which offset it had sent before. What lies
//! between the position and that was sent and is not here: it is missing. Offsets alone decide that; `count` only
//! tells how many records it was. An offset within a chunk that has no record never existed or was filtered.

use ddc_wire::{ChunkHeader, ChunkKind, LedgerEntry};

use super::position::Position;

/// Offsets `first..=last` of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OffsetRange {
    /// First offset.
    pub first: i64,
    /// Last offset, included; at least `first`.
    pub last: i64,
}

impl OffsetRange {
    /// Whether the offset lies within.
    pub fn contains(self, offset: i64) -> bool {
        (self.first..=self.last).contains(&offset)
    }

    /// How many offsets it has; not all of them need to be records.
    pub fn offsets(self) -> u64 {
        self.last.abs_diff(self.first).saturating_add(1)
    }
}

/// Records that were sent and will not be delivered, unless they come late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// The offsets among which they lie; everything lost of the partition lies in a range like this.
    pub range: OffsetRange,
    /// How many records it is; `None` when the counts of both sides cannot be compared.
    pub records: Option<u64>,
    /// Why they are missing, as far as is known.
    pub reason: MissingReason,
}

/// Why records are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MissingReason {
    /// Lost on the link and not repaired.
    Lost,
    /// Between the stored position and the first chunk after a restart of the egress; some may have been delivered.
    Restart,
    /// Sent before this egress knew any position of the partition.
    NoPosition,
    /// Arrived, but the queue to the sink was full (or the range holds such records beside lost ones).
    BufferFull,
    /// Arrived, but the destination refuses them for ever.
    Refused,
    /// Arrived, but the spool had reached its size (and as for [`Self::BufferFull`], so with all that follow).
    SpoolFull,
    /// Arrived, but the disk of the spool was full.
    DiskFull,
    /// Arrived, but the spool could not be written or read.
    SpoolError,
    /// Were in the spool, and what is there is damaged.
    SpoolDamaged,
    /// Were in the spool for longer than allowed.
    SpoolExpired,
}

impl MissingReason {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::Lost,
        Self::Restart,
        Self::NoPosition,
        Self::BufferFull,
        Self::Refused,
        Self::SpoolFull,
        Self::DiskFull,
        Self::SpoolError,
        Self::SpoolDamaged,
        Self::SpoolExpired,
    ];

    /// The reason's name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Restart => "restart",
            Self::NoPosition => "no_position",
            Self::BufferFull => "buffer_full",
            Self::Refused => "refused",
            Self::SpoolFull => "spool_full",
            Self::DiskFull => "disk_full",
            Self::SpoolError => "spool_error",
            Self::SpoolDamaged => "spool_damaged",
            Self::SpoolExpired => "spool_expired",
        }
    }
}

/// What to do with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// It is next: write it.
    Deliver,
    /// It fills a hole that was reported: write it marked as late, or drop it, as configured.
    Late,
    /// It was delivered before, or never has to be: skip it.
    Duplicate,
    /// A replayed record that the chain has not reached: skip it, the chain will bring it.
    Ahead,
}

/// What happened to the position since its last chunk, to name the reason of a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Life {
    /// It was judged in this life of the receiver and nothing is known to have been dropped since.
    #[default]
    This,
    /// It was read from the file of a former life and no chunk has been judged since.
    Former,
    /// Batches that may have held records of it were dropped on their way to the sink, last for this reason.
    Dropped(MissingReason),
}

/// What a sender says of a partition: everything it has sent before lies below `base`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Last offset sent before; `None` when nothing is known to have been sent.
    pub previous: Option<i64>,
    /// First offset ever to be read in this life of the topic.
    pub origin: i64,
    /// Records sent up to `previous`; `None` when the sender's counts contradict themselves.
    pub count: Option<u64>,
}

impl Claim {
    /// The claim of a live chunk with so many records.
    pub fn of_chunk(header: &ChunkHeader<'_>, record_count: u32) -> Self {
        let count = header.count.checked_sub(u64::from(record_count));
        Self { previous: header.previous, origin: header.origin, count }
    }

    /// The claim of a ledger entry, ripe when its batch is released: it then speaks only of blocks before.
    pub fn of_ledger(entry: &LedgerEntry<'_>) -> Self {
        Self { previous: entry.last, origin: entry.origin, count: Some(entry.count) }
    }

    /// What is missing by this claim.
    ///
    /// Without a `previous` there is never a gap: the sender knows of nothing before. Without a position everything
    /// from `origin` on is missing.
    pub fn missing(&self, position: Option<&Position>, life: Life) -> Option<Missing> {
        let last = self.previous?;
        let (first, counted, reason) = match position {
            None => (self.origin, Some(0), MissingReason::NoPosition),
            Some(position) => {
                // Counts begin at the origin, so those of two origins have nothing to do with each other.
                let counted = (position.origin() == self.origin).then(|| position.count());
                let reason = match life {
                    Life::This => MissingReason::Lost,
                    Life::Former => MissingReason::Restart,
                    Life::Dropped(reason) => reason,
                };
                (position.next(), counted, reason)
            }
        };
        if last < first {
            return None;
        }
        let range = OffsetRange { first, last };
        let records = self.count.zip(counted).and_then(|(sent, counted)| sent.checked_sub(counted));
        // There cannot be more records than offsets: then the counts are not of the same run.
        let records = records.filter(|records| *records <= range.offsets());
        Some(Missing { range, records, reason })
    }
}

/// What to do with a record of this offset.
///
/// What is at or above `next` is written by the chain only, a replayed record only into an open hole.
pub fn disposition(kind: ChunkKind, offset: i64, position: Option<&Position>) -> Disposition {
    match (position, kind) {
        (Some(position), _) if offset < position.next() => {
            if position.is_hole(offset) {
                Disposition::Late
            } else {
                Disposition::Duplicate
            }
        }
        (_, ChunkKind::Live) => Disposition::Deliver,
        (_, ChunkKind::Replay) => Disposition::Ahead,
    }
}
