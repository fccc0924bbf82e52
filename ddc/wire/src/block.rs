//! The prelude of a block: what the bytes behind it are, and which part of a batch.
//!
//! ```text
//!  block = flags (1) | fragment index (varint) | fragments (varint) | raw length (varint) | bytes
//!  flags = codec (bits 0–1) | content (bits 2–3) | zero
//! ```
//!
//! A batch that fits one block is one fragment of one. A record larger than a block is a batch of
//! its own over consecutive blocks: the bytes of its fragments, joined in order, are the
//! compressed batch.

use crate::limits::{MAX_BATCH_LEN, MAX_FRAGMENTS};
use crate::varint::{Malformed, Reader, put};

/// How a batch is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// Not at all.
    None = 0,
    /// One Zstandard frame (RFC 8878).
    Zstd = 1,
    /// One LZ4 block (no frame).
    Lz4 = 2,
}

/// What a batch holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Content {
    /// Chunks of records.
    Records = 0,
    /// Where each partition stands.
    Ledger = 1,
}

/// The first bytes of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prelude {
    /// How the batch is compressed.
    pub codec: Codec,
    /// What the batch holds.
    pub content: Content,
    /// Which fragment of the batch this block is, from 0.
    pub fragment: u32,
    /// Of how many.
    pub fragments: u32,
    /// Bytes of the batch before compression.
    pub raw_len: u32,
}

impl Prelude {
    /// Most bytes that a prelude takes.
    pub const MAX_LEN: usize = 1 + 3 + 3 + 5;

    /// Appends the prelude.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.codec as u8 | (self.content as u8) << 2);
        put(out, u64::from(self.fragment));
        put(out, u64::from(self.fragments));
        put(out, u64::from(self.raw_len));
    }

    /// Splits a block into its prelude and the bytes of the batch.
    pub fn decode(block: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let mut reader = Reader::new(block, "block prelude");
        let flags = reader.u8()?;
        let codec = match flags & 3 {
            0 => Codec::None,
            1 => Codec::Zstd,
            2 => Codec::Lz4,
            _ => return reader.fail("has an unknown codec"),
        };
        let content = match flags >> 2 {
            0 => Content::Records,
            1 => Content::Ledger,
            _ => return reader.fail("has an unknown content or flags"),
        };
        let fragment = reader.len(MAX_FRAGMENTS as usize)? as u32;
        let fragments = reader.len(MAX_FRAGMENTS as usize)? as u32;
        if fragment >= fragments {
            return reader.fail("names a fragment that its batch does not have");
        }
        let raw_len = reader.len(MAX_BATCH_LEN)? as u32;
        Ok((Self { codec, content, fragment, fragments, raw_len }, reader.rest()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn round_trip() {
        let prelude = Prelude {
            codec: Codec::Lz4,
            content: Content::Ledger,
            fragment: 3,
            fragments: 200,
            raw_len: 1 << 20,
        };
        let mut bytes = Vec::new();
        prelude.encode(&mut bytes);
        assert!(bytes.len() <= Prelude::MAX_LEN);
        bytes.extend_from_slice(b"rest");
        assert_eq!(Prelude::decode(&bytes), Ok((prelude, &b"rest"[..])));
    }

    #[test]
    fn refusals() {
        for bytes in [
            &[][..],
            &[3, 0, 1, 0],
            &[8, 0, 1, 0],
            &[0x80, 0, 1, 0],
            &[0, 1, 1, 0],
            &[0, 0, 0, 0],
            &[0, 0, 1],
            &[0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0x7f],
        ] {
            assert!(Prelude::decode(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            if let Ok((prelude, rest)) = Prelude::decode(&bytes) {
                let mut again = Vec::new();
                prelude.encode(&mut again);
                again.extend_from_slice(rest);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
