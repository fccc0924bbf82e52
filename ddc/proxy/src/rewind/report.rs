//! How far a rewind is, for whoever asked for it: `GET /v1/rewind`, `ddc rewind`, the log.

use serde::{Deserialize, Serialize};

use crate::source::history::Reach;

/// What a rewind does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The source's thread has not seen it yet.
    Asked,
    /// Partitions wait for the acknowledgement of their start commit.
    Going,
    /// All have gone back, or stay for a reason that is told.
    Done,
    /// Nothing was done; `problem` says why.
    Failed,
}

impl State {
    /// The name in answers and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Going => "going",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

/// What became of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartitionState {
    /// Nothing of it was sent since: it goes on.
    Unchanged,
    /// A dry run: it would go back.
    Would,
    /// It waits for the acknowledgement of its start commit.
    Going,
    /// Its records are sent again from `to` on.
    Done,
    /// The group gave it to another member before it was read again. That one begins at the group's offset.
    Taken,
    /// It began elsewhere than at `to`: the topic is another one, was truncated, or has had another owner meanwhile.
    Elsewhere,
    /// A pause: the group has the offset `to`; whoever reads the partition next begins there.
    Committed,
    /// A pause: the group did not take the offset `to`; it is kept in the state directory for the resumption.
    Kept,
}

/// A rewind as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its id.
    pub id: String,
    /// Who asked for it.
    pub by: String,
    /// Since when, as it was asked.
    pub since: String,
    /// Nothing is done, only told.
    pub dry_run: bool,
    /// What it does.
    pub state: State,
    /// Why it failed.
    pub problem: Option<String>,
    /// When it was asked for, in s since 1970.
    pub started_timestamp_seconds: u64,
    /// Records that go again, of all partitions.
    pub records: u64,
    /// Partition by partition.
    pub partitions: Vec<PartitionReport>,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionReport {
    /// The topic at the source.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset behind what was sent.
    pub from: i64,
    /// The offset that is sent next.
    pub to: i64,
    /// Records between both.
    pub records: u64,
    /// Whether it is as far back as was asked for.
    pub reached: Reach,
    /// How long ago `to` was the next offset, in seconds.
    pub seconds: u64,
    /// What became of it.
    pub state: PartitionState,
    /// First and last offset of what the broker has deleted meanwhile and cannot be sent again.
    pub deleted: Option<(i64, i64)>,
}

impl Report {
    pub(crate) fn asked(id: &str, by: &str, since: &str, dry_run: bool, now_seconds: u64) -> Self {
        Self {
            id: id.to_owned(),
            by: by.to_owned(),
            since: since.to_owned(),
            dry_run,
            state: State::Asked,
            problem: None,
            started_timestamp_seconds: now_seconds,
            records: 0,
            partitions: Vec::new(),
        }
    }

    /// Nothing is done.
    pub(crate) fn fail(&mut self, problem: String) {
        (self.state, self.problem) = (State::Failed, Some(problem));
    }

    /// What the source has decided.
    pub(crate) fn decided(&mut self, mut partitions: Vec<PartitionReport>) {
        partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        self.records = partitions.iter().map(|partition| partition.records).sum();
        self.partitions = partitions;
        self.state = State::Going;
        self.settle();
    }

    /// What became of a partition that was going back. [`Self::settle`] follows.
    pub(crate) fn became(
        &mut self,
        topic: &str,
        partition: i32,
        state: PartitionState,
        deleted: Option<(i64, i64)>,
    ) {
        let by = |one: &PartitionReport| (one.topic.as_str(), one.partition).cmp(&(topic, partition));
        if let Ok(at) = self.partitions.binary_search_by(by) {
            (self.partitions[at].state, self.partitions[at].deleted) = (state, deleted);
        }
    }

    /// Whether that was the last one; to be called after [`Self::became`].
    pub(crate) fn settle(&mut self) {
        if self.partitions.iter().all(|one| one.state != PartitionState::Going) {
            self.state = State::Done;
        }
    }

    /// Without the partitions.
    pub(super) fn summary(&self) -> serde_json::Value {
        let short = self.partitions.iter().filter(|one| one.reached != Reach::Time).count();
        serde_json::json!({
            "id": self.id,
            "by": self.by,
            "since": self.since,
            "dry_run": self.dry_run,
            "state": self.state.as_str(),
            "problem": self.problem,
            "started_timestamp_seconds": self.started_timestamp_seconds,
            "records": self.records,
            "partitions": self.partitions.len(),
            "partitions_not_so_far": short,
        })
    }
}
