//! Partitions that were assigned and may not be sent yet: the steps before their first record.
//!
//! ```text
//!  assigned ─▶ topic ids ─▶ commits and watermarks ─▶ epoch to disk ─▶ start commit ─▶ acknowledged ─▶ read
//! ```
//!
//! The start commit carries the new epoch. The group's generation fences it: an ingress that is no longer the owner
//! cannot make it, so epochs only rise and two owners never send under the same one. Until it is acknowledged the
//! group waits (up to `max.poll.interval.ms`); every failure is tried again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ddc_kafka::commit::{CommitError, CommitId, CommitResult};
use ddc_kafka::errors::classify;
use ddc_kafka::group::GroupMember;
use ddc_udp::clock::wall_clock_micros;
use ddc_wire::Epoch;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::metadata::CommitMetadata;
use super::start::{PartitionFacts, Start, StartNote, decide, next_epoch};
use super::topics::TopicWatch;
use crate::config::KafkaSource;
use crate::state::{StateDir, StateError};

/// One request to the brokers may take this long; then it is tried again after [`RETRY`].
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two tries.
const RETRY: Duration = Duration::from_secs(1);
/// A start commit that was not answered by then is made again.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);
/// The state file with the highest epoch ever used.
const FILE: &str = "epoch.json";
const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct StoredEpoch {
    format: u32,
    highest: u64,
}

/// What [`Starting::step`] found.
pub(crate) enum Step {
    /// Nothing is starting, or an answer is waited for.
    Nothing,
    /// It cannot go on now; a sentence for `/readyz`. Tried again.
    Problem(String),
    /// The start commits are acknowledged.
    Begin {
        /// Where each partition is read from.
        offsets: TopicPartitionList,
        /// What the packer is told.
        starts: Vec<Start>,
    },
}

/// The partitions that are on their way to being read. All of them take each step together.
pub(crate) struct Starting {
    state: Arc<StateDir>,
    highest_epoch: Epoch,
    partitions: TopicPartitionList,
    phase: Phase,
    not_before: Instant,
}

enum Phase {
    Idle,
    WantIds,
    AwaitIds,
    Commit,
    AwaitCommit { id: CommitId, starts: Vec<Start>, since: Instant, answer: Option<Result<(), String>> },
}

impl Starting {
    /// Reads the highest epoch that this ingress ever used.
    pub(crate) fn new(state: Arc<StateDir>) -> Result<Self, StateError> {
        let stored: Option<StoredEpoch> = state.read(FILE)?;
        Ok(Self {
            state,
            highest_epoch: Epoch(stored.map_or(0, |stored| stored.highest)),
            partitions: TopicPartitionList::new(),
            phase: Phase::Idle,
            not_before: Instant::now(),
        })
    }

    /// Whether partitions are on their way.
    pub(crate) fn is_waiting(&self) -> bool {
        !matches!(self.phase, Phase::Idle)
    }

    /// Adds partitions; those that are on their way begin anew with them. An empty list is answered too.
    pub(crate) fn add(&mut self, partitions: &TopicPartitionList) {
        for element in partitions.elements() {
            if self.partitions.find_partition(element.topic(), element.partition()).is_none() {
                self.partitions.add_partition(element.topic(), element.partition());
            }
        }
        self.phase = Phase::WantIds;
    }

    /// Takes partitions away again before they began.
    pub(crate) fn remove(&mut self, partitions: &TopicPartitionList) {
        let mut left = TopicPartitionList::new();
        for element in self.partitions.elements() {
            if partitions.find_partition(element.topic(), element.partition()).is_none() {
                left.add_partition(element.topic(), element.partition());
            }
        }
        if left.count() == self.partitions.count() {
            return;
        }
        self.phase = if left.count() == 0 { Phase::Idle } else { Phase::WantIds };
        self.partitions = left;
    }

    /// A commit was answered; if it is the start commit, it counts.
    pub(crate) fn on_committed(&mut self, result: &CommitResult) {
        let Phase::AwaitCommit { id, answer, .. } = &mut self.phase else { return };
        if result.id == *id {
            *answer = Some(failure(result).map_or(Ok(()), |error| Err(error.to_string())));
        }
    }

    /// Goes one step further, if it can. May wait for the brokers, each request for some seconds at most.
    pub(crate) fn step(
        &mut self,
        now: Instant,
        config: &KafkaSource,
        link: &str,
        member: &mut GroupMember,
        topics: &mut TopicWatch,
    ) -> Step {
        if now < self.not_before {
            return Step::Nothing;
        }
        match &mut self.phase {
            Phase::WantIds if self.partitions.count() == 0 => {
                self.phase = Phase::Idle;
                Step::Begin { offsets: TopicPartitionList::new(), starts: Vec::new() }
            }
            Phase::WantIds => {
                topics.want(self.topics());
                self.phase = Phase::AwaitIds;
                Step::Nothing
            }
            Phase::AwaitIds => {
                if self.topics().iter().all(|topic| topics.answer(topic).is_some()) {
                    self.phase = Phase::Commit;
                }
                Step::Nothing
            }
            Phase::Commit => match self.commit(now, config, link, member, topics) {
                Ok(phase) => {
                    self.phase = phase;
                    Step::Nothing
                }
                Err(sentence) => self.retry(now, Phase::WantIds, sentence),
            },
            Phase::AwaitCommit { answer: Some(Ok(())), starts, .. } => {
                let starts = std::mem::take(starts);
                let mut read = TopicPartitionList::new();
                for start in &starts {
                    let mut element = read.add_partition(&start.partition.topic, start.partition.partition);
                    // Offsets of a start are not negative, which is all that is checked.
                    let _ = element.set_offset(Offset::Offset(start.partition.next));
                }
                self.phase = Phase::Idle;
                self.partitions = TopicPartitionList::new();
                Step::Begin { offsets: read, starts }
            }
            Phase::AwaitCommit { answer: Some(Err(error)), .. } => {
                let sentence = format!("the start of the partitions cannot be committed: {error}");
                self.retry(now, Phase::WantIds, sentence)
            }
            Phase::AwaitCommit { since, .. } if now.duration_since(*since) > COMMIT_TIMEOUT => {
                self.retry(now, Phase::WantIds, "the start commit was not answered".into())
            }
            Phase::Idle | Phase::AwaitCommit { .. } => Step::Nothing,
        }
    }

    fn retry(&mut self, now: Instant, phase: Phase, sentence: String) -> Step {
        self.not_before = now + RETRY;
        self.phase = phase;
        Step::Problem(sentence)
    }

    fn topics(&self) -> Vec<String> {
        let mut topics: Vec<String> =
            self.partitions.elements().iter().map(|element| element.topic().to_owned()).collect();
        topics.sort_unstable();
        topics.dedup();
        topics
    }

    /// Looks up where each partition stands, decides its start, keeps the epoch, and sends the start commit.
    fn commit(
        &mut self,
        now: Instant,
        config: &KafkaSource,
        link: &str,
        member: &mut GroupMember,
        topics: &TopicWatch,
    ) -> Result<Phase, String> {
        let asking = |error: KafkaError| {
            let verdict = classify(&error);
            format!("the source's Kafka does not tell where to start: {error}; {}", verdict.advice)
        };
        let facts = self.facts(member, topics).map_err(asking)?;
        let group_has_commits = facts.iter().any(|facts| facts.committed.is_some())
            || any_commit(config, member).map_err(asking)?;
        let highest =
            facts.iter().filter_map(|facts| facts.committed.as_ref()?.1).map(|metadata| metadata.epoch).max();
        let epoch = next_epoch(highest, self.highest_epoch, wall_clock_micros());
        self.keep(epoch).map_err(|error| error.to_string())?;
        let mut offsets = TopicPartitionList::new();
        let mut starts = Vec::new();
        for facts in facts {
            let Some(start) = decide(&facts, group_has_commits, config.start_at, epoch) else {
                return Err(format!(
                    "start_at = \"committed\" and group {} has committed nothing: commit offsets for it, or choose \"earliest\" or \"latest\"",
                    config.group
                ));
            };
            tell(link, &facts, &start);
            let partition = &start.partition;
            let metadata = CommitMetadata {
                topic_id: partition.topic_id,
                epoch,
                origin: partition.origin,
                previous: partition.previous,
                count: partition.count,
            };
            let mut element = offsets.add_partition(&partition.topic, partition.partition);
            // Offsets of a start are not negative, which is all that is checked.
            let _ = element.set_offset(Offset::Offset(partition.next));
            element.set_metadata(metadata.to_string());
            starts.push(start);
        }
        let id = member.commit(&offsets).map_err(|error| error.to_string())?;
        Ok(Phase::AwaitCommit { id, starts, since: now, answer: None })
    }

    fn facts(&self, member: &GroupMember, topics: &TopicWatch) -> KafkaResult<Vec<PartitionFacts>> {
        let committed = member.consumer().committed_offsets(self.partitions.clone(), REQUEST_TIMEOUT)?;
        let mut facts = Vec::new();
        for element in committed.elements() {
            element.error()?;
            let (topic, partition) = (element.topic(), element.partition());
            let (low, high) = member.consumer().fetch_watermarks(topic, partition, REQUEST_TIMEOUT)?;
            // Every topic was answered before this step.
            let (topic_id, partition_count) = topics.answer(topic).unwrap_or_default();
            facts.push(PartitionFacts {
                topic: topic.into(),
                topic_id,
                partition,
                partition_count,
                committed: committed_at(element.offset())
                    .map(|offset| (offset, element.metadata().parse().ok())),
                low,
                high,
            });
        }
        Ok(facts)
    }

    fn keep(&mut self, epoch: Epoch) -> Result<(), StateError> {
        self.state.write(FILE, &StoredEpoch { format: FORMAT, highest: epoch.0 })?;
        self.highest_epoch = epoch;
        Ok(())
    }
}

/// What went wrong with a commit, as a whole or with one of its partitions.
pub(crate) fn failure(result: &CommitResult) -> Option<CommitError> {
    result.error.or_else(|| result.partitions.iter().find_map(|partition| partition.result.err()))
}

fn committed_at(offset: Offset) -> Option<i64> {
    match offset {
        Offset::Offset(offset) if offset >= 0 => Some(offset),
        _ => None,
    }
}

/// Whether the group has committed anything for any partition of its subscription.
fn any_commit(config: &KafkaSource, member: &GroupMember) -> KafkaResult<bool> {
    let metadata = member.consumer().fetch_metadata(None, REQUEST_TIMEOUT)?;
    let mut list = TopicPartitionList::new();
    // Patterns are anchored by their `^` and were compiled once when the configuration was checked.
    let patterns: Vec<Regex> = config
        .topics
        .iter()
        .filter(|topic| topic.is_pattern())
        .filter_map(|pattern| Regex::new(pattern.as_str()).ok())
        .collect();
    let subscribed = |topic: &str| {
        config.topics.iter().any(|name| name.as_str() == topic)
            || patterns.iter().any(|pattern| pattern.is_match(topic))
    };
    for topic in metadata.topics().iter().filter(|topic| subscribed(topic.name())) {
        for partition in topic.partitions() {
            list.add_partition(topic.name(), partition.id());
        }
    }
    if list.count() == 0 {
        return Ok(false);
    }
    let committed = member.consumer().committed_offsets(list, REQUEST_TIMEOUT)?;
    Ok(committed.elements().iter().any(|element| committed_at(element.offset()).is_some()))
}

fn tell(link: &str, facts: &PartitionFacts, start: &Start) {
    let (topic, partition) = (&*facts.topic, facts.partition);
    let (offset, epoch) = (start.partition.next, start.partition.epoch.0);
    match start.note {
        None => tracing::info!(link, topic, partition, offset, epoch, "partition starts"),
        Some(StartNote::Recreated) => {
            tracing::warn!(
                link,
                topic,
                partition,
                offset,
                epoch,
                "partition starts: the topic was created again since the last commit"
            );
        }
        Some(StartNote::DeletedUnread { from, to }) => {
            tracing::error!(
                link,
                topic,
                partition,
                offset,
                epoch,
                first_deleted = from,
                last_deleted = to - 1,
                "partition starts: Kafka deleted records before they were read (retention); they are lost at the source, lengthen its retention"
            );
        }
        Some(StartNote::BeyondEnd { committed, high }) => {
            tracing::error!(
                link,
                topic,
                partition,
                offset,
                epoch,
                committed,
                high,
                "partition starts: the committed offset is behind the end of the log (the topic was truncated, or created again on brokers without topic ids: raise `topic_epoch` then)"
            );
        }
    }
}
