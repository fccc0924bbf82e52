//! The kernel that runs everywhere: no look-ups by data, no intrinsics, only XOR and doubling of whole lanes.
//!
//! A coefficient is a sum of powers of two, so an output is Σ over b of 2^b · (XOR of the inputs whose coefficient
//! has bit b). By Horner's rule, from the top bit down: double what there is, XOR those inputs in. Nearly all
//! the work is then XOR of one lane into another, which the compiler turns into whatever vectors the target has,
//! and a row of ones (repair 0) costs exactly its XORs.

use crate::MAX_SOURCES;
use crate::field::double;
use crate::matrix::Row;

/// Bytes handled at a time; small enough for the sums to stay in SSE2 or NEON registers.
const LANE: usize = 128;

/// See [`super::multiply`].
pub(super) fn multiply(rows: &[Row], inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
    for (row, output) in rows.iter().zip(outputs) {
        let planes = Planes::of(row, inputs.len());
        let length = output.len();
        if length < LANE {
            planes.short_symbol(inputs, output);
            continue;
        }
        for at in (0..=length - LANE).step_by(LANE) {
            planes.lane(inputs, at, &mut output[at..at + LANE]);
        }
        if !length.is_multiple_of(LANE) {
            // The last lane overlaps the one before: outputs are overwritten, so doing bytes twice does no harm.
            let at = length - LANE;
            planes.lane(inputs, at, &mut output[at..]);
        }
    }
}

/// A row of coefficients, bit by bit: for each bit the inputs that have it.
struct Planes {
    members: [[u8; MAX_SOURCES]; 8],
    counts: [usize; 8],
}

impl Planes {
    fn of(row: &Row, inputs: usize) -> Self {
        let mut planes = Self { members: [[0; MAX_SOURCES]; 8], counts: [0; 8] };
        for (bit, (members, count)) in planes.members.iter_mut().zip(&mut planes.counts).enumerate() {
            for (index, coefficient) in row.iter().enumerate().take(inputs) {
                // Without a branch: bits of coefficients are as good as random. The slot exists, as count ≤ index.
                members[*count] = index as u8;
                *count += usize::from(coefficient >> bit & 1);
            }
        }
        planes
    }

    /// The bytes `at..at + LANE` of the output.
    #[inline]
    fn lane(&self, inputs: &[&[u8]], at: usize, output: &mut [u8]) {
        let mut sum = [0_u8; LANE];
        for (members, count) in self.members.iter().zip(self.counts).rev() {
            for byte in &mut sum {
                *byte = double(*byte);
            }
            for index in &members[..count] {
                let input = &inputs[*index as usize][at..at + LANE];
                for (byte, other) in sum.iter_mut().zip(input) {
                    *byte ^= other;
                }
            }
        }
        output.copy_from_slice(&sum);
    }

    /// A symbol shorter than a lane.
    fn short_symbol(&self, inputs: &[&[u8]], output: &mut [u8]) {
        output.fill(0);
        for (members, count) in self.members.iter().zip(self.counts).rev() {
            for byte in output.iter_mut() {
                *byte = double(*byte);
            }
            for index in &members[..count] {
                for (byte, other) in output.iter_mut().zip(inputs[*index as usize]) {
                    *byte ^= other;
                }
            }
        }
    }
}
