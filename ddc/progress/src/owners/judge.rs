//! A chunk comes: may it be written, and if not, what begins?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use ddc_link::receiver::{MAX_PARTITIONS, PartitionKey};
use ddc_wire::{ChunkHeader, ChunkKind, Epoch, LedgerEntry, Session};

use super::{Notice, Owners, Partition, State};
use crate::name::LinkName;
use crate::table::{ProgressTable, Refusal, Rival};

/// What is known of the chain of a partition: who wrote it last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The link.
    pub owner: LinkName,
    /// The epoch of the last chunk written.
    pub epoch: Epoch,
    /// The session that brought it.
    pub session: Session,
}

/// What decides about a chunk or a ledger entry as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heading {
    /// Part of the chain, or a replay.
    pub kind: ChunkKind,
    /// Under which it was read.
    pub epoch: Epoch,
    /// Last offset sent before.
    pub previous: Option<i64>,
    /// The session that brought it.
    pub session: Session,
}

impl Heading {
    /// Of a chunk.
    pub fn of_chunk(header: &ChunkHeader<'_>, session: Session) -> Self {
        Self { kind: header.kind, epoch: header.epoch, previous: header.previous, session }
    }

    /// Of a ledger entry.
    pub fn of_ledger(entry: &LedgerEntry<'_>, session: Session) -> Self {
        Self { kind: ChunkKind::Live, epoch: entry.epoch, previous: entry.last, session }
    }
}

/// What to do with a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Judge its records by the working copy, write them.
    Write {
        /// It may only fill holes: a replay, or live records of an epoch that is over. What it has beyond the chain is held.
        holes_only: bool,
        /// Its epoch is lower than the one before, but of a newer session of this link, the owner: was the ingress's
        /// clock or state set back? A warning is due.
        set_back: bool,
    },
    /// Hold it: the steps towards ownership are on their way.
    Wait,
    /// Hold it until then: the former owner is given time to write what it has.
    Parked {
        /// [`Owners::poll`] goes on at this time, or when the former owner has caught up.
        until: Instant,
    },
    /// Hold it: it is settled when the owner's progress says so, or once acknowledged in the heal topic.
    NotOwner {
        /// Whose the partition is; `None` when no link is known to have it.
        owner: Option<LinkName>,
        /// Under which epoch it is so.
        epoch: Option<Epoch>,
        /// This link never had the partition under this epoch, and yet another has a greater one: epochs do not rise.
        /// An alarm is due, as nothing is written until they do.
        alarm: bool,
    },
    /// Hold it: what the topic says of the partition cannot be used.
    Refused(Refusal),
}

impl Owners {
    /// Judges a chunk or a ledger entry as a whole. `chain` is [`WorkingCopy::chain`](crate::WorkingCopy::chain) of
    /// its partition. What is held is to be judged again, in the partition's order, after each notice of the partition;
    /// at any other time it may be.
    pub fn judge(
        &mut self,
        table: &ProgressTable,
        chain: Option<&Chain>,
        key: &PartitionKey,
        heading: &Heading,
        now: Instant,
    ) -> Verdict {
        if !self.started {
            return Verdict::Wait;
        }
        let known = self.partitions.get(key).map(|partition| (&partition.state, partition.claimed));
        match (known, heading.kind) {
            (Some((State::Write, _)), ChunkKind::Replay) => {
                Verdict::Write { holes_only: true, set_back: false }
            }
            (Some((State::Write, claimed)), ChunkKind::Live) if claimed >= Some(heading.epoch) => {
                self.judge_chain(chain, heading)
            }
            (Some((State::Waiting | State::Claimed | State::Ready, _)), _) => Verdict::Wait,
            (Some((State::Parked { until, epoch, .. }, _)), ChunkKind::Live) if heading.epoch <= *epoch => {
                Verdict::Parked { until: *until }
            }
            (_, ChunkKind::Live) => self.begin(table, key, heading.epoch, heading.previous, now),
            (_, ChunkKind::Replay) => self.begin_for_replay(table, key, now),
        }
    }

    /// The partition is ours: is the chunk part of its chain?
    fn judge_chain(&self, chain: Option<&Chain>, heading: &Heading) -> Verdict {
        let (mut holes_only, mut set_back) = (false, false);
        if let Some(chain) = chain {
            let own = chain.owner == self.config.link;
            if heading.epoch < chain.epoch {
                set_back = own && heading.session > chain.session;
                holes_only = !set_back;
            } else if heading.epoch == chain.epoch {
                // Two links with one epoch: this one's claim is greater, so only what follows it is the chain's.
                holes_only = !own;
            }
        }
        Verdict::Write { holes_only, set_back }
    }

    /// The first step towards ownership under an epoch.
    fn begin(
        &mut self,
        table: &ProgressTable,
        key: &PartitionKey,
        epoch: Epoch,
        previous: Option<i64>,
        now: Instant,
    ) -> Verdict {
        if !self.partitions.contains_key(key) && !self.make_room() {
            return Verdict::Refused(Refusal::TableFull);
        }
        let own_claim = table.claim(key, &self.config.link);
        let entry = self.partitions.entry(Arc::new(key.clone()));
        let key = Arc::clone(entry.key());
        let partition = entry.or_insert_with(|| Partition {
            state: State::Lost,
            claimed: None,
            target: epoch,
            fenced: BTreeMap::new(),
        });
        // A claim never falls: the link has been the owner under the greater one.
        partition.target = epoch.max(own_claim.unwrap_or(epoch)).max(partition.claimed.unwrap_or(epoch));
        let had_it = partition.state == State::Write;
        let (state, verdict) = match standing(table, &self.config.link, &key, partition.target) {
            Standing::Refused(why) => {
                if had_it {
                    self.notices.push_back(Notice::Refused { key: Arc::clone(&key), why: why.clone() });
                }
                (State::Refused, Verdict::Refused(why))
            }
            Standing::Outranked(Rival { link, epoch: greater }) => {
                if had_it {
                    let (key, to) = (Arc::clone(&key), link.clone());
                    self.notices.push_back(Notice::Lost { key, to, epoch: greater });
                }
                let alarm = own_claim.is_none_or(|claim| claim < epoch);
                (State::Lost, Verdict::NotOwner { owner: Some(link), epoch: Some(greater), alarm })
            }
            Standing::Free => match self.config.takeover_timeout {
                timeout if !timeout.is_zero() && is_behind(table, &self.config.link, &key, previous) => {
                    let until = now + timeout;
                    (State::Parked { until, epoch, previous }, Verdict::Parked { until })
                }
                _ => (State::Waiting, Verdict::Wait),
            },
        };
        self.parked.remove(&key);
        match state {
            State::Parked { .. } => drop(self.parked.insert(key)),
            State::Waiting => drop(self.waiting.insert(key)),
            _ => {}
        }
        partition.state = state;
        verdict
    }

    /// A replay makes nobody an owner, but who has been it goes on.
    fn begin_for_replay(&mut self, table: &ProgressTable, key: &PartitionKey, now: Instant) -> Verdict {
        let progress = table.progress(key);
        match progress {
            Some(progress) if progress.owner == self.config.link => {
                self.begin(table, key, progress.position.epoch(), None, now)
            }
            _ => Verdict::NotOwner {
                owner: progress.map(|progress| progress.owner.clone()),
                epoch: progress.map(|progress| progress.position.epoch()),
                alarm: false,
            },
        }
    }

    /// Partitions that are not ours are forgotten when there are too many: they are judged anew when they come again.
    fn make_room(&mut self) -> bool {
        if self.partitions.len() >= MAX_PARTITIONS {
            self.partitions.retain(|_, known| !matches!(known.state, State::Lost | State::Refused));
        }
        self.partitions.len() < MAX_PARTITIONS
    }

    /// What the table says of partitions that are parked or written, since it was asked last.
    pub(super) fn look(&mut self, table: &ProgressTable, now: Instant) {
        let (changes, alerts) = (table.changes(), table.alerts());
        let due = |state: &State| matches!(state, State::Parked { until, .. } if *until <= now);
        let parked = self.parked.iter().filter(|key| {
            changes != self.seen.0 || self.partitions.get(*key).is_none_or(|known| due(&known.state))
        });
        for key in parked.cloned().collect::<Vec<_>>() {
            self.look_at_parked(table, &key, now);
        }
        if alerts != self.seen.1 {
            self.look_at_owned(table);
        }
        self.seen = (changes, alerts);
    }

    fn look_at_owned(&mut self, table: &ProgressTable) {
        let known = self.notices.len();
        for (key, partition) in &mut self.partitions {
            let (State::Write | State::Ready, Some(claimed)) = (&partition.state, partition.claimed) else {
                continue;
            };
            let key = Arc::clone(key);
            match standing(table, &self.config.link, &key, claimed) {
                Standing::Free => {}
                Standing::Outranked(Rival { link: to, epoch }) => {
                    partition.state = State::Lost;
                    self.notices.push_back(Notice::Lost { key, to, epoch });
                }
                Standing::Refused(why) => {
                    partition.state = State::Refused;
                    self.notices.push_back(Notice::Refused { key, why });
                }
            }
        }
        // In the order of the partitions, so that the same history has the same steps.
        self.notices.make_contiguous()[known..].sort_unstable_by(|one, other| one.key().cmp(&other.key()));
    }

    fn look_at_parked(&mut self, table: &ProgressTable, key: &Arc<PartitionKey>, now: Instant) {
        let Some(partition) = self.partitions.get_mut(key) else { return };
        let State::Parked { until, previous, .. } = partition.state else { return };
        match standing(table, &self.config.link, key, partition.target) {
            Standing::Refused(why) => {
                partition.state = State::Refused;
                self.notices.push_back(Notice::Refused { key: Arc::clone(key), why });
            }
            Standing::Outranked(Rival { link: to, epoch }) => {
                partition.state = State::Lost;
                self.notices.push_back(Notice::Lost { key: Arc::clone(key), to, epoch });
            }
            Standing::Free if until <= now || !is_behind(table, &self.config.link, key, previous) => {
                partition.state = State::Waiting;
                self.waiting.insert(Arc::clone(key));
            }
            Standing::Free => return,
        }
        self.parked.remove(key);
    }
}

/// How a claim stands by what is known.
pub(super) enum Standing {
    /// No other link's is as great.
    Free,
    /// Another link's is as great or greater. Two of one epoch exclude each other: nobody writes twice.
    Outranked(Rival),
    /// What is known cannot be used.
    Refused(Refusal),
}

pub(super) fn standing(table: &ProgressTable, link: &LinkName, key: &PartitionKey, claim: Epoch) -> Standing {
    if let Err(why) = table.usable(key) {
        return Standing::Refused(why);
    }
    match table.rival(key, link) {
        Some(rival) if rival.epoch >= claim => Standing::Outranked(rival),
        _ => Standing::Free,
    }
}

/// Whether another link wrote the partition last, and has not yet written all that was sent before this chunk.
fn is_behind(table: &ProgressTable, link: &LinkName, key: &PartitionKey, previous: Option<i64>) -> bool {
    let other = table.progress(key).filter(|progress| progress.owner != *link);
    other.zip(previous).is_some_and(|(progress, previous)| progress.position.next() <= previous)
}
