//! Replayed records into blocks: slices that stand outside of the chain. Runs on a replay's thread.
//!
//! ```text
//!  asked for:  first ……………………………………………………………………… last
//!  slices:     [ base … end )[ base … end )[ base ………… end )          disjoint, joined, the last one to its end
//!  records:      x x   x         x x x x        x
//! ```
//!
//! A slice is a batch with one chunk of kind `Replay`. It answers for every offset that was read for it, so that an
//! offset without a record is known to be gone; a slice that is lost on its way leaves its own part of a hole open, and
//! no other. A slice says nothing of what comes before or after it (DDC-W-106).
//!
//! Memory: the open slice (at most 8 blocks or 1 MiB before compression, or one record), twice that as scratch, and
//! the slices that were not taken with [`ReplayPacker::pop`], of which there are a few after each push.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use ddc_fec::Code;
use ddc_wire::{
    ChunkHeader, ChunkKind, Chunks, Codec, Content, Epoch, MAX_NAME_LEN, OVERHEAD, RecordHeader,
    RecordWriter, Timestamp, TopicId, write_chunk,
};

use super::compress::{Compressor, FillEstimate};
use super::outbox::{ClosedBatch, Outbox, PackedBlock};
use super::pace::wire_bytes;
use super::pack::{PackConfig, PackConfigError, PackError, Packer, checked_len, record_len};
use super::split::record_bound;

/// What is answered for: offsets of one partition in one life of its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayRange {
    /// The topic's name at the source.
    pub topic: Arc<str>,
    /// Which life of the topic.
    pub topic_id: TopicId,
    /// The partition at the source.
    pub partition: i32,
    /// Partitions of the topic; 0 when unknown.
    pub partition_count: u32,
    /// First offset.
    pub first: i64,
    /// Last offset, included; below 2⁶³ − 1.
    pub last: i64,
}

/// A part of a range, as the blocks of one batch: they must be sent one behind the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplaySlice {
    /// The first offset that it answers for.
    pub base: i64,
    /// The first offset behind it.
    pub end: i64,
    /// Records in it; all other offsets of it are gone.
    pub records: u32,
    /// At least one. They have no marks: nothing is committed for a replay.
    pub blocks: Vec<PackedBlock>,
}

/// Packs the records of one range after the other. See the module's text.
pub struct ReplayPacker {
    stream: String,
    max_record_bytes: usize,
    outbox: Outbox,
    compressor: Compressor,
    fill: FillEstimate,
    open: Option<Open>,
    writer: RecordWriter,
    /// Keys, values and headers in `writer`, in bytes.
    record_bytes: u64,
    raw: Vec<u8>,
    ready: VecDeque<ReplaySlice>,
}

/// The range that is being answered for.
struct Open {
    range: ReplayRange,
    /// The first offset of the open slice.
    base: i64,
}

impl ReplayPacker {
    /// A packer that makes blocks like a [`Packer`] of this configuration; its linger and ledger do not matter here.
    pub fn new(config: &PackConfig) -> Result<Self, PackConfigError> {
        Packer::check(config)?;
        let outbox = Outbox::new(config.symbol_size, config.source_symbols);
        Ok(Self {
            stream: config.stream.clone(),
            max_record_bytes: config.max_record_bytes,
            compressor: Compressor::new(config.compression)?,
            fill: FillEstimate::new(outbox.data_capacity()),
            outbox,
            open: None,
            writer: RecordWriter::default(),
            record_bytes: 0,
            raw: Vec::new(),
            ready: VecDeque::new(),
        })
    }

    /// Begins with a range. What was open of another one is dropped.
    pub fn begin(&mut self, range: ReplayRange) -> Result<(), PackError> {
        if range.topic.len() > MAX_NAME_LEN {
            return Err(PackError::NameTooLong { len: range.topic.len() });
        }
        let offsets = range.first >= 0 && range.first <= range.last && range.last < i64::MAX;
        if !offsets || range.partition < 0 || range.partition_count > i32::MAX as u32 {
            return Err(PackError::BadStart { topic: range.topic, partition: range.partition });
        }
        self.writer.start(range.first);
        self.record_bytes = 0;
        self.open = Some(Open { base: range.first, range });
        Ok(())
    }

    /// Takes a record of the range, then [`Self::pop`] what became full. A record that is not taken for its size is
    /// answered for like one that is gone: say so.
    pub fn push<'h>(
        &mut self,
        offset: i64,
        timestamp: Option<Timestamp>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = RecordHeader<'h>> + Clone,
    ) -> Result<(), PackError> {
        let open = self.open.as_ref().ok_or(PackError::UnknownSlot)?;
        let next = self.writer.next_offset();
        if offset < next || offset > open.range.last {
            return Err(PackError::OffsetOrder { offset, next });
        }
        let len = checked_len(key, value, &headers, self.max_record_bytes)?;
        let head = self.head_bound();
        let with_it = head + self.writer.len() + record_bound(len, headers.len());
        if !self.writer.is_empty() && with_it > self.fill.target() {
            // Only what was read is answered for: what follows the last record belongs to the next slice.
            self.close(next);
        }
        let pushed = self.writer.push(offset, timestamp, key, value, headers);
        // The offset was checked, and the writer begins where the slice does.
        debug_assert!(pushed.is_ok(), "{pushed:?}");
        self.record_bytes += len as u64;
        if head + self.writer.len() > self.fill.target() {
            self.close(self.writer.next_offset());
        }
        Ok(())
    }

    /// Everything below `end` was read: closes the range's last slice there, records or not. At most to the range's own
    /// end; the range is done with it.
    pub fn finish(&mut self, end: i64) {
        let Some(open) = &self.open else { return };
        let end = end.min(open.range.last + 1);
        if end > open.base {
            self.close(end);
        }
        self.open = None;
    }

    /// The next slice that is closed, in the order of offsets.
    pub fn pop(&mut self) -> Option<ReplaySlice> {
        self.ready.pop_front()
    }

    /// Drops what is open and what is ready: the range is read again.
    pub fn clear(&mut self) {
        self.open = None;
        self.ready.clear();
    }

    /// Closes the open slice before offset `end` and begins the next one there.
    fn close(&mut self, end: i64) {
        let Some(base) = self.open.as_mut().map(|open| std::mem::replace(&mut open.base, end)) else {
            return;
        };
        let writer = std::mem::take(&mut self.writer);
        self.write(base, end, &writer);
        let (codec, bytes) = self.compressor.compress(&self.raw);
        self.fill.observe(self.raw.len(), bytes.len());
        if bytes.len() > self.outbox.data_capacity() && writer.records() > 1 {
            self.cut(base, end);
        } else {
            let bytes = bytes.to_vec();
            self.emit(base, end, writer.records(), self.record_bytes, codec, &bytes);
        }
        self.writer = writer;
        self.writer.start(end);
        self.record_bytes = 0;
        self.compressor.trim(self.fill.max_raw());
        if self.raw.capacity() > 4 * self.fill.max_raw() {
            (self.raw, self.writer) = (Vec::new(), RecordWriter::default());
            self.writer.start(end);
        }
    }

    /// The guess was too bold: what is in `raw` goes as several slices, each of which fits a block without compression
    /// (or is one record). Rare, since the guess learns.
    fn cut(&mut self, mut base: i64, end: i64) {
        let original = std::mem::take(&mut self.raw);
        let (capacity, head) = (self.outbox.data_capacity(), self.head_bound());
        let mut part = RecordWriter::default();
        let mut part_bytes = 0;
        part.start(base);
        // Written by the packer itself, so that nothing of it is malformed.
        for record in Chunks::new(&original).flatten().flat_map(|chunk| chunk.records.flatten()) {
            let len = record_len(record.key, record.value, record.headers.clone());
            let bound = record_bound(len, record.headers.len());
            if !part.is_empty() && head + part.len() + bound > capacity {
                let next = part.next_offset();
                self.emit_part(base, next, &part, part_bytes);
                (base, part_bytes) = (next, 0);
                part.start(base);
            }
            let pushed = part.push(record.offset, record.timestamp, record.key, record.value, record.headers);
            debug_assert!(pushed.is_ok(), "{pushed:?}");
            part_bytes += len as u64;
        }
        self.emit_part(base, end, &part, part_bytes);
    }

    fn emit_part(&mut self, base: i64, end: i64, part: &RecordWriter, record_bytes: u64) {
        self.write(base, end, part);
        let (codec, bytes) = self.compressor.compress(&self.raw);
        let bytes = bytes.to_vec();
        self.emit(base, end, part.records(), record_bytes, codec, &bytes);
    }

    /// The chunk into `raw`.
    fn write(&mut self, base: i64, end: i64, writer: &RecordWriter) {
        self.raw.clear();
        let Some(Open { range, .. }) = &self.open else { return };
        let header = ChunkHeader {
            kind: ChunkKind::Replay,
            stream: &self.stream,
            topic: &range.topic,
            topic_id: range.topic_id,
            partition: range.partition,
            partition_count: range.partition_count,
            // DDC-W-106: no owner, no chain, no count.
            epoch: Epoch(0),
            origin: base,
            previous: None,
            end,
            count: 0,
        };
        write_chunk(&mut self.raw, &header, &[], writer);
    }

    fn emit(&mut self, base: i64, end: i64, records: u32, record_bytes: u64, codec: Codec, bytes: &[u8]) {
        self.outbox.push(ClosedBatch {
            codec,
            content: Content::Records,
            raw_len: self.raw.len(),
            bytes,
            full: true,
            records,
            record_bytes,
            marks: Vec::new(),
        });
        let blocks = std::iter::from_fn(|| self.outbox.pop()).collect();
        self.ready.push_back(ReplaySlice { base, end, records, blocks });
    }

    /// An upper bound of the bytes of a chunk's head.
    fn head_bound(&self) -> usize {
        let topic = self.open.as_ref().map_or(0, |open| open.range.topic.len());
        // flags, two counted names, topic id, partition, partitions, epoch, two offsets and the count, no filtered
        // ranges, record count, length.
        1 + 2 + self.stream.len() + 2 + topic + 16 + 5 + 5 + 1 + 2 * 9 + 1 + 1 + 5 + 5
    }
}

impl fmt::Debug for ReplayPacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayPacker")
            .field("range", &self.open.as_ref().map(|open| &open.range))
            .field("ready", &self.ready.len())
            .finish_non_exhaustive()
    }
}

/// Bytes that a block takes on the wire with its repair symbols, Ethernet included: what `rate` counts.
pub fn block_wire_bytes(block_len: usize, code: Code, symbol_size: usize, ip_overhead: usize) -> u64 {
    let sources = block_len.div_ceil(symbol_size.max(1)).clamp(1, code.k());
    let datagrams = sources + code.short(sources).r();
    // A block that is not full has shorter symbols, all alike.
    let symbol = block_len.div_ceil(sources);
    (datagrams * wire_bytes(symbol + OVERHEAD, ip_overhead)) as u64
}
