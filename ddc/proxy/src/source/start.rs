//! Where the reading of a partition starts, and what chain it goes on with.
//!
//! A pure decision from what the group committed, what the broker still has, and what the operator chose. `start_at`
//! matters only to a group that has no commit at all; a partition without a commit in a group that has some is new
//! (added, or its topic matches since yesterday) and is read from its earliest record.

use ddc_link::sender::{Mark, PartitionStart, Slot};
use ddc_wire::{Epoch, TopicId};
use std::sync::Arc;

use super::metadata::CommitMetadata;
use crate::config::StartAt;

/// What is known of a partition before it is read.
#[derive(Debug, Clone)]
pub struct PartitionFacts {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The topic's life as the broker tells it now.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: i32,
    /// Partitions of the topic; 0 when unknown.
    pub partition_count: u32,
    /// Offset and metadata that the group committed for it.
    pub committed: Option<(i64, Option<CommitMetadata>)>,
    /// Lowest offset that the broker still has.
    pub low: i64,
    /// The offset behind the last record.
    pub high: i64,
}

/// Where to read, and what to say when it is not where the last owner stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// For the packer; `next` is where the consumer reads.
    pub partition: PartitionStart,
    /// Why the reading does not go on at the committed offset.
    pub note: Option<StartNote>,
}

/// What an operator should know about a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartNote {
    /// The topic has another id than when the offset was committed: it was deleted and created again.
    Recreated,
    /// The brokers told no topic ids when the offset was committed, and do now: a new chain, but nothing is read again.
    IdLearnt,
    /// The committed offset is below the broker's first: Kafka deleted the records between before they were read.
    DeletedUnread {
        /// First offset that was deleted unread.
        from: i64,
        /// The broker's first offset.
        to: i64,
    },
    /// It goes back to where it was, because somebody asked for that.
    Rewound {
        /// What the start commit says: what was sent before it was sent long enough ago. Never ahead of `next`.
        commit: At,
        /// First and last offset of what was to be sent again and is no longer there.
        deleted: Option<(i64, i64)>,
    },
    /// The committed offset is above the broker's last: the topic was truncated, or created again on brokers
    /// without topic ids.
    BeyondEnd {
        /// The committed offset.
        committed: i64,
        /// The offset behind the broker's last record.
        high: i64,
    },
}

/// A position of a partition's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// The next offset to be read.
    pub end: i64,
    /// The last offset sent.
    pub last: Option<i64>,
    /// Records sent up to `last`.
    pub count: u64,
}

impl From<Mark> for At {
    fn from(mark: Mark) -> Self {
        Self { end: mark.end, last: mark.last, count: mark.count }
    }
}

impl At {
    /// Where a reading begins.
    pub fn of(start: &PartitionStart) -> Self {
        Self { end: start.next, last: start.previous, count: start.count }
    }

    /// The same as a mark.
    pub fn mark(self, slot: Slot) -> Mark {
        Mark { slot, end: self.end, last: self.last, count: self.count }
    }
}

/// A wish to go back in a partition that was read here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoBack {
    /// The life of the topic that the positions belong to.
    pub topic_id: TopicId,
    /// First offset ever to be read in it.
    pub origin: i64,
    /// Our epochs: of the reading that goes back, and of the last start commit that was tried since. When the group has
    /// another one, somebody else has owned the partition meanwhile.
    pub epochs: [Epoch; 2],
    /// What the start commit says.
    pub commit: At,
    /// Where reading goes on; not below `commit`.
    pub read: At,
}

/// The start of a partition that goes back; `None` when that wish has been overtaken: by another owner, another life of
/// the topic, or a log that ends before.
pub fn go_back(facts: &PartitionFacts, back: &GoBack, epoch: Epoch) -> Option<Start> {
    let (_, metadata) = facts.committed?;
    let metadata = metadata?;
    let same = metadata.topic_id == back.topic_id && facts.topic_id == back.topic_id;
    if !same || !back.epochs.contains(&metadata.epoch) || back.read.end > facts.high {
        return None;
    }
    let partition = PartitionStart {
        topic: Arc::clone(&facts.topic),
        topic_id: facts.topic_id,
        partition: facts.partition,
        partition_count: facts.partition_count,
        epoch,
        origin: back.origin,
        previous: back.read.last,
        count: back.read.count,
        next: back.read.end.max(facts.low),
    };
    let deleted = (back.read.end < facts.low).then(|| (back.read.end, facts.low - 1));
    Some(Start { partition, note: Some(StartNote::Rewound { commit: back.commit, deleted }) })
}

/// Decides the start; `None` when `start_at = "committed"` and the group has committed nothing.
///
/// `group_has_commits`: whether any partition of the subscription has a commit. `epoch` is the new owner's.
pub fn decide(
    facts: &PartitionFacts,
    group_has_commits: bool,
    start_at: StartAt,
    epoch: Epoch,
) -> Option<Start> {
    let fresh = |offset: i64| PartitionStart {
        topic: Arc::clone(&facts.topic),
        topic_id: facts.topic_id,
        partition: facts.partition,
        partition_count: facts.partition_count,
        epoch,
        origin: offset,
        previous: None,
        count: 0,
        next: offset,
    };
    let Some((offset, metadata)) = facts.committed else {
        let offset = match start_at {
            _ if group_has_commits => facts.low,
            StartAt::Earliest => facts.low,
            StartAt::Latest => facts.high,
            StartAt::Committed => return None,
        };
        return Some(Start { partition: fresh(offset), note: None });
    };
    let learnt = metadata.is_some_and(|metadata| {
        matches!((metadata.topic_id, facts.topic_id), (TopicId::Configured(_), TopicId::Uuid(_)))
    });
    if !learnt && metadata.is_some_and(|metadata| metadata.topic_id != facts.topic_id) {
        return Some(Start { partition: fresh(facts.low), note: Some(StartNote::Recreated) });
    }
    let mut partition = fresh(offset);
    if let Some(metadata) = metadata.filter(|_| !learnt) {
        // A chain that contradicts its own offset is not one to go on with.
        if metadata.origin <= offset && metadata.previous.is_none_or(|previous| previous < offset) {
            partition.origin = metadata.origin;
            partition.previous = metadata.previous;
            partition.count = metadata.count;
        }
    }
    let mut note = learnt.then_some(StartNote::IdLearnt);
    if offset < facts.low {
        // Deleted at the source: the chain says so by itself, as offsets without records behind `previous`.
        partition.next = facts.low;
        note = Some(StartNote::DeletedUnread { from: offset, to: facts.low });
    } else if offset > facts.high {
        partition = fresh(facts.low);
        note = Some(StartNote::BeyondEnd { committed: offset, high: facts.high });
    }
    Some(Start { partition, note })
}

/// The epoch of a new owner: above every epoch it knows of, and not below the clock.
pub fn next_epoch(committed: Option<Epoch>, kept: Epoch, wall_clock_micros: u64) -> Epoch {
    let above = committed.unwrap_or_default().max(kept).0.saturating_add(1);
    Epoch(above.max(wall_clock_micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TopicId = TopicId::Uuid([1; 16]);

    fn facts(committed: Option<(i64, Option<CommitMetadata>)>) -> PartitionFacts {
        PartitionFacts {
            topic: "t".into(),
            topic_id: ID,
            partition: 3,
            partition_count: 4,
            committed,
            low: 100,
            high: 200,
        }
    }

    fn metadata(topic_id: TopicId) -> CommitMetadata {
        CommitMetadata { topic_id, epoch: Epoch(5), origin: 90, previous: Some(140), count: 50 }
    }

    fn at(facts: &PartitionFacts, group_has_commits: bool, start_at: StartAt) -> Start {
        decide(facts, group_has_commits, start_at, Epoch(9)).unwrap()
    }

    #[test]
    fn start_at_counts_only_for_a_group_without_commits() {
        let new = facts(None);
        assert_eq!(at(&new, false, StartAt::Earliest).partition.next, 100);
        assert_eq!(at(&new, false, StartAt::Latest).partition.next, 200);
        assert_eq!(decide(&new, false, StartAt::Committed, Epoch(9)), None);
        for start_at in [StartAt::Earliest, StartAt::Latest, StartAt::Committed] {
            let start = at(&new, true, start_at).partition;
            assert_eq!((start.next, start.origin, start.previous), (100, 100, None), "a new partition");
        }
    }

    #[test]
    fn the_chain_goes_on_from_the_metadata() {
        let start = at(&facts(Some((150, Some(metadata(ID))))), true, StartAt::Latest);
        assert_eq!(start.note, None);
        let start = start.partition;
        assert_eq!((start.next, start.origin, start.previous, start.count), (150, 90, Some(140), 50));
        assert_eq!(start.epoch, Epoch(9));
    }

    #[test]
    fn without_metadata_there_is_no_chain_and_no_gap() {
        let start = at(&facts(Some((150, None))), true, StartAt::Earliest).partition;
        assert_eq!((start.next, start.origin, start.previous, start.count), (150, 150, None, 0));
    }

    #[test]
    fn a_recreated_topic_starts_a_new_life() {
        let start = at(&facts(Some((150, Some(metadata(TopicId::Uuid([2; 16])))))), true, StartAt::Latest);
        assert_eq!(start.note, Some(StartNote::Recreated));
        assert_eq!(
            (start.partition.next, start.partition.origin, start.partition.previous),
            (100, 100, None)
        );
    }

    /// A cluster that was upgraded, or taken for one without ids when it was only slow: nothing is read twice.
    #[test]
    fn an_id_that_is_learnt_goes_on_at_the_committed_offset() {
        let before = metadata(TopicId::Configured(0));
        let start = at(&facts(Some((150, Some(before)))), true, StartAt::Latest);
        assert_eq!(start.note, Some(StartNote::IdLearnt));
        let start = start.partition;
        assert_eq!((start.next, start.origin, start.previous, start.count), (150, 150, None, 0));
        assert_eq!(start.topic_id, ID);
    }

    #[test]
    fn a_raised_epoch_is_a_new_life() {
        let facts = PartitionFacts {
            topic_id: TopicId::Configured(1),
            ..facts(Some((150, Some(metadata(TopicId::Configured(0))))))
        };
        assert_eq!(at(&facts, true, StartAt::Latest).note, Some(StartNote::Recreated));
    }

    #[test]
    fn deleted_records_and_truncated_topics_are_noted() {
        let start = at(
            &facts(Some((95, Some(CommitMetadata { previous: Some(94), ..metadata(ID) })))),
            true,
            StartAt::Latest,
        );
        assert_eq!(start.note, Some(StartNote::DeletedUnread { from: 95, to: 100 }));
        assert_eq!((start.partition.next, start.partition.previous), (100, Some(94)));
        let start = at(&facts(Some((201, None))), true, StartAt::Latest);
        assert_eq!(start.note, Some(StartNote::BeyondEnd { committed: 201, high: 200 }));
        assert_eq!((start.partition.next, start.partition.previous), (100, None));
    }

    fn back(commit: i64, read: i64) -> GoBack {
        let at = |end: i64| At { end, last: Some(end - 1), count: end as u64 - 90 };
        let epochs = [Epoch(5), Epoch(6)];
        GoBack { topic_id: ID, origin: 90, epochs, commit: at(commit), read: at(read) }
    }

    #[test]
    fn what_goes_back_keeps_its_chain() {
        let facts = facts(Some((150, Some(metadata(ID)))));
        let start = go_back(&facts, &back(120, 130), Epoch(9)).unwrap();
        let commit = At { end: 120, last: Some(119), count: 30 };
        assert_eq!(start.note, Some(StartNote::Rewound { commit, deleted: None }));
        let start = start.partition;
        assert_eq!((start.next, start.previous, start.count, start.origin), (130, Some(129), 40, 90));
        assert_eq!(start.epoch, Epoch(9));
    }

    #[test]
    fn what_was_deleted_meanwhile_is_told() {
        let facts = facts(Some((150, Some(metadata(ID)))));
        let start = go_back(&facts, &back(95, 95), Epoch(9)).unwrap();
        assert!(matches!(start.note, Some(StartNote::Rewound { deleted: Some((95, 99)), .. })), "{start:?}");
        assert_eq!((start.partition.next, start.partition.previous), (100, Some(94)));
    }

    #[test]
    fn a_wish_that_was_overtaken_is_none() {
        let wish = back(120, 130);
        let of = |metadata| facts(Some((150, Some(metadata))));
        assert!(go_back(&of(CommitMetadata { epoch: Epoch(6), ..metadata(ID) }), &wish, Epoch(9)).is_some());
        for (why, facts) in [
            ("another owner", of(CommitMetadata { epoch: Epoch(7), ..metadata(ID) })),
            ("another life", of(metadata(TopicId::Uuid([2; 16])))),
            ("no commit", facts(None)),
            ("somebody else's commit", facts(Some((150, None)))),
            ("truncated", PartitionFacts { low: 0, high: 129, ..of(metadata(ID)) }),
            ("created again", PartitionFacts { topic_id: TopicId::Uuid([2; 16]), ..of(metadata(ID)) }),
        ] {
            assert_eq!(go_back(&facts, &wish, Epoch(9)), None, "{why}");
        }
    }

    #[test]
    fn epochs_rise_whatever_the_clock_says() {
        assert_eq!(next_epoch(Some(Epoch(50)), Epoch(40), 45), Epoch(51));
        assert_eq!(next_epoch(Some(Epoch(30)), Epoch(40), 35), Epoch(41));
        assert_eq!(next_epoch(None, Epoch(0), 99), Epoch(99));
    }
}
