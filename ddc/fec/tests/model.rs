//! The codec against a naive model: the generator matrix written out, products without tables, elimination.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is the failed test")]

use ddc_fec::{DecodeError, Decoder, MAX_REPAIRS, MAX_SOURCES, ShapeError, SymbolSet, encode};
use proptest::collection::vec;
use proptest::prelude::*;
use rand::seq::index::sample;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any shape, any size, any pattern with no more losses than repairs: the block is what it was.
    #[test]
    fn what_can_be_restored_is(
        k in 1..=MAX_SOURCES, r in 0..=MAX_REPAIRS, size in 1..=1500_usize, lost in 0..=MAX_REPAIRS, seed: u64,
    ) {
        // Large shapes are slow to prove; their sizes stay small unless the shape is.
        let size = if k * r > 1024 { size % 300 + 1 } else { size };
        let block = Block::random(k, r, size, seed);
        // Losses strike sources and repairs alike.
        let there = block.survivors(lost.min(r), seed);
        let mut sources = block.with_holes(there.sources);
        let repair = block.repair_with_holes(there.repairs);
        let restored = Decoder::new().decode(size, &mut sources, there.sources, &repair, there.repairs);
        prop_assert_eq!(restored, Ok(k - there.sources.len()));
        prop_assert!(sources == block.sources);
    }

    /// One loss too many is refused, and not a byte is touched.
    #[test]
    fn what_cannot_be_restored_is_left_alone(
        k in 1..=MAX_SOURCES, r in 0..MAX_REPAIRS, size in 1..64_usize, seed: u64,
    ) {
        let block = Block::random(k, r, size, seed);
        let there = block.survivors(r + 1, seed);
        let missing = k - there.sources.len();
        let mut sources = block.with_holes(there.sources);
        let before = sources.clone();
        let refused = Decoder::new().decode(size, &mut sources, there.sources, &block.repair, there.repairs);
        if missing == 0 {
            prop_assert_eq!(refused, Ok(0), "only repairs were lost");
        } else {
            prop_assert_eq!(refused, Err(DecodeError::TooFew { missing, repairs: there.repairs.len() }));
        }
        prop_assert!(sources == before);
    }

    /// Encoder and decoder agree with the model, and a decoder keeps nothing from the block before.
    #[test]
    fn codec_and_model_agree(shapes in vec((1..=12_usize, 0..=9_usize, 1..=9_usize, 0..=9_usize), 1..4), seed: u64) {
        let mut decoder = Decoder::new();
        for (k, r, size, lost) in shapes {
            let block = Block::random(k, r, size, seed);
            prop_assert_eq!(&block.repair, &model_encode(k, r, size, &block.sources));
            let there = block.survivors(lost.min(r), seed);
            let mut sources = block.with_holes(there.sources);
            decoder.decode(size, &mut sources, there.sources, &block.repair, there.repairs).unwrap();
            prop_assert_eq!(&sources, &model_decode(&block, there));
        }
    }

    /// Whatever lengths and sets are given: an answer, never a panic; on an error nothing is written.
    #[test]
    fn no_input_panics(
        size in 0..40_usize, sources in vec(any::<u8>(), 0..900), repair in vec(any::<u8>(), 0..900),
        present in vec(0..140_usize, 0..140), repair_present in vec(0..140_usize, 0..40), whole: bool,
    ) {
        let cut = |buffer: &[u8]| if whole && size > 0 { buffer.len() / size * size } else { buffer.len() };
        let (mut sources, mut repair) = (sources[..cut(&sources)].to_vec(), repair[..cut(&repair)].to_vec());
        let before = (sources.clone(), repair.clone());
        let (present, repair_present) = (present.into_iter().collect(), repair_present.into_iter().collect());
        if Decoder::new().decode(size, &mut sources, present, &repair, repair_present).is_err() {
            prop_assert!(sources == before.0);
        }
        if encode(size, &before.0, &mut repair).is_err() {
            prop_assert!(repair == before.1);
        }
    }
}

/// Every erasure pattern of every small code, and of 12+4, whose patterns are few enough to try them all.
#[test]
fn every_pattern_of_small_codes() {
    let mut decoder = Decoder::new();
    let small = (1..=5).flat_map(|k| (0..=4).map(move |r| (k, r)));
    let (mut restored, mut refused) = (0, 0);
    for (k, r) in small.chain([(12, 4)]) {
        let block = Block::random(k, r, 3, 7);
        for there in 0_usize..1 << (k + r) {
            let there = There::from_bits(there, k, r);
            let mut sources = block.with_holes(there.sources);
            let before = sources.clone();
            let repair = block.repair_with_holes(there.repairs);
            let missing = k - there.sources.len();
            let result = decoder.decode(3, &mut sources, there.sources, &repair, there.repairs);
            if missing <= there.repairs.len() {
                assert_eq!((result, &sources), (Ok(missing), &block.sources));
                restored += 1;
            } else {
                assert_eq!(result, Err(DecodeError::TooFew { missing, repairs: there.repairs.len() }));
                assert_eq!(sources, before);
                refused += 1;
            }
        }
    }
    assert!(restored > 2000 && refused > 60_000, "{restored} restored, {refused} refused");
}

/// A decoder needs exactly as many repairs as sources are missing: the others may hold rubbish.
#[test]
fn only_the_lowest_repairs_are_read() {
    let block = Block::random(64, 8, 100, 3);
    let present: SymbolSet = (0..64).filter(|j| *j != 5 && *j != 60).collect();
    let repairs: SymbolSet = [2, 4, 7].into_iter().collect();
    let mut repair = block.repair.clone();
    for unused in [0, 1, 3, 5, 6, 7] {
        repair[unused * 100..][..100].fill(0xEE);
    }
    let mut sources = block.with_holes(present);
    assert_eq!(Decoder::new().decode(100, &mut sources, present, &repair, repairs), Ok(2));
    assert_eq!(sources, block.sources);
    // And those are really used: rubbish in one of them shows.
    repair[2 * 100] ^= 1;
    assert_eq!(Decoder::new().decode(100, &mut sources, present, &repair, repairs), Ok(2));
    assert_ne!(sources, block.sources);
}

/// One loss with repair 0 (XOR) and the same loss with each other repair give the same bytes.
#[test]
fn one_loss_is_restored_by_any_repair() {
    let block = Block::random(128, 127, 130, 4);
    let mut decoder = Decoder::new();
    for lost in [0, 1, 64, 126, 127] {
        let present: SymbolSet = (0..128).filter(|j| *j != lost).collect();
        for i in 0..127 {
            let mut sources = block.with_holes(present);
            let only: SymbolSet = [i].into_iter().collect();
            assert_eq!(decoder.decode(130, &mut sources, present, &block.repair, only), Ok(1));
            assert!(sources == block.sources, "symbol {lost} by repair {i}");
        }
    }
}

#[test]
fn sets_that_name_symbols_beyond_the_block_are_refused() {
    let block = Block::random(4, 2, 8, 5);
    let mut sources = block.with_holes(SymbolSet::first(3));
    let before = sources.clone();
    let mut decoder = Decoder::new();
    let mut ask = |present, repair: &[u8], repairs| decoder.decode(8, &mut sources, present, repair, repairs);
    let beyond: SymbolSet = [0, 1, 2, 4].into_iter().collect();
    assert_eq!(
        ask(beyond, &block.repair, SymbolSet::first(2)),
        Err(DecodeError::NoSuchSymbol { index: 4, last: Some(3) })
    );
    assert_eq!(
        ask(SymbolSet::first(3), &block.repair, SymbolSet::first(3)),
        Err(DecodeError::NoSuchSymbol { index: 2, last: Some(1) })
    );
    assert_eq!(
        ask(SymbolSet::first(3), &[], SymbolSet::first(1)),
        Err(DecodeError::NoSuchSymbol { index: 0, last: None })
    );
    assert_eq!(
        ask(SymbolSet::first(3), &block.repair[1..], SymbolSet::first(1)),
        Err(DecodeError::Shape(ShapeError::Repairs { bytes: 15, symbol_size: 8 }))
    );
    assert_eq!(sources, before);
}

/// A block with its repairs.
struct Block {
    k: usize,
    r: usize,
    size: usize,
    sources: Vec<u8>,
    repair: Vec<u8>,
}

/// What of a block arrived.
#[derive(Clone, Copy)]
struct There {
    sources: SymbolSet,
    repairs: SymbolSet,
}

impl There {
    fn from_bits(bits: usize, k: usize, r: usize) -> Self {
        Self {
            sources: (0..k).filter(|j| bits >> j & 1 == 1).collect(),
            repairs: (0..r).filter(|i| bits >> (k + i) & 1 == 1).collect(),
        }
    }
}

impl Block {
    fn random(k: usize, r: usize, size: usize, seed: u64) -> Self {
        let mut sources = vec![0; k * size];
        ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut sources);
        let mut repair = vec![0x5A; r * size];
        encode(size, &sources, &mut repair).unwrap();
        Self { k, r, size, sources, repair }
    }

    /// What is left after `lost` symbols went: half of the time any, half of the time sources first.
    fn survivors(&self, lost: usize, seed: u64) -> There {
        let mut random = ChaCha8Rng::seed_from_u64(!seed);
        let from = if random.random() { self.k + self.r } else { self.k.max(lost) };
        let gone: Vec<usize> = sample(&mut random, from, lost).into_vec();
        There {
            sources: (0..self.k).filter(|j| !gone.contains(j)).collect(),
            repairs: (0..self.r).filter(|i| !gone.contains(&(self.k + i))).collect(),
        }
    }

    /// The sources with rubbish in place of what is not there.
    fn with_holes(&self, there: SymbolSet) -> Vec<u8> {
        holes(&self.sources, self.size, there)
    }

    fn repair_with_holes(&self, there: SymbolSet) -> Vec<u8> {
        holes(&self.repair, self.size, there)
    }
}

fn holes(symbols: &[u8], size: usize, there: SymbolSet) -> Vec<u8> {
    let mut symbols = symbols.to_vec();
    for (_, symbol) in symbols.chunks_mut(size).enumerate().filter(|(index, _)| !there.contains(*index)) {
        symbol.fill(0xC3);
    }
    symbols
}

/// The product of two polynomials over GF(2), modulo 0x11D.
fn times(a: u8, b: u8) -> u8 {
    let mut product = (0..8).filter(|bit| b >> bit & 1 == 1).fold(0_u16, |sum, bit| sum ^ (a as u16) << bit);
    for bit in (8..15).rev().filter(|bit| *bit >= 8) {
        if product >> bit & 1 == 1 {
            product ^= 0x11D << (bit - 8);
        }
    }
    product as u8
}

fn inverse(a: u8) -> u8 {
    (1..=255).find(|b| times(a, *b) == 1).unwrap()
}

/// Row n of the generator: unit rows for the sources, then the repairs' coefficients by their definition.
fn generator(k: usize, n: usize) -> Vec<u8> {
    let coefficient = |j: usize| {
        if n < k {
            return u8::from(n == j);
        }
        let (i, j) = ((n - k) as u8, j as u8);
        times(128 ^ j, inverse((128 + i) ^ j))
    };
    (0..k).map(coefficient).collect()
}

fn model_encode(k: usize, r: usize, size: usize, sources: &[u8]) -> Vec<u8> {
    let byte = |i: usize, at: usize| {
        let row = generator(k, k + i);
        (0..k).fold(0, |sum, j| sum ^ times(row[j], sources[j * size + at]))
    };
    (0..r).flat_map(|i| (0..size).map(move |at| (i, at))).map(|(i, at)| byte(i, at)).collect()
}

/// Solves generator · sources = symbols by Gauss and Jordan, with all symbols that came.
fn model_decode(block: &Block, there: There) -> Vec<u8> {
    let (k, size) = (block.k, block.size);
    let equation =
        |n: usize, symbols: &[u8], at: usize| [&generator(k, n), &symbols[at * size..][..size]].concat();
    let known = there.sources.iter().map(|j| equation(j, &block.sources, j));
    let mut rows: Vec<Vec<u8>> =
        known.chain(there.repairs.iter().map(|i| equation(k + i, &block.repair, i))).collect();
    for column in 0..k {
        let pivot = (column..rows.len()).find(|row| rows[*row][column] != 0).expect("enough symbols came");
        rows.swap(column, pivot);
        let factor = inverse(rows[column][column]);
        rows[column].iter_mut().for_each(|cell| *cell = times(*cell, factor));
        let pivot = rows[column].clone();
        for row in (0..rows.len()).filter(|row| *row != column) {
            let factor = rows[row][column];
            rows[row].iter_mut().zip(&pivot).for_each(|(cell, above)| *cell ^= times(factor, *above));
        }
    }
    assert!(rows[k..].iter().flatten().all(|cell| *cell == 0), "surplus symbols agree");
    rows[..k].iter().flat_map(|row| row[k..].to_vec()).collect()
}
