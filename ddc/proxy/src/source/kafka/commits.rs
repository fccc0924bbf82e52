//! Commits by the one rule of [`CommitLog`](crate::source::commit::CommitLog).

use std::sync::Arc;
use std::time::{Duration, Instant};

use ddc_kafka::commit::{CommitError, CommitResult};
use ddc_link::sender::{Mark, PartitionStart, Slot};
use rdkafka::{Offset, TopicPartitionList};

use super::{KafkaSource, LAST_COMMIT};
use crate::config::CommitOnStop;
use crate::source::metadata::CommitMetadata;
use crate::source::start::At;
use crate::source::starting::failure;

/// How long the last commit of a partition waits for its dead letters; without them it is not committed.
const LAST_LETTERS: Duration = Duration::from_secs(2);

/// What a commit of this position says, under the epoch that it was reached in.
pub(super) fn metadata_at(start: &PartitionStart, at: At) -> CommitMetadata {
    CommitMetadata {
        topic_id: start.topic_id,
        epoch: start.epoch,
        origin: start.origin,
        previous: at.last,
        count: at.count,
    }
}

impl KafkaSource {
    fn offsets(&self, marks: &[Mark]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(marks.len());
        for mark in marks {
            let Some(reading) = self.reading.get(&mark.slot) else { continue };
            let metadata = metadata_at(&reading.start.partition, (*mark).into());
            let mut element = list.add_partition(&reading.topic, reading.partition);
            // Offsets of a mark are not negative, which is all that is checked.
            let _ = element.set_offset(Offset::Offset(mark.end));
            element.set_metadata(metadata.to_string());
        }
        list
    }

    pub(super) fn commit(&mut self, marks: &[Mark]) {
        let marks = self.settled(marks.to_vec());
        let offsets = self.offsets(&marks);
        if offsets.count() == 0 {
            return;
        }
        if let Err(error) = self.member.commit(&offsets) {
            for mark in &marks {
                self.outlet.log.again(mark.slot);
            }
            self.on_commit_failure(error, Instant::now());
        }
    }

    /// Those below which every dead letter is safe. The others are taken again with the next round.
    fn settled(&mut self, mut marks: Vec<Mark>) -> Vec<Mark> {
        let is_synced = marks.is_empty() || self.letters.sync(Instant::now());
        marks.retain(|mark| {
            let settled = is_synced && !self.letters.holds(mark.slot, mark.end);
            if !settled {
                self.outlet.log.again(mark.slot);
            }
            settled
        });
        marks
    }

    /// What was refused is committed again with the next round, also when nothing newer comes.
    pub(super) fn commit_again(&mut self, result: &CommitResult) {
        for partition in &result.partitions {
            let failed = result.error.is_some() || partition.result.is_err();
            let key = (Arc::from(partition.topic.as_str()), partition.partition);
            if let Some(slot) = self.slots.get(&key).filter(|_| failed) {
                self.outlet.log.again(*slot);
            }
        }
    }

    pub(super) fn on_commit_failure(&mut self, error: CommitError, now: Instant) {
        self.metrics.commit_failures.inc();
        if let Some(suppressed) = self.limit.allow("commit".into(), now) {
            tracing::warn!(link = &*self.link, %error, reason = error.verdict().reason, suppressed,
                "offsets were not committed; they are tried again, nothing is lost");
        }
    }

    /// The last commit before partitions are given up: by the same rule, and waited for. Those that are going `back` and
    /// have not begun again are committed where they go back to, so that the next owner goes on there.
    pub(super) fn last_commit(
        &mut self,
        slots: &[Slot],
        back: &[(Arc<str>, i32)],
        now: Instant,
        rule: CommitOnStop,
    ) {
        self.letters.settle(slots, LAST_LETTERS);
        let marks: Vec<Mark> = slots
            .iter()
            .filter_map(|slot| match rule {
                CommitOnStop::Delayed => self.outlet.log.committable(now, *slot),
                CommitOnStop::Sent => self.outlet.log.newest_sent(*slot),
            })
            .collect();
        let marks = self.settled(marks);
        let mut offsets = self.offsets(&marks);
        self.add_going_back(&mut offsets, back);
        if offsets.count() == 0 {
            return;
        }
        let failed = match self.member.commit_and_wait(&offsets, LAST_COMMIT) {
            Ok(result) => failure(&result),
            Err(error) => Some(error),
        };
        match failed {
            None => self.metrics.commits.inc(),
            Some(error) => {
                self.metrics.commit_failures.inc();
                tracing::warn!(link = &*self.link, %error, partitions = offsets.count(),
                    "the last commit failed: the next owner sends again what was sent since the commit before; the egress skips it");
            }
        }
    }
}
