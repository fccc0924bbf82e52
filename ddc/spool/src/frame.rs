//! A frame: 64 bytes of header, then the payload. Byte by byte in docs/spool.md.
//!
//! Both checksums begin with the segment's id and the frame's position, so that bytes of another segment, or of another
//! place in this one, are no frame here, whatever the disk gives back.

use bytes::Bytes;

/// Bytes in front of a payload.
pub const FRAME_HEADER: usize = 64;
/// The largest payload of format version 1, in bytes; [`crate::Options::max_frame_bytes`] can only be less.
pub const MAX_FRAME_BYTES: u32 = 64 << 20;
/// The first bytes of a frame: what is looked for after damage.
pub(crate) const MAGIC: [u8; 4] = *b"DDCf";

/// What the caller says of a frame. The spool reads `session` and `block` only to keep the highest block of each session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// The session that sent it.
    pub session: [u8; 12],
    /// The block in which it ends.
    pub block: u64,
    /// When it was received, in µs since 1970.
    pub received_micros: u64,
    /// What kind of payload it is; opaque to the spool.
    pub kind: u8,
    /// More about the payload; opaque to the spool.
    pub tag: [u8; 16],
}

/// Positions `start..end` of the log: a frame with its header, or what was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first position: a frame's own.
    pub start: u64,
    /// The position behind the last.
    pub end: u64,
}

impl Span {
    /// Bytes between the two.
    pub fn bytes(self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// A frame as it was appended; its checksum has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Where it is.
    pub span: Span,
    /// What the caller said of it.
    pub head: Head,
    /// Its bytes.
    pub payload: Bytes,
}

impl Frame {
    /// The position by which [`crate::Spool::read`] finds it again.
    pub fn position(&self) -> u64 {
        self.span.start
    }
}

/// What a header says, once its checksum holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) head: Head,
    pub(crate) payload_len: u32,
    frame_check: u32,
    /// Of the segment's id, the position and the header up to the frame's check.
    seed: u32,
}

impl Header {
    /// Bytes of the whole frame.
    pub(crate) fn frame_len(&self) -> u64 {
        FRAME_HEADER as u64 + u64::from(self.payload_len)
    }

    /// Whether this is the payload it was written with.
    pub(crate) fn holds_for(&self, payload: &[u8]) -> bool {
        crc32c::crc32c_append(self.seed, payload) == self.frame_check
    }
}

/// The header of a frame at `position` of the segment `id`.
pub(crate) fn encode(id: u64, position: u64, head: &Head, payload: &[&[u8]]) -> [u8; FRAME_HEADER] {
    let len: usize = payload.iter().map(|part| part.len()).sum();
    let mut bytes = [0; FRAME_HEADER];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..8].copy_from_slice(&(len as u32).to_be_bytes());
    bytes[8..20].copy_from_slice(&head.session);
    bytes[20] = head.kind;
    bytes[24..32].copy_from_slice(&head.block.to_be_bytes());
    bytes[32..40].copy_from_slice(&head.received_micros.to_be_bytes());
    bytes[40..56].copy_from_slice(&head.tag);
    let seed = crc32c::crc32c_append(bound(id, position), &bytes[..56]);
    bytes[56..60].copy_from_slice(&seed.to_be_bytes());
    let seed = crc32c::crc32c_append(seed, &bytes[56..60]);
    let check = payload.iter().fold(seed, |check, part| crc32c::crc32c_append(check, part));
    bytes[60..].copy_from_slice(&check.to_be_bytes());
    bytes
}

/// Reads a header; `None` when it is none, or not of this place.
pub(crate) fn decode(id: u64, position: u64, bytes: &[u8]) -> Option<Header> {
    let bytes = bytes.first_chunk::<FRAME_HEADER>()?;
    if bytes[..4] != MAGIC || bytes[21..24] != [0; 3] {
        return None;
    }
    let seed = crc32c::crc32c_append(bound(id, position), &bytes[..56]);
    if bytes[56..60] != seed.to_be_bytes() {
        return None;
    }
    let payload_len = u32_at(bytes, 4);
    if payload_len > MAX_FRAME_BYTES {
        return None;
    }
    let mut head = Head {
        block: u64_at(bytes, 24),
        received_micros: u64_at(bytes, 32),
        kind: bytes[20],
        ..Head::default()
    };
    head.session.copy_from_slice(&bytes[8..20]);
    head.tag.copy_from_slice(&bytes[40..56]);
    let seed = crc32c::crc32c_append(seed, &bytes[56..60]);
    Some(Header { head, payload_len, frame_check: u32_at(bytes, 60), seed })
}

/// The beginning of both checksums.
fn bound(id: u64, position: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&id.to_be_bytes()), &position.to_be_bytes())
}

/// A big-endian number; `at + 4` must lie inside.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |value, &byte| value << 8 | u32::from(byte))
}

/// A big-endian number; `at + 8` must lie inside.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;

    fn head() -> Head {
        Head { session: [7; 12], block: 1 << 40, received_micros: 99, kind: 3, tag: [9; 16] }
    }

    #[test]
    fn parts_are_one_payload() {
        let bytes = encode(5, 100, &head(), &[b"ab", b"", b"cde"]);
        assert_eq!(bytes, encode(5, 100, &head(), &[b"abcde"]));
        let header = decode(5, 100, &bytes).unwrap();
        assert_eq!((header.head, header.payload_len, header.frame_len()), (head(), 5, 69));
        assert!(header.holds_for(b"abcde") && !header.holds_for(b"abcdf") && !header.holds_for(b"abcd"));
    }

    #[test]
    fn a_frame_of_another_place_or_segment_is_none() {
        let bytes = encode(5, 100, &head(), &[b"abc"]);
        assert!(decode(5, 101, &bytes).is_none());
        assert!(decode(6, 100, &bytes).is_none());
        assert!(decode(5, 100, &bytes[..63]).is_none());
    }

    #[test]
    fn every_bit_counts() {
        let good = encode(5, 100, &head(), &[b"abc"]);
        for bit in 0..FRAME_HEADER * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!decode(5, 100, &bytes).is_some_and(|header| header.holds_for(b"abc")), "bit {bit}");
        }
    }

    /// The layout of docs/spool.md, computed there by other means: whoever changes a byte must change the version.
    #[test]
    fn the_bytes_are_those_of_the_document() {
        let bytes = encode(0x0102_0304_0506_0708, 4096, &head(), &[b"payload"]);
        let begin =
            [&b"DDCf"[..], &[0, 0, 0, 7], &[7; 12], &[3, 0, 0, 0], &(1u64 << 40).to_be_bytes()].concat();
        assert_eq!(bytes[..32], begin);
        assert_eq!(bytes[32..56], [&99u64.to_be_bytes()[..], &[9; 16]].concat());
        let bound: Vec<u8> = [&0x0102_0304_0506_0708u64.to_be_bytes()[..], &4096u64.to_be_bytes()].concat();
        let header_check = slow_crc32c(&[&bound[..], &bytes[..56]].concat());
        assert_eq!(u32_at(&bytes, 56), header_check);
        assert_eq!(u32_at(&bytes, 60), slow_crc32c(&[&bound[..], &bytes[..60], b"payload"].concat()));
    }

    /// CRC-32C bit by bit (RFC 3720, polynomial 0x1EDC6F41 reflected).
    fn slow_crc32c(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 * (crc & 1)))
        })
    }
}
