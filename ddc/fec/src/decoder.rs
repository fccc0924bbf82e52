//! The egress's half: missing source symbols from those that came.
//!
//! Where the formula comes from. Symbols are the values of a polynomial: with x_i the point of repair i, y_j = j
//! that of source j and d_j the scale of column j, repair i is F(x_i) for F(z) = Σ d_j · source_j / (z + y_j).
//! N(z) = F(z) · Π over all j of (z + y_j) is a polynomial of degree < k', and each symbol, source or repair, fixes
//! its value at one point. So k' symbols fix N, and Lagrange's formula gives its value at the point of a missing
//! source. Common factors cancel and leave, for missing source m and known symbol a at the points y_m and a:
//!
//! ```text
//!   coefficient(m, a) = gain(m) · weight(a) / (y_m + a)
//!
//!   gain(m)   =       Π over used i of (y_m + x_i)    /  ( d_m · Π over other missing m' of (y_m + y_m') )
//!   weight(a) = d_a · Π over missing m of (y_a + y_m)  /  Π over used i of (y_a + x_i)            for a source
//!   weight(a) =       Π over missing m of (x_a + y_m)  /  Π over other used i of (x_a + x_i)      for a repair
//! ```
//!
//! That is O(k' · missing) table look-ups where an elimination takes O(missing³), it needs no scratch of the size
//! of a symbol, and each byte that came is read straight from where it lies.

use thiserror::Error;

use crate::field::Log;
use crate::matrix::{Row, column_scale, repair_point};
use crate::shape::{ShapeError, shape};
use crate::{MAX_REPAIRS, MAX_SOURCES, SymbolSet, kernel};

/// Restores missing source symbols. Made once, used for block after block; its memory is fixed.
#[derive(Debug)]
pub struct Decoder {
    /// One row for each missing source symbol: its coefficients over the known symbols.
    rows: Box<[Row; MAX_REPAIRS]>,
}

/// Why a block was not decoded. The source buffer is then as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The buffers are not whole symbols, or too many.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// More is missing than repair symbols came; wait for more of the block or give it up.
    #[error("{missing} source symbols are missing and only {repairs} repair symbols are there")]
    TooFew {
        /// Source symbols that are missing.
        missing: usize,
        /// Repair symbols that are there.
        repairs: usize,
    },
    /// A set names a symbol that the block does not have.
    #[error("symbol {index} is said to be there, but the buffer ends with symbol {last:?}")]
    NoSuchSymbol {
        /// The symbol named.
        index: usize,
        /// The last symbol of that kind in the buffer; none if there are no repair symbols.
        last: Option<usize>,
    },
}

impl Decoder {
    /// A decoder for blocks of any shape and symbol size.
    pub fn new() -> Self {
        Self { rows: Box::new([[0; MAX_SOURCES]; MAX_REPAIRS]) }
    }

    /// Fills the missing symbols of `sources` in place; returns how many that were.
    ///
    /// `sources` is k' symbols of `symbol_size` bytes of which those in `present` hold their data; the others may
    /// hold anything. `repair` is r' symbols of which those in `repair_present` hold their data. Both counts follow
    /// from the lengths. Of the repair symbols the lowest are used, as many as source symbols are missing; if
    /// nothing is missing, nothing is done. On an error nothing is written. Allocates nothing.
    pub fn decode(
        &mut self,
        symbol_size: usize,
        sources: &mut [u8],
        present: SymbolSet,
        repair: &[u8],
        repair_present: SymbolSet,
    ) -> Result<usize, DecodeError> {
        let (k, r) = shape(symbol_size, sources.len(), repair.len())?;
        within(present, k)?;
        within(repair_present, r)?;
        let missing = present.missing(k);
        let lost = missing.len();
        if lost > repair_present.len() {
            return Err(DecodeError::TooFew { missing: lost, repairs: repair_present.len() });
        }
        if lost == 0 {
            return Ok(0);
        }
        let used: SymbolSet = repair_present.iter().take(lost).collect();
        if used == SymbolSet::first(1) {
            // One loss and the XOR of the block at hand, the common case: every coefficient is 1, and the kernel
            // does a row of ones as plain XOR.
            self.rows[0] = [1; MAX_SOURCES];
        } else {
            self.solve(present, missing, used);
        }

        // The known symbols, sources first, as `solve` numbers them: k' in all.
        let mut inputs: [&[u8]; MAX_SOURCES] = [&[]; MAX_SOURCES];
        let mut outputs: [&mut [u8]; MAX_REPAIRS] = std::array::from_fn(|_| &mut [][..]);
        let (mut known, mut unknown) = (inputs.iter_mut(), outputs.iter_mut());
        for (index, symbol) in sources.chunks_exact_mut(symbol_size).enumerate() {
            if !missing.contains(index) {
                if let Some(input) = known.next() {
                    *input = symbol;
                }
            } else if let Some(output) = unknown.next() {
                *output = symbol;
            }
        }
        for (input, index) in known.zip(used.iter()) {
            *input = &repair[index * symbol_size..][..symbol_size];
        }
        kernel::multiply(&self.rows[..lost], &inputs[..k], &mut outputs[..lost]);
        Ok(lost)
    }

    /// Fills `rows` with the coefficients of each missing source symbol (see the top of this file).
    fn solve(&mut self, present: SymbolSet, missing: SymbolSet, used: SymbolSet) {
        // Π over the symbols of a set of (point + their point), leaving out the point itself.
        let sources = |point: u8, set: SymbolSet| {
            set.iter().map(|j| point ^ j as u8).filter(|d| *d != 0).map(Log::of).fold(Log::ONE, Log::times)
        };
        let repairs = |point: u8, set: SymbolSet| {
            set.iter()
                .map(|i| point ^ repair_point(i))
                .filter(|d| *d != 0)
                .map(Log::of)
                .fold(Log::ONE, Log::times)
        };
        let mut points = [0; MAX_SOURCES];
        let mut weights = [Log::ONE; MAX_SOURCES];
        let known = present.iter().map(|j| (j as u8, column_scale(j as u8)));
        let known = known.chain(used.iter().map(|i| (repair_point(i), Log::ONE)));
        for ((point, scale), slot) in known.zip(points.iter_mut().zip(&mut weights)) {
            *slot.0 = point;
            *slot.1 = scale.times(sources(point, missing)).over(repairs(point, used));
        }
        let count = present.len() + used.len();
        for (m, row) in missing.iter().map(|j| j as u8).zip(self.rows.iter_mut()) {
            let gain = repairs(m, used).over(column_scale(m)).over(sources(m, missing));
            for ((cell, point), weight) in row.iter_mut().zip(points).zip(weights).take(count) {
                *cell = gain.times(weight).over(Log::of(m ^ point)).value();
            }
        }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

/// Refuses a set that reaches beyond `count` symbols.
fn within(set: SymbolSet, count: usize) -> Result<(), DecodeError> {
    match set.last() {
        Some(index) if index >= count => Err(DecodeError::NoSuchSymbol { index, last: count.checked_sub(1) }),
        _ => Ok(()),
    }
}
