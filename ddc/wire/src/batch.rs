//! What a batch holds before compression: chunks of records, or the entries of a ledger.
//!
//! ```text
//!  batch  = chunk*                                  ledger = entry*
//!  chunk  = flags (1) | stream | topic | topic id | partition | partitions | epoch
//!         | origin | [previous] | end | count | filtered ranges | record count | length | records
//!  record = flags (1) | offset delta | [timestamp delta] | [key] | [value] | [headers]
//! ```
//!
//! A chunk is a link of a chain: `previous` is the last offset sent before it, `end` the next
//! offset to be read after it. So a receiver tells a hole (sent, not received) from offsets that
//! never existed: an offset of (previous, end) without a record is *gone* (deleted, compacted, a
//! transaction marker), unless a filtered range names it.
//!
//! Readers borrow from the batch and check every step. [`validate_records`] walks a whole batch,
//! so that one malformed byte refuses it before anything of it is used.

use std::str;

use crate::ids::{Epoch, TopicId};
use crate::limits::{MAX_FILTERED_RANGES, MAX_NAME_LEN, MAX_RECORD_HEADERS};
use crate::varint::{Malformed, Reader, put, unzigzag, zigzag};

/// Whether a chunk is part of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChunkKind {
    /// Part of the chain: it follows the chunk that ended at its `previous`.
    Live,
    /// Outside of the chain: it answers for the offsets after `previous` up to `end`.
    Replay,
}

/// The head of a chunk: whose records these are and where they stand in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHeader<'a> {
    /// Part of the chain, or a replay.
    pub kind: ChunkKind,
    /// The source's stream; the empty name is the only one of a link with one source.
    pub stream: &'a str,
    /// The topic's name at the source.
    pub topic: &'a str,
    /// Which life of the topic.
    pub topic_id: TopicId,
    /// The partition at the source, 0 to 2³¹ − 1.
    pub partition: i32,
    /// Partitions of the topic at the source; 0 when unknown.
    pub partition_count: u32,
    /// The ownership epoch under which the records were read.
    pub epoch: Epoch,
    /// First offset ever to be read in this life of the topic under the source's group.
    pub origin: i64,
    /// Last offset sent before this chunk; `None` when nothing is known to have been sent.
    pub previous: Option<i64>,
    /// The next offset to be read; above every record of the chunk.
    pub end: i64,
    /// Records sent of this partition up to and including this chunk, as the epoch knows it.
    pub count: u64,
}

impl ChunkHeader<'_> {
    /// The first offset that the chunk answers for: `previous` + 1, or `origin`.
    pub fn base(&self) -> i64 {
        self.previous.map_or(self.origin, |previous| previous + 1)
    }
}

/// Offsets that exist at the source and were not sent because a filter denied them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilteredRange {
    /// First offset.
    pub first: i64,
    /// Last offset, included.
    pub last: i64,
}

/// A record's time and who gave it, in ms since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Timestamp {
    /// The producer's.
    Create(i64),
    /// The source broker's (`message.timestamp.type=LogAppendTime`).
    LogAppend(i64),
}

impl Timestamp {
    /// The time in ms since 1970.
    pub fn millis(self) -> i64 {
        match self {
            Self::Create(millis) | Self::LogAppend(millis) => millis,
        }
    }
}

/// One header of a record. Order, duplicates, empty and null values are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader<'a> {
    /// The name; Kafka wants UTF-8 but does not enforce it.
    pub name: &'a [u8],
    /// The value, or null.
    pub value: Option<&'a [u8]>,
}

/// One record, borrowed from its batch.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// The offset at the source.
    pub offset: i64,
    /// The time, if the record has one.
    pub timestamp: Option<Timestamp>,
    /// The key, or null.
    pub key: Option<&'a [u8]>,
    /// The value; null is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: Headers<'a>,
}

const CHUNK_REPLAY: u8 = 1;
const CHUNK_PREVIOUS: u8 = 2;
const CHUNK_CONFIGURED_ID: u8 = 4;

const RECORD_KEY: u8 = 1;
const RECORD_VALUE: u8 = 2;
const RECORD_HEADERS: u8 = 4;
const RECORD_CREATE_TIME: u8 = 8;
const RECORD_LOG_APPEND_TIME: u8 = 16;

/// Encodes the records of one chunk, in the order of their offsets.
///
/// One writer per partition is kept and reused; its buffer stays allocated.
#[derive(Debug, Default)]
pub struct RecordWriter {
    bytes: Vec<u8>,
    records: u32,
    next_offset: i64,
    timestamp: i64,
}

impl RecordWriter {
    /// Starts a chunk whose first possible offset is `base` (see [`ChunkHeader::base`]).
    pub fn start(&mut self, base: i64) {
        self.bytes.clear();
        self.records = 0;
        self.next_offset = base;
        self.timestamp = 0;
    }

    /// Appends a record.
    ///
    /// Fails, and changes nothing, when the offset is below the base, not above the last one, or 2⁶³ − 1.
    pub fn push<'h>(
        &mut self,
        offset: i64,
        timestamp: Option<Timestamp>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = RecordHeader<'h>>,
    ) -> Result<(), Malformed> {
        // An `end` above the last offset there is could not be written.
        let delta = offset.checked_sub(self.next_offset).filter(|&delta| delta >= 0 && offset < i64::MAX);
        let Some(delta) = delta else {
            return Err(Malformed { what: "record", problem: "has an offset that does not rise" });
        };
        let count = headers.len();
        let mut flags = 0;
        flags |= if key.is_some() { RECORD_KEY } else { 0 };
        flags |= if value.is_some() { RECORD_VALUE } else { 0 };
        flags |= if count > 0 { RECORD_HEADERS } else { 0 };
        flags |= match timestamp {
            None => 0,
            Some(Timestamp::Create(_)) => RECORD_CREATE_TIME,
            Some(Timestamp::LogAppend(_)) => RECORD_LOG_APPEND_TIME,
        };
        self.bytes.push(flags);
        put(&mut self.bytes, delta as u64);
        if let Some(timestamp) = timestamp {
            put(&mut self.bytes, zigzag(timestamp.millis().wrapping_sub(self.timestamp)));
            self.timestamp = timestamp.millis();
        }
        for part in [key, value].into_iter().flatten() {
            put_counted(&mut self.bytes, part);
        }
        if count > 0 {
            put(&mut self.bytes, count as u64);
            for header in headers {
                put_counted(&mut self.bytes, header.name);
                match header.value {
                    None => put(&mut self.bytes, 0),
                    Some(value) => {
                        put(&mut self.bytes, value.len() as u64 + 1);
                        self.bytes.extend_from_slice(value);
                    }
                }
            }
        }
        self.records += 1;
        self.next_offset = offset + 1;
        Ok(())
    }

    /// Bytes of the records so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Records so far.
    pub fn records(&self) -> u32 {
        self.records
    }

    /// The lowest offset that the next record may have.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }
}

/// Appends a chunk with the records of `writer`, which was started at `header.base()`.
///
/// The caller holds the limits: names of at most [`MAX_NAME_LEN`] bytes, at most
/// [`MAX_FILTERED_RANGES`] ranges, ascending and apart, `end` above every record.
pub fn write_chunk(
    out: &mut Vec<u8>,
    header: &ChunkHeader<'_>,
    filtered: &[FilteredRange],
    writer: &RecordWriter,
) {
    let mut flags = topic_flags(header.topic_id, header.previous.is_some());
    flags |= if header.kind == ChunkKind::Replay { CHUNK_REPLAY } else { 0 };
    out.push(flags);
    put_topic(out, header.stream, header.topic, header.topic_id, header.partition);
    put(out, u64::from(header.partition_count));
    put(out, header.epoch.0);
    put(out, header.origin as u64);
    if let Some(previous) = header.previous {
        put(out, previous as u64);
    }
    put(out, header.end as u64);
    put(out, header.count);
    put(out, filtered.len() as u64);
    let mut next = header.base();
    for range in filtered {
        put(out, (range.first - next) as u64);
        put(out, (range.last - range.first) as u64);
        next = range.last + 1;
    }
    put(out, u64::from(writer.records));
    put_counted(out, &writer.bytes);
}

/// Where one partition stands at the sender, whether or not anything was sent lately.
///
/// It speaks for everything sent up to `blocks_back` blocks before the first block of its ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerEntry<'a> {
    /// The source's stream.
    pub stream: &'a str,
    /// The topic's name at the source.
    pub topic: &'a str,
    /// Which life of the topic.
    pub topic_id: TopicId,
    /// The partition at the source.
    pub partition: i32,
    /// The ownership epoch.
    pub epoch: Epoch,
    /// First offset ever to be read in this life of the topic under the source's group.
    pub origin: i64,
    /// Last offset sent; `None` when nothing is known to have been sent.
    pub last: Option<i64>,
    /// Records sent up to `last`, as the epoch knows it.
    pub count: u64,
    /// Blocks between the last one that the entry speaks for and the ledger's first; at least 1.
    pub blocks_back: u32,
}

/// Appends an entry to a ledger.
pub fn write_ledger_entry(out: &mut Vec<u8>, entry: &LedgerEntry<'_>) {
    out.push(topic_flags(entry.topic_id, entry.last.is_some()));
    put_topic(out, entry.stream, entry.topic, entry.topic_id, entry.partition);
    put(out, entry.epoch.0);
    put(out, entry.origin as u64);
    if let Some(last) = entry.last {
        put(out, last as u64);
    }
    put(out, entry.count);
    put(out, u64::from(entry.blocks_back));
}

/// The chunks of a batch, in order.
#[derive(Debug, Clone)]
pub struct Chunks<'a> {
    reader: Reader<'a>,
}

impl<'a> Chunks<'a> {
    /// Reads a batch before compression whose content is [`crate::Content::Records`].
    pub fn new(batch: &'a [u8]) -> Self {
        Self { reader: Reader::new(batch, "chunk") }
    }

    fn read(&mut self) -> Result<Chunk<'a>, Malformed> {
        let reader = &mut self.reader;
        let flags = reader.u8()?;
        if flags & !(CHUNK_REPLAY | CHUNK_PREVIOUS | CHUNK_CONFIGURED_ID) != 0 {
            return reader.fail("has unknown flags");
        }
        let (stream, topic, topic_id, partition) = topic(reader, flags)?;
        let partition_count = reader.len(i32::MAX as usize)? as u32;
        let header = ChunkHeader {
            kind: if flags & CHUNK_REPLAY == 0 { ChunkKind::Live } else { ChunkKind::Replay },
            stream,
            topic,
            topic_id,
            partition,
            partition_count,
            epoch: Epoch(reader.varint()?),
            origin: reader.offset()?,
            previous: if flags & CHUNK_PREVIOUS == 0 { None } else { Some(reader.offset()?) },
            end: reader.offset()?,
            count: reader.varint()?,
        };
        if header.previous.is_some_and(|previous| previous >= header.end || previous == i64::MAX)
            || header.origin > header.end
        {
            return reader.fail("ends before it begins");
        }
        let filtered_count = reader.len(MAX_FILTERED_RANGES)?;
        let filtered =
            FilteredRanges { reader: *reader, left: filtered_count, next: header.base(), end: header.end };
        let mut walk = filtered.clone();
        while let Some(range) = walk.step()? {
            debug_assert!(range.first <= range.last);
        }
        *reader = walk.reader;
        let record_count = reader.len(u32::MAX as usize)? as u32;
        let bytes = reader.counted_bytes()?;
        let records = Records {
            reader: Reader::new(bytes, "record"),
            left: record_count,
            next_offset: header.base(),
            end: header.end,
            timestamp: 0,
        };
        Ok(Chunk { header, filtered, record_count, records })
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Result<Chunk<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let chunk = self.read();
        if chunk.is_err() {
            self.reader = Reader::new(&[], "chunk");
        }
        Some(chunk)
    }
}

/// A chunk: its head, the ranges that were filtered, its records.
#[derive(Debug, Clone)]
pub struct Chunk<'a> {
    /// Whose records, and where they stand in the chain.
    pub header: ChunkHeader<'a>,
    /// Ranges that a filter denied, ascending.
    pub filtered: FilteredRanges<'a>,
    /// How many records follow.
    pub record_count: u32,
    /// The records, ascending by offset.
    pub records: Records<'a>,
}

/// The filtered ranges of a chunk; checked when the chunk was read.
#[derive(Debug, Clone)]
pub struct FilteredRanges<'a> {
    reader: Reader<'a>,
    left: usize,
    next: i64,
    end: i64,
}

impl FilteredRanges<'_> {
    fn step(&mut self) -> Result<Option<FilteredRange>, Malformed> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let (skip, extent) = (self.reader.offset()?, self.reader.offset()?);
        let range = self.next.checked_add(skip).and_then(|first| {
            let last = first.checked_add(extent)?;
            (last < self.end).then_some(FilteredRange { first, last })
        });
        let Some(range) = range else {
            return self.reader.fail("has a filtered range outside of its offsets");
        };
        self.next = range.last + 1;
        Ok(Some(range))
    }
}

impl Iterator for FilteredRanges<'_> {
    type Item = FilteredRange;

    fn next(&mut self) -> Option<FilteredRange> {
        // The ranges were walked when the chunk was read, so that they cannot fail here.
        self.step().ok().flatten()
    }
}

/// The records of a chunk. After an error nothing more comes.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    reader: Reader<'a>,
    left: u32,
    next_offset: i64,
    end: i64,
    timestamp: i64,
}

impl<'a> Records<'a> {
    fn read(&mut self) -> Result<Record<'a>, Malformed> {
        let reader = &mut self.reader;
        let flags = reader.u8()?;
        let known = RECORD_KEY | RECORD_VALUE | RECORD_HEADERS | RECORD_CREATE_TIME | RECORD_LOG_APPEND_TIME;
        let times = RECORD_CREATE_TIME | RECORD_LOG_APPEND_TIME;
        if flags & !known != 0 || flags & times == times {
            return reader.fail("has unknown flags");
        }
        let delta = reader.offset()?;
        let offset = match self.next_offset.checked_add(delta) {
            Some(offset) if offset < self.end => offset,
            _ => return reader.fail("has an offset outside of its chunk"),
        };
        self.next_offset = offset + 1;
        let timestamp = if flags & times == 0 {
            None
        } else {
            self.timestamp = self.timestamp.wrapping_add(unzigzag(reader.varint()?));
            Some(if flags & RECORD_CREATE_TIME == 0 {
                Timestamp::LogAppend(self.timestamp)
            } else {
                Timestamp::Create(self.timestamp)
            })
        };
        let key = if flags & RECORD_KEY == 0 { None } else { Some(reader.counted_bytes()?) };
        let value = if flags & RECORD_VALUE == 0 { None } else { Some(reader.counted_bytes()?) };
        let headers = if flags & RECORD_HEADERS == 0 { Headers::default() } else { Headers::read(reader)? };
        Ok(Record { offset, timestamp, key, value, headers })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            if self.reader.is_empty() {
                return None;
            }
            self.reader = Reader::new(&[], "record");
            return Some(self.reader.fail("is followed by bytes that belong to none"));
        }
        let record = self.read();
        self.left -= 1;
        if record.is_err() {
            self.left = 0;
            self.reader = Reader::new(&[], "record");
        }
        Some(record)
    }
}

/// The headers of a record, in order; checked when the record was read.
#[derive(Debug, Clone, Default)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    left: usize,
}

impl<'a> Headers<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let left = reader.len(MAX_RECORD_HEADERS)?;
        if left == 0 {
            return reader.fail("says that it has headers and has none");
        }
        let start = reader.rest();
        for _ in 0..left {
            read_header(reader)?;
        }
        let used = start.len() - reader.rest().len();
        Ok(Self { bytes: &start[..used], left })
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = RecordHeader<'a>;

    fn next(&mut self) -> Option<RecordHeader<'a>> {
        self.left = self.left.checked_sub(1)?;
        let mut reader = Reader::new(self.bytes, "record header");
        // The headers were walked when the record was read, so that they cannot fail here.
        let header = read_header(&mut reader).ok()?;
        self.bytes = reader.rest();
        Some(header)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// The entries of a ledger, in order. After an error nothing more comes.
#[derive(Debug, Clone)]
pub struct LedgerEntries<'a> {
    reader: Reader<'a>,
}

impl<'a> LedgerEntries<'a> {
    /// Reads a batch before compression whose content is [`crate::Content::Ledger`].
    pub fn new(batch: &'a [u8]) -> Self {
        Self { reader: Reader::new(batch, "ledger entry") }
    }

    fn read(&mut self) -> Result<LedgerEntry<'a>, Malformed> {
        let reader = &mut self.reader;
        let flags = reader.u8()?;
        if flags & !(CHUNK_PREVIOUS | CHUNK_CONFIGURED_ID) != 0 {
            return reader.fail("has unknown flags");
        }
        let (stream, topic, topic_id, partition) = topic(reader, flags)?;
        let entry = LedgerEntry {
            stream,
            topic,
            topic_id,
            partition,
            epoch: Epoch(reader.varint()?),
            origin: reader.offset()?,
            last: if flags & CHUNK_PREVIOUS == 0 { None } else { Some(reader.offset()?) },
            count: reader.varint()?,
            blocks_back: reader.len(u32::MAX as usize)? as u32,
        };
        if entry.blocks_back == 0 || entry.last == Some(i64::MAX) {
            return reader.fail("speaks for more than can have been sent");
        }
        Ok(entry)
    }
}

impl<'a> Iterator for LedgerEntries<'a> {
    type Item = Result<LedgerEntry<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let entry = self.read();
        if entry.is_err() {
            self.reader = Reader::new(&[], "ledger entry");
        }
        Some(entry)
    }
}

/// Walks a batch of records to its end and returns how many it holds.
///
/// DDC-W-050: a batch is used only as a whole; one malformed byte refuses all of it.
pub fn validate_records(batch: &[u8]) -> Result<u64, Malformed> {
    let mut count = 0;
    for chunk in Chunks::new(batch) {
        for record in chunk?.records {
            record?;
            count += 1;
        }
    }
    Ok(count)
}

/// Walks a ledger to its end and returns how many entries it holds.
pub fn validate_ledger(batch: &[u8]) -> Result<u64, Malformed> {
    let mut count = 0;
    for entry in LedgerEntries::new(batch) {
        entry?;
        count += 1;
    }
    Ok(count)
}

fn topic_flags(topic_id: TopicId, previous: bool) -> u8 {
    let configured = if matches!(topic_id, TopicId::Configured(_)) { CHUNK_CONFIGURED_ID } else { 0 };
    configured | if previous { CHUNK_PREVIOUS } else { 0 }
}

fn put_counted(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_topic(out: &mut Vec<u8>, stream: &str, topic: &str, id: TopicId, partition: i32) {
    put_counted(out, stream.as_bytes());
    put_counted(out, topic.as_bytes());
    match id {
        TopicId::Uuid(bytes) => out.extend_from_slice(&bytes),
        TopicId::Configured(epoch) => put(out, epoch),
    }
    put(out, partition as u64);
}

fn topic<'a>(reader: &mut Reader<'a>, flags: u8) -> Result<(&'a str, &'a str, TopicId, i32), Malformed> {
    let stream = name(reader)?;
    let topic = name(reader)?;
    let id = if flags & CHUNK_CONFIGURED_ID == 0 {
        TopicId::Uuid(reader.array()?)
    } else {
        TopicId::Configured(reader.varint()?)
    };
    let partition = reader.len(i32::MAX as usize)? as i32;
    Ok((stream, topic, id, partition))
}

fn name<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Malformed> {
    let len = reader.len(MAX_NAME_LEN)?;
    match str::from_utf8(reader.bytes(len)?) {
        Ok(name) => Ok(name),
        Err(_) => reader.fail("has a name that is not UTF-8"),
    }
}

fn read_header<'a>(reader: &mut Reader<'a>) -> Result<RecordHeader<'a>, Malformed> {
    let name = reader.counted_bytes()?;
    let value = match reader.len(reader.rest().len())? {
        0 => None,
        len => Some(reader.bytes(len - 1)?),
    };
    Ok(RecordHeader { name, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    type OwnedHeader = (Vec<u8>, Option<Vec<u8>>);

    #[derive(Debug, Clone)]
    struct OwnedRecord {
        skip: u32,
        timestamp: Option<Timestamp>,
        key: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
        headers: Vec<OwnedHeader>,
    }

    fn record() -> impl Strategy<Value = OwnedRecord> {
        let bytes = || vec(any::<u8>(), 0..40);
        let timestamp = option::of(prop_oneof![
            any::<i64>().prop_map(Timestamp::Create),
            any::<i64>().prop_map(Timestamp::LogAppend)
        ]);
        let headers = vec((bytes(), option::of(bytes())), 0..4);
        (0u32..3, timestamp, option::of(bytes()), option::of(bytes()), headers).prop_map(
            |(skip, timestamp, key, value, headers)| OwnedRecord { skip, timestamp, key, value, headers },
        )
    }

    fn borrowed(headers: &[OwnedHeader]) -> impl ExactSizeIterator<Item = RecordHeader<'_>> {
        headers.iter().map(|(name, value)| RecordHeader { name, value: value.as_deref() })
    }

    fn head(previous: Option<i64>, id: TopicId) -> ChunkHeader<'static> {
        ChunkHeader {
            kind: ChunkKind::Live,
            stream: "",
            topic: "orders",
            topic_id: id,
            partition: 7,
            partition_count: 12,
            epoch: Epoch(1_700_000_000_000_000),
            origin: 100,
            previous,
            end: 100,
            count: 5,
        }
    }

    proptest! {
        /// What is written is read back, every field of it.
        #[test]
        fn chunks_round_trip(
            records in vec(record(), 0..20),
            previous in option::of(100i64..1000),
            uuid: Option<[u8; 16]>,
            replay: bool,
        ) {
            let id = uuid.map_or(TopicId::Configured(3), TopicId::Uuid);
            let mut header = head(previous, id);
            header.kind = if replay { ChunkKind::Replay } else { ChunkKind::Live };
            let mut writer = RecordWriter::default();
            writer.start(header.base());
            let mut offsets = Vec::new();
            for record in &records {
                let offset = writer.next_offset() + i64::from(record.skip);
                offsets.push(offset);
                let (key, value) = (record.key.as_deref(), record.value.as_deref());
                writer.push(offset, record.timestamp, key, value, borrowed(&record.headers)).unwrap();
            }
            header.end = writer.next_offset() + 5;
            let filtered = [FilteredRange { first: writer.next_offset(), last: writer.next_offset() + 1 }];
            let mut batch = Vec::new();
            write_chunk(&mut batch, &header, &filtered, &writer);
            write_chunk(&mut batch, &head(None, id), &[], &RecordWriter::default());

            prop_assert_eq!(validate_records(&batch), Ok(records.len() as u64));
            let chunks: Vec<_> = Chunks::new(&batch).map(Result::unwrap).collect();
            prop_assert_eq!(chunks.len(), 2);
            prop_assert_eq!(chunks[0].header, header);
            prop_assert_eq!(chunks[0].filtered.clone().collect::<Vec<_>>(), filtered.to_vec());
            prop_assert_eq!(chunks[0].record_count as usize, records.len());
            for ((read, record), offset) in chunks[0].records.clone().zip(&records).zip(&offsets) {
                let read = read.unwrap();
                prop_assert_eq!(read.offset, *offset);
                prop_assert_eq!(read.timestamp, record.timestamp);
                prop_assert_eq!(read.key, record.key.as_deref());
                prop_assert_eq!(read.value, record.value.as_deref());
                prop_assert!(read.headers.eq(borrowed(&record.headers)));
            }
            // Cut anywhere but between the chunks, the batch is refused.
            let first_len = { let mut one = Vec::new(); write_chunk(&mut one, &header, &filtered, &writer); one.len() };
            for len in (1..batch.len()).filter(|&len| len != first_len) {
                prop_assert!(validate_records(&batch[..len]).is_err(), "{} of {}", len, batch.len());
            }
        }

        /// Bytes of anyone: an error or a value, never a panic, and never more records than bytes.
        #[test]
        fn any_bytes(bytes in vec(any::<u8>(), 0..300)) {
            if let Ok(count) = validate_records(&bytes) {
                prop_assert!(count <= bytes.len() as u64);
            }
            let _ = validate_ledger(&bytes);
        }

        /// One changed byte of a good batch: an error or a value, never a panic.
        #[test]
        fn one_wrong_byte(at: prop::sample::Index, to: u8) {
            let header = ChunkHeader { end: 103, ..head(None, TopicId::Uuid([9; 16])) };
            let mut writer = RecordWriter::default();
            writer.start(header.base());
            let headers = [(b"h".to_vec(), None), (b"h".to_vec(), Some(b"v".to_vec()))];
            for offset in [100, 102] {
                let time = Some(Timestamp::Create(1));
                writer.push(offset, time, Some(b"k"), Some(b"v"), borrowed(&headers)).unwrap();
            }
            let mut batch = Vec::new();
            write_chunk(&mut batch, &header, &[FilteredRange { first: 101, last: 101 }], &writer);
            let at = at.index(batch.len());
            batch[at] = to;
            let _ = validate_records(&batch);
        }

        #[test]
        fn ledger_round_trip(last in option::of(0i64..i64::MAX), count: u64, back in 1u32.., uuid: Option<[u8; 16]>) {
            let entry = LedgerEntry {
                stream: "s", topic: "t", topic_id: uuid.map_or(TopicId::Configured(0), TopicId::Uuid),
                partition: i32::MAX, epoch: Epoch(9), origin: 3, last, count, blocks_back: back,
            };
            let mut batch = Vec::new();
            write_ledger_entry(&mut batch, &entry);
            let one = batch.len();
            write_ledger_entry(&mut batch, &entry);
            prop_assert_eq!(validate_ledger(&batch), Ok(2));
            prop_assert!(LedgerEntries::new(&batch).all(|read| read == Ok(entry)));
            for len in (1..batch.len()).filter(|&len| len != one) {
                prop_assert!(validate_ledger(&batch[..len]).is_err());
            }
        }
    }

    /// DDC-W-052: a writer refuses offsets that do not rise and stays as it was.
    #[test]
    fn offsets_rise() {
        let mut writer = RecordWriter::default();
        writer.start(10);
        let none = || std::iter::empty::<RecordHeader<'_>>();
        assert!(writer.push(9, None, None, None, none()).is_err());
        writer.push(10, None, None, None, none()).unwrap();
        assert!(writer.push(10, None, None, None, none()).is_err());
        assert!(writer.push(i64::MAX, None, None, None, none()).is_err(), "no end would be above it");
        assert_eq!((writer.records(), writer.next_offset()), (1, 11));
    }

    /// DDC-W-051: records at or behind `end`, and chunks that end before they begin, are refused.
    #[test]
    fn records_lie_within_their_chunk() {
        let mut writer = RecordWriter::default();
        let header = ChunkHeader { end: 101, ..head(None, TopicId::Configured(0)) };
        writer.start(header.base());
        writer.push(101, None, None, None, std::iter::empty::<RecordHeader<'_>>()).unwrap();
        let mut batch = Vec::new();
        write_chunk(&mut batch, &header, &[], &writer);
        assert!(validate_records(&batch).is_err());
        for bad in [
            ChunkHeader { previous: Some(200), end: 150, ..header },
            ChunkHeader { previous: Some(101), end: 101, ..header },
            ChunkHeader { origin: 102, ..header },
        ] {
            let mut batch = Vec::new();
            write_chunk(&mut batch, &bad, &[], &RecordWriter::default());
            assert!(validate_records(&batch).is_err(), "{bad:?}");
        }
    }
}
