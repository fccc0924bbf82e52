//! Which records the destination refuses for ever, and which only came back with them.
//!
//! A refused record spoils its transaction, so each attempt can find one out. A broker writes all of a request's records of a
//! partition or none, and often says the same of all of them ([`crate::dead_letters::verdict`] has what was measured). So the
//! suspects are sent in groups with nothing beside them, half as many after each failure, until one comes back alone; where
//! the broker tells the sound ones apart (KIP-467), the others go alone at once.

use std::collections::{BTreeMap, BTreeSet};

use ddc_kafka::errors::{Kind, classify_code};
use rdkafka::types::RDKafkaErrorCode as Code;

/// Partition and offset of a record.
pub(super) type Name = (u32, i64);

/// See the module's text. Bounded by the records of one plan.
#[derive(Debug, Default)]
pub(super) struct Isolation {
    /// Why, and how often.
    refused: BTreeMap<Name, (Code, u32)>,
    suspects: BTreeSet<Name>,
    /// How many suspects go together.
    group: usize,
    /// Those that are on their way alone.
    alone: BTreeSet<Name>,
}

/// What is to be done with a record before it is handed over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// As usual.
    Send,
    /// All answers are waited for first, and nothing goes with it but its group.
    SendApart,
    /// It belongs to the group that is on its way.
    SendWith,
    /// It came back alone, so often: not as it is.
    Refused(Code, u32),
}

impl Isolation {
    /// Whether nothing is suspected and nothing refused: the rule.
    pub(super) fn is_empty(&self) -> bool {
        self.refused.is_empty() && self.suspects.is_empty()
    }

    pub(super) fn before(&mut self, name: Name) -> Before {
        if let Some((code, times)) = self.refused.get(&name) {
            return Before::Refused(*code, *times);
        }
        if !self.suspects.contains(&name) {
            return Before::Send;
        }
        let first = self.alone.is_empty();
        self.alone.insert(name);
        if first { Before::SendApart } else { Before::SendWith }
    }

    /// A record that was refused goes once more, otherwise than before, and alone.
    pub(super) fn apart(&mut self, name: Name) {
        self.alone.insert(name);
    }

    /// Whether the group is full: its answers are to be waited for before anything else is handed over.
    pub(super) fn is_group_full(&self) -> bool {
        !self.alone.is_empty() && self.alone.len() >= self.group
    }

    /// Whether a group is on its way.
    pub(super) fn has_group(&self) -> bool {
        !self.alone.is_empty()
    }

    /// The whole group was taken.
    pub(super) fn group_taken(&mut self) {
        for name in std::mem::take(&mut self.alone) {
            self.suspects.remove(&name);
        }
    }

    /// What came back in an attempt. Returns whether that taught anything, so that another attempt will go otherwise.
    pub(super) fn learn(&mut self, failed: &[(Name, Code)]) -> bool {
        let alone = std::mem::take(&mut self.alone);
        let tells_apart = failed.iter().any(|(_, code)| *code == Code::InvalidDifferentRecord);
        let (mut suspects, mut learned) = (BTreeSet::new(), false);
        for (name, code) in failed {
            if !matches!(classify_code(*code).kind, Kind::RecordTooLarge | Kind::RecordRefused)
                || *code == Code::InvalidDifferentRecord
            {
                continue;
            }
            learned = true;
            if alone.len() == 1 && alone.contains(name) {
                let (_, times) = self.refused.get(name).copied().unwrap_or((*code, 0));
                self.refused.insert(*name, (*code, times + 1));
                self.suspects.remove(name);
            } else {
                suspects.insert(*name);
            }
        }
        if !suspects.is_empty() {
            self.group = if tells_apart { 1 } else { suspects.len().div_ceil(2) };
            self.suspects = suspects;
        }
        learned
    }

    /// The transaction is committed, or will never be: nothing of it comes again.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
