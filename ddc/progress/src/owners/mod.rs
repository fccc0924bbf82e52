//! Who may write: the takeover protocol of a group, for all partitions of one egress at once. A state machine without I/O.
//!
//! ```text
//!                                     ┌──────────── new epoch ─────────────┐
//!           chunk of a new epoch      ▼  committed     nothing to fence,   │
//!  unknown ──────────┬──────────▶ waiting ──────▶ claimed ────────────▶ write
//!     ▲              │                ▲            │  ▲ │  read since      │
//!     │  another owns it and is       │            │  └─┘ fence, read      │ fenced: the producer is built anew,
//!     │  behind: parked, takeover_timeout          │                       │ then as claimed
//!     │              └────────────────┘            ▼                       │
//!     └─────────────── a new epoch ────────────── lost ◀───────────────────┘ a claim of another link that is as great
//! ```
//!
//! Why each step (DESIGN section 5; `simulation` walks it at random and fails without any of them):
//! 1. *Claim*, in a transaction of its own, under a key of its own per link: whoever claims later reads it.
//! 2. *Fence* every link with a lower claim that was not fenced since that claim: its open transaction ends, and
//!    before it writes again it has to read, and finds our claim. What is known before reading is fenced before, so
//!    that the open transaction of an egress that stands still does not hold up the reading.
//! 3. *Read* to the end as it is after the claim and after the last fence: a claim that is as great or greater means
//!    that the partition is not ours; an unknown lower one is fenced, and it is read again; the progress found then
//!    is what is written from.
//!
//! The steps are shared: the claims of all partitions that wait go into one transaction, one fence per link and one
//! reading serve all. [`Owners::poll`] says the next action; there is one at a time, and it is answered with its ticket.

mod judge;
mod round;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ddc_link::receiver::PartitionKey;
use ddc_wire::Epoch;

use crate::name::LinkName;
use crate::record::{Kind, Progress, RecordKey, encode_claim};
use crate::table::{ProgressTable, Refusal};
use round::Round;

pub use judge::{Chain, Heading, Verdict};

/// Most claims in one transaction; further partitions wait for the next.
pub const MAX_CLAIMS: usize = 4096;
/// An action that failed is asked for again after so long.
pub const RETRY_AFTER: Duration = Duration::from_millis(200);

/// What an egress's owners are made with.
#[derive(Debug, Clone)]
pub struct OwnersConfig {
    /// The link of this egress.
    pub link: LinkName,
    /// How long a partition is left to the link that wrote it before, while that one is behind.
    pub takeover_timeout: Duration,
    /// Whether other links are fenced. Not with `at_least_once`: the idempotent producer cannot be fenced, and duplicates
    /// after a takeover are its price.
    pub fencing: bool,
}

/// See the module's text.
#[derive(Debug)]
pub struct Owners {
    config: OwnersConfig,
    /// Bounded by [`MAX_PARTITIONS`](ddc_link::receiver::MAX_PARTITIONS).
    partitions: HashMap<Arc<PartitionKey>, Partition>,
    parked: BTreeSet<Arc<PartitionKey>>,
    /// To be claimed in the next rounds.
    waiting: BTreeSet<Arc<PartitionKey>>,
    /// Claimed, and to be looked at anew since the producer was lost.
    recheck: Vec<Arc<PartitionKey>>,
    /// At most a few for each partition, as [`Self::poll`] fetches them before it does anything else.
    notices: VecDeque<Notice>,
    stage: Stage,
    /// The topic was read once.
    started: bool,
    /// The ticket of the action that is on its way.
    issued: Option<Ticket>,
    next_ticket: u64,
    not_before: Option<Instant>,
    /// The table's counts of changes when it was looked at last.
    seen: (u64, u64),
}

#[derive(Debug)]
enum Stage {
    /// The producer has to be built, or built anew.
    Rebuild,
    /// The last stage of a start: nothing is judged before the topic is read.
    FirstRead,
    Idle,
    Round(Round),
}

#[derive(Debug)]
struct Partition {
    state: State,
    /// The greatest epoch claimed by this producer or a former one of this life.
    claimed: Option<Epoch>,
    /// What is to be claimed: at least the epoch of the chunk that waits.
    target: Epoch,
    /// Links fenced in favour of this partition, after its claim, and the claims that were known of them then.
    fenced: BTreeMap<LinkName, Epoch>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Left to its former owner for a while.
    Parked { until: Instant, epoch: Epoch, previous: Option<i64> },
    /// To be claimed.
    Waiting,
    /// Claimed; others are to be fenced and the topic to be read.
    Claimed,
    /// It may be written as soon as the caller has fetched [`Notice::MayWrite`].
    Ready,
    /// It is this egress's to write.
    Write,
    /// Another link's.
    Lost,
    /// What the topic says of it cannot be used.
    Refused,
}

/// Names an action in its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// What the caller has to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Close the producer, if there is one, and make one with this link's `transactional.id`; `init_transactions`.
    /// [`WorkingCopy::clear`](crate::WorkingCopy::clear) is due as well: the open transaction is void.
    Rebuild(Ticket),
    /// Produce these claims in one transaction that holds nothing else, and commit it.
    CommitClaims(Ticket, Vec<ClaimToCommit>),
    /// Take the topic's high watermark now, read with read_committed until the consumer's position has reached it, and
    /// apply everything to the table. The watermark is that of a read_uncommitted client: the last stable offset, which a
    /// read_committed one is told, can lie before claims that are committed.
    ReadToEnd(Ticket),
    /// `init_transactions` on the `transactional.id` of this link, with a producer that is thrown away.
    Fence(Ticket, LinkName),
    /// Not to be answered; see there.
    Notice(Notice),
}

/// A fact that has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The topic is read: chunks can be judged.
    Started,
    /// The partition is this egress's to write, from here on: give it to [`WorkingCopy::restore`](crate::WorkingCopy::restore),
    /// then judge the chunks held of it again, in their order.
    MayWrite {
        /// The partition.
        key: Arc<PartitionKey>,
        /// How far it is settled; `None`: nobody has written it yet.
        progress: Option<Progress>,
    },
    /// The partition is another link's now; [`WorkingCopy::forget`](crate::WorkingCopy::forget) it. Chunks of a later
    /// epoch that are held are to be judged again.
    Lost {
        /// The partition.
        key: Arc<PartitionKey>,
        /// Who has it.
        to: LinkName,
        /// Under which epoch.
        epoch: Epoch,
    },
    /// The partition cannot be written until somebody mends the topic; to be forgotten as well.
    Refused {
        /// The partition.
        key: Arc<PartitionKey>,
        /// Why, and what to do.
        why: Refusal,
    },
}

impl Notice {
    /// The partition it is about, if it is about one.
    pub fn key(&self) -> Option<&Arc<PartitionKey>> {
        match self {
            Self::Started => None,
            Self::MayWrite { key, .. } | Self::Lost { key, .. } | Self::Refused { key, .. } => Some(key),
        }
    }
}

/// A claim that is to be produced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimToCommit {
    /// The partition.
    pub key: Arc<PartitionKey>,
    /// The epoch claimed.
    pub epoch: Epoch,
}

/// What came of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// It is certainly not done (an aborted transaction, a destination that is away): it is asked for again.
    Failed,
    /// The producer was fenced, or whether its transaction is committed is not known.
    LostProducer,
}

impl Owners {
    /// Owns nothing; its first action is to build the producer, its second to read the topic.
    pub fn new(config: OwnersConfig) -> Self {
        Self {
            config,
            partitions: HashMap::new(),
            parked: BTreeSet::new(),
            waiting: BTreeSet::new(),
            recheck: Vec::new(),
            notices: VecDeque::new(),
            stage: Stage::Rebuild,
            started: false,
            issued: None,
            next_ticket: 0,
            not_before: None,
            seen: (0, 0),
        }
    }

    /// What to do next; `None`: nothing, until a chunk is judged, an answer comes, the table changes, or
    /// [`Self::next_deadline`] is reached.
    ///
    /// To be called between transactions of records only: an action may need the producer, and a partition
    /// may change hands. While an action is on its way records of other partitions can be written.
    pub fn poll(&mut self, table: &ProgressTable, now: Instant) -> Option<Action> {
        self.look(table, now);
        if let Some(notice) = self.next_notice(table) {
            return Some(Action::Notice(notice));
        }
        if self.issued.is_some() || self.not_before.is_some_and(|time| now < time) {
            return None;
        }
        match self.stage {
            Stage::Rebuild => Some(Action::Rebuild(self.issue())),
            Stage::FirstRead => Some(Action::ReadToEnd(self.issue())),
            Stage::Idle | Stage::Round(_) => {
                let action = self.proceed(table);
                // A round that is over, or that lost a partition, has left notices.
                action.or_else(|| self.next_notice(table).map(Action::Notice))
            }
        }
    }

    /// What came of an action. The answer to one that is no longer asked for is passed over.
    pub fn answer(&mut self, ticket: Ticket, outcome: Outcome, now: Instant) {
        if self.issued != Some(ticket) {
            return;
        }
        self.issued = None;
        match outcome {
            Outcome::LostProducer => self.lost_producer(),
            Outcome::Failed => self.not_before = Some(now + RETRY_AFTER),
            Outcome::Done => {
                self.not_before = None;
                self.done();
            }
        }
    }

    /// A transaction of records was fenced, or whether it is committed is not known: the producer is built anew, and
    /// whether the partitions are still this egress's, and how far they are settled, is read anew.
    /// [`WorkingCopy::clear`](crate::WorkingCopy::clear) goes with it.
    pub fn lost_producer(&mut self) {
        self.recheck.clear();
        for (key, partition) in &mut self.partitions {
            match partition.state {
                State::Ready | State::Write | State::Claimed => {
                    partition.state = State::Claimed;
                    self.recheck.push(Arc::clone(key));
                }
                // It may have been taken out for a round.
                State::Waiting => drop(self.waiting.insert(Arc::clone(key))),
                State::Parked { .. } | State::Lost | State::Refused => {}
            }
        }
        // In their order, so that the same history has the same steps.
        self.recheck.sort_unstable();
        self.issued = None;
        self.stage = Stage::Rebuild;
    }

    /// When [`Self::poll`] is due although nothing happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        let until = |key: &Arc<PartitionKey>| match self.partitions.get(key)?.state {
            State::Parked { until, .. } => Some(until),
            _ => None,
        };
        let retry = self.not_before.filter(|_| self.issued.is_none());
        self.parked.iter().filter_map(until).chain(retry).min()
    }

    /// The record of a claim as it stands in the topic: key and value.
    pub fn encode(&self, table: &ProgressTable, claim: &ClaimToCommit) -> (Vec<u8>, Vec<u8>) {
        let kind = Kind::Claim(self.config.link.clone());
        let key = RecordKey { set: table.set().clone(), partition: (*claim.key).clone(), kind };
        (key.encode(), encode_claim(claim.epoch))
    }

    /// Whether the partition is this egress's to write.
    pub fn may_write(&self, key: &PartitionKey) -> bool {
        self.partitions.get(key).is_some_and(|partition| partition.state == State::Write)
    }

    /// Partitions known, in any state.
    pub fn len(&self) -> usize {
        self.partitions.len()
    }

    /// Whether no partition is known.
    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    fn issue(&mut self) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.issued = Some(ticket);
        ticket
    }

    /// The next notice that still holds. What says that a partition may be written makes it so.
    fn next_notice(&mut self, table: &ProgressTable) -> Option<Notice> {
        while let Some(notice) = self.notices.pop_front() {
            let Notice::MayWrite { key, .. } = notice else { return Some(notice) };
            let ready = self.partitions.get_mut(&key).filter(|known| known.state == State::Ready);
            let Some(partition) = ready else { continue };
            partition.state = State::Write;
            let progress = table.progress(&key).cloned();
            return Some(Notice::MayWrite { key, progress });
        }
        None
    }
}
