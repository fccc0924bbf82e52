//! What an egress knew of the topic when it lost its producer or its reader, to be held against the topic once that was read
//! again.
//!
//! ```text
//!  table, working copy ── absorb ──▶ Memory ── compare, with the table as it was read anew ──▶ what the topic has lost
//!                                                        its own records: written again │ others': kept for a takeover
//! ```
//!
//! Offsets settled never fall. So progress that is lower in the topic than it was, or gone, was lost there: the topic was
//! deleted, made again, cut, or restored from an old copy. To go on from what is left would deliver again what is delivered,
//! and forget what is missing. Only this link's records are written again: who else runs writes its own, and those of a
//! link that does not run might be written over newer ones.

use std::collections::HashMap;
use std::sync::Arc;

use ddc_link::receiver::PartitionKey;
use ddc_wire::Epoch;

use crate::name::LinkName;
use crate::record::{Kind, Progress, RecordKey, encode_claim};
use crate::table::ProgressTable;

/// See the module's text. No more partitions than two tables have.
#[derive(Debug)]
pub struct Memory {
    link: LinkName,
    progress: HashMap<Arc<PartitionKey>, Progress>,
    /// Of this link.
    claims: HashMap<Arc<PartitionKey>, Epoch>,
}

impl Memory {
    /// Of the egress of this link; remembers nothing.
    pub fn new(link: LinkName) -> Self {
        Self { link, progress: HashMap::new(), claims: HashMap::new() }
    }

    /// Remembers what the table says, and what was committed and not read yet.
    pub fn absorb<'a>(
        &mut self,
        table: &ProgressTable,
        committed: impl Iterator<Item = (&'a Arc<PartitionKey>, Progress)>,
    ) {
        for (key, progress) in table.iter() {
            self.note(key, progress.clone());
        }
        for (key, progress) in committed {
            self.note(key, progress);
        }
        for (key, epoch) in table.claims_of(&self.link) {
            let known = self.claims.entry(Arc::clone(key)).or_insert(epoch);
            *known = epoch.max(*known);
        }
    }

    fn note(&mut self, key: &Arc<PartitionKey>, progress: Progress) {
        if self.progress.get(key).is_none_or(|known| known.position.next() <= progress.position.next()) {
            self.progress.insert(Arc::clone(key), progress);
        }
    }

    /// The topic was read to its end: what it still has, or has newer, need not be remembered, nor what cannot be used
    /// there.
    pub fn compare(&mut self, table: &ProgressTable) {
        self.progress.retain(|key, known| {
            let has = table.progress(key).is_some_and(|now| now.position.next() >= known.position.next());
            !has && table.usable(key).is_ok()
        });
        let link = &self.link;
        self.claims.retain(|key, known| {
            table.claim(key, link).is_none_or(|now| now < *known) && table.usable(key).is_ok()
        });
    }

    /// After [`Self::compare`]: this link's records that the topic has lost, keys and values.
    pub fn own_records(&self, table: &ProgressTable) -> Vec<(Vec<u8>, Vec<u8>)> {
        let key = |partition: &PartitionKey, kind| {
            RecordKey { set: table.set().clone(), partition: partition.clone(), kind }.encode()
        };
        let own = self.progress.iter().filter(|(_, progress)| progress.owner == self.link);
        let progress = own.map(|(partition, progress)| (key(partition, Kind::Progress), progress.encode()));
        let claims = self
            .claims
            .iter()
            .map(|(partition, epoch)| (key(partition, Kind::Claim(self.link.clone())), encode_claim(*epoch)));
        let mut records: Vec<_> = claims.chain(progress).collect();
        // In the order of the partitions, so that the same history has the same steps.
        records.sort_unstable();
        records
    }

    /// After [`Self::compare`]: where a partition stood of which the topic has lost it.
    pub fn progress(&self, key: &PartitionKey) -> Option<&Progress> {
        self.progress.get(key)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use ddc_link::receiver::{OffsetRange, Position};
    use ddc_wire::Session;

    use super::*;

    fn key(partition: i32) -> Arc<PartitionKey> {
        Arc::new(PartitionKey { topic: "t".into(), partition, ..PartitionKey::default() })
    }

    fn link(name: &str) -> LinkName {
        name.parse().unwrap()
    }

    fn progress(owner: &str, next: i64) -> Progress {
        let holes = vec![OffsetRange { first: 1, last: 2 }];
        let position = Position::stored(next, Epoch(7), 0, next as u64, holes).unwrap();
        Progress { owner: link(owner), session: Session([3; 12]), position }
    }

    fn table(records: &[(Vec<u8>, Vec<u8>)]) -> ProgressTable {
        let mut table = ProgressTable::new("plant".parse().unwrap());
        for (offset, (key, value)) in (0..).zip(records) {
            table.apply(offset, Some(key), Some(value));
        }
        table
    }

    fn record(partition: i32, progress: &Progress) -> (Vec<u8>, Vec<u8>) {
        let key = RecordKey {
            set: "plant".parse().unwrap(),
            partition: (*key(partition)).clone(),
            kind: Kind::Progress,
        };
        (key.encode(), progress.encode())
    }

    fn claim(partition: i32, owner: &str, epoch: u64) -> (Vec<u8>, Vec<u8>) {
        let key = RecordKey {
            set: "plant".parse().unwrap(),
            partition: (*key(partition)).clone(),
            kind: Kind::Claim(link(owner)),
        };
        (key.encode(), encode_claim(Epoch(epoch)))
    }

    /// A topic that was made again: own progress, as of the last commit, and own claims come back as they were.
    #[test]
    fn what_an_empty_topic_has_lost_is_known() {
        let (mine, newer, other) = (progress("a", 100), progress("a", 120), progress("b", 50));
        let before = table(&[
            claim(0, "a", 7),
            record(0, &mine),
            record(1, &mine),
            claim(1, "a", 7),
            claim(2, "b", 9),
            record(2, &other),
        ]);
        let mut memory = Memory::new(link("a"));
        // The reader was behind the last commit.
        memory.absorb(&before, [(&key(0), newer.clone())].into_iter());
        memory.absorb(&table(&[]), [].into_iter());
        let empty = table(&[]);
        memory.compare(&empty);
        let mut expected = vec![record(0, &newer), claim(0, "a", 7), record(1, &mine), claim(1, "a", 7)];
        expected.sort_unstable();
        assert_eq!(memory.own_records(&empty), expected, "not the other link's");
        assert_eq!(memory.progress(&key(2)), Some(&other), "but a takeover goes on from it");
        let restored = table(&memory.own_records(&empty));
        assert_eq!(restored.progress(&key(0)), Some(&newer));
        memory.compare(&restored);
        assert_eq!(memory.own_records(&restored), []);
    }

    /// The usual loss of a producer: the topic has all of it, or newer of another owner.
    #[test]
    fn nothing_is_written_again_that_the_topic_has() {
        let before = table(&[record(0, &progress("a", 100)), claim(0, "a", 7)]);
        let mut memory = Memory::new(link("a"));
        memory.absorb(&before, [].into_iter());
        let now = table(&[record(0, &progress("b", 100)), claim(0, "a", 7)]);
        memory.compare(&now);
        assert_eq!((memory.own_records(&now), memory.progress(&key(0))), (vec![], None));
    }

    /// Restored from an old copy: lower is as lost as gone. A record that cannot be used is not written over.
    #[test]
    fn an_older_state_is_a_loss_and_an_unreadable_one_is_left_alone() {
        let before = table(&[record(0, &progress("a", 100)), record(1, &progress("a", 100))]);
        let mut memory = Memory::new(link("a"));
        memory.absorb(&before, [].into_iter());
        let (unreadable, _) = record(1, &progress("a", 90));
        let now = table(&[record(0, &progress("a", 90)), (unreadable, b"{\"format\":9}".to_vec())]);
        memory.compare(&now);
        assert_eq!(memory.own_records(&now), [record(0, &progress("a", 100))]);
    }
}
