//! Which records the destination refuses for ever, and which only came back with them.
//!
//! A refused record spoils its transaction, so each attempt can find one out. Where the broker names the records that it
//! refuses (a bad time, a bad record: KIP-467) they are believed. Where it judges a whole produce batch (too large, a
//! policy), the suspects are sent in groups with nothing beside them, half as many after each failure, until one comes
//! back alone.

use std::collections::{BTreeMap, BTreeSet};

use ddc_kafka::errors::{Kind, classify_code};
use rdkafka::types::RDKafkaErrorCode as Code;

/// Partition and offset of a record.
pub(super) type Name = (u32, i64);

/// See the module's text. Bounded by the records of one plan.
#[derive(Debug, Default)]
pub(super) struct Isolation {
    refused: BTreeMap<Name, String>,
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
    /// Not at all: refused for ever.
    Refused(String),
}

impl Isolation {
    /// Whether nothing is suspected and nothing refused: the rule.
    pub(super) fn is_empty(&self) -> bool {
        self.refused.is_empty() && self.suspects.is_empty()
    }

    pub(super) fn before(&mut self, name: Name) -> Before {
        if let Some(why) = self.refused.get(&name) {
            return Before::Refused(why.clone());
        }
        if !self.suspects.contains(&name) {
            return Before::Send;
        }
        let first = self.alone.is_empty();
        self.alone.insert(name);
        if first { Before::SendApart } else { Before::SendWith }
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
        let mut suspects = Vec::new();
        let mut learned = false;
        for (name, code) in failed {
            let verdict = classify_code(*code);
            match verdict.kind {
                Kind::RecordTooLarge | Kind::RecordRefused => {}
                _ => continue,
            }
            learned = true;
            let by_itself = alone.len() == 1 && alone.contains(name);
            if by_itself || names_the_record(*code) {
                self.refused.insert(*name, format!("{code}; {}", verdict.advice));
                self.suspects.remove(name);
            } else {
                suspects.push(*name);
            }
        }
        if !suspects.is_empty() {
            self.group = suspects.len().div_ceil(2);
            self.suspects = suspects.into_iter().collect();
        }
        learned
    }

    /// The transaction is committed, or will never be: nothing of it comes again.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Whether the broker says this of the record itself and not of all that came with it.
fn names_the_record(code: Code) -> bool {
    matches!(code, Code::InvalidTimestamp | Code::InvalidRecord)
}
