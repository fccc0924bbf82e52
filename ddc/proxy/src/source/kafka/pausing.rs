//! A pause: what may be committed is committed, the group is left, and nothing is read until it is withdrawn.
//!
//! ```text
//!  reading ─▶ pause ─▶ [kept on disk] ─▶ commit ─▶ leave the group ─▶ paused ─▶ join ─▶ starting (with what was kept)
//! ```
//!
//! With `since` the commit says where each partition was then, so that whoever reads it next, here or elsewhere, sends again
//! what was sent since. What the group did not take is kept in the state directory and used when reading goes on, unless
//! another member has read the partition meanwhile, which is told.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ddc_link::sender::{Mark, Slot};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use super::commits::metadata_at;
use super::{KafkaSource, LAST_COMMIT};
use crate::config::TopicPattern;
use crate::pause::{Kept, Since};
use crate::rewind::{PartitionReport, PartitionState, Report};
use crate::source::metadata::CommitMetadata;
use crate::source::start::{At, GoBack, Start};
use crate::source::starting::failure;

impl KafkaSource {
    /// Does what was ordered since.
    pub(super) fn serve_pause(&mut self, now: Instant) {
        let (wanted, since) = (self.pauses.is_paused(), self.pauses.take_since());
        // A pause that was withdrawn before it was seen is made all the same when it goes back.
        if !self.paused && (wanted || since.is_some()) {
            self.pause(now, since);
        } else if let Some(since) = since {
            let why = "the ingress was paused already: nothing was read that could go back; what it sent in the last `commit_delay` before the pause goes again";
            self.tell_pause(&since, Err(why));
            self.pauses.set_left(true);
        }
        if self.paused && !self.pauses.is_paused() {
            match self.join() {
                Ok(()) => tracing::warn!(link = &*self.link, "reading goes on: the group is joined"),
                // Tried again with the next turn; librdkafka refuses only what it cannot read.
                Err(error) => self.on_error(&ddc_kafka::errors::classify(&error), &error.to_string()),
            }
        }
    }

    /// At the start of a process whose pause holds.
    pub(super) fn begin_paused(&self) {
        self.metrics.paused.set(1);
        self.pauses.set_left(true);
    }

    /// Joins the group.
    pub(super) fn join(&mut self) -> KafkaResult<()> {
        let topics: Vec<&str> = self.settings.topics.iter().map(TopicPattern::as_str).collect();
        self.member.subscribe(&topics)?;
        self.kept = self.pauses.kept();
        self.paused = false;
        self.metrics.paused.set(0);
        self.pauses.set_left(false);
        Ok(())
    }

    /// Partitions are about to be read: those whose offsets the group did not take before the pause go back by themselves.
    pub(super) fn take_up_kept(&mut self, partitions: &TopicPartitionList) {
        let ours = |kept: &&Kept| partitions.find_partition(&kept.topic, kept.partition).is_some();
        for kept in self.kept.iter().filter(ours) {
            let Ok(metadata) = kept.metadata.parse::<CommitMetadata>() else { continue };
            let at = At { end: kept.offset, last: metadata.previous, count: metadata.count };
            let back = GoBack {
                topic_id: metadata.topic_id,
                origin: metadata.origin,
                epochs: [metadata.epoch; 2],
                commit: at,
                read: at,
            };
            self.starting.go_back(kept.topic.as_str().into(), kept.partition, back);
        }
    }

    /// Partitions begin: what was kept for them was used, or overtaken.
    pub(super) fn forget_kept(&mut self, starts: &[Start]) {
        if self.kept.is_empty() {
            return;
        }
        let begun: HashSet<(&str, i32)> =
            starts.iter().map(|start| (&*start.partition.topic, start.partition.partition)).collect();
        self.kept.retain(|kept| !begun.contains(&(kept.topic.as_str(), kept.partition)));
        if let Err(error) = self.pauses.keep(self.kept.clone()) {
            // A restart would only find them overtaken.
            tracing::warn!(link = &*self.link, %error, "the state of the pause is not up to date on disk");
        }
    }

    fn pause(&mut self, now: Instant, since: Option<Since>) {
        let (mut offsets, mut kept, mut reports) = (TopicPartitionList::new(), Vec::new(), Vec::new());
        let slots: Vec<Slot> = self.reading.keys().copied().collect();
        for slot in &slots {
            let Some((report, offset, below)) = self.pause_one(now, *slot, since.as_ref()) else { continue };
            let mut element = offsets.add_partition(&offset.topic, offset.partition);
            // Offsets of a mark are not negative, which is all that is checked.
            let _ = element.set_offset(Offset::Offset(offset.offset));
            element.set_metadata(&offset.metadata);
            kept.extend(below.then_some(offset));
            reports.push(report);
        }
        let back: Vec<(Arc<str>, i32)> = self.going_back.keys().cloned().collect();
        self.add_going_back(&mut offsets, &back);
        kept.extend(back.iter().filter_map(|key| self.kept_of(key)));
        let is_kept = self.commit_for_pause(&offsets, kept);
        for report in &mut reports {
            report.state = match (report.records, is_kept) {
                (0, _) => PartitionState::Unchanged,
                (_, false) => PartitionState::Committed,
                (_, true) => PartitionState::Kept,
            };
        }
        self.taken_away(&back);
        let all = self.partitions_of(|_| true);
        self.give_up(&slots);
        self.release(&all);
        self.starting.clear();
        self.refused.clear();
        self.member.unsubscribe();
        self.paused = true;
        self.metrics.paused.set(1);
        tracing::warn!(
            link = &*self.link,
            partitions = slots.len(),
            "paused: the group is left, heartbeats go on"
        );
        if let Some(since) = since {
            self.metrics.rewinds.inc();
            self.metrics.rewound_records.add(reports.iter().map(|report| report.records).sum());
            self.tell_pause(&since, Ok(reports));
        }
        self.pauses.set_left(true);
    }

    /// Where the next reader of a partition begins, and whether that lies below what the group may have.
    fn pause_one(
        &mut self,
        now: Instant,
        slot: Slot,
        since: Option<&Since>,
    ) -> Option<(PartitionReport, Kept, bool)> {
        let time = since.map_or(Some(now), |since| since.time);
        let mut planned = self.planned(now, slot, time)?;
        let mark: Mark = if since.is_some() { planned.point.mark } else { self.sent_up_to(slot)?.mark(slot) };
        let commit = self.commit_before(now, mark);
        let below = self.outlet.log.floor(now, slot).is_some_and(|floor| commit.end < floor.end);
        let sent = self.sent_up_to(slot)?;
        planned.report.to = commit.end;
        planned.report.records = sent.count.saturating_sub(commit.count);
        let reading = self.reading.get(&slot)?;
        let metadata = metadata_at(&reading.start.partition, commit).to_string();
        let kept = Kept {
            topic: reading.topic.to_string(),
            partition: reading.partition,
            metadata,
            offset: commit.end,
        };
        Some((planned.report, kept, below))
    }

    fn kept_of(&self, key: &(Arc<str>, i32)) -> Option<Kept> {
        let (offset, metadata) = self.going_back.get(key)?.commit();
        Some(Kept { topic: key.0.to_string(), partition: key.1, metadata, offset })
    }

    /// Commits, and waits for it. `true`: the group did not take it, and what lies below its own offsets is kept.
    fn commit_for_pause(&mut self, offsets: &TopicPartitionList, kept: Vec<Kept>) -> bool {
        // Before the commit: a process that dies now must find them.
        let some = !kept.is_empty();
        if let Err(error) = self.pauses.keep(kept) {
            tracing::error!(link = &*self.link, %error,
                "the offsets to go back to are not on disk: if the commit fails too, the next reader begins at the group's offsets");
        }
        if offsets.count() == 0 {
            return some;
        }
        let failed = match self.member.commit_and_wait(offsets, LAST_COMMIT) {
            Ok(result) => failure(&result),
            Err(error) => Some(error),
        };
        match failed {
            None => {
                self.metrics.commits.inc();
                if let Err(error) = self.pauses.keep(Vec::new()) {
                    tracing::warn!(link = &*self.link, %error, "the state of the pause is not up to date on disk");
                }
                false
            }
            Some(error) => {
                self.metrics.commit_failures.inc();
                tracing::warn!(link = &*self.link, %error, partitions = offsets.count(), kept = some,
                    "the last commit before the pause failed: the next reader sends again what was sent since the commit before; what was to go further back is kept for the resumption here");
                some
            }
        }
    }

    /// A report beside those of rewinds.
    fn tell_pause(&self, since: &Since, outcome: Result<Vec<PartitionReport>, &str>) {
        // A clock before 1970 is told as 1970.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let id = format!("pause-{}", wall.as_micros());
        let mut report = Report::asked(&id, &since.by, &since.text, false, wall.as_secs());
        match outcome {
            Ok(partitions) => {
                for one in partitions.iter().filter(|one| one.records > 0) {
                    tracing::warn!(
                        link = &*self.link,
                        topic = one.topic,
                        partition = one.partition,
                        from = one.from,
                        to = one.to,
                        records = one.records,
                        id,
                        "a partition goes back with the pause"
                    );
                }
                report.decided(partitions);
            }
            Err(why) => {
                tracing::warn!(
                    link = &*self.link,
                    since = since.text,
                    id,
                    why,
                    "the pause goes back to nothing"
                );
                report.fail(why.to_owned());
            }
        }
        self.rewinds.tell(report);
    }
}
