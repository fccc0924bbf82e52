//! The working copy: what goes into a transaction, and what an abort takes back.
#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use ddc_link::receiver::Disposition;
use ddc_wire::{Epoch, TopicId};
use proptest::prelude::*;

use super::*;

fn link(name: &str) -> LinkName {
    name.parse().unwrap()
}

fn key(partition: i32) -> Arc<PartitionKey> {
    let (stream, topic) = (String::new(), "orders".to_owned());
    Arc::new(PartitionKey { stream, topic, topic_id: TopicId::Configured(0), partition })
}

fn header(key: &PartitionKey, kind: ChunkKind, previous: Option<i64>, end: i64) -> ChunkHeader<'_> {
    ChunkHeader {
        kind,
        stream: &key.stream,
        topic: &key.topic,
        topic_id: key.topic_id,
        partition: key.partition,
        partition_count: 0,
        epoch: Epoch(7),
        origin: 0,
        previous,
        end,
        count: end as u64,
    }
}

fn session(number: u64) -> Session {
    Session::new(number, 0)
}

fn progress(owner: &str, epoch: u64, next: i64, holes: &[(i64, i64)]) -> Progress {
    let holes = holes.iter().map(|&(first, last)| OffsetRange { first, last }).collect();
    let position = Position::stored(next, Epoch(epoch), 0, next as u64, holes).unwrap();
    Progress { owner: link(owner), session: session(5), position }
}

fn copy() -> WorkingCopy {
    WorkingCopy::new("plant".parse().unwrap(), link("a"))
}

/// A live chunk of every offset after `previous`; returns what was to be written.
fn live(copy: &mut WorkingCopy, partition: i32, previous: Option<i64>, end: i64) -> Vec<i64> {
    chunk(copy, partition, ChunkKind::Live, previous, end, false)
}

fn chunk(
    copy: &mut WorkingCopy,
    partition: i32,
    kind: ChunkKind,
    previous: Option<i64>,
    end: i64,
    holes_only: bool,
) -> Vec<i64> {
    let (key, base) = (key(partition), previous.map_or(0, |previous| previous + 1));
    let header = header(&key, kind, previous, end);
    let visit = copy.enter(&key, &header, (end - base) as u32, session(5), holes_only).unwrap();
    let is_written =
        |offset: &i64| matches!(visit.disposition(*offset), Disposition::Deliver | Disposition::Late);
    let written = (base..end).filter(is_written).collect();
    visit.finish();
    written
}

fn changes(copy: &WorkingCopy) -> Vec<(i32, Progress)> {
    let mut changes: Vec<_> = copy.changes().map(|(key, progress)| (key.partition, progress)).collect();
    changes.sort_by_key(|(partition, _)| *partition);
    changes
}

#[test]
fn only_what_is_owned_is_touched() {
    let mut copy = copy();
    let (key, other) = (key(1), key(2));
    copy.restore(&key, None);
    let header = header(&other, ChunkKind::Live, None, 5);
    assert!(copy.enter(&other, &header, 5, session(5), false).is_none());
    assert!(copy.refuse(&other, 3).is_none());
    assert_eq!((copy.len(), copy.chain(&key), copy.position(&key)), (1, None, None));
    assert!(changes(&copy).is_empty());
}

#[test]
fn a_transaction_holds_what_has_changed_once() {
    let mut copy = copy();
    copy.restore(&key(1), Some(&progress("a", 7, 10, &[(3, 5)])));
    copy.restore(&key(2), Some(&progress("a", 7, 10, &[])));
    copy.restore(&key(3), None);
    assert_eq!(live(&mut copy, 1, Some(9), 12), [10, 11]);
    assert_eq!(live(&mut copy, 1, Some(11), 13), [12]);
    assert!(live(&mut copy, 2, Some(7), 10).is_empty());
    assert_eq!(live(&mut copy, 3, None, 2), [0, 1]);
    let expected = [(1, progress("a", 7, 13, &[(3, 5)])), (3, progress("a", 7, 2, &[]))];
    assert_eq!(changes(&copy), expected, "duplicates change nothing");
    let (bytes, value) = copy.encode(&key(1), &expected[0].1);
    let read = RecordKey::decode(&bytes).unwrap();
    assert_eq!(
        (read.partition, read.kind, read.set),
        ((*key(1)).clone(), Kind::Progress, "plant".parse().unwrap())
    );
    assert_eq!(Progress::decode(&value), Ok(expected[0].1.clone()));
    copy.committed();
    assert!(changes(&copy).is_empty());
    assert_eq!(copy.position(&key(1)).unwrap().next(), 13);
}

#[test]
fn an_abort_takes_everything_back() {
    let mut copy = copy();
    copy.restore(&key(1), Some(&progress("b", 6, 10, &[(3, 5)])));
    copy.restore(&key(2), None);
    let chain = copy.chain(&key(1)).cloned();
    for _ in 0..2 {
        // A gap, what fills it in part, and a first chunk.
        assert_eq!(live(&mut copy, 1, Some(14), 17), [15, 16]);
        assert_eq!(chunk(&mut copy, 1, ChunkKind::Replay, Some(3), 20, false), [4, 5, 10, 11, 12, 13, 14]);
        assert_eq!(live(&mut copy, 2, None, 3), [0, 1, 2]);
        let expected = [(1, progress("a", 7, 17, &[(3, 3)])), (2, progress("a", 7, 3, &[]))];
        assert_eq!(changes(&copy), expected);
        assert_ne!(copy.chain(&key(1)).cloned(), chain);
        copy.aborted();
        assert!(changes(&copy).is_empty());
        assert_eq!((copy.position(&key(2)), copy.chain(&key(1)).cloned()), (None, chain.clone()));
        assert_eq!(copy.position(&key(1)).unwrap().holes(), [OffsetRange { first: 3, last: 5 }]);
    }
}

#[test]
fn holes_only_closes_holes_and_moves_nothing() {
    let mut copy = copy();
    copy.restore(&key(1), Some(&progress("b", 9, 10, &[(3, 5)])));
    assert_eq!(chunk(&mut copy, 1, ChunkKind::Live, Some(1), 20, true), [3, 4, 5]);
    // Who filled a hole has not taken up the chain: it is still the other's.
    assert_eq!(changes(&copy), [(1, progress("b", 9, 10, &[]))]);
}

#[test]
fn ledgers_and_refusals_belong_into_the_transaction_too() {
    let mut copy = copy();
    copy.restore(&key(1), Some(&progress("a", 6, 10, &[])));
    let head = key(1);
    let mut entry = LedgerEntry {
        stream: &head.stream,
        topic: &head.topic,
        topic_id: head.topic_id,
        partition: 1,
        epoch: Epoch(7),
        origin: 0,
        last: None,
        count: 0,
        blocks_back: 1,
    };
    assert!(copy.ledger(&head, &entry, session(5)).unwrap().missing.is_none());
    assert!(changes(&copy).is_empty(), "nothing is known to have been sent");
    (entry.last, entry.count) = (Some(19), 20);
    let missing = copy.ledger(&head, &entry, session(5)).unwrap().missing.unwrap();
    assert_eq!(missing.range, OffsetRange { first: 10, last: 19 });
    assert_eq!(copy.refuse(&head, 4).unwrap().0.range, OffsetRange { first: 4, last: 4 });
    assert_eq!(changes(&copy), [(1, progress("a", 7, 20, &[(4, 4), (10, 19)]))]);
    copy.aborted();
    assert_eq!(copy.position(&key(1)).unwrap().next(), 10);
}

#[test]
fn a_lower_epoch_of_a_newer_session_is_what_is_written() {
    let mut copy = copy();
    copy.restore(&key(1), Some(&progress("a", 9, 10, &[])));
    let (key, newer) = (key(1), session(6));
    let header = header(&key, ChunkKind::Live, Some(9), 11);
    let visit = copy.enter(&key, &header, 1, newer, false).unwrap();
    assert!(visit.older_epoch);
    visit.finish();
    let expected = Progress { session: newer, ..progress("a", 7, 11, &[]) };
    assert_eq!(changes(&copy), [(1, expected)], "so that a restart judges the chunks behind it alike");
}

#[test]
fn what_is_lost_is_forgotten() {
    let mut copy = copy();
    for partition in 1..4 {
        copy.restore(&key(partition), Some(&progress("a", 7, 10, &[])));
        live(&mut copy, partition, Some(9), 12);
    }
    copy.forget(&key(1));
    assert_eq!(changes(&copy).len(), 2);
    copy.clear();
    assert!(copy.is_empty() && changes(&copy).is_empty() && copy.position(&key(2)).is_none());
    // As it was read anew: what the lost transaction had changed is not known.
    copy.restore(&key(2), Some(&progress("a", 7, 10, &[])));
    copy.aborted();
    assert_eq!(copy.position(&key(2)).unwrap().next(), 10);
}

proptest! {
    /// Transactions of any chunks, some aborted, some written and read back: as if only the committed had been.
    #[test]
    fn aborts_leave_no_trace(
        transactions in proptest::collection::vec(
            (proptest::collection::vec((0..3i32, -1..30i64, 0..6i64, 0..4u8), 0..6), 0..3u8),
            0..12,
        ),
    ) {
        let (mut one, mut other) = (copy(), copy());
        for partition in 0..3 {
            one.restore(&key(partition), None);
            other.restore(&key(partition), None);
        }
        for (chunks, end) in transactions {
            let apply = |copy: &mut WorkingCopy| -> Vec<Vec<i64>> {
                chunks.iter().map(|&(partition, previous, long, what)| {
                    let previous_offset = (previous >= 0).then_some(previous);
                    let kind = if what == 0 { ChunkKind::Replay } else { ChunkKind::Live };
                    chunk(copy, partition, kind, previous_offset, previous + 1 + long, what == 1)
                }).collect()
            };
            let written = apply(&mut one);
            if end == 0 {
                one.aborted();
                continue;
            }
            prop_assert_eq!(written, apply(&mut other));
            prop_assert_eq!(changes(&one), changes(&other));
            for (partition, progress) in changes(&one) {
                if end == 2 {
                    let read = Progress::decode(&progress.encode()).unwrap();
                    one.restore(&key(partition), Some(&read));
                }
            }
            one.committed();
            other.committed();
        }
        for partition in 0..3 {
            let (key, end) = (key(partition), 60);
            for copy in [&mut one, &mut other] {
                let header = header(&key, ChunkKind::Live, Some(end - 1), end);
                copy.enter(&key, &ChunkHeader { epoch: Epoch(8), ..header }, 0, session(9), false).unwrap().finish();
            }
        }
        prop_assert_eq!(changes(&one), changes(&other), "every partition stands alike in the end");
    }
}
