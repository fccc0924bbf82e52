//! Records into batches, batches into blocks. Runs on the source's thread.
//!
//! ```text
//!  push ──▶ one open chunk per partition ──┬─ full after compression ──▶ batch ──▶ outbox ──▶ poll
//!                                          └─ linger passed, link ready ─┘  ▲
//!  every second, every 30 s ────────────────────── ledger ──────────────────┘
//! ```
//!
//! It does not number blocks and does not know whether they were sent: each block carries
//! [`Mark`]s that become true when it has been handed to the kernel.
//!
//! Memory: the open batch (at most 8 blocks or 1 MiB before compression, or one record), the
//! outbox (bounded by [`PackError::Full`]), and about twice the largest batch as scratch.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ddc_wire::{
    Codec, Content, MAX_DATAGRAM, MAX_FRAGMENTS, MAX_NAME_LEN, MAX_RECORD_HEADERS, MAX_SOURCE_SYMBOLS,
    OVERHEAD, Prelude, RecordHeader, RecordWriter, Timestamp, write_chunk, write_ledger_entry,
};

use super::compress::{Compression, Compressor, FillEstimate};
use super::outbox::{ClosedBatch, Outbox, PackedBlock};
use super::partitions::{Mark, Open, PartitionStart, Partitions, Slot};
use super::split;

/// What a packer needs to know.
#[derive(Debug, Clone)]
pub struct PackConfig {
    /// The stream's name; empty for the only one of a link.
    pub stream: String,
    /// Bytes of a full symbol, S_max: 64 to [`MAX_DATAGRAM`] − [`OVERHEAD`].
    pub symbol_size: usize,
    /// Source symbols of a full block, k: 1 to [`MAX_SOURCE_SYMBOLS`].
    pub source_symbols: usize,
    /// How long a record waits for company when the link could send.
    pub linger: Duration,
    /// How batches are compressed.
    pub compression: Compression,
    /// Most bytes of one record: key, value, names and values of its headers.
    pub max_record_bytes: usize,
    /// At least so often the ledger speaks of every partition (30 s).
    pub ledger_interval: Duration,
    /// So soon after a change the ledger speaks of the partition (1 s).
    pub ledger_changed: Duration,
    /// Most partitions assigned at a time.
    pub max_partitions: usize,
}

/// Why a packer cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PackConfigError {
    /// A symbol size or count that the wire cannot carry.
    #[error("blocks of {symbols} symbols of {size} bytes do not fit the wire format; check `mtu` and `code`")]
    Block {
        /// Bytes of a symbol.
        size: usize,
        /// Source symbols.
        symbols: usize,
    },
    /// The largest record has more fragments than the wire can number, or is over 256 MiB.
    #[error("max_record_bytes = {max} is too large for blocks of {block} bytes; set at most {most}")]
    MaxRecord {
        /// As configured.
        max: usize,
        /// Bytes of a block.
        block: usize,
        /// What would do.
        most: usize,
    },
    /// The stream's name is over [`MAX_NAME_LEN`] bytes.
    #[error("a stream name of {0} bytes is too long; use at most {MAX_NAME_LEN}")]
    Stream(usize),
    /// The codec cannot be set up.
    #[error("compression cannot be set up: {0}; check `level`")]
    Compression(#[from] std::io::Error),
}

/// Why the packer does not take something. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// The slot is not assigned, or no longer.
    #[error("the partition is not assigned (any more)")]
    UnknownSlot,
    /// The record was read before.
    #[error("record with offset {offset} comes when {next} is the next one to be read")]
    OffsetOrder {
        /// The record's.
        offset: i64,
        /// The lowest that would be taken.
        next: i64,
    },
    /// The record is over `max_record_bytes`.
    #[error("record of {len} bytes is larger than max_record_bytes = {max}")]
    TooLarge {
        /// Key, value and headers, in bytes.
        len: usize,
        /// `max_record_bytes`.
        max: usize,
    },
    /// The record has more headers than the wire carries.
    #[error("record with {0} headers has more than {MAX_RECORD_HEADERS}")]
    TooManyHeaders(usize),
    /// The caller has not taken the blocks that wait: poll, then push the same record again.
    #[error("packed blocks wait to be taken; poll them first")]
    Full,
    /// A topic's name is over [`MAX_NAME_LEN`] bytes.
    #[error("a topic name of {len} bytes is longer than {MAX_NAME_LEN}")]
    NameTooLong {
        /// Of the name, in bytes.
        len: usize,
    },
    /// Offsets or partition numbers that cannot be.
    #[error("partition {partition} of topic {topic} starts with impossible offsets or numbers")]
    BadStart {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
    },
    /// The partition has a slot already; revoke it first.
    #[error("partition {partition} of topic {topic} is assigned already")]
    AssignedTwice {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
    },
    /// All slots are taken.
    #[error("more than {max} partitions are assigned to one link; use more links or raise the bound")]
    TooManyPartitions {
        /// `max_partitions`.
        max: usize,
    },
}

/// Packs the records of many partitions into blocks. See the module's text.
pub struct Packer {
    pub(super) config: PackConfig,
    pub(super) partitions: Partitions,
    pub(super) open: OpenBatch,
    outbox: Outbox,
    pub(super) compressor: Compressor,
    fill: FillEstimate,
    ledger: LedgerClock,
    /// The batch before compression, while it is closed.
    pub(super) raw: Vec<u8>,
    /// Writers of partitions that have nothing open.
    spare: Vec<RecordWriter>,
    /// The latest time the caller named.
    now: Instant,
}

/// The batch that is being filled.
#[derive(Debug, Default)]
pub(super) struct OpenBatch {
    /// Partitions with an open chunk, in the order of their first record.
    pub(super) touched: Vec<Slot>,
    /// Bytes before compression, heads of chunks at their upper bound.
    pub(super) raw_len: usize,
    pub(super) records: u32,
    pub(super) record_bytes: u64,
    /// When its first record came.
    pub(super) since: Option<Instant>,
}

/// When the ledger speaks again.
#[derive(Debug)]
struct LedgerClock {
    next_full: Instant,
    /// When the first change that it has not told came.
    changed: Option<Instant>,
    /// A flush asks for it at once.
    now: bool,
    /// Whether a block was taken since it last spoke.
    flowed: bool,
}

/// Writers kept for reuse; a batch with more partitions allocates some of its own.
const MAX_SPARE_WRITERS: usize = 16;
/// 256 MiB, the largest `max_record_bytes` that receivers of this version can be set to.
const MAX_MAX_RECORD_BYTES: usize = 256 << 20;
/// Room for the head of a chunk and the numbers of a record's headers around `max_record_bytes`.
const RECORD_SLACK: usize = 1 << 20;
const MIN_SYMBOL_SIZE: usize = 64;

impl Packer {
    /// A packer without partitions.
    pub fn new(config: PackConfig, now: Instant) -> Result<Self, PackConfigError> {
        Self::check(&config)?;
        let outbox = Outbox::new(config.symbol_size, config.source_symbols);
        Ok(Self {
            partitions: Partitions::new(config.max_partitions),
            open: OpenBatch::default(),
            compressor: Compressor::new(config.compression)?,
            fill: FillEstimate::new(outbox.data_capacity()),
            outbox,
            ledger: LedgerClock {
                next_full: now + config.ledger_interval,
                changed: None,
                now: false,
                flowed: false,
            },
            raw: Vec::new(),
            spare: Vec::new(),
            config,
            now,
        })
    }

    /// Whether the wire can carry what packers of this configuration would make.
    pub(super) fn check(config: &PackConfig) -> Result<(), PackConfigError> {
        let (size, symbols) = (config.symbol_size, config.source_symbols);
        if !(MIN_SYMBOL_SIZE..=MAX_DATAGRAM - OVERHEAD).contains(&size)
            || !(1..=MAX_SOURCE_SYMBOLS).contains(&symbols)
        {
            return Err(PackConfigError::Block { size, symbols });
        }
        let block = size * symbols;
        let most =
            ((block - Prelude::MAX_LEN) * MAX_FRAGMENTS as usize - RECORD_SLACK).min(MAX_MAX_RECORD_BYTES);
        if config.max_record_bytes > most {
            return Err(PackConfigError::MaxRecord { max: config.max_record_bytes, block, most });
        }
        if config.stream.len() > MAX_NAME_LEN {
            return Err(PackConfigError::Stream(config.stream.len()));
        }
        Ok(())
    }

    /// Takes a partition in. Its records may be pushed from now on, from `start.next` upwards.
    pub fn assign(&mut self, start: PartitionStart) -> Result<Slot, PackError> {
        let slot = self.partitions.assign(start)?;
        self.ledger_changed();
        Ok(slot)
    }

    /// Lets a partition go: what is not in a block yet is dropped, and the ledger forgets it.
    /// Blocks that wait keep their marks for the slot; a later owner has another one.
    pub fn revoke(&mut self, slot: Slot) {
        let Some(partition) = self.partitions.revoke(slot) else { return };
        let head = partition.head_bound(&self.config.stream);
        let Some(open) = partition.open else { return };
        self.open.touched.retain(|touched| *touched != slot);
        self.open.raw_len -= open.writer.len() + head;
        self.open.records -= open.writer.records();
        self.open.record_bytes -= open.record_bytes;
        if self.open.touched.is_empty() {
            self.open = OpenBatch::default();
        }
        self.keep(open.writer);
    }

    /// The topic has so many partitions now.
    pub fn set_partition_count(&mut self, slot: Slot, partition_count: u32) -> Result<(), PackError> {
        self.partitions.set_count(slot, partition_count)
    }

    /// The next offset to be read moved to `end` without a record (compacted, a transaction
    /// marker). A lower one than known changes nothing.
    ///
    /// No chunk is made for it: the next one's offsets say it. The mark comes with the next block
    /// of any kind, after a second with the ledger's.
    pub fn advance(&mut self, slot: Slot, end: i64) -> Result<(), PackError> {
        self.partitions.advance(slot, end)?;
        self.ledger_changed();
        Ok(())
    }

    /// Takes a record. [`Self::poll`] until it gives nothing before pushing many more.
    #[expect(clippy::too_many_arguments, reason = "the parts of a record as the source's client lends them")]
    pub fn push<'h>(
        &mut self,
        now: Instant,
        slot: Slot,
        offset: i64,
        timestamp: Option<Timestamp>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = RecordHeader<'h>> + Clone,
    ) -> Result<(), PackError> {
        self.now = self.now.max(now);
        let next = self.partitions.get(slot).ok_or(PackError::UnknownSlot)?.next_offset();
        if offset < next || offset == i64::MAX {
            return Err(PackError::OffsetOrder { offset, next });
        }
        let len = checked_len(key, value, &headers, self.config.max_record_bytes)?;
        if self.outbox.queued_bytes() >= self.max_queued() {
            return Err(PackError::Full);
        }
        let bound = split::record_bound(len, headers.len());
        while self.open.records > 0 && self.len_with(slot, bound) > self.fill.target() {
            self.close_batch(true);
        }
        self.append(slot, offset, timestamp, key, value, headers, len);
        while self.open.raw_len > self.fill.target() {
            self.close_batch(true);
        }
        Ok(())
    }

    /// The next block: one that is full, or, when the link could send now, what has waited for
    /// `linger` and the ledger when it is due. Call again until it gives nothing.
    pub fn poll(&mut self, now: Instant, link_ready: bool) -> Option<PackedBlock> {
        self.now = self.now.max(now);
        if self.outbox.is_empty() && (link_ready || self.ledger.flowed || self.ledger.now) {
            self.write_due_ledger(now);
        }
        if self.outbox.is_empty() && link_ready && self.linger_ends().is_some_and(|end| end <= now) {
            self.close_batch(false);
        }
        let block = self.outbox.pop()?;
        self.ledger.flowed |= block.content == Content::Records;
        Some(block)
    }

    /// Closes the open batch and asks for the ledger, however long they have waited: the next
    /// polls give everything.
    pub fn flush(&mut self, now: Instant) {
        self.now = self.now.max(now);
        while self.open.records > 0 {
            self.close_batch(false);
        }
        self.ledger.now = self.ledger.changed.is_some();
    }

    /// When [`Self::poll`] has something for a link that is ready; in the past when it has
    /// already. A caller whose link is not ready waits for the link, not for this.
    pub fn next_deadline(&self) -> Option<Instant> {
        if !self.outbox.is_empty() || self.ledger.now {
            return Some(self.now);
        }
        let changed = self.ledger.changed.map(|changed| changed + self.config.ledger_changed);
        let full = self.partitions.iter().next().map(|_| self.ledger.next_full);
        [self.linger_ends(), changed, full].into_iter().flatten().min()
    }

    /// Bytes that wait here: blocks to be taken, and the open batch before compression.
    pub fn queued_bytes(&self) -> usize {
        self.outbox.queued_bytes() + self.open.raw_len
    }

    fn linger_ends(&self) -> Option<Instant> {
        self.open.since.map(|since| since + self.config.linger)
    }

    /// Bound of what waits in the outbox when another record is taken: the largest record, so that
    /// the outbox never holds more than two.
    fn max_queued(&self) -> usize {
        self.config.max_record_bytes.max(4 * self.fill.max_raw())
    }

    /// Bytes of the open batch with one more record of this partition.
    fn len_with(&self, slot: Slot, record_bound: usize) -> usize {
        let partition = self.partitions.get(slot);
        let head = partition.filter(|p| p.open.is_none()).map_or(0, |p| p.head_bound(&self.config.stream));
        self.open.raw_len + head + record_bound
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one record, as `push` has them")]
    fn append<'h>(
        &mut self,
        slot: Slot,
        offset: i64,
        timestamp: Option<Timestamp>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = RecordHeader<'h>>,
        len: usize,
    ) {
        // `push` found the partition.
        let Some(partition) = self.partitions.get_mut(slot) else { return };
        if partition.open.is_none() {
            let mut writer = self.spare.pop().unwrap_or_default();
            writer.start(partition.base());
            let end = partition.next_offset();
            self.open.raw_len += partition.head_bound(&self.config.stream);
            self.open.touched.push(slot);
            partition.open = Some(Open { writer, last: offset, end, record_bytes: 0 });
        }
        let Some(open) = &mut partition.open else { return };
        let before = open.writer.len();
        let pushed = open.writer.push(offset, timestamp, key, value, headers);
        // next_offset() ≤ offset was checked, and the writer's own bound is never above it.
        debug_assert!(pushed.is_ok(), "{pushed:?}");
        open.last = offset;
        open.end = offset + 1;
        open.record_bytes += len as u64;
        self.open.raw_len += open.writer.len() - before;
        self.open.records += 1;
        self.open.record_bytes += len as u64;
        self.open.since.get_or_insert(self.now);
    }

    /// Closes the open batch, which has records. When the guess was too bold and it does not fit
    /// a block, only its first part is closed and the rest stays open.
    fn close_batch(&mut self, full: bool) {
        self.raw.clear();
        for &slot in &self.open.touched {
            // Touched partitions are assigned and open: `revoke` takes them from the list.
            let Some(partition) = self.partitions.get(slot) else { continue };
            let Some(open) = &partition.open else { continue };
            let header = partition.chunk_header(&self.config.stream, open.writer.records(), open.end);
            write_chunk(&mut self.raw, &header, &[], &open.writer);
        }
        let (codec, bytes) = self.compressor.compress(&self.raw);
        self.fill.observe(self.raw.len(), bytes.len());
        if bytes.len() > self.outbox.data_capacity() && self.open.records > 1 {
            let compressed_len = bytes.len();
            split::close_first_part(self, compressed_len);
            return;
        }
        let batch = std::mem::take(&mut self.open);
        for &slot in &batch.touched {
            let Some(partition) = self.partitions.get_mut(slot) else { continue };
            let Some(open) = partition.open.take() else { continue };
            partition.packed(open.writer.records(), open.last, open.end);
            self.partitions.due(slot);
            keep(&mut self.spare, self.fill.max_raw(), open.writer);
        }
        self.outbox.push(ClosedBatch {
            codec,
            content: Content::Records,
            raw_len: self.raw.len(),
            bytes,
            full,
            records: batch.records,
            record_bytes: batch.record_bytes,
            marks: self.partitions.take_marks(),
        });
        self.open.touched = batch.touched;
        self.open.touched.clear();
        self.ledger_changed();
        self.trim();
    }

    /// Bytes of a compressed batch that fit one block.
    pub(super) fn data_capacity(&self) -> usize {
        self.outbox.data_capacity()
    }

    /// Closes what [`split`] made of `raw`; the partitions have been told.
    pub(super) fn emit_part(&mut self, codec: Codec, bytes: &[u8], records: u32, record_bytes: u64) {
        self.outbox.push(ClosedBatch {
            codec,
            content: Content::Records,
            raw_len: self.raw.len(),
            bytes,
            full: true,
            records,
            record_bytes,
            marks: self.partitions.take_marks(),
        });
        self.ledger_changed();
    }

    pub(super) fn keep(&mut self, writer: RecordWriter) {
        keep(&mut self.spare, self.fill.max_raw(), writer);
    }

    /// Gives back the memory of a record far larger than a usual batch.
    fn trim(&mut self) {
        if self.raw.capacity() > 4 * self.fill.max_raw() {
            self.raw = Vec::new();
        }
        self.compressor.trim(self.fill.max_raw());
    }

    fn ledger_changed(&mut self) {
        self.ledger.changed.get_or_insert(self.now);
    }

    /// Puts the ledger into the outbox when it is due: all partitions, or those that changed.
    ///
    /// It tells what is in blocks; those all come before its own, so that `blocks_back` is 1.
    fn write_due_ledger(&mut self, now: Instant) {
        let changed = self.ledger.changed.is_some_and(|since| since + self.config.ledger_changed <= now);
        let full = self.ledger.next_full <= now;
        if !(full || changed || self.ledger.now) {
            return;
        }
        self.ledger.changed = None;
        self.ledger.now = false;
        self.ledger.flowed = false;
        if full {
            self.ledger.next_full = now + self.config.ledger_interval;
        }
        let bound = self.outbox.data_capacity();
        let mut partitions = std::mem::replace(&mut self.partitions, Partitions::new(0));
        self.raw.clear();
        for partition in partitions.iter_mut() {
            if !std::mem::take(&mut partition.ledger_due) && !full {
                continue;
            }
            let before = self.raw.len();
            write_ledger_entry(&mut self.raw, &partition.ledger_entry(&self.config.stream));
            if self.raw.len() > bound && before > 0 {
                let entry = self.raw.split_off(before);
                self.emit_ledger(Vec::new(), true);
                self.raw.clear();
                self.raw.extend_from_slice(&entry);
            }
        }
        self.partitions = partitions;
        if !self.raw.is_empty() {
            let marks = self.partitions.take_marks();
            self.emit_ledger(marks, false);
        }
    }

    fn emit_ledger(&mut self, marks: Vec<Mark>, full: bool) {
        let (codec, bytes) = self.compressor.compress(&self.raw);
        self.outbox.push(ClosedBatch {
            codec,
            content: Content::Ledger,
            raw_len: self.raw.len(),
            bytes,
            full,
            records: 0,
            record_bytes: 0,
            marks,
        });
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer")
            .field("open", &self.open)
            .field("outbox", &self.outbox)
            .finish_non_exhaustive()
    }
}

/// Keeps a writer and its memory for the next partition, unless it served an unusual record.
fn keep(spare: &mut Vec<RecordWriter>, max_raw: usize, writer: RecordWriter) {
    if spare.len() < MAX_SPARE_WRITERS && writer.len() <= max_raw {
        spare.push(writer);
    }
}

/// Bytes of a record, as `max_record_bytes` counts them: key, value, names and values of headers.
pub(super) fn record_len<'h>(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: impl Iterator<Item = RecordHeader<'h>>,
) -> usize {
    let headers = headers.map(|header| header.name.len() + header.value.map_or(0, <[u8]>::len));
    key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + headers.sum::<usize>()
}

/// [`record_len`] of a record that may be packed; fails when it has too many headers or more than `max` bytes.
pub(super) fn checked_len<'h>(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &(impl ExactSizeIterator<Item = RecordHeader<'h>> + Clone),
    max: usize,
) -> Result<usize, PackError> {
    if headers.len() > MAX_RECORD_HEADERS {
        return Err(PackError::TooManyHeaders(headers.len()));
    }
    let len = record_len(key, value, headers.clone());
    if len > max { Err(PackError::TooLarge { len, max }) } else { Ok(len) }
}
