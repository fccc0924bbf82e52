//! Do the buffers of a block fit together? Asked once, before a byte is touched.

use thiserror::Error;

use crate::{MAX_REPAIRS, MAX_SOURCES};

/// Buffers that are not a whole, allowed number of symbols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ShapeError {
    /// The symbol size is 0.
    #[error("symbols of 0 bytes cannot be coded; give the block's symbol size")]
    ZeroSymbolSize,
    /// The source buffer is not 1 to [`MAX_SOURCES`] whole symbols.
    #[error(
        "a source buffer of {bytes} bytes is not 1 to {MAX_SOURCES} symbols of {symbol_size} bytes; pad its last symbol"
    )]
    Sources {
        /// Length of the buffer.
        bytes: usize,
        /// Length of one symbol.
        symbol_size: usize,
    },
    /// The repair buffer is not 0 to [`MAX_REPAIRS`] whole symbols.
    #[error("a repair buffer of {bytes} bytes is not 0 to {MAX_REPAIRS} symbols of {symbol_size} bytes")]
    Repairs {
        /// Length of the buffer.
        bytes: usize,
        /// Length of one symbol.
        symbol_size: usize,
    },
}

/// Source and repair symbols in buffers of these lengths: (k', r').
pub(crate) fn shape(
    symbol_size: usize,
    source_bytes: usize,
    repair_bytes: usize,
) -> Result<(usize, usize), ShapeError> {
    if symbol_size == 0 {
        return Err(ShapeError::ZeroSymbolSize);
    }
    let whole = |bytes: usize| bytes.is_multiple_of(symbol_size).then_some(bytes / symbol_size);
    let k = whole(source_bytes)
        .filter(|k| (1..=MAX_SOURCES).contains(k))
        .ok_or(ShapeError::Sources { bytes: source_bytes, symbol_size })?;
    let r = whole(repair_bytes)
        .filter(|r| *r <= MAX_REPAIRS)
        .ok_or(ShapeError::Repairs { bytes: repair_bytes, symbol_size })?;
    Ok((k, r))
}
