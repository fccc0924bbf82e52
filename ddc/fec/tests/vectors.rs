//! Known answers computed by `vectors.py`, which shares nothing with the Rust sources: they pin the code on the wire.
//!
//! Regenerate with `python3 ddc/fec/tests/vectors.py > ddc/fec/tests/vectors.txt`; a changed file is a changed wire format.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is the failed test")]

use ddc_fec::{Decoder, MAX_REPAIRS, MAX_SOURCES, SymbolSet, encode};

const VECTORS: &str = include_str!("vectors.txt");

/// One `block` of the file.
struct Block {
    k: usize,
    r: usize,
    symbol_size: usize,
    sources: Vec<u8>,
    repair: Vec<u8>,
}

#[test]
fn every_coefficient_is_the_one_in_the_file() {
    // A single source symbol 1 in column j and zeros elsewhere reads column j of the matrix.
    let mut matrix = vec![vec![0; MAX_SOURCES]; MAX_REPAIRS];
    for j in 0..MAX_SOURCES {
        let mut sources = [0; MAX_SOURCES];
        sources[j] = 1;
        let mut column = [0; MAX_REPAIRS];
        encode(1, &sources, &mut column).unwrap();
        for (row, coefficient) in matrix.iter_mut().zip(column) {
            row[j] = coefficient;
        }
    }
    let mut rows = 0;
    for line in VECTORS.lines().filter_map(|line| line.strip_prefix("matrix ")) {
        let (i, row) = line.split_once(' ').unwrap();
        assert_eq!(matrix[i.parse::<usize>().unwrap()], hex(row), "row {i}");
        rows += 1;
    }
    assert_eq!(rows, MAX_REPAIRS);
}

#[test]
fn every_block_encodes_to_the_repairs_in_the_file() {
    let blocks = blocks();
    assert_eq!(blocks.len(), 10);
    for block in &blocks {
        let mut repair = vec![0xA5; block.repair.len()];
        encode(block.symbol_size, &block.sources, &mut repair).unwrap();
        assert!(repair == block.repair, "{}+{} × {}", block.k, block.r, block.symbol_size);
    }
}

/// The file's repairs, not ours, bring back as many sources as there are repairs, from either end of the block.
#[test]
fn every_block_is_restored_from_the_repairs_in_the_file() {
    let mut decoder = Decoder::new();
    for block in blocks() {
        let lost = block.r.min(block.k);
        for first in [0, block.k - lost] {
            let present: SymbolSet = (0..block.k).filter(|j| !(first..first + lost).contains(j)).collect();
            let mut sources = block.sources.clone();
            sources[first * block.symbol_size..][..lost * block.symbol_size].fill(0xA5);
            let all = SymbolSet::first(block.r);
            let restored = decoder.decode(block.symbol_size, &mut sources, present, &block.repair, all);
            assert_eq!(restored, Ok(lost));
            assert!(sources == block.sources, "{}+{} × {}", block.k, block.r, block.symbol_size);
        }
    }
}

fn blocks() -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for line in VECTORS.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        match fields[..] {
            ["block", k, r, symbol_size, seed] => {
                let number = |text: &str| text.parse::<usize>().unwrap();
                let (k, r, symbol_size) = (number(k), number(r), number(symbol_size));
                let sources = generated(number(seed) as u32, k * symbol_size);
                blocks.push(Block { k, r, symbol_size, sources, repair: Vec::new() });
            }
            ["repair", _, symbol] => blocks.last_mut().unwrap().repair.extend(hex(symbol)),
            _ => {}
        }
    }
    for block in &blocks {
        assert_eq!(block.repair.len(), block.r * block.symbol_size, "the file is whole");
    }
    blocks
}

fn generated(seed: u32, count: usize) -> Vec<u8> {
    let mut x = seed;
    let next = || {
        x = x.wrapping_mul(1103515245).wrapping_add(12345);
        (x >> 16) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
