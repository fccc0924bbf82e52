//! Who is hit when the oldest segment goes: its records by partition, for the log, before it is let go.
//!
//! What of it becomes a gap is decided where all gaps are decided, when the sink thread comes to what follows: by then it is known
//! what the destination has got some other way.

use std::collections::BTreeMap;

use ddc_link::receiver::{OffsetRange, Unpacker};
use ddc_spool::Frame;
use ddc_wire::{Chunks, Content};

use super::frame;

/// Partitions that are told apart in one segment.
const MAX_PARTITIONS: usize = 1024;

/// Records by partition.
#[derive(Debug, Default)]
pub(super) struct Losses {
    partitions: BTreeMap<(String, String, String, i32), (OffsetRange, u64)>,
    pub(super) frames: u64,
    pub(super) records: u64,
    /// Frames that could not be unpacked, and records of partitions beyond [`MAX_PARTITIONS`].
    pub(super) unnamed: u64,
}

/// What is lost of one partition.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Loss<'a> {
    pub(super) stream: &'a str,
    pub(super) topic: &'a str,
    pub(super) topic_id: &'a str,
    pub(super) partition: i32,
    /// The first and the last offset.
    pub(super) range: OffsetRange,
    pub(super) records: u64,
}

impl Losses {
    /// One more frame.
    pub(super) fn add(&mut self, frame: &Frame, unpacker: &mut Unpacker) {
        self.frames += 1;
        let Some((batch, _)) = frame::batch_of(frame) else {
            self.unnamed += 1;
            return;
        };
        let Ok(raw) = unpacker.unpack(&batch) else {
            self.unnamed += 1;
            return;
        };
        if batch.content != Content::Records {
            return;
        }
        for chunk in Chunks::new(raw).map_while(Result::ok) {
            let header = &chunk.header;
            let mut offsets = chunk.records.map_while(Result::ok).map(|record| record.offset);
            let Some(first) = offsets.next() else { continue };
            let range = OffsetRange { first, last: offsets.last().unwrap_or(first) };
            let count = u64::from(chunk.record_count);
            self.records += count;
            let key = (
                header.stream.to_owned(),
                header.topic.to_owned(),
                header.topic_id.to_string(),
                header.partition,
            );
            if self.partitions.len() >= MAX_PARTITIONS && !self.partitions.contains_key(&key) {
                self.unnamed += count;
                continue;
            }
            let (known, records) = self.partitions.entry(key).or_insert((range, 0));
            known.first = known.first.min(range.first);
            known.last = known.last.max(range.last);
            *records += count;
        }
    }

    /// By partition.
    pub(super) fn by_partition(&self) -> impl Iterator<Item = Loss<'_>> {
        self.partitions.iter().map(|((stream, topic, topic_id, partition), (range, records))| Loss {
            stream,
            topic,
            topic_id,
            partition: *partition,
            range: *range,
            records: *records,
        })
    }
}
