//! The coefficients of the code: repair i = Σ over j of c(i, j) · source j.
//!
//! c(i, j) = (128 ^ j) / ((128 + i) ^ j). Below the fraction stands a Cauchy matrix 1 / (x + y) over the points
//! x = 128 + i (repair i) and y = j (source j), which are all distinct: each of its square submatrices can be
//! inverted, and so any k' symbols of a block determine the rest. Multiplying a column by a non-zero number keeps
//! that property; 128 ^ j is the number that turns row 0 into ones. Why this one: docs/decisions/0002-fec-matrix.md.

use crate::field::{Log, divide};
use crate::{MAX_REPAIRS, MAX_SOURCES};

/// The coefficients of one output symbol, one for each input symbol.
pub(crate) type Row = [u8; MAX_SOURCES];

/// `REPAIR_ROWS[i][j]` = c(i, j).
pub(crate) static REPAIR_ROWS: [Row; MAX_REPAIRS] = repair_rows();

/// The point of the field at which repair symbol `i` stands; source symbol j stands at j.
pub(crate) const fn repair_point(i: usize) -> u8 {
    MAX_SOURCES as u8 + i as u8
}

/// The factor of column j.
pub(crate) fn column_scale(j: u8) -> Log {
    Log::of(repair_point(0) ^ j)
}

const fn repair_rows() -> [Row; MAX_REPAIRS] {
    let mut rows = [[0; MAX_SOURCES]; MAX_REPAIRS];
    let mut i = 0;
    while i < MAX_REPAIRS {
        let mut j = 0;
        while j < MAX_SOURCES {
            rows[i][j] = divide(repair_point(0) ^ j as u8, repair_point(i) ^ j as u8);
            j += 1;
        }
        i += 1;
    }
    rows
}

#[cfg(test)]
mod tests {
    use rand::seq::index::sample;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::field::tests::textbook;

    #[test]
    fn every_coefficient_solves_its_defining_equation() {
        for (i, row) in REPAIR_ROWS.iter().enumerate() {
            for (j, c) in row.iter().enumerate() {
                assert_ne!(*c, 0);
                assert_eq!(textbook(*c, (128 + i as u8) ^ j as u8), 128 ^ j as u8);
            }
        }
        assert_eq!(REPAIR_ROWS[0], [1; MAX_SOURCES], "repair 0 is the XOR");
    }

    /// All square submatrices of the corner that codes up to 6+6 use.
    #[test]
    fn small_submatrices_are_invertible() {
        let mut tried = 0;
        for rows in 1_u32..64 {
            for columns in (1_u32..64).filter(|columns| columns.count_ones() == rows.count_ones()) {
                let pick = |set: u32| (0..6).filter(move |bit| set >> bit & 1 == 1).collect::<Vec<_>>();
                assert_eq!(rank(&pick(rows), &pick(columns)), rows.count_ones() as usize);
                tried += 1;
            }
        }
        assert_eq!(tried, 923, "C(12, 6) − 1 submatrices");
    }

    #[test]
    fn sampled_submatrices_of_any_size_are_invertible() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(2);
        for round in 0..400 {
            let size = if round == 0 { MAX_REPAIRS } else { random.random_range(1..=48) };
            let rows = sample(&mut random, MAX_REPAIRS, size).into_vec();
            let columns = sample(&mut random, MAX_SOURCES, size).into_vec();
            assert_eq!(rank(&rows, &columns), size, "rows {rows:?} columns {columns:?}");
        }
    }

    /// The rank by elimination; the check itself must be able to fail.
    #[test]
    fn rank_sees_a_singular_matrix() {
        assert_eq!(rank(&[3, 5, 3], &[0, 1, 2]), 2);
        assert_eq!(rank(&[3, 5], &[7, 7]), 1);
    }

    fn rank(rows: &[usize], columns: &[usize]) -> usize {
        let mut matrix: Vec<Vec<u8>> =
            rows.iter().map(|i| columns.iter().map(|j| REPAIR_ROWS[*i][*j]).collect()).collect();
        let mut rank = 0;
        for column in 0..columns.len() {
            let Some(pivot) = (rank..matrix.len()).find(|row| matrix[*row][column] != 0) else { continue };
            matrix.swap(rank, pivot);
            let pivot_row = matrix[rank].clone();
            for row in &mut matrix[rank + 1..] {
                let factor = divide(row[column], pivot_row[column]);
                if factor != 0 {
                    for (cell, above) in row.iter_mut().zip(&pivot_row) {
                        if *above != 0 {
                            *cell ^= Log::of(factor).times(Log::of(*above)).value();
                        }
                    }
                }
            }
            rank += 1;
        }
        rank
    }
}
