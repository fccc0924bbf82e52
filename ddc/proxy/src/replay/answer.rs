//! What the reading of a topic's ranges gives, and how it ends.

use std::time::{Duration, Instant};

use ddc_link::sender::{PackError, ReplaySlice};

use super::plan::PlanError;
use super::report::SentSlice;

/// Bytes of slices that are confirmed together. A read that brings more is confirmed by itself.
const CONFIRMED_TOGETHER: usize = 1 << 20;
/// Nothing waits longer for the others that it is confirmed with.
const HELD_AT_MOST: Duration = Duration::from_millis(250);

/// Why reading ends early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// Somebody cancelled it, or the process stops.
    #[error("it was ended before its end")]
    Asked,
    /// The packed slices must be read again; see the module `port`.
    #[error("blocks were lost before they were sent")]
    Lost,
    /// The brokers do not give what is needed.
    #[error("{0}")]
    Brokers(String),
    /// The request cannot be fulfilled.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// A slice that may be sent.
pub(super) struct Answer {
    /// Which range of the plan it answers for.
    pub(super) range: usize,
    /// The slice.
    pub(super) slice: ReplaySlice,
    /// What it holds.
    pub(super) sent: SentSlice,
}

/// Where in a plan: a range, and an offset of it.
pub(super) type At = (usize, i64);

/// How the reading of a topic's ranges ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// They were read to their ends.
    Whole,
    /// From here on nothing is confirmed: the topic is another one now.
    Recreated(At),
}

/// What the reading tells and asks while it goes on.
pub(super) trait Listener {
    /// To be looked at often; an error ends the reading.
    fn go_on(&mut self) -> Result<(), Stopped>;
    /// Takes slices, in the order of the plan; may wait.
    fn take(&mut self, answers: Vec<Answer>) -> Result<(), Stopped>;
    /// The log (as far as it can be read) ends at this offset, within the range or before it.
    fn cut(&mut self, range: usize, end: i64);
    /// A record cannot be carried.
    fn not_carried(&mut self, range: usize, offset: i64, error: &PackError);
}

/// Answers that wait for the brokers to say that the topic is still the same.
#[derive(Default)]
pub(super) struct Held {
    answers: Vec<Answer>,
    /// Of their blocks.
    bytes: usize,
    since: Option<Instant>,
}

impl Held {
    pub(super) fn push(&mut self, answer: Answer, now: Instant) {
        self.bytes += answer.slice.blocks.iter().map(|block| block.bytes.len()).sum::<usize>();
        self.since.get_or_insert(now);
        self.answers.push(answer);
    }

    /// Whether they should wait no longer.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let waited = self.since.is_some_and(|since| now.saturating_duration_since(since) >= HELD_AT_MOST);
        waited || self.bytes >= CONFIRMED_TOGETHER
    }

    /// Where the first one begins.
    pub(super) fn first(&self) -> Option<At> {
        self.answers.first().map(|answer| (answer.range, answer.slice.base))
    }

    pub(super) fn take(&mut self) -> Vec<Answer> {
        std::mem::take(self).answers
    }
}
