//! Partitions that were assigned and may not be sent yet: the steps before their first record.
//!
//! ```text
//!  assigned ─▶ topic ids ─▶ commits and watermarks ─▶ epoch to disk ─▶ start commit ─▶ acknowledged ─▶ read
//!     ▲                │                       │                                   │
//!     └── after 1 s ───┴─ what is refused ─────┴───────────────────────────────────┘   (the others go on)
//! ```
//!
//! The start commit carries the new epoch. The group's generation fences it: an ingress that is no longer the owner
//! cannot make it, so epochs only rise and two owners never send under the same one. The group itself is not kept
//! waiting: the source has answered the assignment already, and reads each partition once its start is acknowledged.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ddc_kafka::commit::{CommitError, CommitId, CommitResult};
use ddc_kafka::group::GroupMember;
use ddc_udp::clock::wall_clock_micros;
use ddc_wire::{Epoch, TopicId};
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use super::lookup::{Asked, Found, Lookup};
use super::metadata::CommitMetadata;
use super::start::{At, GoBack, PartitionFacts, Start, StartNote, decide, go_back, next_epoch};
use super::topics::TopicWatch;
use crate::config::KafkaSource;
use crate::state::{StateDir, StateError};

/// Between two tries.
const RETRY: Duration = Duration::from_secs(1);
/// A start commit that was not answered by then is made again.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);
/// A step that takes longer is named in `/readyz`.
const NAMED_AFTER: Duration = Duration::from_secs(5);
/// Most sentences of one problem; the rest is like them.
const SENTENCES: usize = 3;
/// The state file with the highest epoch ever used.
const FILE: &str = "epoch.json";
const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct StoredEpoch {
    format: u32,
    highest: u64,
}

/// Why the highest epoch cannot be known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EpochError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file of a later version.
    #[error(
        "state file {FILE} has format {0}, this version knows {FORMAT}: install the version that wrote it, or move the file away"
    )]
    Format(u32),
}

/// The partitions that are on their way to being read. They take each step together; what is refused a step is tried
/// again later, without the others.
pub(crate) struct Starting {
    state: Arc<StateDir>,
    highest_epoch: Epoch,
    /// All that were added and have not begun.
    partitions: TopicPartitionList,
    /// Those that begin where they were some time ago, not where the group has committed.
    back: HashMap<(Arc<str>, i32), GoBack>,
    phase: Phase,
    since: Instant,
    not_before: Instant,
    /// Whether the group had commits when the first of these partitions was looked up: our own start commits must not
    /// change what `start_at` means for the rest of them.
    group_has_commits: Option<bool>,
    /// At most one runs; one that is not wanted any more is waited for before the next.
    lookup: Option<Lookup>,
    problem: Option<String>,
}

enum Phase {
    Idle,
    WantIds,
    AwaitIds,
    LookUp(Vec<Asked>),
    AwaitLookup,
    AwaitCommit { id: CommitId, starts: Vec<Start>, since: Instant, answer: Option<CommitResult> },
}

impl Phase {
    fn what(&self) -> &'static str {
        match self {
            Self::Idle | Self::WantIds => "the next try",
            Self::AwaitIds => "topic ids",
            Self::LookUp(_) | Self::AwaitLookup => "committed offsets and watermarks",
            Self::AwaitCommit { .. } => "the acknowledgement of the start commit",
        }
    }
}

impl Starting {
    /// Reads the highest epoch that this ingress ever used.
    pub(crate) fn new(state: Arc<StateDir>) -> Result<Self, EpochError> {
        let stored: Option<StoredEpoch> = state.read(FILE)?;
        if let Some(stored) = stored.as_ref().filter(|stored| stored.format != FORMAT) {
            return Err(EpochError::Format(stored.format));
        }
        let now = Instant::now();
        Ok(Self {
            state,
            highest_epoch: Epoch(stored.map_or(0, |stored| stored.highest)),
            partitions: TopicPartitionList::new(),
            back: HashMap::new(),
            phase: Phase::Idle,
            since: now,
            not_before: now,
            group_has_commits: None,
            lookup: None,
            problem: None,
        })
    }

    /// Whether partitions are on their way.
    pub(crate) fn is_waiting(&self) -> bool {
        !matches!(self.phase, Phase::Idle)
    }

    /// Why partitions do not begin, as a sentence for `/readyz`.
    pub(crate) fn problem(&self, now: Instant) -> Option<String> {
        if !self.is_waiting() {
            return None;
        }
        let slow = now.duration_since(self.since) > NAMED_AFTER;
        let waiting = || {
            let count = self.partitions.count();
            format!(
                "{count} partitions are not read yet: waiting for {} of the source's Kafka",
                self.phase.what()
            )
        };
        self.problem.clone().or_else(|| slow.then(waiting))
    }

    /// Adds partitions; those that are on their way begin anew with them.
    pub(crate) fn add(&mut self, partitions: &TopicPartitionList) {
        for element in partitions.elements() {
            if self.partitions.find_partition(element.topic(), element.partition()).is_none() {
                self.partitions.add_partition(element.topic(), element.partition());
            }
        }
        if self.partitions.count() > 0 {
            self.begin_anew();
        }
    }

    /// Adds partitions that were being read, not before some time has passed: what made them start again may last.
    pub(crate) fn add_later(&mut self, partitions: &TopicPartitionList, now: Instant) {
        self.add(partitions);
        self.not_before = now + RETRY;
    }

    /// When this partition begins, it goes back.
    pub(crate) fn go_back(&mut self, topic: Arc<str>, partition: i32, back: GoBack) {
        self.back.insert((topic, partition), back);
    }

    /// How many of some partitions are on their way.
    pub(crate) fn count(&self, wanted: impl Fn(&str, i32) -> bool) -> usize {
        let elements = self.partitions.elements();
        elements.iter().filter(|element| wanted(element.topic(), element.partition())).count()
    }

    /// Takes all partitions away.
    pub(crate) fn clear(&mut self) {
        self.partitions = TopicPartitionList::new();
        self.back.clear();
        self.begin_anew();
    }

    /// Takes partitions away again before they began.
    pub(crate) fn remove(&mut self, partitions: &TopicPartitionList) {
        for element in partitions.elements() {
            self.back.remove(&(Arc::from(element.topic()), element.partition()));
        }
        let taken = |topic: &str, partition| partitions.find_partition(topic, partition).is_some();
        if self.keep_only(|topic, partition| !taken(topic, partition)) {
            self.begin_anew();
        }
    }

    /// Leaves only some of the partitions; whether any went.
    fn keep_only(&mut self, keep: impl Fn(&str, i32) -> bool) -> bool {
        let mut left = TopicPartitionList::new();
        for element in self.partitions.elements() {
            if keep(element.topic(), element.partition()) {
                left.add_partition(element.topic(), element.partition());
            }
        }
        let went = left.count() < self.partitions.count();
        self.partitions = left;
        went
    }

    fn begin_anew(&mut self) {
        if let Some(lookup) = &self.lookup {
            lookup.cancel();
        }
        if self.partitions.count() == 0 {
            self.phase = Phase::Idle;
            self.group_has_commits = None;
            self.problem = None;
        } else {
            if !self.is_waiting() {
                self.since = Instant::now();
            }
            self.phase = Phase::WantIds;
        }
    }

    /// A commit was answered; if it is the start commit, it counts.
    pub(crate) fn on_committed(&mut self, result: &CommitResult) {
        let Phase::AwaitCommit { id, answer, .. } = &mut self.phase else { return };
        if result.id == *id {
            *answer = Some(result.clone());
        }
    }

    /// Goes one step further, if it can; waits for nothing. Returns the starts that were acknowledged.
    pub(crate) fn step(
        &mut self,
        now: Instant,
        config: &KafkaSource,
        link: &str,
        member: &mut GroupMember,
        topics: &mut TopicWatch,
    ) -> Vec<Start> {
        if now < self.not_before {
            return Vec::new();
        }
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Idle => {}
            Phase::WantIds => {
                topics.want(self.topics());
                self.phase = Phase::AwaitIds;
            }
            Phase::AwaitIds => self.take_ids(now, topics),
            Phase::LookUp(asked) => self.look_up(now, asked, config, member),
            Phase::AwaitLookup => match self.lookup.as_mut().map(Lookup::poll) {
                Some(None) => self.phase = Phase::AwaitLookup,
                Some(Some(found)) => {
                    self.lookup = None;
                    match found.and_then(|found| self.commit(now, &found, config, link, member)) {
                        Ok(phase) => self.phase = phase,
                        Err(sentence) => self.retry(now, sentence),
                    }
                }
                None => self.phase = Phase::WantIds,
            },
            Phase::AwaitCommit { answer: Some(result), starts, .. } => {
                return self.acknowledged(now, &result, starts);
            }
            Phase::AwaitCommit { since, .. } if now.duration_since(since) > COMMIT_TIMEOUT => {
                self.retry(now, "the start commit was not answered; it is made again".into());
            }
            waiting @ Phase::AwaitCommit { .. } => self.phase = waiting,
        }
        Vec::new()
    }

    fn retry(&mut self, now: Instant, sentence: String) {
        self.not_before = now + RETRY;
        self.phase = Phase::WantIds;
        self.problem = Some(sentence).filter(|sentence| !sentence.is_empty());
    }

    fn topics(&self) -> Vec<String> {
        let mut topics: Vec<String> =
            self.partitions.elements().iter().map(|element| element.topic().to_owned()).collect();
        topics.sort_unstable();
        topics.dedup();
        topics
    }

    /// Goes on with the partitions of known topics once every topic was answered.
    fn take_ids(&mut self, now: Instant, topics: &TopicWatch) {
        self.phase = Phase::AwaitIds;
        let (mut asked, mut refused) = (Vec::new(), Vec::new());
        for element in self.partitions.elements() {
            match topics.answer(element.topic()) {
                None => return,
                Some(Err(sentence)) => refused.push(sentence.clone()),
                Some(Ok((topic_id, partition_count))) => asked.push(Asked {
                    topic: element.topic().to_owned(),
                    partition: element.partition(),
                    topic_id: *topic_id,
                    partition_count: *partition_count,
                }),
            }
        }
        let problem = sentences(refused);
        if asked.is_empty() {
            self.retry(now, problem.unwrap_or_default());
        } else {
            self.problem = problem;
            self.phase = Phase::LookUp(asked);
        }
    }

    fn look_up(&mut self, now: Instant, asked: Vec<Asked>, config: &KafkaSource, member: &GroupMember) {
        if self.lookup.as_ref().is_some_and(|lookup| !lookup.is_finished()) {
            self.phase = Phase::LookUp(asked);
            return;
        }
        match Lookup::start(member.consumer(), asked, config.topics.clone(), self.group_has_commits) {
            Ok(lookup) => {
                self.lookup = Some(lookup);
                self.phase = Phase::AwaitLookup;
            }
            Err(error) => self.retry(now, format!("no thread can be started to look up offsets: {error}")),
        }
    }

    /// Decides the starts, keeps the epoch, and sends the start commit.
    fn commit(
        &mut self,
        now: Instant,
        found: &Found,
        config: &KafkaSource,
        link: &str,
        member: &mut GroupMember,
    ) -> Result<Phase, String> {
        let has_commits = *self.group_has_commits.get_or_insert(found.group_has_commits);
        let mut refused: Vec<String> = found
            .failed
            .iter()
            .map(|(topic, partition, why)| format!("{topic}[{partition}] cannot be read yet: {why}"))
            .collect();
        let highest = found
            .facts
            .iter()
            .filter_map(|facts| facts.committed.as_ref()?.1)
            .map(|metadata| metadata.epoch)
            .max();
        let epoch = next_epoch(highest, self.highest_epoch, wall_clock_micros());
        let mut offsets = TopicPartitionList::new();
        let (mut starts, mut carried) = (Vec::new(), Vec::new());
        for facts in &found.facts {
            if lost_its_id(facts) {
                refused.push(format!(
                    "{}[{}] had a topic id when it was committed and the brokers tell none now; it waits for one \
                     (for brokers without topic ids choose another `group`)",
                    facts.topic, facts.partition
                ));
                continue;
            }
            let back = self.back.get(&(Arc::clone(&facts.topic), facts.partition));
            let went_back = back.and_then(|back| go_back(facts, back, epoch));
            if let Some(back) = back.filter(|_| went_back.is_none()) {
                tell_overtaken(link, facts, back);
            }
            let Some(start) = went_back.or_else(|| decide(facts, has_commits, config.start_at, epoch)) else {
                return Err(format!(
                    "start_at = \"committed\" and group {} has committed nothing: commit offsets for it, or choose \"earliest\" or \"latest\"",
                    config.group
                ));
            };
            let partition = &start.partition;
            let at = match start.note {
                Some(StartNote::Rewound { commit, .. }) => commit,
                _ => At::of(partition),
            };
            let metadata = CommitMetadata {
                topic_id: partition.topic_id,
                epoch,
                origin: partition.origin,
                previous: at.last,
                count: at.count,
            };
            let mut element = offsets.add_partition(&partition.topic, partition.partition);
            // Offsets of a start are not negative, which is all that is checked.
            let _ = element.set_offset(Offset::Offset(at.end));
            element.set_metadata(metadata.to_string());
            starts.push(start);
            carried.push(facts);
        }
        self.problem = sentences(refused);
        if starts.is_empty() {
            return Err(self.problem.take().unwrap_or_default());
        }
        self.keep(epoch).map_err(|error| error.to_string())?;
        let id = member.commit(&offsets).map_err(|error| error.to_string())?;
        for start in &starts {
            let key = (Arc::clone(&start.partition.topic), start.partition.partition);
            match (start.note, self.back.get_mut(&key)) {
                // Should the answer be lost, the commit may have been made all the same: it is ours.
                (Some(StartNote::Rewound { .. }), Some(back)) => back.epochs[1] = epoch,
                _ => drop(self.back.remove(&key)),
            }
        }
        for (facts, start) in carried.into_iter().zip(&starts) {
            tell(link, facts, start);
        }
        Ok(Phase::AwaitCommit { id, starts, since: now, answer: None })
    }

    /// What the group acknowledged begins; the rest is tried again.
    fn acknowledged(&mut self, now: Instant, result: &CommitResult, starts: Vec<Start>) -> Vec<Start> {
        let errors: HashMap<(&str, i32), CommitError> = result
            .partitions
            .iter()
            .filter_map(|found| Some(((found.topic.as_str(), found.partition), found.result.err()?)))
            .collect();
        let refusal = |start: &Start| {
            let start = &start.partition;
            result.error.or_else(|| errors.get(&(&*start.topic, start.partition)).copied())
        };
        let mut refused = Vec::new();
        let mut begun = Vec::new();
        for start in starts {
            match refusal(&start) {
                None => {
                    self.back.remove(&(Arc::clone(&start.partition.topic), start.partition.partition));
                    begun.push(start);
                }
                Some(error) => refused.push(format!(
                    "{}[{}] cannot begin: {error}",
                    start.partition.topic, start.partition.partition
                )),
            }
        }
        let gone: HashSet<(&str, i32)> =
            begun.iter().map(|start| (&*start.partition.topic, start.partition.partition)).collect();
        self.keep_only(|topic, partition| !gone.contains(&(topic, partition)));
        if self.partitions.count() == 0 {
            self.begin_anew();
        } else {
            let problem = sentences(refused).or_else(|| self.problem.take()).unwrap_or_default();
            self.retry(now, problem);
        }
        begun
    }

    fn keep(&mut self, epoch: Epoch) -> Result<(), StateError> {
        self.state.write(FILE, &StoredEpoch { format: FORMAT, highest: epoch.0 })?;
        self.highest_epoch = epoch;
        Ok(())
    }
}

/// Whether the topic had an id at the last commit and none is known now. Brokers do not lose ids: it is one that gives
/// no answer, and reading everything again under another name would be the wrong conclusion.
fn lost_its_id(facts: &PartitionFacts) -> bool {
    let committed = facts.committed.as_ref().and_then(|(_, metadata)| metadata.as_ref());
    matches!(facts.topic_id, TopicId::Configured(_))
        && committed.is_some_and(|metadata| matches!(metadata.topic_id, TopicId::Uuid(_)))
}

fn sentences(mut all: Vec<String>) -> Option<String> {
    all.dedup();
    let more = all.len().saturating_sub(SENTENCES);
    all.truncate(SENTENCES);
    let text = all.join("; ");
    match (all.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(text),
        (false, more) => Some(format!("{text}; and {more} more")),
    }
}

/// What went wrong with a commit, as a whole or with one of its partitions.
pub(crate) fn failure(result: &CommitResult) -> Option<CommitError> {
    result.error.or_else(|| result.partitions.iter().find_map(|partition| partition.result.err()))
}

/// Somebody waits for records that will not go again.
fn tell_overtaken(link: &str, facts: &PartitionFacts, back: &GoBack) {
    let committed = facts.committed.as_ref().map(|(offset, _)| *offset);
    tracing::error!(
        link,
        topic = &*facts.topic,
        partition = facts.partition,
        wanted = back.read.end,
        committed,
        "partition does not go back: it has had another owner or life meanwhile, or its log ends before; it goes on from the group's offset. What is missing at the destination is named there: ddc replay"
    );
}

fn tell(link: &str, facts: &PartitionFacts, start: &Start) {
    let (topic, partition) = (&*facts.topic, facts.partition);
    let (offset, epoch) = (start.partition.next, start.partition.epoch.0);
    match start.note {
        None => tracing::info!(link, topic, partition, offset, epoch, "partition starts"),
        Some(StartNote::Rewound { deleted: None, .. }) => {
            tracing::warn!(
                link,
                topic,
                partition,
                offset,
                epoch,
                "partition goes back: it is sent again from here"
            );
        }
        Some(StartNote::Rewound { deleted: Some((first, last)), .. }) => {
            tracing::error!(
                link,
                topic,
                partition,
                offset,
                epoch,
                first_deleted = first,
                last_deleted = last,
                "partition goes back, not as far as it should: Kafka has deleted the records before (retention)"
            );
        }
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
        Some(StartNote::IdLearnt) => {
            tracing::warn!(
                link,
                topic,
                partition,
                offset,
                epoch,
                "partition starts: the brokers tell topic ids now, so the topic begins a new life at the committed offset"
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
