//! The 44 bytes in front of every datagram: authenticated, not encrypted.
//!
//! ```text
//!  0      2     3     4        6      7      8         20             28        36     38     39 40 41      44
//!  | "DD" | ver | kind | link id | key id | d_max | session | packet number | block | S | index | k' | r' | L |
//! ```
//!
//! Decoding looks at these bytes only. What they say of a block ([`BlockShape`]) is checked by
//! [`Header::shape`], which a receiver calls after the tag has verified.

use crate::ids::{BlockNumber, KeyId, LinkId, PacketNumber, Session};
use crate::limits::{MAX_DATAGRAM, MAX_REPAIR_SYMBOLS, MAX_SOURCE_SYMBOLS, OVERHEAD};

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 44;
/// The first two bytes of every datagram.
pub const MAGIC: [u8; 2] = *b"DD";
/// The version of the format this crate speaks.
pub const VERSION: u8 = 1;

/// What a datagram carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A source symbol of a block.
    Source = 0,
    /// A repair symbol of a block.
    Repair = 1,
    /// The sender's clock and totals, every second.
    Heartbeat = 2,
    /// A planned end of the session.
    Goodbye = 3,
    /// Reserved for measuring the path; refused by receivers of this version.
    Probe = 4,
    /// Reserved for the return direction; refused by receivers of this version.
    Status = 5,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Source,
            1 => Self::Repair,
            2 => Self::Heartbeat,
            3 => Self::Goodbye,
            4 => Self::Probe,
            5 => Self::Status,
            _ => return None,
        })
    }

    /// Whether the datagram carries a symbol of a block.
    pub fn is_symbol(self) -> bool {
        matches!(self, Self::Source | Self::Repair)
    }
}

/// The header of a datagram, field by field as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the datagram carries.
    pub kind: Kind,
    /// The link it belongs to.
    pub link_id: LinkId,
    /// The key that sealed it.
    pub key_id: KeyId,
    /// How many blocks the sender interleaves at most (D_max), at least 1.
    pub d_max: u8,
    /// The sender's session.
    pub session: Session,
    /// The datagram's number in the session.
    pub packet_number: PacketNumber,
    /// The block of the symbol; in other kinds the number of the next block that has not begun.
    pub block: BlockNumber,
    /// Size S of the block's symbols in bytes; 0 when the datagram carries no symbol.
    pub symbol_size: u16,
    /// Which symbol: 0 to k' − 1 source, k' to k' + r' − 1 repair.
    pub symbol_index: u8,
    /// Source symbols of the block, k'.
    pub source_symbols: u8,
    /// Repair symbols of the block, r'.
    pub repair_symbols: u8,
    /// Bytes of the block without padding, L (24 bits on the wire).
    pub block_len: u32,
}

/// Why bytes are not a header of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Fewer bytes than a header and the shorter trailer.
    #[error("datagram of {0} bytes is shorter than a header")]
    TooShort(usize),
    /// More bytes than the format allows.
    #[error("datagram of {0} bytes is longer than the format allows")]
    TooLong(usize),
    /// The first two bytes are not [`MAGIC`].
    #[error("datagram does not begin with the magic bytes")]
    Magic,
    /// A version that this crate does not speak.
    #[error("datagram has version {0} of the format")]
    Version(u8),
    /// A kind that version 1 does not have.
    #[error("datagram has unknown kind {0}")]
    Kind(u8),
}

/// What every symbol of a block agrees on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockShape {
    /// Size S of a symbol in bytes.
    pub symbol_size: u16,
    /// Source symbols, k'.
    pub source_symbols: u8,
    /// Repair symbols, r'.
    pub repair_symbols: u8,
    /// Bytes without padding, L.
    pub block_len: u32,
}

impl BlockShape {
    /// Bytes of the last source symbol that belong to the block: 1 to S.
    pub fn last_symbol_len(self) -> usize {
        self.block_len as usize - (self.source_symbols as usize - 1) * self.symbol_size as usize
    }

    /// Bytes of all source symbols, padding included: k' · S.
    pub fn padded_len(self) -> usize {
        self.source_symbols as usize * self.symbol_size as usize
    }
}

/// Why an authentic header does not describe a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// k', r', S or L out of their limits, or not fitting each other.
    #[error("header describes an impossible block")]
    Impossible,
    /// The symbol index is not one of the block's, or does not fit the kind.
    #[error("header has a symbol index outside of its block")]
    Index,
    /// The payload is not as long as the symbol must be.
    #[error("payload has the wrong length for its symbol")]
    PayloadLen,
}

impl Header {
    /// Writes the header.
    ///
    /// `block_len` must fit 24 bits; senders hold this by [`crate::MAX_BLOCK_LEN`].
    pub fn encode(&self, out: &mut [u8; HEADER_LEN]) {
        debug_assert!(self.block_len < 1 << 24, "L is a 24-bit number");
        out[0..2].copy_from_slice(&MAGIC);
        out[2] = VERSION;
        out[3] = self.kind as u8;
        out[4..6].copy_from_slice(&self.link_id.0.to_be_bytes());
        out[6] = self.key_id.0;
        out[7] = self.d_max;
        out[8..20].copy_from_slice(&self.session.0);
        out[20..28].copy_from_slice(&self.packet_number.0.to_be_bytes());
        out[28..36].copy_from_slice(&self.block.0.to_be_bytes());
        out[36..38].copy_from_slice(&self.symbol_size.to_be_bytes());
        out[38] = self.symbol_index;
        out[39] = self.source_symbols;
        out[40] = self.repair_symbols;
        out[41..44].copy_from_slice(&self.block_len.to_be_bytes()[1..]);
    }

    /// Reads the header of a whole datagram as it came off the wire, trailer of `trailer_len`
    /// bytes included, and nothing behind the header.
    pub fn decode(datagram: &[u8], trailer_len: usize) -> Result<Self, HeaderError> {
        if datagram.len() > MAX_DATAGRAM {
            return Err(HeaderError::TooLong(datagram.len()));
        }
        let Some(bytes) = datagram.first_chunk::<HEADER_LEN>() else {
            return Err(HeaderError::TooShort(datagram.len()));
        };
        if bytes[0..2] != MAGIC {
            return Err(HeaderError::Magic);
        }
        if bytes[2] != VERSION {
            return Err(HeaderError::Version(bytes[2]));
        }
        let kind = Kind::from_byte(bytes[3]).ok_or(HeaderError::Kind(bytes[3]))?;
        if datagram.len() < HEADER_LEN + trailer_len {
            return Err(HeaderError::TooShort(datagram.len()));
        }
        let number =
            |at: usize, len: usize| bytes[at..at + len].iter().fold(0u64, |n, &b| n << 8 | u64::from(b));
        let mut session = [0; 12];
        session.copy_from_slice(&bytes[8..20]);
        Ok(Self {
            kind,
            link_id: LinkId(number(4, 2) as u16),
            key_id: KeyId(bytes[6]),
            d_max: bytes[7],
            session: Session(session),
            packet_number: PacketNumber(number(20, 8)),
            block: BlockNumber(number(28, 8)),
            symbol_size: number(36, 2) as u16,
            symbol_index: bytes[38],
            source_symbols: bytes[39],
            repair_symbols: bytes[40],
            block_len: number(41, 3) as u32,
        })
    }

    /// The block this symbol belongs to, checked with the length of the symbol's payload.
    ///
    /// DDC-W-020 to DDC-W-024. Only for kinds that carry a symbol.
    pub fn shape(&self, payload_len: usize) -> Result<BlockShape, ShapeError> {
        let shape = BlockShape {
            symbol_size: self.symbol_size,
            source_symbols: self.source_symbols,
            repair_symbols: self.repair_symbols,
            block_len: self.block_len,
        };
        let (k, r, size) =
            (self.source_symbols as usize, self.repair_symbols as usize, self.symbol_size as usize);
        let fits = (1..=MAX_SOURCE_SYMBOLS).contains(&k)
            && r <= MAX_REPAIR_SYMBOLS
            && (1..=MAX_DATAGRAM - OVERHEAD).contains(&size)
            && self.d_max >= 1;
        let len = self.block_len as usize;
        if !fits || len > k * size || len <= (k - 1) * size {
            return Err(ShapeError::Impossible);
        }
        let index = self.symbol_index as usize;
        let expected = match self.kind {
            Kind::Source if index < k => size,
            Kind::Repair if (k..k + r).contains(&index) => size,
            _ => return Err(ShapeError::Index),
        };
        let unpadded = index + 1 == k && payload_len == shape.last_symbol_len();
        if payload_len != expected && !unpadded {
            return Err(ShapeError::PayloadLen);
        }
        Ok(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            kind: Kind::Source,
            link_id: LinkId(0x0102),
            key_id: KeyId(3),
            d_max: 1,
            session: Session::new(0x1112_1314_1516_1718, 0x191a_1b1c),
            packet_number: PacketNumber(0x2122_2324_2526_2728),
            block: BlockNumber(0x3132_3334_3536_3738),
            symbol_size: 1412,
            symbol_index: 2,
            source_symbols: 3,
            repair_symbols: 4,
            block_len: 2 * 1412 + 100,
        }
    }

    fn encoded(header: Header, payload: usize) -> Vec<u8> {
        let mut out = [0; HEADER_LEN];
        header.encode(&mut out);
        let mut datagram = out.to_vec();
        datagram.resize(HEADER_LEN + payload + 16, 0);
        datagram
    }

    /// DDC-W-010: the layout of the header, byte by byte.
    #[test]
    fn layout() {
        let bytes = encoded(header(), 0);
        assert_eq!(&bytes[..8], [b'D', b'D', 1, 0, 1, 2, 3, 1]);
        assert_eq!(&bytes[8..20], [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c]);
        assert_eq!(&bytes[20..28], [0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28]);
        assert_eq!(&bytes[28..36], [0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38]);
        assert_eq!(&bytes[36..44], [5, 0x84, 2, 3, 4, 0, 0x0b, 0x6c]);
    }

    /// DDC-W-011: what is no header of version 1 is refused with its reason.
    #[test]
    fn refusals() {
        let good = encoded(header(), 100);
        let changed = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            Header::decode(&bytes, 16)
        };
        assert_eq!(Header::decode(&[], 16), Err(HeaderError::TooShort(0)));
        assert_eq!(Header::decode(&good[..59], 16), Err(HeaderError::TooShort(59)));
        assert!(Header::decode(&good[..60], 16).is_ok());
        assert_eq!(Header::decode(&[0; 9189], 16), Err(HeaderError::TooLong(9189)));
        assert_eq!(changed(1, b'E'), Err(HeaderError::Magic));
        assert_eq!(changed(2, 2), Err(HeaderError::Version(2)));
        assert_eq!(changed(3, 6), Err(HeaderError::Kind(6)));
    }

    /// DDC-W-020 to 024: only possible blocks, and payloads of the right length.
    #[test]
    fn shapes() {
        let good = header();
        assert!(good.shape(100).is_ok(), "last symbol without padding");
        assert!(good.shape(1412).is_ok(), "last symbol padded");
        assert_eq!(good.shape(101), Err(ShapeError::PayloadLen));
        let first = Header { symbol_index: 0, ..good };
        assert_eq!(first.shape(100), Err(ShapeError::PayloadLen), "only the last may be short");
        let repair = Header { kind: Kind::Repair, symbol_index: 3, ..good };
        assert!(repair.shape(1412).is_ok());
        assert_eq!(repair.shape(100), Err(ShapeError::PayloadLen));
        for bad in [
            Header { symbol_index: 3, ..good },
            Header { symbol_index: 2, ..repair },
            Header { symbol_index: 7, ..repair },
        ] {
            assert_eq!(bad.shape(1412), Err(ShapeError::Index));
        }
        for bad in [
            Header { source_symbols: 0, ..good },
            Header { source_symbols: 129, ..good },
            Header { repair_symbols: 128, ..good },
            Header { symbol_size: 0, ..good },
            Header { d_max: 0, ..good },
            Header { block_len: 2 * 1412, ..good },
            Header { block_len: 3 * 1412 + 1, ..good },
            Header { block_len: 0, ..good },
        ] {
            assert_eq!(bad.shape(1412), Err(ShapeError::Impossible), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), force: bool) {
            let mut bytes = bytes;
            if force && bytes.len() > 4 {
                bytes[..3].copy_from_slice(&[b'D', b'D', 1]);
                bytes[3] %= 6;
            }
            if let Ok(header) = Header::decode(&bytes, 16) {
                let mut again = [0; HEADER_LEN];
                header.encode(&mut again);
                prop_assert_eq!(&again[..], &bytes[..HEADER_LEN]);
                let _ = header.shape(bytes.len() - HEADER_LEN - 16);
            }
        }
    }
}
