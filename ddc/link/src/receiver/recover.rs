//! One block on its way to being whole: its symbols, and the memory they lie in.
//!
//! ```text
//!  source buffer │ 0 │ 1 │ … │ k'-1 │   k'·S bytes, each symbol copied to its place as it comes
//!  repair buffer │ 0 │ … │ r'-1 │       r'·S bytes, only once a repair symbol comes for an incomplete block
//! ```
//!
//! A block is complete when all source symbols came, or decoded as soon as any k' symbols did.
//! Which block is given up, and when, is decided in `order.rs`.

use std::time::Instant;

use ddc_fec::{Decoder, SymbolSet};
use ddc_wire::{BlockShape, Kind};

use super::counters::{Counters, Reject};

/// What a block costs beside its symbols, charged to the window, so that a flood of tiny blocks is bounded too.
const BLOCK_OVERHEAD: usize = 512;
/// Most buffers kept for reuse.
const MAX_POOLED: usize = 64;
/// The pool holds at most this share of the window.
const POOL_SHARE: usize = 4;

/// The memory of all blocks of all sessions, bounded by the window, and the decoder they share.
pub(crate) struct Memory {
    window_bytes: usize,
    held_bytes: usize,
    pool: Vec<Vec<u8>>,
    pooled_bytes: usize,
    decoder: Decoder,
}

impl Memory {
    pub(crate) fn new(window_bytes: usize) -> Self {
        Self {
            window_bytes,
            held_bytes: 0,
            pool: Vec::with_capacity(MAX_POOLED),
            pooled_bytes: 0,
            decoder: Decoder::new(),
        }
    }

    /// Bytes charged to the window now.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Whether `bytes` more fit.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        bytes <= self.window_bytes.saturating_sub(self.held_bytes)
    }

    /// A buffer of `len` bytes that hold anything, and of little more: the window is charged for `len`.
    fn take(&mut self, len: usize) -> Vec<u8> {
        let fits = |buffer: &Vec<u8>| (len..=2 * len + BLOCK_OVERHEAD).contains(&buffer.capacity());
        let Some(at) = self.pool.iter().rposition(fits) else {
            // Nothing fits: the oldest makes way, so that the pool follows the sizes in use.
            if self.pool.len() == MAX_POOLED {
                self.pooled_bytes -= self.pool.remove(0).capacity();
            }
            return vec![0; len];
        };
        let mut buffer = self.pool.swap_remove(at);
        self.pooled_bytes -= buffer.capacity();
        // Seldom writes: buffers come back with the length they were given.
        buffer.resize(len, 0);
        buffer
    }

    /// Keeps a buffer for reuse, if there is room in the pool.
    pub(crate) fn recycle(&mut self, buffer: Vec<u8>) {
        let bytes = buffer.capacity();
        let room = (self.window_bytes / POOL_SHARE).saturating_sub(self.pooled_bytes);
        if bytes > 0 && bytes <= room && self.pool.len() < MAX_POOLED {
            self.pooled_bytes += bytes;
            self.pool.push(buffer);
        }
    }
}

/// A block of which at least one symbol came.
pub(crate) struct Block {
    shape: BlockShape,
    sources: SymbolSet,
    repairs: SymbolSet,
    source_bytes: Vec<u8>,
    /// Empty until a repair symbol is needed.
    repair_bytes: Vec<u8>,
    charged_bytes: usize,
    first_symbol_at: Instant,
    last_symbol_at: Instant,
    complete: bool,
}

impl Block {
    /// Bytes that the window must have room for before a symbol of a new block is taken.
    pub(crate) fn room_for_first(shape: BlockShape, kind: Kind) -> usize {
        let repair = if kind == Kind::Repair { repair_len(shape) } else { 0 };
        shape.padded_len() + BLOCK_OVERHEAD + repair
    }

    /// The same for a symbol of this block.
    pub(crate) fn room_for_next(&self, kind: Kind) -> usize {
        let needed = kind == Kind::Repair && !self.complete && self.repair_bytes.is_empty();
        if needed { repair_len(self.shape) } else { 0 }
    }

    pub(crate) fn new(memory: &mut Memory, shape: BlockShape, now: Instant) -> Self {
        let charged_bytes = shape.padded_len() + BLOCK_OVERHEAD;
        memory.held_bytes += charged_bytes;
        Self {
            shape,
            sources: SymbolSet::EMPTY,
            repairs: SymbolSet::EMPTY,
            source_bytes: memory.take(shape.padded_len()),
            repair_bytes: Vec::new(),
            charged_bytes,
            first_symbol_at: now,
            last_symbol_at: now,
            complete: false,
        }
    }

    /// Takes a symbol whose header agreed with its payload ([`ddc_wire::Header::shape`]).
    pub(crate) fn symbol(
        &mut self,
        memory: &mut Memory,
        counters: &mut Counters,
        now: Instant,
        symbol: &Symbol<'_>,
    ) -> Result<(), Reject> {
        // DDC-W-025: a block's headers agree, or the datagram is refused.
        if symbol.shape != self.shape {
            return Err(Reject::Header);
        }
        let size = self.shape.symbol_size as usize;
        let k = self.shape.source_symbols as usize;
        let (set, index) = match symbol.index.checked_sub(k) {
            None => (&mut self.sources, symbol.index),
            Some(repair) => (&mut self.repairs, repair),
        };
        if self.complete {
            // What the decoder restored is in `sources` too, so a straggler cannot be told from a copy.
            counters.symbols_spare += 1;
            return Ok(());
        }
        if !set.insert(index) {
            return Err(Reject::Duplicate);
        }
        self.last_symbol_at = now;
        if symbol.index < k {
            let place = &mut self.source_bytes[index * size..][..size];
            let (came, padding) = place.split_at_mut(symbol.payload.len().min(size));
            came.copy_from_slice(&symbol.payload[..came.len()]);
            padding.fill(0);
        } else {
            if self.repair_bytes.is_empty() {
                let len = repair_len(self.shape);
                self.repair_bytes = memory.take(len);
                self.charged_bytes += len;
                memory.held_bytes += len;
            }
            self.repair_bytes[index * size..][..size].copy_from_slice(symbol.payload);
        }
        self.try_complete(memory, counters);
        Ok(())
    }

    fn try_complete(&mut self, memory: &mut Memory, counters: &mut Counters) {
        let k = self.shape.source_symbols as usize;
        if self.sources.len() < k {
            if self.sources.len() + self.repairs.len() < k {
                return;
            }
            let size = self.shape.symbol_size as usize;
            let decoded = memory.decoder.decode(
                size,
                &mut self.source_bytes,
                self.sources,
                &self.repair_bytes,
                self.repairs,
            );
            // It fails only for buffers or sets that do not fit the shape, and both are made from it. Were
            // it to happen, the block stays incomplete and is given up as unrepairable.
            let Ok(restored) = decoded else { return };
            counters.symbols_repaired += restored as u64;
            counters.blocks_repaired += 1;
        }
        self.complete = true;
        self.drop_repair_bytes(memory);
    }

    fn drop_repair_bytes(&mut self, memory: &mut Memory) {
        let len = self.repair_bytes.len();
        self.charged_bytes -= len;
        memory.held_bytes -= len;
        memory.recycle(std::mem::take(&mut self.repair_bytes));
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Symbols of either kind that came (or, of a complete block, are known).
    pub(crate) fn symbols(&self) -> usize {
        self.sources.len() + self.repairs.len()
    }

    pub(crate) fn first_symbol_at(&self) -> Instant {
        self.first_symbol_at
    }

    pub(crate) fn last_symbol_at(&self) -> Instant {
        self.last_symbol_at
    }

    /// The block's bytes without padding. Only of a complete block.
    pub(crate) fn into_bytes(mut self, memory: &mut Memory) -> Vec<u8> {
        self.drop_repair_bytes(memory);
        memory.held_bytes -= self.charged_bytes;
        let mut bytes = self.source_bytes;
        bytes.truncate(self.shape.block_len as usize);
        bytes
    }

    /// Gives the block up; what remains is which symbols it had.
    pub(crate) fn give_up(mut self, memory: &mut Memory) -> SymbolsSeen {
        self.drop_repair_bytes(memory);
        memory.held_bytes -= self.charged_bytes;
        memory.recycle(self.source_bytes);
        SymbolsSeen { shape: self.shape, sources: self.sources, repairs: self.repairs }
    }
}

/// A symbol as it came, its header checked against its payload.
pub(crate) struct Symbol<'a> {
    pub(crate) block: u64,
    pub(crate) kind: Kind,
    pub(crate) shape: BlockShape,
    /// 0 to k' − 1 source, k' to k' + r' − 1 repair.
    pub(crate) index: usize,
    pub(crate) payload: &'a [u8],
}

/// Which symbols of a given-up block came, in time or late; without their bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SymbolsSeen {
    shape: BlockShape,
    sources: SymbolSet,
    repairs: SymbolSet,
}

impl SymbolsSeen {
    pub(crate) fn none(shape: BlockShape) -> Self {
        Self { shape, sources: SymbolSet::EMPTY, repairs: SymbolSet::EMPTY }
    }

    /// Adds a late symbol; true when the block would be complete with it.
    pub(crate) fn add(&mut self, symbol: &Symbol<'_>) -> Result<bool, Reject> {
        if symbol.shape != self.shape {
            return Err(Reject::Header);
        }
        let k = self.shape.source_symbols as usize;
        let new = match symbol.index.checked_sub(k) {
            None => self.sources.insert(symbol.index),
            Some(repair) => self.repairs.insert(repair),
        };
        if !new {
            return Err(Reject::Duplicate);
        }
        Ok(self.sources.len() + self.repairs.len() >= k)
    }
}

fn repair_len(shape: BlockShape) -> usize {
    shape.repair_symbols as usize * shape.symbol_size as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn symbols(shape: BlockShape, data: &[u8], short_last: bool) -> Vec<(Kind, usize, Vec<u8>)> {
        let (k, size) = (shape.source_symbols as usize, shape.symbol_size as usize);
        let mut padded = data.to_vec();
        padded.resize(k * size, 0);
        let mut repair = vec![0; repair_len(shape)];
        ddc_fec::encode(size, &padded, &mut repair).unwrap();
        let mut all: Vec<_> =
            padded.chunks(size).enumerate().map(|(at, bytes)| (Kind::Source, at, bytes.to_vec())).collect();
        if short_last {
            all[k - 1].2.truncate(shape.last_symbol_len());
        }
        all.extend(repair.chunks(size).enumerate().map(|(at, bytes)| (Kind::Repair, k + at, bytes.to_vec())));
        all
    }

    proptest! {
        /// Any k' symbols in any order give the block back, from dirty buffers too; fewer never do.
        #[test]
        fn any_k_symbols_complete(k in 1u8..20, r in 0u8..10, size in 1u16..50, cut: u16, short: bool, seed in any::<u64>()) {
            let len = u32::from(k) * u32::from(size) - u32::from(cut % size);
            let shape = BlockShape { symbol_size: size, source_symbols: k, repair_symbols: r, block_len: len };
            let data: Vec<u8> = (0..len).map(|at| (at as u64).wrapping_mul(seed | 1) as u8).collect();
            let mut all = symbols(shape, &data, short);
            let mut state = seed;
            for at in (1..all.len()).rev() {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                all.swap(at, (state >> 33) as usize % (at + 1));
            }
            let now = Instant::now();
            let mut memory = Memory::new(1 << 20);
            memory.recycle(vec![0xEE; 2000]);
            memory.recycle(vec![0xEE; 20]);
            let mut counters = Counters::default();
            let mut block = Block::new(&mut memory, shape, now);
            for (count, (kind, index, payload)) in all.iter().enumerate() {
                prop_assert_eq!(block.is_complete(), count >= k as usize);
                let symbol = Symbol { block: 0, kind: *kind, shape, index: *index, payload };
                prop_assert_eq!(block.symbol(&mut memory, &mut counters, now, &symbol), Ok(()));
            }
            prop_assert!(block.is_complete());
            prop_assert_eq!(counters.symbols_spare, u64::from(r));
            prop_assert_eq!(block.into_bytes(&mut memory), data);
            prop_assert_eq!(memory.held_bytes(), 0);
        }
    }

    #[test]
    fn a_symbol_that_disagrees_or_repeats_is_refused() {
        let shape = BlockShape { symbol_size: 10, source_symbols: 3, repair_symbols: 2, block_len: 25 };
        let (now, mut memory, mut counters) = (Instant::now(), Memory::new(1 << 20), Counters::default());
        let mut block = Block::new(&mut memory, shape, now);
        let mut put = |shape, index| {
            let kind = if index < 3 { Kind::Source } else { Kind::Repair };
            let symbol = Symbol { block: 0, kind, shape, index, payload: &[0; 10] };
            block.symbol(&mut memory, &mut counters, now, &symbol)
        };
        assert_eq!(put(shape, 0), Ok(()));
        assert_eq!(put(shape, 0), Err(Reject::Duplicate));
        for other in [
            BlockShape { symbol_size: 11, ..shape },
            BlockShape { source_symbols: 4, ..shape },
            BlockShape { repair_symbols: 3, ..shape },
            BlockShape { block_len: 26, ..shape },
        ] {
            assert_eq!(put(other, 1), Err(Reject::Header));
        }
        assert_eq!(put(shape, 3), Ok(()));
        assert!(memory.held_bytes() > 50);
        block.give_up(&mut memory);
        assert_eq!(memory.held_bytes(), 0);
    }
}
