//! What is missing at the destination, as people and files name it.
//!
//! A [`Gap`] is a range of one source partition that was sent and did not arrive; it says which of its offsets are
//! still missing. A [`GapFile`] carries gaps from the destination to the source, where `ddc replay` reads it.
//!
//! | module | what it is for                                             |
//! |--------|------------------------------------------------------------|
//! | `file` | [`GapFile`]: written, and read strictly, as JSON           |
//! | `csv`  | the same as CSV                                            |
//! | `id`   | [`GapId`]: the stable name of a gap                        |
//! | `time` | [`Timestamp`]: a moment as RFC 3339                        |
//!
//! Nothing here decides what is missing: that is `ddc_link::receiver::gaps`.

mod csv;
mod file;
mod id;
#[cfg(test)]
mod tests;
mod text;
mod time;

use ddc_link::receiver::{MAX_HOLES, OffsetRange, PartitionKey};
use ddc_telemetry::reasons::MissingReason;
use ddc_wire::{Session, TopicId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use file::{FORMAT, GapFile, GapFileError, KIND, MAX_FILE_BYTES, MAX_GAPS};
pub use id::GapId;
pub use time::Timestamp;

/// Ranges of one gap that are still missing, and as many that were given up: as many as the egress remembers holes.
pub const MAX_RANGES: usize = MAX_HOLES;
/// Longest name of a stream or topic, in bytes: Kafka's limit.
pub const MAX_NAME_BYTES: usize = 249;

/// Offsets `first..=last` of one source partition that were sent and were not at the destination when it was found.
///
/// Its [`id`](Self::id) never changes, also when parts of it arrive: those only leave [`open`](Self::open).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gap {
    /// The stable name: the same range of the same partition of the same link always has the same.
    pub id: GapId,
    /// The ingress's session by which it was found out, if it is known.
    #[serde(with = "text::optional")]
    pub session: Option<Session>,
    /// The source's stream; empty when there is only one.
    pub stream: String,
    /// The topic at the source.
    pub topic: String,
    /// Which life of the topic.
    #[serde(with = "text")]
    pub topic_id: TopicId,
    /// The partition at the source.
    pub partition: i32,
    /// First offset that was missing.
    pub first: i64,
    /// Last offset that was missing, included.
    pub last: i64,
    /// Records among these offsets when it was found; `None` when it cannot be known.
    #[serde(deserialize_with = "text::nullable")]
    pub records: Option<u64>,
    /// Why they are missing.
    #[serde(with = "text::label")]
    pub reason: MissingReason,
    /// When it was found.
    pub found_at: Timestamp,
    /// What has become of it; agrees with the two lists.
    pub state: GapState,
    /// When the last of it was closed or given up; `None` exactly while it is open.
    #[serde(deserialize_with = "text::nullable")]
    pub closed_at: Option<Timestamp>,
    /// What is still missing and is taken when it comes: ascending, apart, within the gap; at most [`MAX_RANGES`].
    #[serde(with = "text::ranges")]
    pub open: Vec<OffsetRange>,
    /// What is missing and is no longer taken, for the egress remembers [`MAX_HOLES`] holes a partition: as `open`,
    /// and apart from it.
    #[serde(with = "text::ranges")]
    pub given_up: Vec<OffsetRange>,
}

/// What has become of a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapState {
    /// Something of it is missing, and is taken when it comes.
    Open,
    /// Nothing of it is missing.
    Closed,
    /// Something of it is missing, and nothing of it would be taken any more.
    GivenUp,
}

impl GapState {
    /// The state's name in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::GivenUp => "given_up",
        }
    }

    /// The state of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Open, Self::Closed, Self::GivenUp].into_iter().find(|state| state.as_str() == name)
    }
}

impl Gap {
    /// A gap that was just found: all of it is open. `link` is the link's name.
    pub fn found(
        link: &str,
        key: &PartitionKey,
        range: OffsetRange,
        records: Option<u64>,
        reason: MissingReason,
        session: Option<Session>,
        now: Timestamp,
    ) -> Self {
        let OffsetRange { first, last } = range;
        Self {
            id: GapId::of(link, key, range),
            session,
            stream: key.stream.clone(),
            topic: key.topic.clone(),
            topic_id: key.topic_id,
            partition: key.partition,
            first,
            last,
            records,
            reason,
            found_at: now,
            state: GapState::Open,
            closed_at: None,
            open: vec![range],
            given_up: Vec::new(),
        }
    }

    /// Whose offsets.
    pub fn key(&self) -> PartitionKey {
        PartitionKey {
            stream: self.stream.clone(),
            topic: self.topic.clone(),
            topic_id: self.topic_id,
            partition: self.partition,
        }
    }

    /// All of it.
    pub fn range(&self) -> OffsetRange {
        OffsetRange { first: self.first, last: self.last }
    }

    /// How many offsets of it are open.
    pub fn open_offsets(&self) -> u64 {
        self.open.iter().map(|range| range.offsets()).sum()
    }

    /// Whether it is free of contradictions and belongs to the link of this name.
    pub fn check(&self, link: &str) -> Result<(), GapProblem> {
        self.check_names()?;
        if self.partition < 0 || self.first < 0 {
            return Err(GapProblem::Negative);
        }
        if self.first > self.last {
            return Err(GapProblem::Reversed { first: self.first, last: self.last });
        }
        if self.last == i64::MAX {
            return Err(GapProblem::Range);
        }
        if self.records.is_some_and(|records| records > self.range().offsets()) {
            return Err(GapProblem::Records);
        }
        self.check_ranges("open", &self.open)?;
        self.check_ranges("given_up", &self.given_up)?;
        let crossed = |range: &OffsetRange| {
            self.open.iter().any(|open| open.first <= range.last && range.first <= open.last)
        };
        if self.given_up.iter().any(crossed) {
            return Err(GapProblem::Ranges { field: "given_up", why: "overlaps `open`" });
        }
        let state = match (self.open.is_empty(), self.given_up.is_empty()) {
            (false, _) => GapState::Open,
            (true, false) => GapState::GivenUp,
            (true, true) => GapState::Closed,
        };
        if self.state != state {
            return Err(GapProblem::State { says: self.state.as_str(), is: state.as_str() });
        }
        if (state == GapState::Open) == self.closed_at.is_some() {
            return Err(GapProblem::ClosedAt);
        }
        let right = GapId::of(link, &self.key(), self.range());
        if self.id != right {
            return Err(GapProblem::Id { right });
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), GapProblem> {
        if !self.stream.is_empty() && !is_name(&self.stream) {
            return Err(GapProblem::Name { field: "stream" });
        }
        if !is_name(&self.topic) {
            return Err(GapProblem::Name { field: "topic" });
        }
        Ok(())
    }

    fn check_ranges(&self, field: &'static str, ranges: &[OffsetRange]) -> Result<(), GapProblem> {
        let wrong = |why| Err(GapProblem::Ranges { field, why });
        if ranges.len() > MAX_RANGES {
            return wrong("has more than 1024 ranges");
        }
        if ranges.iter().any(|range| range.first > range.last) {
            return wrong("has a range whose end lies before its start");
        }
        if ranges.iter().any(|range| range.first < self.first || range.last > self.last) {
            return wrong("has a range outside of first to last");
        }
        // Inclusive ends that touch are one range; below i64::MAX, as `last` is.
        if !ranges.windows(2).all(|pair| pair[0].last + 1 < pair[1].first) {
            return wrong("has ranges that overlap, touch or do not ascend");
        }
        Ok(())
    }
}

/// Whether a stream or topic can be called so in a gap: Kafka's rule for topics.
pub(crate) fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(allowed) && !matches!(text, "." | "..")
}

/// Why a gap contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GapProblem {
    /// A name that no stream and no topic can have.
    #[error("`{field}` is no name: 1 to 249 of a-z, A-Z, 0-9, . _ and -")]
    Name {
        /// Which.
        field: &'static str,
    },
    /// Below zero.
    #[error("`partition` or `first` is negative; both count from 0")]
    Negative,
    /// The end lies before the start.
    #[error("reversed: `first` is {first} and `last` is {last}; `first` must not be greater")]
    Reversed {
        /// `first`.
        first: i64,
        /// `last`.
        last: i64,
    },
    /// Kafka has no such offset.
    #[error("`last` is the greatest number there is, which is no offset")]
    Range,
    /// More records than offsets.
    #[error("`records` is more than there are offsets from `first` to `last`")]
    Records,
    /// A list of ranges that cannot be.
    #[error("`{field}` {why}")]
    Ranges {
        /// Which list.
        field: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The state does not follow from the lists.
    #[error("`state` says \"{says}\"; by `open` and `given_up` it is \"{is}\"")]
    State {
        /// What is written.
        says: &'static str,
        /// What follows from the lists.
        is: &'static str,
    },
    /// Open with an end, or the other way round.
    #[error("`closed_at` must be there exactly when the state is not \"open\"")]
    ClosedAt,
    /// Another range's name.
    #[error(
        "`id` does not belong to this range of this link: it would be {right}; use the file as `ddc gaps export` wrote it"
    )]
    Id {
        /// The name it should have.
        right: GapId,
    },
}
