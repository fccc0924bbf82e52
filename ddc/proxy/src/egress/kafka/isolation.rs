//! Which records the destination refuses for ever, and which only came back with them.
//!
//! A refused record spoils its transaction, so each attempt can find one out. A broker writes all of a request's records of a
//! partition or none, and often says the same of all of them ([`crate::dead_letters::verdict`] has what was measured). So the
//! suspects are sent in groups with nothing beside them, half as many after each failure, until one comes back alone; where
//! the broker tells the sound ones apart (KIP-467), the others go alone at once.
//!
//! `max.message.bytes` bounds a *batch*: sound records that come back as too large together go in smaller groups from then on,
//! the whole partition; else they would be gathered into the same batch again with each attempt.

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
    /// How many of them there may be.
    limit: usize,
    /// Who begins the next group, when the one that is on its way is taken.
    next: Option<(Name, usize)>,
    /// By partition: how many records may go together, as more were too large for one batch.
    together: BTreeMap<u32, usize>,
    /// Plans that were committed since `together` was empty.
    commits: u32,
}

/// After so many commits it is tried whether more may go together: the topic's limit may have been raised.
const FORGET_AFTER: u32 = 256;

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
        self.refused.is_empty() && self.suspects.is_empty() && self.together.is_empty()
    }

    pub(super) fn before(&mut self, name: Name) -> Before {
        if let Some((code, times)) = self.refused.get(&name) {
            return Before::Refused(*code, *times);
        }
        let limit = match self.together.get(&name.0) {
            _ if self.suspects.contains(&name) => self.group.max(1),
            Some(together) => *together,
            None => return Before::Send,
        };
        if self.alone.is_empty() {
            self.limit = limit;
            self.alone.insert(name);
            return Before::SendApart;
        }
        if self.alone.len() < self.limit.min(limit) {
            self.limit = self.limit.min(limit);
            self.alone.insert(name);
            return Before::SendWith;
        }
        // The caller ends the group first.
        self.next = Some((name, limit));
        Before::Send
    }

    /// A record that was refused goes once more, otherwise than before, and alone.
    pub(super) fn apart(&mut self, name: Name) {
        self.group_taken();
        self.limit = 1;
        self.alone.insert(name);
    }

    /// Whether the group is full: its answers are to be waited for before anything else is handed over.
    pub(super) fn is_group_full(&self) -> bool {
        !self.alone.is_empty() && self.alone.len() >= self.limit
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
        if let Some((name, limit)) = self.next.take() {
            self.limit = limit;
            self.alone.insert(name);
        }
    }

    /// What came back in an attempt. Returns whether that taught anything, so that another attempt will go otherwise.
    pub(super) fn learn(&mut self, failed: &[(Name, Code)]) -> bool {
        let alone = std::mem::take(&mut self.alone);
        self.next = None;
        let mut too_large = BTreeMap::<u32, usize>::new();
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
                // That was why, and not that there were too many.
                self.together.remove(&name.0);
            } else {
                suspects.insert(*name);
                if classify_code(*code).kind == Kind::RecordTooLarge {
                    *too_large.entry(name.0).or_default() += 1;
                }
            }
        }
        for (partition, records) in too_large {
            let together = self.together.entry(partition).or_insert(usize::MAX);
            *together = (*together).min(records.div_ceil(2));
        }
        if !suspects.is_empty() {
            self.group = if tells_apart { 1 } else { suspects.len().div_ceil(2) };
            self.suspects = suspects;
        }
        learned
    }

    /// The transaction is committed, or will never be: nothing of it comes again.
    pub(super) fn clear(&mut self) {
        let (together, commits) = (std::mem::take(&mut self.together), self.commits + 1);
        *self = Self::default();
        if !together.is_empty() && commits < FORGET_AFTER {
            (self.together, self.commits) = (together, commits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plan as the writer carries it out, against a partition that takes so many sound records in one batch at most and never
    /// the `large` ones. Returns the attempts that were needed and what was refused.
    fn carry_out(isolation: &mut Isolation, records: i64, batch: usize, large: &[i64]) -> (u32, Vec<i64>) {
        for attempt in 1..200 {
            let (mut waiting, mut refused, mut failed) = (Vec::new(), Vec::new(), Vec::new());
            let is_taken = |waiting: &[Name]| {
                waiting.len() <= batch && !waiting.iter().any(|name| large.contains(&name.1))
            };
            let mut answers = |waiting: &mut Vec<Name>| {
                if !is_taken(waiting) {
                    failed.extend(waiting.iter().map(|name| (*name, Code::MessageSizeTooLarge)));
                }
                waiting.clear();
                failed.is_empty()
            };
            let mut is_whole = true;
            for name in (0..records).map(|offset| (0, offset)) {
                if !isolation.is_empty() {
                    match isolation.before(name) {
                        Before::Send if isolation.has_group() => {
                            is_whole = answers(&mut waiting);
                            if is_whole {
                                isolation.group_taken();
                            }
                        }
                        Before::Send | Before::SendWith => {}
                        Before::SendApart => is_whole = answers(&mut waiting),
                        Before::Refused(..) => {
                            refused.push(name.1);
                            continue;
                        }
                    }
                }
                if !is_whole {
                    break;
                }
                waiting.push(name);
                if isolation.is_group_full() {
                    is_whole = answers(&mut waiting);
                    if !is_whole {
                        break;
                    }
                    isolation.group_taken();
                }
            }
            if is_whole && answers(&mut waiting) {
                isolation.clear();
                return (attempt, refused);
            }
            isolation.learn(&failed);
        }
        panic!("it goes on for ever");
    }

    #[test]
    fn sound_records_that_are_too_large_together_go_in_smaller_groups() {
        let mut isolation = Isolation::default();
        let (attempts, refused) = carry_out(&mut isolation, 2000, 40, &[]);
        assert_eq!(refused, [0_i64; 0]);
        assert!(attempts < 10, "{attempts}");
        assert_eq!(carry_out(&mut isolation, 2000, 40, &[]), (1, vec![]), "what was learned is kept");
        for _ in 0..FORGET_AFTER {
            isolation.clear();
        }
        assert!(isolation.is_empty(), "but not for ever");
    }

    #[test]
    fn only_what_is_too_large_alone_is_refused() {
        for batch in [1, 2, 7, 16, 40, 5000] {
            for large in [&[0][..], &[31], &[10, 21], &[10, 11], &[0, 1, 2, 30, 31]] {
                let (attempts, refused) = carry_out(&mut Isolation::default(), 32, batch, large);
                assert_eq!(refused, large, "batches of {batch}");
                assert!(attempts < 80, "{attempts} attempts for {large:?} in batches of {batch}");
            }
        }
    }
}
