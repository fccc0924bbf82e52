//! A released batch back into chunks or ledger entries: decompressed, and checked to its last byte.
//!
//! Runs on the sink's thread. Nothing of a batch is used unless all of it is well-formed (DDC-W-050).

use ddc_wire::{Codec, Content, Malformed, validate_ledger, validate_records};
use thiserror::Error;
use zstd::bulk::Decompressor;

use super::join::ReleasedBatch;

/// Decompresses batches into a buffer of its own, which is reused and never larger than the largest batch.
pub struct Unpacker {
    max_batch_bytes: usize,
    zstd: Decompressor<'static>,
    buffer: Vec<u8>,
}

/// Why a batch that came whole cannot be used. The two sides are of different versions, or one has a fault.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// The batch says that it is larger than this receiver accepts.
    #[error(
        "batch of {raw_len} bytes is larger than the {max} accepted; raise max_record_bytes at the egress"
    )]
    TooLarge {
        /// Bytes before compression, as the sender says.
        raw_len: usize,
        /// The limit.
        max: usize,
    },
    /// The bytes are not what the codec makes.
    #[error("batch cannot be decompressed ({codec:?}): {problem}")]
    Decompress {
        /// How it should be compressed.
        codec: Codec,
        /// What the decompressor says.
        problem: String,
    },
    /// It has another length than its prelude says.
    #[error("batch has {found} bytes and its prelude says {raw_len}")]
    Length {
        /// Bytes that are there.
        found: usize,
        /// Bytes before compression, as the sender says.
        raw_len: usize,
    },
    /// It is not a batch of chunks, or not a ledger.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Unpacker {
    /// An unpacker for batches of at most `max_batch_bytes` (as in [`super::ReceiverConfig`]).
    ///
    /// Fails only when zstd cannot get memory for its context.
    pub fn new(max_batch_bytes: usize) -> std::io::Result<Self> {
        Ok(Self { max_batch_bytes, zstd: Decompressor::new()?, buffer: Vec::new() })
    }

    /// The batch before compression: to be read with [`ddc_wire::Chunks`] or [`ddc_wire::LedgerEntries`], as its
    /// content says. Both then yield no error.
    pub fn unpack<'a>(&'a mut self, batch: &'a ReleasedBatch) -> Result<&'a [u8], UnpackError> {
        let (raw_len, codec, bytes) = (batch.raw_len, batch.codec, batch.bytes());
        if raw_len > self.max_batch_bytes {
            return Err(UnpackError::TooLarge { raw_len, max: self.max_batch_bytes });
        }
        let raw = if codec == Codec::None {
            bytes
        } else {
            if self.buffer.len() < raw_len {
                self.buffer.resize(raw_len, 0);
            }
            // The room ends at raw_len, so that what would grow larger fails inside of the decompressor.
            let room = &mut self.buffer[..raw_len];
            let len = match codec {
                Codec::Zstd => self.zstd.decompress_to_buffer(bytes, room).map_err(|e| e.to_string()),
                _ => lz4_flex::block::decompress_into(bytes, room).map_err(|e| e.to_string()),
            };
            &self.buffer[..len.map_err(|problem| UnpackError::Decompress { codec, problem })?]
        };
        if raw.len() != raw_len {
            return Err(UnpackError::Length { found: raw.len(), raw_len });
        }
        match batch.content {
            Content::Records => validate_records(raw)?,
            Content::Ledger => validate_ledger(raw)?,
        };
        Ok(raw)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use ddc_wire::{KeyId, LedgerEntry, Prelude, Session, TopicId, write_ledger_entry};

    use super::super::join::{Joined, Joiner};
    use super::*;

    fn ledger() -> Vec<u8> {
        let mut raw = Vec::new();
        for partition in 0..50 {
            let entry = LedgerEntry {
                stream: "",
                topic: "orders",
                topic_id: TopicId::default(),
                partition,
                epoch: ddc_wire::Epoch(1),
                origin: 0,
                last: Some(7),
                count: 8,
                blocks_back: 1,
            };
            write_ledger_entry(&mut raw, &entry);
        }
        raw
    }

    fn batch(codec: Codec, raw_len: usize, bytes: &[u8]) -> ReleasedBatch {
        let mut block = Vec::new();
        let content = Content::Ledger;
        Prelude { codec, content, fragment: 0, fragments: 1, raw_len: raw_len as u32 }.encode(&mut block);
        block.extend_from_slice(bytes);
        let mut joiner = Joiner::new(Session::new(1, 1), KeyId(1), 1 << 20);
        let (Joined::Batch(batch), _) = joiner.block(0, block, Instant::now()) else { panic!() };
        *batch
    }

    fn compressed(codec: Codec, raw: &[u8]) -> Vec<u8> {
        match codec {
            Codec::None => raw.to_vec(),
            Codec::Zstd => zstd::bulk::compress(raw, 1).unwrap(),
            Codec::Lz4 => lz4_flex::block::compress(raw),
        }
    }

    #[test]
    fn every_codec_gives_the_batch_back_and_nothing_else() {
        let raw = ledger();
        let mut unpacker = Unpacker::new(1 << 16).unwrap();
        for codec in [Codec::None, Codec::Zstd, Codec::Lz4] {
            let bytes = compressed(codec, &raw);
            assert_eq!(unpacker.unpack(&batch(codec, raw.len(), &bytes)).unwrap(), raw);
            for wrong in [raw.len() - 1, raw.len() + 1, 0] {
                assert!(unpacker.unpack(&batch(codec, wrong, &bytes)).is_err(), "{codec:?} {wrong}");
            }
            assert!(unpacker.unpack(&batch(codec, raw.len(), &bytes[..bytes.len() - 1])).is_err());
            let too_large = unpacker.unpack(&batch(codec, (1 << 16) + 1, &bytes)).unwrap_err();
            assert!(too_large.to_string().contains("raise max_record_bytes"), "{too_large}");
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_length_it_names() {
        let zeros = vec![0; 50 << 20];
        let mut unpacker = Unpacker::new(1 << 16).unwrap();
        for codec in [Codec::Zstd, Codec::Lz4] {
            let bytes = compressed(codec, &zeros);
            let error = unpacker.unpack(&batch(codec, 1000, &bytes)).unwrap_err();
            assert!(matches!(error, UnpackError::Decompress { .. }), "{error}");
            assert!(unpacker.buffer.capacity() <= 1 << 16);
        }
    }

    #[test]
    fn one_wrong_byte_refuses_the_whole_batch_or_changes_a_value() {
        let raw = ledger();
        let mut unpacker = Unpacker::new(1 << 16).unwrap();
        for at in 0..raw.len().min(200) {
            let mut wrong = raw.clone();
            wrong[at] ^= 0x80;
            if let Ok(read) = unpacker.unpack(&batch(Codec::None, wrong.len(), &wrong)) {
                assert_eq!(read, wrong);
            }
        }
        assert!(unpacker.unpack(&batch(Codec::None, 3, b"abc")).is_err());
    }
}
