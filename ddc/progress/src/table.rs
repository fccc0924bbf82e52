//! What the topic says now: a table that follows it, record by record, in the order of their offsets.
//!
//! A record of ours that cannot be read is not left out: the value before it may be the one that compaction has
//! removed, and to write over it would settle anew what is settled. Its partition is refused, with the reason, until
//! another record or a tombstone takes its place. The same holds for partitions beyond the bounds.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ddc_link::receiver::{MAX_PARTITIONS, PartitionKey};
use ddc_wire::Epoch;
use thiserror::Error;

use crate::name::{LinkName, SetName};
use crate::record::{Kind, Progress, RecordKey, Unreadable, decode_claim};

/// Most links that claim one partition.
pub const MAX_LINKS: usize = 64;

/// See the module's text. At most [`MAX_PARTITIONS`] partitions, each with [`MAX_LINKS`] claims.
#[derive(Debug)]
pub struct ProgressTable {
    set: SetName,
    entries: HashMap<Arc<PartitionKey>, Entry>,
    /// The offset behind the last record applied.
    next_offset: i64,
    counts: Counts,
    changes: u64,
    alerts: u64,
    /// A partition was left out: what is not known may be settled all the same.
    is_incomplete: bool,
}

#[derive(Debug, Default)]
struct Entry {
    progress: Option<Read<Progress>>,
    claims: BTreeMap<LinkName, Read<Epoch>>,
    too_many_links: bool,
}

/// A value as it was read.
type Read<T> = Result<T, BadRecord>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct BadRecord {
    offset: i64,
    why: Unreadable,
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It is in the table now.
    Taken,
    /// It named a record of the table that is forgotten now, or was not there.
    Forgotten,
    /// It was read before: the reader has gone back.
    Repeated,
    /// It belongs to another set.
    Foreign,
    /// Its key is none of ours.
    BadKey,
    /// Its key is ours, its value cannot be read: the partition is refused.
    BadValue(Refusal),
    /// The table is full: partitions that it does not know are refused.
    NoRoom,
}

/// Records applied so far, by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Taken.
    pub taken: u64,
    /// Tombstones.
    pub forgotten: u64,
    /// Of another set.
    pub foreign: u64,
    /// With a key that no version has written.
    pub bad_key: u64,
    /// Ours, of a later version.
    pub future: u64,
    /// Ours, damaged.
    pub damaged: u64,
    /// Ours, and no room for them.
    pub no_room: u64,
}

/// Why a partition is not written, though it may be this egress's to write.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Its progress cannot be read.
    #[error(
        "its progress at offset {offset} of the progress topic cannot be read: {why}; nothing of the partition is \
         written until that record is replaced, or removed by a tombstone (what is then settled is delivered again)"
    )]
    Progress {
        /// Where the record stands in the topic.
        offset: i64,
        /// What is wrong with it.
        why: Unreadable,
    },
    /// A claim on it cannot be read.
    #[error(
        "the claim of link {link} at offset {offset} of the progress topic cannot be read: {why}; nothing of the \
         partition is written until that record is replaced, or removed by a tombstone"
    )]
    Claim {
        /// Whose claim it is.
        link: LinkName,
        /// Where the record stands in the topic.
        offset: i64,
        /// What is wrong with it.
        why: Unreadable,
    },
    /// More links than [`MAX_LINKS`] claim it.
    #[error(
        "more than {MAX_LINKS} links claim it; remove claims of links that are no more by tombstones, then restart"
    )]
    TooManyLinks,
    /// More partitions than the table holds, so this one may be settled and not be known.
    #[error(
        "the progress topic names more than {MAX_PARTITIONS} partitions; remove those of topics that are no more by \
         tombstones, then restart"
    )]
    TableFull,
}

/// Another link that claims a partition or has written it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// The link.
    pub link: LinkName,
    /// The greatest epoch under which it did.
    pub epoch: Epoch,
}

impl ProgressTable {
    /// Knows nothing: every record of the topic is to be applied, from its first offset on.
    pub fn new(set: SetName) -> Self {
        let counts = Counts::default();
        Self {
            set,
            entries: HashMap::new(),
            next_offset: 0,
            counts,
            changes: 0,
            alerts: 0,
            is_incomplete: false,
        }
    }

    /// Takes a record as it was read of the topic.
    pub fn apply(&mut self, offset: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Applied {
        if offset < self.next_offset {
            return Applied::Repeated;
        }
        self.next_offset = offset + 1;
        let Ok(key) = RecordKey::decode(key.unwrap_or_default()) else {
            self.counts.bad_key += 1;
            return Applied::BadKey;
        };
        if key.set != self.set {
            self.counts.foreign += 1;
            return Applied::Foreign;
        }
        self.changes += 1;
        self.alerts += u64::from(key.kind != Kind::Progress);
        let Some(value) = value else {
            self.counts.forgotten += 1;
            self.forget(&key);
            return Applied::Forgotten;
        };
        let Some(entry) = entry(&mut self.entries, &key.partition) else {
            self.counts.no_room += 1;
            self.is_incomplete = true;
            return Applied::NoRoom;
        };
        let bad = |why| BadRecord { offset, why };
        let wrong = match key.kind {
            Kind::Progress => entry.progress.insert(Progress::decode(value).map_err(bad)).as_ref().err(),
            Kind::Claim(link) => {
                if entry.claims.len() >= MAX_LINKS && !entry.claims.contains_key(&link) {
                    entry.too_many_links = true;
                    self.counts.no_room += 1;
                    return Applied::NoRoom;
                }
                entry.claims.insert(link.clone(), decode_claim(value).map_err(bad));
                entry.claims.get(&link).and_then(|read| read.as_ref().err())
            }
        };
        match wrong {
            None => {
                self.counts.taken += 1;
                Applied::Taken
            }
            Some(BadRecord { why, .. }) => {
                self.alerts += 1;
                match why {
                    Unreadable::Format { .. } => self.counts.future += 1,
                    Unreadable::TooLong { .. } | Unreadable::Damaged(_) => self.counts.damaged += 1,
                }
                match self.usable(&key.partition) {
                    Err(refusal) => Applied::BadValue(refusal),
                    Ok(()) => Applied::Taken,
                }
            }
        }
    }

    fn forget(&mut self, key: &RecordKey) {
        let Some(entry) = self.entries.get_mut(&key.partition) else { return };
        match &key.kind {
            Kind::Progress => entry.progress = None,
            Kind::Claim(link) => {
                entry.claims.remove(link);
            }
        }
        if entry.progress.is_none() && entry.claims.is_empty() && !entry.too_many_links {
            self.entries.remove(&key.partition);
        }
    }

    /// Whether what the topic says of the partition can be relied on; else why not.
    pub fn usable(&self, key: &PartitionKey) -> Result<(), Refusal> {
        let Some(entry) = self.entries.get(key) else {
            return if self.is_incomplete { Err(Refusal::TableFull) } else { Ok(()) };
        };
        if let Some(Err(BadRecord { offset, why })) = &entry.progress {
            return Err(Refusal::Progress { offset: *offset, why: why.clone() });
        }
        for (link, claim) in &entry.claims {
            if let Err(BadRecord { offset, why }) = claim {
                return Err(Refusal::Claim { link: link.clone(), offset: *offset, why: why.clone() });
            }
        }
        if entry.too_many_links { Err(Refusal::TooManyLinks) } else { Ok(()) }
    }

    /// How far a partition is settled; `None` when nothing is known or can be read, see [`Self::usable`].
    pub fn progress(&self, key: &PartitionKey) -> Option<&Progress> {
        self.entries.get(key)?.progress.as_ref()?.as_ref().ok()
    }

    /// Whether the destination has the record or never will.
    pub fn is_settled(&self, key: &PartitionKey, offset: i64) -> bool {
        self.progress(key).is_some_and(|progress| progress.position.is_settled(offset))
    }

    /// The greatest epoch under which a link has claimed a partition.
    pub fn claim(&self, key: &PartitionKey, link: &LinkName) -> Option<Epoch> {
        self.entries.get(key)?.claims.get(link)?.as_ref().ok().copied()
    }

    /// The claims on a partition that can be read, by link.
    pub fn claims(&self, key: &PartitionKey) -> impl Iterator<Item = (&LinkName, Epoch)> {
        let claims = self.entries.get(key).into_iter().flat_map(|entry| &entry.claims);
        claims.filter_map(|(link, claim)| claim.as_ref().ok().map(|epoch| (link, *epoch)))
    }

    /// The other link with the greatest epoch on a partition, claimed or written.
    pub fn rival(&self, key: &PartitionKey, link: &LinkName) -> Option<Rival> {
        self.rivals(key, link).max_by_key(|rival| rival.epoch)
    }

    /// Every other link that claims a partition, or has written it last, as some of its claims may be forgotten.
    pub fn rivals(&self, key: &PartitionKey, link: &LinkName) -> impl Iterator<Item = Rival> {
        let written = self.progress(key).map(|progress| (&progress.owner, progress.position.epoch()));
        let unclaimed =
            written.filter(|(owner, epoch)| self.claim(key, owner).is_none_or(|claim| claim < *epoch));
        let others = self.claims(key).chain(unclaimed).filter(move |(other, _)| *other != link);
        others.map(|(link, epoch)| Rival { link: link.clone(), epoch })
    }

    /// The set whose records are taken.
    pub fn set(&self) -> &SetName {
        &self.set
    }

    /// All partitions that have progress which can be read, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<PartitionKey>, &Progress)> {
        self.entries.iter().filter_map(|(key, entry)| Some((key, entry.progress.as_ref()?.as_ref().ok()?)))
    }

    /// The claims of a link that can be read, in no order.
    pub(crate) fn claims_of(&self, link: &LinkName) -> impl Iterator<Item = (&Arc<PartitionKey>, Epoch)> {
        let claims = move |entry: &Entry| entry.claims.get(link)?.as_ref().ok().copied();
        self.entries.iter().filter_map(move |(key, entry)| Some((key, claims(entry)?)))
    }

    /// Partitions known; at most [`MAX_PARTITIONS`].
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What became of the records so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Rises with every record of this set.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Rises with every record of this set that may end an ownership: claims, and what cannot be used.
    pub(crate) fn alerts(&self) -> u64 {
        self.alerts
    }
}

fn entry<'a>(
    entries: &'a mut HashMap<Arc<PartitionKey>, Entry>,
    key: &PartitionKey,
) -> Option<&'a mut Entry> {
    if !entries.contains_key(key) {
        if entries.len() >= MAX_PARTITIONS {
            return None;
        }
        entries.insert(Arc::new(key.clone()), Entry::default());
    }
    entries.get_mut(key)
}

#[cfg(test)]
mod tests;
