//! Where the partitions that this egress owns stand, ahead of the topic by one transaction at most.
//!
//! ```text
//!  may write ─ restore ─▶ enter, ledger, refuse … ─▶ changes ─▶ produced ─▶ committed ─┐
//!                              ▲                                  └▶ aborted ─┐        │
//!                              └──── as before the transaction ◀──────────────┘ ◀──────┘
//!                                    fenced ─▶ clear: all of it is read anew
//! ```
//!
//! Records are judged by it ([`Positions`]); what they change is produced in their own transaction. Before the first
//! change of a partition in a transaction its position is put aside, so that an abort can take it back.

use std::collections::HashMap;
use std::sync::Arc;

use ddc_link::receiver::{
    LedgerVerdict, Missing, MissingReason, OffsetRange, PartitionKey, Position, Positions, Visit,
};
use ddc_wire::{ChunkHeader, ChunkKind, LedgerEntry, Session};

use crate::name::{LinkName, SetName};
use crate::owners::Chain;
use crate::record::{Kind, Progress, RecordKey};

/// See the module's text. As many partitions as [`Owners`](crate::Owners) has given to write.
#[derive(Debug)]
pub struct WorkingCopy {
    set: SetName,
    link: LinkName,
    positions: Positions,
    /// The partitions owned, and who wrote the chain last; `None` before its first chunk.
    chains: HashMap<Arc<PartitionKey>, Option<Chain>>,
    /// How the partitions touched in this transaction stood before it.
    before: HashMap<Arc<PartitionKey>, Before>,
}

#[derive(Debug)]
struct Before {
    position: Option<Position>,
    chain: Option<Chain>,
}

impl WorkingCopy {
    /// Owns nothing.
    pub fn new(set: SetName, link: LinkName) -> Self {
        let positions = Positions::default();
        Self { set, link, positions, chains: HashMap::new(), before: HashMap::new() }
    }

    /// The partition may be written from here: what [`Notice::MayWrite`](crate::Notice::MayWrite) said.
    pub fn restore(&mut self, key: &Arc<PartitionKey>, progress: Option<&Progress>) {
        self.before.remove(key);
        let chain = progress.map(|progress| Chain {
            owner: progress.owner.clone(),
            epoch: progress.position.epoch(),
            session: progress.session,
        });
        self.chains.insert(Arc::clone(key), chain);
        match progress {
            // Nobody makes way: the partitions owned are no more than the table holds.
            Some(progress) => drop(self.positions.restore(key, progress.position.clone())),
            None => drop(self.positions.remove(key)),
        }
    }

    /// Who wrote the chain of a partition last, for [`Owners::judge`](crate::Owners::judge).
    pub fn chain(&self, key: &PartitionKey) -> Option<&Chain> {
        self.chains.get(key)?.as_ref()
    }

    /// Where a partition stands.
    pub fn position(&self, key: &PartitionKey) -> Option<&Position> {
        self.positions.get(key)
    }

    /// Whether a chunk would be written behind a gap; see [`Positions::leaves_gap`].
    pub fn leaves_gap(&self, key: &PartitionKey, header: &ChunkHeader<'_>) -> bool {
        self.positions.leaves_gap(key, header)
    }

    /// Whether a ledger entry tells of a gap; see [`Positions::ledger_leaves_gap`].
    pub fn ledger_leaves_gap(&self, key: &PartitionKey, entry: &LedgerEntry<'_>) -> bool {
        self.positions.ledger_leaves_gap(key, entry)
    }

    /// Where the partitions owned stood when the last transaction was committed, as the topic has it.
    pub fn settled(&self) -> impl Iterator<Item = (&Arc<PartitionKey>, Progress)> {
        self.chains.iter().filter_map(|(key, chain)| {
            let (position, chain) = match self.before.get(key) {
                Some(before) => (before.position.as_ref()?, before.chain.as_ref()?),
                None => (self.positions.get(key)?, chain.as_ref()?),
            };
            Some((key, progress(position, chain)))
        })
    }

    /// Begins with a chunk that [`Verdict::Write`](crate::Verdict::Write) allows; `holes_only` as said there.
    ///
    /// `None`: the partition is not this egress's to write, and nothing has changed.
    pub fn enter(
        &mut self,
        key: &PartitionKey,
        header: &ChunkHeader<'_>,
        record_count: u32,
        session: Session,
        holes_only: bool,
    ) -> Option<Visit<'_>> {
        let owner = self.link.clone();
        let chain = self.touch(key)?;
        if holes_only {
            // As a replay it stands outside of the chain: it closes holes and moves nothing.
            return Some(
                self.positions.enter(&ChunkHeader { kind: ChunkKind::Replay, ..*header }, record_count),
            );
        }
        if header.kind == ChunkKind::Live {
            *chain = Some(Chain { owner, epoch: header.epoch, session });
        }
        Some(self.positions.enter(header, record_count))
    }

    /// Judges a ledger entry that [`Verdict::Write`](crate::Verdict::Write) allows, not for holes only. `None` as in [`Self::enter`].
    pub fn ledger(
        &mut self,
        key: &PartitionKey,
        entry: &LedgerEntry<'_>,
        session: Session,
    ) -> Option<LedgerVerdict> {
        let owner = self.link.clone();
        let chain = self.touch(key)?;
        if entry.last.is_some() {
            *chain = Some(Chain { owner, epoch: entry.epoch, session });
        }
        Some(self.positions.ledger(entry))
    }

    /// The destination refuses a record for ever: see [`Positions::refuse`]. `None` as in [`Self::enter`].
    pub fn refuse(&mut self, key: &PartitionKey, offset: i64) -> Option<(Missing, Option<OffsetRange>)> {
        self.touch(key)?;
        Some(self.positions.refuse(key, offset))
    }

    /// What was dropped before the batch that is judged next: see [`Positions::dropped_before`].
    pub fn dropped_before(&mut self, drops: u64, reason: Option<MissingReason>) {
        self.positions.dropped_before(drops, reason);
    }

    /// The progress that belongs into the open transaction: every partition that stands otherwise than before it.
    pub fn changes(&self) -> impl Iterator<Item = (&Arc<PartitionKey>, Progress)> {
        self.before.iter().filter_map(|(key, before)| {
            let now = progress(self.positions.get(key)?, self.chain(key)?);
            let then = before.position.as_ref().zip(before.chain.as_ref());
            let then = then.map(|(position, chain)| progress(position, chain));
            (then.as_ref() != Some(&now)).then_some((key, now))
        })
    }

    /// A record of [`Self::changes`] as it stands in the topic: key and value.
    pub fn encode(&self, key: &PartitionKey, progress: &Progress) -> (Vec<u8>, Vec<u8>) {
        let key = RecordKey { set: self.set.clone(), partition: key.clone(), kind: Kind::Progress };
        (key.encode(), progress.encode())
    }

    /// The transaction with all [`Self::changes`] is committed.
    pub fn committed(&mut self) {
        self.before.clear();
    }

    /// The transaction is aborted: everything stands as before it. Its chunks are to be judged again.
    pub fn aborted(&mut self) {
        for (key, before) in self.before.drain() {
            match before.position {
                Some(position) => drop(self.positions.restore(&key, position)),
                None => drop(self.positions.remove(&key)),
            }
            self.chains.insert(key, before.chain);
        }
    }

    /// The partition is another's to write now. To be called between transactions.
    pub fn forget(&mut self, key: &PartitionKey) {
        self.chains.remove(key);
        self.before.remove(key);
        self.positions.remove(key);
    }

    /// The producer is lost: what it has written last is not known, so nothing here holds any longer.
    pub fn clear(&mut self) {
        let keys: Vec<_> = self.chains.keys().cloned().collect();
        for key in &keys {
            self.forget(key);
        }
    }

    /// Partitions owned.
    pub fn len(&self) -> usize {
        self.chains.len()
    }

    /// Whether none is owned.
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    /// Puts aside how a partition stands before its first change in this transaction.
    fn touch(&mut self, key: &PartitionKey) -> Option<&mut Option<Chain>> {
        if !self.before.contains_key(key) {
            let (key, chain) = self.chains.get_key_value(key)?;
            let before = Before { position: self.positions.get(key).cloned(), chain: chain.clone() };
            self.before.insert(Arc::clone(key), before);
        }
        self.chains.get_mut(key)
    }
}

/// The owner is who wrote the chain last: a hole that is filled after a takeover does not yet change it.
fn progress(position: &Position, chain: &Chain) -> Progress {
    let Chain { owner, epoch, session } = chain.clone();
    Progress { owner, session, position: position.to_stored(epoch) }
}

#[cfg(test)]
mod tests;
