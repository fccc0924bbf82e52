//! What the egress writes into a frame of the spool: a batch as it was released, and what was dropped before it.
//!
//! | tag, byte | bytes | what |
//! |-----------|-------|------|
//! | 0  | 1 | key id |
//! | 1  | 1 | codec, as on the wire |
//! | 2  | 1 | 0; or why batches were dropped just before this one, see [`REASONS`] |
//! | 3  | 1 | 0 |
//! | 4  | 4 | bytes of the batch before compression |
//! | 8  | 4 | blocks of the batch, less one |
//! | 12 | 4 | batches that were dropped just before this one |
//!
//! The frame's kind is 1 for records and 2 for a ledger, its block is the batch's last. docs/spool.md has the same table.

use ddc_link::receiver::{BatchHead, MissingReason, ReleasedBatch};
use ddc_spool::{Bytes, Frame, Head};
use ddc_wire::{Codec, Content, KeyId, Session};

use super::item::Dropped;

/// Why a batch was not taken in, by the number that stands for it, from 1.
pub(super) const REASONS: [MissingReason; 6] = [
    MissingReason::SpoolFull,
    MissingReason::DiskFull,
    MissingReason::SpoolError,
    MissingReason::SpoolDamaged,
    MissingReason::SpoolExpired,
    // Nobody received before the first batch of a life.
    MissingReason::Restart,
];

/// The number of a reason.
pub(super) fn code_of(reason: MissingReason) -> u8 {
    REASONS.iter().position(|known| *known == reason).map_or(0, |at| at as u8 + 1)
}

/// The reason of a number.
pub(super) fn reason_of(code: u8) -> Option<MissingReason> {
    REASONS.get(usize::from(code).checked_sub(1)?).copied()
}

/// The frame's header for a batch.
pub(super) fn head(batch: &ReleasedBatch, received_micros: u64, dropped: Option<Dropped>) -> Head {
    let mut tag = [0; 16];
    tag[0] = batch.key_id.0;
    tag[1] = batch.codec as u8;
    tag[4..8].copy_from_slice(&(batch.raw_len as u32).to_be_bytes());
    let blocks = u32::try_from(batch.last_block - batch.first_block).unwrap_or(u32::MAX);
    tag[8..12].copy_from_slice(&blocks.to_be_bytes());
    if let Some(dropped) = dropped {
        tag[2] = code_of(dropped.reason);
        tag[12..].copy_from_slice(&u32::try_from(dropped.batches).unwrap_or(u32::MAX).to_be_bytes());
    }
    let kind = batch.content as u8 + 1;
    Head { session: batch.session.0, block: batch.last_block, received_micros, kind, tag }
}

/// A batch from its frame. `None`: its bytes are as they were written, but this version does not write such.
pub(super) fn batch(head: &Head, payload: Bytes) -> Option<(ReleasedBatch, Option<Dropped>)> {
    let tag = &head.tag;
    let word = |at: usize| Some(u32::from_be_bytes(*tag.get(at..)?.first_chunk()?));
    let content = match head.kind {
        1 => Content::Records,
        2 => Content::Ledger,
        _ => return None,
    };
    let codec = [Codec::None, Codec::Zstd, Codec::Lz4].into_iter().find(|codec| *codec as u8 == tag[1])?;
    let first_block = head.block.checked_sub(u64::from(word(8)?))?;
    let dropped = match (tag[2], word(12)?) {
        (0, _) => None,
        (code, batches) => Some(Dropped { batches: u64::from(batches), reason: reason_of(code)? }),
    };
    let head = BatchHead {
        session: Session(head.session),
        key_id: KeyId(tag[0]),
        first_block,
        last_block: head.block,
        content,
        codec,
        raw_len: word(4)? as usize,
    };
    Some((ReleasedBatch::kept(head, payload), dropped))
}

/// As [`batch`], of a frame.
pub(super) fn batch_of(frame: &Frame) -> Option<(ReleasedBatch, Option<Dropped>)> {
    batch(&frame.head, frame.payload.clone())
}
