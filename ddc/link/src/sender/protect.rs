//! Blocks into symbols: how long a symbol is, which repairs a block gets, who goes first.
//!
//! ```text
//!  interleave = 3:   a0 b0 c0 │ a1 b1 c1 │ … source … │ … repair …      then the next group
//!  interleave = 1:   a0 a1 … source, then repair …                      then the next block
//! ```
//!
//! A group is sent to its end before the next one begins. So no symbol of block b leaves after the
//! first one of block b + D_max, which is stricter than the contract's b + 2 · D_max.

use ddc_fec::{Code, encode};
use ddc_wire::{BlockNumber, Kind};

use super::seal::SymbolHeader;

/// A block whose symbols can be taken.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) number: BlockNumber,
    pub(super) records: u32,
    /// k' · S bytes; behind the first `len` zeros.
    sources: Vec<u8>,
    symbol_size: usize,
    source_symbols: usize,
    repair_symbols: usize,
    /// Bytes of the block without padding, L.
    len: usize,
    /// A full block's last source symbol is sent with its padding.
    padded: bool,
}

impl Block {
    /// Cuts `bytes` into symbols of at most `s_max`. The caller has checked that 1 ≤ L ≤ k · s_max.
    pub(super) fn new(
        number: BlockNumber,
        mut bytes: Vec<u8>,
        full: bool,
        records: u32,
        code: Code,
        s_max: usize,
    ) -> Self {
        let len = bytes.len();
        let source_symbols = len.div_ceil(s_max);
        let symbol_size = if full { s_max } else { len.div_ceil(source_symbols) };
        bytes.resize(source_symbols * symbol_size, 0);
        let repair_symbols = code.short(source_symbols).r();
        Self {
            number,
            records,
            sources: bytes,
            symbol_size,
            source_symbols,
            repair_symbols,
            len,
            padded: full,
        }
    }

    fn symbols(&self) -> usize {
        self.source_symbols + self.repair_symbols
    }

    fn payload_len(&self, index: usize) -> usize {
        if index + 1 == self.source_symbols && !self.padded {
            self.len - index * self.symbol_size
        } else {
            self.symbol_size
        }
    }

    fn header(&self, index: usize) -> SymbolHeader {
        // S ≤ 65535, k' ≤ 128, r' ≤ 127, L < 2^24: the configuration was checked.
        SymbolHeader {
            symbol_size: self.symbol_size as u16,
            symbol_index: index as u8,
            source_symbols: self.source_symbols as u8,
            repair_symbols: self.repair_symbols as u8,
            block_len: self.len as u32,
        }
    }
}

/// The blocks that are being sent, interleaved. At most D_max.
#[derive(Debug, Default)]
pub(super) struct Group {
    blocks: Vec<Block>,
    /// The repair symbols of each block, computed when the first is due; buffers are kept.
    repairs: Vec<Vec<u8>>,
    /// Whose turn it is, and with which symbol.
    turn: usize,
    index: usize,
    /// Leading blocks of which every symbol was taken.
    done: usize,
}

/// A symbol whose turn it is.
#[derive(Debug)]
pub(super) struct Symbol<'a> {
    pub(super) kind: Kind,
    pub(super) block: BlockNumber,
    pub(super) header: SymbolHeader,
    pub(super) payload: &'a [u8],
}

impl Group {
    /// Begins with these blocks; those before were sent. `blocks` is left empty.
    pub(super) fn begin(&mut self, blocks: &mut Vec<Block>) {
        self.blocks.clear();
        self.blocks.append(blocks);
        if self.repairs.len() < self.blocks.len() {
            self.repairs.resize_with(self.blocks.len(), Vec::new);
        }
        (self.turn, self.index, self.done) = (0, 0, 0);
    }

    /// Whether every symbol was taken.
    pub(super) fn is_done(&self) -> bool {
        self.done == self.blocks.len()
    }

    /// Bytes of the next symbol's payload.
    pub(super) fn next_len(&self) -> Option<usize> {
        if self.is_done() {
            return None;
        }
        Some(self.blocks[self.turn].payload_len(self.index))
    }

    /// The symbol whose turn it is. Not called when done.
    pub(super) fn symbol(&mut self) -> Symbol<'_> {
        let (block, index) = (&self.blocks[self.turn], self.index);
        let size = block.symbol_size;
        let repair = index.checked_sub(block.source_symbols);
        let payload = match repair {
            None => {
                let at = index * size;
                &block.sources[at..at + block.payload_len(index)]
            }
            Some(repair) => {
                let buffer = &mut self.repairs[self.turn];
                if repair == 0 {
                    buffer.resize(block.repair_symbols * size, 0);
                    let encoded = encode(size, &block.sources, buffer);
                    // k', r' and S were chosen within the code's limits in `Block::new`.
                    debug_assert!(encoded.is_ok(), "{encoded:?}");
                }
                &buffer[repair * size..(repair + 1) * size]
            }
        };
        let kind = if repair.is_none() { Kind::Source } else { Kind::Repair };
        Symbol { kind, block: block.number, header: block.header(index), payload }
    }

    /// The symbol whose turn it was has been taken. Calls `sent` for each block of which, and of
    /// all before it, that was the last one.
    pub(super) fn advance(&mut self, mut sent: impl FnMut(&Block)) {
        // Whose turn comes next; a block whose symbols are all taken is passed over.
        let mut index = self.index;
        let mut turn = self.turn + 1;
        loop {
            if let Some(next) = (turn..self.blocks.len()).find(|&at| self.blocks[at].symbols() > index) {
                turn = next;
                break;
            }
            (turn, index) = (0, index + 1);
            if self.blocks.iter().all(|block| block.symbols() <= index) {
                break;
            }
        }
        (self.turn, self.index) = (turn, index);
        while let Some(block) = self.blocks.get(self.done) {
            let taken = if self.done < turn { index + 1 } else { index };
            if taken < block.symbols() {
                break;
            }
            sent(block);
            self.done += 1;
        }
    }
}
