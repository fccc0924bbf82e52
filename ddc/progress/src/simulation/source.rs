//! The source side: who owns a partition at the source, and which chunks its link brings.

use ddc_link::receiver::PartitionKey;
use ddc_wire::{ChunkHeader, ChunkKind, Epoch, Session, TopicId};

use super::LAST;

/// A chunk in an egress's spool.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    pub(super) partition: usize,
    pub(super) kind: ChunkKind,
    pub(super) epoch: Epoch,
    pub(super) session: Session,
    pub(super) previous: Option<i64>,
    pub(super) end: i64,
    /// Its records are part of the transaction that is open.
    pub(super) in_transaction: bool,
}

impl Chunk {
    pub(super) fn header<'a>(&self, key: &'a PartitionKey) -> ChunkHeader<'a> {
        ChunkHeader {
            kind: self.kind,
            stream: &key.stream,
            topic: &key.topic,
            topic_id: key.topic_id,
            partition: key.partition,
            partition_count: 0,
            epoch: self.epoch,
            origin: 0,
            previous: self.previous,
            end: self.end,
            count: records(self.partition, 0..self.end).count() as u64,
        }
    }

    pub(super) fn offsets(&self) -> impl Iterator<Item = i64> {
        records(self.partition, self.base()..self.end)
    }

    pub(super) fn base(&self) -> i64 {
        self.previous.map_or(0, |previous| previous + 1)
    }
}

/// The offsets that are records: some never existed.
pub(super) fn records(partition: usize, range: std::ops::Range<i64>) -> impl Iterator<Item = i64> {
    range.filter(move |offset| (offset * 7 + partition as i64 * 3) % 5 != 4)
}

pub(super) fn key(partition: usize) -> PartitionKey {
    // Two topics with one configured id, as brokers without topic ids give them.
    let topic = if partition.is_multiple_of(2) { "orders" } else { "events" };
    let (stream, topic) = (String::new(), topic.to_owned());
    PartitionKey { stream, topic, topic_id: TopicId::Configured(0), partition: partition as i32 / 2 }
}

/// The ownership of one partition at the source.
#[derive(Debug, Clone)]
pub(super) struct Ownership {
    pub(super) link: usize,
    pub(super) epoch: Epoch,
    pub(super) session: Session,
    /// The next offset that is sent.
    pub(super) at: i64,
}

impl Ownership {
    /// The next chunk of so many offsets.
    pub(super) fn send(&mut self, partition: usize, offsets: i64) -> Chunk {
        let end = (self.at + offsets).min(LAST);
        let previous = (self.at > 0).then(|| self.at - 1);
        let (epoch, session, kind) = (self.epoch, self.session, ChunkKind::Live);
        self.at = end;
        Chunk { partition, kind, epoch, session, previous, end, in_transaction: false }
    }
}
