//! The ingress's half: repair symbols from source symbols.

use crate::matrix::REPAIR_ROWS;
use crate::shape::{ShapeError, shape};
use crate::{MAX_REPAIRS, MAX_SOURCES, kernel};

/// Computes the repair symbols of a block.
///
/// `sources` holds k' symbols of `symbol_size` bytes, `repair` has room for r' of them; both counts follow from the
/// lengths, 1 ≤ k' ≤ [`MAX_SOURCES`] and r' ≤ [`MAX_REPAIRS`]. What `repair` held before does not matter. On an
/// error nothing is written. Allocates nothing.
pub fn encode(symbol_size: usize, sources: &[u8], repair: &mut [u8]) -> Result<(), ShapeError> {
    let (k, r) = shape(symbol_size, sources.len(), repair.len())?;
    let mut inputs: [&[u8]; MAX_SOURCES] = [&[]; MAX_SOURCES];
    for (input, symbol) in inputs.iter_mut().zip(sources.chunks_exact(symbol_size)) {
        *input = symbol;
    }
    let mut outputs: [&mut [u8]; MAX_REPAIRS] = std::array::from_fn(|_| &mut [][..]);
    for (output, symbol) in outputs.iter_mut().zip(repair.chunks_exact_mut(symbol_size)) {
        *output = symbol;
    }
    kernel::multiply(&REPAIR_ROWS[..r], &inputs[..k], &mut outputs[..r]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_do_not_fit_are_refused_and_nothing_is_written() {
        let sources = |bytes| ShapeError::Sources { bytes, symbol_size: 10 };
        let repairs = |bytes| ShapeError::Repairs { bytes, symbol_size: 10 };
        for (symbol_size, source_bytes, repair_bytes, error) in [
            (0, 10, 10, ShapeError::ZeroSymbolSize),
            (0, 0, 0, ShapeError::ZeroSymbolSize),
            (10, 0, 10, sources(0)),
            (10, 9, 10, sources(9)),
            (10, 101, 10, sources(101)),
            (10, 1290, 10, sources(1290)),
            (10, 100, 11, repairs(11)),
            (10, 100, 1280, repairs(1280)),
        ] {
            let mut repair = vec![0xEE; repair_bytes];
            assert_eq!(encode(symbol_size, &vec![1; source_bytes], &mut repair), Err(error));
            assert!(repair.iter().all(|byte| *byte == 0xEE), "{error}");
        }
        assert!(sources(101).to_string().contains("101 bytes"));
    }

    #[test]
    fn the_largest_block_fits_and_no_repairs_is_no_work() {
        let mut repair = vec![0; 127 * 10];
        assert_eq!(encode(10, &vec![1; 1280], &mut repair), Ok(()));
        assert_eq!(&repair[..10], [0; 10], "128 equal symbols cancel out in the XOR");
        assert_eq!(encode(10, &[1; 10], &mut []), Ok(()));
    }
}
