//! The wire format of DDC, version 1: encode and decode over byte slices, nothing else.
//!
//! ```text
//!  datagram  = header (44, authenticated) | payload (sealed) | trailer (tag 16, or CRC-32C 4)
//!  payload   = symbol of a block | heartbeat | goodbye
//!  block     = prelude | part of a batch, compressed          (k' source symbols, r' repair symbols)
//!  batch     = chunks: records of one partition each | ledger: where every partition stands
//! ```
//!
//! `docs/protocol.md` specifies every byte; the ids `DDC-W-nnn` cited here and in tests are its
//! requirements. This crate has no I/O, no clock, no cryptography and no unsafe code, and it
//! allocates only into vectors that the caller hands in. All multi-byte integers of fixed size are
//! big-endian; variable ones are unsigned LEB128 in the shortest form.
#![forbid(unsafe_code)]

mod batch;
mod block;
mod header;
mod heartbeat;
mod ids;
mod limits;
mod varint;

pub use batch::{
    Chunk, ChunkHeader, ChunkKind, Chunks, FilteredRange, FilteredRanges, Headers, LedgerEntries,
    LedgerEntry, Record, RecordHeader, RecordWriter, Records, Timestamp, validate_ledger, validate_records,
    write_chunk, write_ledger_entry,
};
pub use block::{Codec, Content, Prelude};
pub use header::{BlockShape, HEADER_LEN, Header, HeaderError, Kind, MAGIC, ShapeError, VERSION};
pub use heartbeat::{Goodbye, GoodbyeReason, Heartbeat, SourceState};
pub use ids::{BlockNumber, Epoch, IdError, KeyId, LinkId, PacketNumber, Session, TopicId};
pub use limits::*;
pub use varint::Malformed;
