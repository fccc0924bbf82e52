//! Partitions go back to where they were: what was sent since is sent again, under a new epoch.
//!
//! ```text
//!  reading ─▶ history says where it was ─▶ given up ─▶ starting (commit with the new epoch) ─▶ reading, from there
//!                 └ what was sent before that is committed later, by the one rule, as if nothing had happened
//! ```
//!
//! The start commit does not run ahead of the rule: it says the lower one of what the group may have by `commit_delay` and of
//! where the partition goes back to. Reading goes on at the latter.

use std::sync::Arc;
use std::time::Instant;

use ddc_link::sender::{Mark, Slot};
use rdkafka::{Offset, TopicPartitionList};

use super::KafkaSource;
use super::commits::metadata_at;
use crate::rewind::{PartitionReport, PartitionState};
use crate::source::commit::Past;
use crate::source::history::Point;
use crate::source::start::{At, GoBack, Start, StartNote};

/// A partition between its old reading and its new one.
pub(super) struct GoingBack {
    past: Past,
    /// What is committed for it if it is taken away before.
    commit: At,
    metadata: String,
    /// Whose order it was.
    id: String,
    records: u64,
}

impl GoingBack {
    /// What is committed for it if it is taken away before: the offset and its metadata.
    pub(super) fn commit(&self) -> (i64, String) {
        (self.commit.end, self.metadata.clone())
    }
}

/// Where a partition stands and where it was.
pub(super) struct Planned {
    pub(super) point: Point,
    pub(super) report: PartitionReport,
}

impl KafkaSource {
    pub(super) fn serve_rewind(&mut self, now: Instant) {
        let Some(order) = self.rewinds.take() else { return };
        let which = |topic: &str, partition| order.which.has(topic, partition);
        let starting = self.starting.count(which);
        let slots: Vec<Slot> = self
            .reading
            .iter()
            .filter(|(_, reading)| which(&reading.topic, reading.partition))
            .map(|(slot, _)| *slot)
            .collect();
        let mut planned: Vec<Planned> =
            slots.iter().filter_map(|slot| self.planned(now, *slot, order.time)).collect();
        if planned.is_empty() {
            let why = if self.paused {
                "the ingress is paused and reads nothing; what it sent in the last `commit_delay` before goes again when it is resumed".to_owned()
            } else if starting > 0 {
                format!(
                    "{starting} partitions are about to be read, from the group's offsets; none is read yet"
                )
            } else {
                "no such partition is assigned to this ingress; other members of the group may have it"
                    .to_owned()
            };
            return self.rewinds.update(&order.id, |report| report.fail(why));
        }
        let goes = if order.dry_run { PartitionState::Would } else { PartitionState::Going };
        for one in planned.iter_mut().filter(|one| one.report.records > 0) {
            one.report.state = goes;
        }
        let reports = planned.iter().map(|one| one.report.clone()).collect();
        self.rewinds.update(&order.id, |report| {
            if starting > 0 {
                report.problem = Some(format!(
                    "{starting} partitions more are about to be read, from the group's offsets"
                ));
            }
            report.decided(reports);
        });
        planned.retain(|one| one.report.state == PartitionState::Going);
        self.go_back(now, &order.id, planned);
    }

    /// Where a partition stands, and where it was then; `None` when it is not read.
    pub(super) fn planned(&self, now: Instant, slot: Slot, time: Option<Instant>) -> Option<Planned> {
        let point = self.outlet.log.at(slot, time)?;
        let reading = self.reading.get(&slot)?;
        let sent = self.sent_up_to(slot)?;
        let report = PartitionReport {
            topic: reading.topic.to_string(),
            partition: reading.partition,
            from: sent.end,
            to: point.mark.end,
            records: sent.count.saturating_sub(point.mark.count),
            reached: point.reach,
            seconds: now.saturating_duration_since(point.at).as_secs(),
            state: PartitionState::Unchanged,
            deleted: None,
        };
        Some(Planned { point, report })
    }

    /// What was handed to the kernel.
    pub(super) fn sent_up_to(&self, slot: Slot) -> Option<At> {
        let sent = self.outlet.log.newest_sent(slot).map(At::from);
        sent.or_else(|| Some(At::of(&self.reading.get(&slot)?.start.partition)))
    }

    /// What may be committed of a partition that goes back to `mark`.
    pub(super) fn commit_before(&mut self, now: Instant, mark: Mark) -> At {
        let floor = self.outlet.log.floor(now, mark.slot).filter(|floor| floor.end < mark.end);
        floor.unwrap_or(mark).into()
    }

    fn go_back(&mut self, now: Instant, id: &str, planned: Vec<Planned>) {
        let (mut slots, mut list) = (Vec::new(), TopicPartitionList::new());
        for Planned { point: Point { mark, .. }, report } in planned {
            let commit = self.commit_before(now, mark);
            let Some(reading) = self.reading.get(&mark.slot) else { continue };
            let start = &reading.start.partition;
            let back = GoBack {
                topic_id: start.topic_id,
                origin: start.origin,
                epochs: [start.epoch; 2],
                commit,
                read: mark.into(),
            };
            let metadata = metadata_at(start, commit).to_string();
            let Some(past) = self.outlet.log.cut(mark) else { continue };
            tracing::warn!(
                link = &*self.link,
                topic = report.topic,
                partition = report.partition,
                from = report.from,
                to = report.to,
                records = report.records,
                id,
                "a partition is asked to go back: what was sent since goes again"
            );
            self.starting.go_back(Arc::clone(&reading.topic), reading.partition, back);
            list.add_partition(&reading.topic, reading.partition);
            let going = GoingBack { past, commit, metadata, id: id.to_owned(), records: report.records };
            self.going_back.insert((Arc::clone(&reading.topic), reading.partition), going);
            slots.push(mark.slot);
        }
        if slots.is_empty() {
            return;
        }
        self.metrics.rewinds.inc();
        self.give_up(&slots);
        self.release(&list);
        self.starting.add(&list);
    }

    /// A partition begins: what it goes on with when it went back. Tells whoever asked for it.
    pub(super) fn went_back(&mut self, start: &Start) -> Option<(At, Past)> {
        let (topic, partition) = (&start.partition.topic, start.partition.partition);
        let going = self.going_back.remove(&(Arc::clone(topic), partition))?;
        let Some(StartNote::Rewound { commit, deleted }) = start.note else {
            self.tell(&going.id, topic, partition, PartitionState::Elsewhere, None);
            return None;
        };
        self.metrics.rewound_records.add(going.records);
        self.tell(&going.id, topic, partition, PartitionState::Done, deleted);
        Some((commit, going.past))
    }

    fn tell(
        &self,
        id: &str,
        topic: &str,
        partition: i32,
        state: PartitionState,
        deleted: Option<(i64, i64)>,
    ) {
        self.rewinds.update(id, |report| report.became(topic, partition, state, deleted));
    }

    /// Some partitions have begun.
    pub(super) fn settle_rewind(&self) {
        self.rewinds.settle();
    }

    pub(super) fn going_back_of(&self, partitions: &TopicPartitionList) -> Vec<(Arc<str>, i32)> {
        let elements = partitions.elements();
        let keys = elements.iter().map(|element| (Arc::from(element.topic()), element.partition()));
        keys.filter(|key| self.going_back.contains_key(key)).collect()
    }

    pub(super) fn add_going_back(&self, offsets: &mut TopicPartitionList, back: &[(Arc<str>, i32)]) {
        for key in back {
            let Some(going) = self.going_back.get(key) else { continue };
            let mut element = offsets.add_partition(&key.0, key.1);
            // Offsets of a mark are not negative, which is all that is checked.
            let _ = element.set_offset(Offset::Offset(going.commit.end));
            element.set_metadata(&going.metadata);
        }
    }

    /// Partitions that were going back are no longer ours.
    pub(super) fn taken_away(&mut self, back: &[(Arc<str>, i32)]) {
        for key in back {
            if let Some(going) = self.going_back.remove(key) {
                self.tell(&going.id, &key.0, key.1, PartitionState::Taken, None);
            }
        }
        if !back.is_empty() {
            self.settle_rewind();
        }
    }
}
