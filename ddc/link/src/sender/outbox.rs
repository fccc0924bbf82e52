//! Batches that are closed, as the blocks they travel in.
//!
//! A batch that fits a block is one; a larger one is cut into fragments only when they are taken,
//! so that its bytes are in memory once.

use std::collections::VecDeque;

use ddc_wire::{Codec, Content, Prelude};

use super::partitions::Mark;

/// A block, ready for [`super::Sender::push`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedBlock {
    /// Prelude and data: 1 to k · S_max bytes.
    pub bytes: Vec<u8>,
    /// Closed because nothing more fitted, not because `linger` had passed.
    pub full: bool,
    /// Records that end in this block.
    pub records: u32,
    /// Bytes of their keys, values and headers.
    pub record_bytes: u64,
    /// Records or ledger.
    pub content: Content,
    /// How far each partition has come once this block *and all before it* have been handed to
    /// the kernel. Empty for all fragments but the last of a batch.
    pub marks: Vec<Mark>,
}

/// A closed batch as it travels.
pub(super) struct ClosedBatch<'a> {
    pub(super) codec: Codec,
    pub(super) content: Content,
    pub(super) raw_len: usize,
    /// Compressed, or not, as `codec` says.
    pub(super) bytes: &'a [u8],
    pub(super) full: bool,
    pub(super) records: u32,
    pub(super) record_bytes: u64,
    pub(super) marks: Vec<Mark>,
}

/// The queue of blocks to be taken. [`super::Packer::push`] bounds it.
#[derive(Debug)]
pub(super) struct Outbox {
    symbol_size: usize,
    /// Most bytes of a block: k · S_max.
    capacity: usize,
    queue: VecDeque<Queued>,
    queued_bytes: usize,
}

#[derive(Debug)]
enum Queued {
    Block(PackedBlock),
    Fragments(Fragments),
}

#[derive(Debug)]
struct Fragments {
    bytes: Vec<u8>,
    prelude: Prelude,
    /// What the last fragment says of the whole batch.
    records: u32,
    record_bytes: u64,
    marks: Vec<Mark>,
}

impl Outbox {
    pub(super) fn new(symbol_size: usize, source_symbols: usize) -> Self {
        let capacity = symbol_size * source_symbols;
        Self { symbol_size, capacity, queue: VecDeque::new(), queued_bytes: 0 }
    }

    /// Bytes of a batch that fit one block, whatever its prelude.
    pub(super) fn data_capacity(&self) -> usize {
        self.capacity - Prelude::MAX_LEN
    }

    /// Bytes that wait.
    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn push(&mut self, batch: ClosedBatch<'_>) {
        self.queued_bytes += batch.bytes.len();
        let fragments = batch.bytes.len().div_ceil(self.data_capacity()).max(1);
        let prelude = Prelude {
            codec: batch.codec,
            content: batch.content,
            fragment: 0,
            // The configuration was checked: the largest record has at most MAX_FRAGMENTS.
            fragments: fragments as u32,
            raw_len: batch.raw_len as u32,
        };
        let ClosedBatch { bytes, full, records, record_bytes, content, marks, .. } = batch;
        self.queue.push_back(if fragments == 1 {
            // A batch that shrank a lot is short, however much went into it.
            let full = full && bytes.len() > self.capacity / 2;
            let bytes = self.block(&prelude, bytes);
            Queued::Block(PackedBlock { bytes, full, records, record_bytes, content, marks })
        } else {
            Queued::Fragments(Fragments { bytes: bytes.to_vec(), prelude, records, record_bytes, marks })
        });
    }

    pub(super) fn pop(&mut self) -> Option<PackedBlock> {
        let data_capacity = self.data_capacity();
        let Queued::Fragments(batch) = self.queue.front_mut()? else {
            let Some(Queued::Block(block)) = self.queue.pop_front() else { return None };
            // The prelude was not counted when the batch came in: count the data alone.
            let data = Prelude::decode(&block.bytes).map_or(0, |(_, data)| data.len());
            self.queued_bytes -= data;
            return Some(block);
        };
        let prelude = batch.prelude;
        batch.prelude.fragment += 1;
        let last = batch.prelude.fragment == prelude.fragments;
        let from = prelude.fragment as usize * data_capacity;
        let to = if last { batch.bytes.len() } else { from + data_capacity };
        let mut block = PackedBlock {
            bytes: Vec::new(),
            full: !last,
            records: 0,
            record_bytes: 0,
            content: prelude.content,
            marks: Vec::new(),
        };
        if last {
            (block.records, block.record_bytes) = (batch.records, batch.record_bytes);
            block.marks = std::mem::take(&mut batch.marks);
        }
        let whole = std::mem::take(&mut batch.bytes);
        block.bytes = self.block(&prelude, &whole[from..to]);
        self.queued_bytes -= to - from;
        match self.queue.front_mut() {
            Some(Queued::Fragments(batch)) if !last => batch.bytes = whole,
            _ => drop(self.queue.pop_front()),
        }
        Some(block)
    }

    /// A block with room for the padding of its last symbol, so that it is not moved later.
    fn block(&self, prelude: &Prelude, data: &[u8]) -> Vec<u8> {
        let len = Prelude::MAX_LEN + data.len();
        let mut block = Vec::with_capacity(len.next_multiple_of(self.symbol_size));
        prelude.encode(&mut block);
        block.extend_from_slice(data);
        block
    }
}
