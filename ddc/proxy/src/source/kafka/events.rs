//! What happens in the group, and the life of a partition: assigned, started, read, restarted, given up.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ddc_kafka::batch::ReadError;
use ddc_kafka::errors::{Kind, classify};
use ddc_kafka::group::GroupEvent;
use ddc_link::sender::Slot;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use super::{KafkaSource, Reading};
use crate::config::CommitOnStop;
use crate::source::start::{At, Start};
use crate::source::starting::failure;

impl KafkaSource {
    pub(super) fn on_group_event(&mut self, event: GroupEvent, now: Instant) {
        match event {
            GroupEvent::Assigned(partitions) => self.on_assigned(&partitions, now),
            GroupEvent::Revoked { partitions, lost } => self.on_revoked(&partitions, lost, now),
            GroupEvent::Committed(result) => {
                self.starting.on_committed(&result);
                match failure(&result) {
                    None => {
                        self.metrics.commits.inc();
                        self.note_alive(now);
                    }
                    Some(error) => {
                        self.commit_again(&result);
                        self.on_commit_failure(error, now);
                    }
                }
            }
            GroupEvent::Failed(error) => self.on_error(&classify(&error), &error.to_string()),
            GroupEvent::Stray { topic, partition, offset } => {
                let mut list = TopicPartitionList::new();
                list.add_partition(&topic, partition);
                tracing::warn!(
                    link = &*self.link,
                    topic,
                    partition,
                    offset,
                    "a record came past the queue; the partition starts again"
                );
                self.restart(&list, now);
            }
        }
    }

    /// The group is answered at once, with nothing to be read yet: it must not wait for our start.
    fn on_assigned(&mut self, partitions: &TopicPartitionList, now: Instant) {
        self.metrics.rebalances.inc();
        self.note_alive(now);
        tracing::info!(link = &*self.link, partitions = partitions.count(), "partitions assigned");
        if let Err(error) = self.member.assign(&TopicPartitionList::new()) {
            self.on_error(&classify(&error), &error.to_string());
        }
        // At a stop and in a pause they are left alone: leaving the group gives them to others.
        if !self.shared.stop.load(Ordering::Relaxed) && !self.paused {
            self.take_up_kept(partitions);
            self.starting.add(partitions);
        }
    }

    fn on_revoked(&mut self, partitions: &TopicPartitionList, lost: bool, now: Instant) {
        self.metrics.rebalances.inc();
        tracing::info!(link = &*self.link, partitions = partitions.count(), lost, "partitions revoked");
        self.starting.remove(partitions);
        for element in partitions.elements() {
            self.refused.remove(&(Arc::from(element.topic()), element.partition()));
        }
        let slots: Vec<Slot> = self.slots_of(partitions);
        let back = self.going_back_of(partitions);
        if !lost {
            self.last_commit(&slots, &back, now, CommitOnStop::Delayed);
        }
        self.taken_away(&back);
        self.give_up(&slots);
        self.release(partitions);
    }

    pub(super) fn on_read_error(&mut self, error: &ReadError) {
        let verdict = error.verdict();
        self.on_error(&verdict, &error.to_string());
        if verdict.kind == Kind::OffsetGone {
            let mut list = TopicPartitionList::new();
            list.add_partition(&error.topic, error.partition);
            self.restart(&list, Instant::now());
        }
    }

    /// Gives partitions up without leaving them to others, and starts them again from what the group has committed.
    /// Those that are not read are left as they are: they are on their way, or no longer ours.
    pub(super) fn restart(&mut self, partitions: &TopicPartitionList, now: Instant) {
        let slots = self.slots_of(partitions);
        let wanted: HashSet<Slot> = slots.iter().copied().collect();
        let partitions = self.partitions_of(|slot| wanted.contains(&slot));
        if slots.is_empty() {
            return;
        }
        self.give_up(&slots);
        self.release(&partitions);
        // While stopping nothing is read any more, and nothing of them is committed.
        if !self.shared.stop.load(Ordering::Relaxed) {
            self.starting.add_later(&partitions, now);
        }
    }

    /// Stops reading these partitions and answers a revocation of them. librdkafka refuses the whole list, and goes on
    /// waiting for the answer, when it names one that is not being read: such are left out.
    pub(super) fn release(&mut self, partitions: &TopicPartitionList) {
        let released = self.member.consumer().assignment().and_then(|read| {
            let elements = read.elements();
            let read: HashSet<(&str, i32)> =
                elements.iter().map(|element| (element.topic(), element.partition())).collect();
            let mut list = TopicPartitionList::new();
            for element in partitions.elements() {
                if read.contains(&(element.topic(), element.partition())) {
                    list.add_partition(element.topic(), element.partition());
                }
            }
            self.member.release(&list)
        });
        if let Err(error) = released {
            self.on_error(&classify(&error), &error.to_string());
        }
    }

    fn slots_of(&self, partitions: &TopicPartitionList) -> Vec<Slot> {
        let of = |topic: &str, partition| self.slots.get(&(Arc::from(topic), partition)).copied();
        partitions.elements().iter().filter_map(|element| of(element.topic(), element.partition())).collect()
    }

    /// The partitions of those slots that `wanted` says.
    pub(super) fn partitions_of(&self, wanted: impl Fn(Slot) -> bool) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (slot, reading) in &self.reading {
            if wanted(*slot) {
                list.add_partition(&reading.topic, reading.partition);
            }
        }
        list
    }

    pub(super) fn give_up(&mut self, slots: &[Slot]) {
        let mut topics = HashSet::new();
        for slot in slots {
            self.outlet.packer.revoke(*slot);
            self.outlet.log.forget(*slot);
            if let Some(reading) = self.reading.remove(slot) {
                topics.insert(Arc::clone(&reading.topic));
                self.slots.remove(&(reading.topic, reading.partition));
            }
        }
        for reading in self.reading.values() {
            topics.remove(&reading.topic);
        }
        for topic in topics {
            self.topics.unwatch(&topic);
        }
        self.metrics.assigned_partitions.set(self.reading.len() as i64);
    }

    pub(super) fn serve_starting(&mut self, now: Instant) {
        let starts = self.starting.step(now, &self.settings, &self.link, &mut self.member, &mut self.topics);
        if !starts.is_empty() {
            self.begin(starts, now);
        }
    }

    /// The start commits are acknowledged: from here on records of these partitions may be sent.
    fn begin(&mut self, starts: Vec<Start>, now: Instant) {
        let mut offsets = TopicPartitionList::new();
        let mut begun = Vec::new();
        self.forget_kept(&starts);
        for start in starts {
            let (topic, partition) = (Arc::clone(&start.partition.topic), start.partition.partition);
            let went_back = self.went_back(&start);
            match self.outlet.packer.assign(start.partition.clone()) {
                Ok(slot) => {
                    let mut element = offsets.add_partition(&topic, partition);
                    // Offsets of a start are not negative, which is all that is checked.
                    let _ = element.set_offset(Offset::Offset(start.partition.next));
                    match went_back {
                        Some((at, past)) => self.outlet.log.resume(at.mark(slot), past),
                        None => self.outlet.log.start(now, At::of(&start.partition).mark(slot)),
                    }
                    self.slots.insert((Arc::clone(&topic), partition), slot);
                    self.topics.watch(&topic, start.partition.topic_id);
                    self.reading.insert(slot, Reading { topic, partition, start });
                    begun.push(slot);
                }
                Err(error) => {
                    tracing::error!(link = &*self.link, topic = &*topic, partition, %error,
                        "this partition cannot be carried; its records stay in Kafka");
                    self.refused.insert(
                        (Arc::clone(&topic), partition),
                        format!("{topic}[{partition}] cannot be carried: {error}"),
                    );
                }
            }
        }
        if let Err(error) = self.read_from(&offsets) {
            self.on_error(&classify(&error), &error.to_string());
            // Nothing of them was read. They start again.
            self.give_up(&begun);
            self.release(&offsets);
            self.starting.add_later(&offsets, now);
        }
        self.settle_rewind();
        self.metrics.assigned_partitions.set(self.reading.len() as i64);
    }

    fn read_from(&mut self, offsets: &TopicPartitionList) -> KafkaResult<()> {
        if offsets.count() == 0 {
            return Ok(());
        }
        self.member.assign(offsets)
    }

    pub(super) fn serve_topics(&mut self, now: Instant) {
        let changes = self.topics.step(now);
        if changes.answered {
            self.note_alive(now);
        }
        for (topic, count) in changes.resized {
            for (slot, _) in self.reading.iter().filter(|(_, reading)| *reading.topic == *topic) {
                // Slots that are read are assigned, which is all that is checked.
                let _ = self.outlet.packer.set_partition_count(*slot, count);
            }
        }
        for topic in changes.recreated {
            self.metrics.topics_recreated.inc();
            let slots: HashSet<Slot> = self
                .reading
                .iter()
                .filter(|(_, reading)| *reading.topic == *topic)
                .map(|(slot, _)| *slot)
                .collect();
            tracing::warn!(
                link = &*self.link,
                topic,
                partitions = slots.len(),
                "the topic has another id: it was deleted and created again, and is read from its earliest record, as a new topic"
            );
            let list = self.partitions_of(|slot| slots.contains(&slot));
            self.restart(&list, now);
        }
    }
}
