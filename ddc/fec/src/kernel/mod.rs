//! Symbols times coefficients: the only place where this crate spends time.
//!
//! One operation serves encoder and decoder: output o = Σ over n of rows\[o\]\[n\] · input n. Being handed the whole
//! product, not one coefficient at a time, a kernel is free to keep outputs in registers and inputs in the cache.
//!
//! Where faster kernels go: one file each beside `portable.rs` with the same signature (`avx2.rs` with byte shuffles
//! over nibble tables, `gfni.rs` with 8×8 bit matrices, `neon.rs`), chosen in [`multiply`] by what the processor
//! says it can do. Each is tested here against `portable`, which stays the twin of all of them. They need `unsafe`, so
//! `#![forbid(unsafe_code)]` then becomes `deny` with an exception in those files.

mod portable;

use crate::matrix::Row;

/// outputs\[o\] = Σ over n of rows\[o\]\[n\] · inputs\[n\]; what the outputs held is overwritten.
///
/// `rows` and `outputs` are equally many, `inputs` at most a row's length, all symbols equally long.
pub(crate) fn multiply(rows: &[Row], inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
    portable::multiply(rows, inputs, outputs);
}

#[cfg(test)]
mod tests {
    use rand::{Rng, RngExt, SeedableRng};

    use super::*;
    use crate::MAX_SOURCES;
    use crate::field::tests::textbook;

    /// The signature of a kernel; every kernel the processor can run belongs in [`KERNELS`].
    type Kernel = fn(&[Row], &[&[u8]], &mut [&mut [u8]]);
    const KERNELS: [(&str, Kernel); 2] = [("portable", portable::multiply), ("chosen", multiply)];

    #[test]
    fn every_length_and_alignment_agrees_with_the_textbook() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        for length in (0..300).chain([1411, 1412, 1413]) {
            let inputs: usize = random.random_range(0..7);
            let offset = random.random_range(0..16);
            let mut data = vec![0; offset + inputs * length];
            random.fill_bytes(&mut data);
            let symbols: Vec<&[u8]> = (0..inputs).map(|n| &data[offset + n * length..][..length]).collect();
            let mut rows = [[0; MAX_SOURCES]; 3];
            for row in &mut rows {
                random.fill_bytes(row);
            }
            // Ones and zeros take other ways through a kernel.
            rows[1] = [1; MAX_SOURCES];
            rows[2][..3].fill(0);

            let expected: Vec<Vec<u8>> = rows
                .iter()
                .map(|row| {
                    let byte = |at| symbols.iter().zip(row).fold(0, |sum, (s, c)| sum ^ textbook(s[at], *c));
                    (0..length).map(byte).collect()
                })
                .collect();
            for (name, kernel) in KERNELS {
                let mut got = vec![vec![0x55; length]; 3];
                let mut outputs: Vec<&mut [u8]> = got.iter_mut().map(Vec::as_mut_slice).collect();
                kernel(&rows, &symbols, &mut outputs);
                assert_eq!(got, expected, "{name}, {inputs} symbols of {length}");
            }
        }
    }

    #[test]
    fn every_coefficient_times_every_byte() {
        let bytes: Vec<u8> = (0..=255).collect();
        for (name, kernel) in KERNELS {
            for coefficient in 0..=255 {
                let mut got = [0; 256];
                kernel(&[[coefficient; MAX_SOURCES]], &[&bytes], &mut [&mut got]);
                assert!(
                    bytes.iter().zip(got).all(|(b, g)| g == textbook(*b, coefficient)),
                    "{name} {coefficient}"
                );
            }
        }
    }
}
