//! The limits of the format. Each is checked where bytes come in.

use crate::header::HEADER_LEN;

/// Length of the AES-256-GCM tag that ends a sealed datagram, in bytes.
pub const TAG_LEN: usize = 16;
/// Length of the CRC-32C that ends an unsealed datagram, in bytes.
pub const CRC_LEN: usize = 4;
/// Bytes of a datagram that are not payload. The room for the tag is kept in both seal modes, so
/// that a link's symbol size does not depend on the mode.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;
/// The largest datagram that version 1 allows: MTU 9216 less the smallest IP and UDP headers.
pub const MAX_DATAGRAM: usize = 9216 - 20 - 8;
/// Most source symbols of a block (k').
pub const MAX_SOURCE_SYMBOLS: usize = 128;
/// Most repair symbols of a block (r').
pub const MAX_REPAIR_SYMBOLS: usize = 127;
/// Most bytes of a block: L is a 24-bit number, and k' symbols of a datagram bound it further.
pub const MAX_BLOCK_LEN: usize = MAX_SOURCE_SYMBOLS * (MAX_DATAGRAM - OVERHEAD);
/// Most bytes of a stream's or topic's name.
pub const MAX_NAME_LEN: usize = 255;
/// Most headers of one record.
pub const MAX_RECORD_HEADERS: usize = 65_536;
/// Most filtered ranges one chunk names; a sender closes the chunk before it would need more.
pub const MAX_FILTERED_RANGES: usize = 4096;
/// Most blocks over which one batch spans.
pub const MAX_FRAGMENTS: u32 = 65_536;
/// The largest batch before compression that any receiver accepts (a receiver's configuration may
/// set less): the largest `max_record_bytes` of 256 MiB and room for its chunk header and headers.
pub const MAX_BATCH_LEN: usize = 257 << 20;
