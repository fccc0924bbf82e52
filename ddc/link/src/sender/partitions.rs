//! Where each partition of the source stands: what is in blocks, what is in the open batch.
//!
//! ```text
//!  offsets:   origin ……… last │ packed, in blocks ║ in the open batch │ not read yet
//!                             └ Partition::last    └ Open::last, end   └ next push
//! ```
//!
//! Everything the chain of chunks, the ledger and the commits need is here, so that the three
//! always agree.

use std::sync::Arc;

use ddc_wire::{ChunkHeader, ChunkKind, Epoch, LedgerEntry, MAX_NAME_LEN, RecordWriter, TopicId};

use super::pack::PackError;

/// A partition's place in the packer, from `assign` to `revoke`.
///
/// Numbers are reused, with another generation: what belonged to a former owner of the place is
/// never taken for the present one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    index: u32,
    generation: u32,
}

impl Slot {
    /// The place: below `max_partitions`, shared by no other partition at the same time.
    pub fn index(self) -> usize {
        self.index as usize
    }
}

/// What the packer must know of a partition before its first record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStart {
    /// The topic's name at the source.
    pub topic: Arc<str>,
    /// Which life of the topic.
    pub topic_id: TopicId,
    /// The partition at the source.
    pub partition: i32,
    /// Partitions of the topic; 0 when unknown.
    pub partition_count: u32,
    /// The epoch of this ownership.
    pub epoch: Epoch,
    /// First offset ever to be read in this life of the topic under the source's group.
    pub origin: i64,
    /// Last offset sent by former owners; `None` when nothing is known to have been sent.
    pub previous: Option<i64>,
    /// Records sent up to `previous`.
    pub count: u64,
    /// The next offset to be read.
    pub next: i64,
}

/// How far a partition has come once a block has been handed to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Whose.
    pub slot: Slot,
    /// The next offset to be read: what may be committed.
    pub end: i64,
    /// The last offset sent.
    pub last: Option<i64>,
    /// Records sent up to `last`.
    pub count: u64,
}

/// The open chunk of a partition.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) writer: RecordWriter,
    /// Offset of its last record.
    pub(super) last: i64,
    /// The next offset to be read behind it.
    pub(super) end: i64,
    /// Keys, values and headers of its records, in bytes.
    pub(super) record_bytes: u64,
}

/// One partition.
#[derive(Debug)]
pub(super) struct Partition {
    start: PartitionStart,
    /// Last offset, records and end of what is in blocks.
    last: Option<i64>,
    count: u64,
    end: i64,
    pub(super) open: Option<Open>,
    /// Changed since the ledger last spoke of it.
    pub(super) ledger_due: bool,
    /// `end` or `last` moved since its last mark.
    mark_due: bool,
}

impl Partition {
    /// The next offset to be read: no record below it is taken.
    pub(super) fn next_offset(&self) -> i64 {
        self.open.as_ref().map_or(self.end, |open| open.end)
    }

    /// The lowest offset the open chunk answers for.
    pub(super) fn base(&self) -> i64 {
        self.last.map_or(self.start.origin, |last| last + 1)
    }

    /// An upper bound of the bytes of a chunk's head.
    pub(super) fn head_bound(&self, stream: &str) -> usize {
        // flags, two counted names, topic id, partition, partitions, epoch, four offsets and the
        // count, no filtered ranges, record count, length.
        1 + 2 + stream.len() + 2 + self.start.topic.len() + 16 + 5 + 5 + 10 + 4 * 9 + 10 + 1 + 5 + 5
    }

    /// The head of a chunk of `records` records that ends before offset `end`.
    pub(super) fn chunk_header<'a>(&'a self, stream: &'a str, records: u32, end: i64) -> ChunkHeader<'a> {
        ChunkHeader {
            kind: ChunkKind::Live,
            stream,
            topic: &self.start.topic,
            topic_id: self.start.topic_id,
            partition: self.start.partition,
            partition_count: self.start.partition_count,
            epoch: self.start.epoch,
            origin: self.start.origin,
            previous: self.last,
            end,
            count: self.count + u64::from(records),
        }
    }

    /// What the ledger says of it: everything in blocks so far.
    pub(super) fn ledger_entry<'a>(&'a self, stream: &'a str) -> LedgerEntry<'a> {
        LedgerEntry {
            stream,
            topic: &self.start.topic,
            topic_id: self.start.topic_id,
            partition: self.start.partition,
            epoch: self.start.epoch,
            origin: self.start.origin,
            last: self.last,
            count: self.count,
            blocks_back: 1,
        }
    }

    /// A chunk of `records` up to `last` with this `end` is in a block now.
    pub(super) fn packed(&mut self, records: u32, last: i64, end: i64) {
        self.last = Some(last);
        self.count += u64::from(records);
        self.end = end;
        self.ledger_due = true;
        self.mark_due = true;
    }
}

/// All partitions, by slot.
#[derive(Debug)]
pub(super) struct Partitions {
    places: Vec<Place>,
    free: Vec<u32>,
    max: usize,
    /// Partitions with `mark_due`; may name a slot twice or one that was revoked.
    marks_due: Vec<Slot>,
}

#[derive(Debug, Default)]
struct Place {
    generation: u32,
    partition: Option<Partition>,
}

impl Partitions {
    pub(super) fn new(max: usize) -> Self {
        Self { places: Vec::new(), free: Vec::new(), max, marks_due: Vec::new() }
    }

    pub(super) fn assign(&mut self, start: PartitionStart) -> Result<Slot, PackError> {
        if start.topic.len() > MAX_NAME_LEN {
            return Err(PackError::NameTooLong { len: start.topic.len() });
        }
        let offsets = 0..i64::MAX;
        let chain = offsets.contains(&start.origin)
            && offsets.contains(&start.next)
            && start.origin <= start.next
            && start.previous.is_none_or(|previous| (0..start.next).contains(&previous));
        if !chain || start.partition < 0 || start.partition_count > i32::MAX as u32 {
            return Err(PackError::BadStart { topic: start.topic, partition: start.partition });
        }
        let same = |known: &PartitionStart| {
            (known.partition, known.topic_id, &known.topic) == (start.partition, start.topic_id, &start.topic)
        };
        if self.iter().any(|(_, partition)| same(&partition.start)) {
            return Err(PackError::AssignedTwice { topic: start.topic, partition: start.partition });
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.places.len() < self.max => {
                self.places.push(Place::default());
                self.places.len() as u32 - 1
            }
            None => return Err(PackError::TooManyPartitions { max: self.max }),
        };
        let place = &mut self.places[index as usize];
        place.partition = Some(Partition {
            last: start.previous,
            count: start.count,
            end: start.next,
            start,
            open: None,
            ledger_due: true,
            mark_due: false,
        });
        Ok(Slot { index, generation: place.generation })
    }

    /// Takes a partition out; `None` when the slot is not (or no longer) assigned.
    pub(super) fn revoke(&mut self, slot: Slot) -> Option<Partition> {
        self.get(slot)?;
        let place = &mut self.places[slot.index()];
        place.generation = place.generation.wrapping_add(1);
        self.free.push(slot.index);
        self.marks_due.retain(|due| *due != slot);
        place.partition.take()
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Partition> {
        let place = self.places.get(slot.index())?;
        place.partition.as_ref().filter(|_| place.generation == slot.generation)
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Partition> {
        let place = self.places.get_mut(slot.index())?;
        place.partition.as_mut().filter(|_| place.generation == slot.generation)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &Partition)> {
        self.places.iter().zip(0..).filter_map(|(place, index)| {
            Some((Slot { index, generation: place.generation }, place.partition.as_ref()?))
        })
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Partition> {
        self.places.iter_mut().filter_map(|place| place.partition.as_mut())
    }

    pub(super) fn set_count(&mut self, slot: Slot, partition_count: u32) -> Result<(), PackError> {
        let partition = self.get_mut(slot).ok_or(PackError::UnknownSlot)?;
        partition.start.partition_count = partition_count.min(i32::MAX as u32);
        Ok(())
    }

    /// The next offset to be read moved to `end` without a record. Never backwards: a lower `end`
    /// changes nothing.
    pub(super) fn advance(&mut self, slot: Slot, end: i64) -> Result<(), PackError> {
        let partition = self.get_mut(slot).ok_or(PackError::UnknownSlot)?;
        if let Some(open) = &mut partition.open {
            open.end = open.end.max(end);
        } else if end > partition.end {
            partition.end = end;
            partition.ledger_due = true;
            if !std::mem::replace(&mut partition.mark_due, true) {
                self.marks_due.push(slot);
            }
        }
        Ok(())
    }

    /// Adds the mark of a chunk that was just packed.
    pub(super) fn due(&mut self, slot: Slot) {
        self.marks_due.push(slot);
    }

    /// The marks of everything that moved since the last call. Each slot once.
    pub(super) fn take_marks(&mut self) -> Vec<Mark> {
        let due = std::mem::take(&mut self.marks_due);
        let mut marks = Vec::with_capacity(due.len());
        for &slot in &due {
            let Some(partition) = self.get_mut(slot) else { continue };
            if std::mem::take(&mut partition.mark_due) {
                let (end, last, count) = (partition.end, partition.last, partition.count);
                marks.push(Mark { slot, end, last, count });
            }
        }
        self.marks_due = due;
        self.marks_due.clear();
        marks
    }
}
