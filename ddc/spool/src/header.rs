//! The header of a segment file: two equal copies of 4 KiB, so that one damaged sector costs no segment.

use crate::frame::{u32_at, u64_at};
use crate::sessions::Sessions;

/// The only format version that this program reads and writes.
pub const FORMAT_VERSION: u32 = 1;
/// The longest identity, in bytes.
pub const MAX_IDENTITY: usize = 256;
/// Bytes of one copy.
const COPY: usize = 4096;
/// Bytes in front of the first frame: both copies.
pub(crate) const HEADER_AREA: u64 = 2 * COPY as u64;
/// Positions stay below this: sums with a file's length never overflow.
pub(crate) const MAX_POSITION: u64 = 1 << 62;
const MAGIC: [u8; 8] = *b"DDCSPOOL";
const NAME_DIGITS: usize = 20;
const SUFFIX: &str = ".seg";

/// What a segment says of itself, written once when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Random; part of every checksum in the file.
    pub(crate) id: u64,
    /// The position of the first frame.
    pub(crate) base: u64,
    /// Where the log ended when this segment was made: the end of the segment before.
    pub(crate) follows: u64,
    /// Up to where the log was on disk then.
    pub(crate) durable: u64,
    /// Frames that were ever appended before.
    pub(crate) frames_before: u64,
    /// When it was made, by the spool's own clock: µs during which a process had it open.
    pub(crate) clock_micros: u64,
    /// Whose spool it is.
    pub(crate) identity: Vec<u8>,
    /// The highest block of each session, of everything before this segment.
    pub(crate) sessions: Sessions,
}

/// Why bytes are no header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoHeader {
    /// Neither copy's checksum holds.
    Damaged,
    /// Written by another version.
    Version(u32),
}

impl SegmentHeader {
    /// The bytes in front of the first frame. The identity is at most [`MAX_IDENTITY`] long.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_AREA as usize);
        bytes.extend(MAGIC);
        bytes.extend(FORMAT_VERSION.to_be_bytes());
        bytes.extend([0; 4]);
        for number in [self.id, self.base, self.follows, self.durable, self.frames_before, self.clock_micros]
        {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend((self.identity.len() as u16).to_be_bytes());
        bytes.extend(&self.identity);
        self.sessions.encode(&mut bytes);
        bytes.resize(COPY - 4, 0);
        bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
        bytes.extend_from_within(..COPY);
        bytes
    }

    /// Reads the first good copy; the second value says whether both were good.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, bool), NoHeader> {
        let copies = [bytes.get(..COPY), bytes.get(COPY..2 * COPY)];
        let [first, second] = copies.map(|copy| copy.and_then(Self::decode_copy));
        let whole = first.is_some() && first == second;
        if let Some(header) = first.or(second) {
            return Ok((header, whole));
        }
        // The version's place is the same in every version. One damaged copy is not believed: both must say it.
        let versions = copies.map(|copy| {
            copy.filter(|copy| copy[..8] == MAGIC)
                .map(|copy| u32_at(copy, 8))
                .filter(|&v| v != FORMAT_VERSION)
        });
        match versions {
            [Some(version), Some(other)] if version == other => Err(NoHeader::Version(version)),
            _ => Err(NoHeader::Damaged),
        }
    }

    fn decode_copy(bytes: &[u8]) -> Option<Self> {
        let (content, check) = bytes.split_at_checked(COPY - 4)?;
        if content[..8] != MAGIC || u32_at(content, 8) != FORMAT_VERSION {
            return None;
        }
        if check != crc32c::crc32c(content).to_be_bytes() {
            return None;
        }
        let number = |index: usize| u64_at(content, 16 + 8 * index);
        let identity_len = usize::from(u16::from_be_bytes([content[64], content[65]]));
        let identity = content.get(66..66 + identity_len)?.to_vec();
        let (sessions, _) = Sessions::decode(&content[66 + identity_len..])?;
        let header = Self {
            id: number(0),
            base: number(1),
            follows: number(2),
            durable: number(3),
            frames_before: number(4),
            clock_micros: number(5),
            identity,
            sessions,
        };
        (header.follows <= header.base && header.base < MAX_POSITION).then_some(header)
    }
}

/// The name of the segment file that begins at `base`.
pub(crate) fn segment_name(base: u64) -> String {
    format!("{base:0NAME_DIGITS$}{SUFFIX}")
}

/// The base that a file's name says; `None` when it is no segment's name.
pub(crate) fn base_of_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let plain = digits.len() == NAME_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten().filter(|&base: &u64| base < MAX_POSITION)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        let mut sessions = Sessions::default();
        for n in 0..64 {
            sessions.raise([n; 12], u64::MAX);
        }
        SegmentHeader {
            id: 1,
            base: 30,
            follows: 20,
            durable: 10,
            frames_before: 5,
            clock_micros: 6,
            identity: vec![9; MAX_IDENTITY],
            sessions,
        }
    }

    #[test]
    fn one_copy_is_enough() {
        let good = header().encode();
        assert_eq!(good.len() as u64, HEADER_AREA);
        assert_eq!(SegmentHeader::decode(&good), Ok((header(), true)));
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            assert_eq!(SegmentHeader::decode(&bytes), Ok((header(), false)), "byte {at}");
        }
        assert_eq!(SegmentHeader::decode(&good[..COPY]), Ok((header(), false)));
    }

    #[test]
    fn another_version_is_known_by_name_and_damage_is_damage() {
        let good = header().encode();
        let mut newer = good.clone();
        newer[11] = 2;
        newer[COPY + 11] = 2;
        assert_eq!(SegmentHeader::decode(&newer), Err(NoHeader::Version(2)));
        newer[COPY + 11] = 3;
        assert_eq!(SegmentHeader::decode(&newer), Err(NoHeader::Damaged));
        assert_eq!(SegmentHeader::decode(&[]), Err(NoHeader::Damaged));
        assert_eq!(SegmentHeader::decode(&[0; 8192]), Err(NoHeader::Damaged));
    }

    #[test]
    fn names_are_positions() {
        assert_eq!(base_of_name(&segment_name(77)), Some(77));
        for name in
            ["", ".seg", "77.seg", "000000000000000000x7.seg", "99999999999999999999.seg", "checkpoint"]
        {
            assert_eq!(base_of_name(name), None, "{name}");
        }
    }
}
