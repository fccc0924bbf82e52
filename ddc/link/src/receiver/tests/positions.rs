//! Gaps and positions against a naive model that keeps every offset in a set.

use std::collections::BTreeSet;

use ddc_wire::{ChunkHeader, ChunkKind, Epoch, LedgerEntry, TopicId};
use proptest::prelude::*;

use super::*;

fn header(previous: Option<i64>, end: i64, count: u64) -> ChunkHeader<'static> {
    ChunkHeader {
        kind: ChunkKind::Live,
        stream: "",
        topic: "orders",
        topic_id: TopicId::Uuid([7; 16]),
        partition: 3,
        partition_count: 4,
        epoch: Epoch(10),
        origin: 100,
        previous,
        end,
        count,
    }
}

fn ledger(last: Option<i64>, count: u64) -> LedgerEntry<'static> {
    let head = header(None, 100, 0);
    LedgerEntry {
        stream: head.stream,
        topic: head.topic,
        topic_id: head.topic_id,
        partition: head.partition,
        epoch: head.epoch,
        origin: head.origin,
        last,
        count,
        blocks_back: 1,
    }
}

fn key() -> PartitionKey {
    let head = header(None, 100, 0);
    let (stream, topic) = (head.stream.to_owned(), head.topic.to_owned());
    PartitionKey { stream, topic, topic_id: head.topic_id, partition: head.partition }
}

#[expect(clippy::unnecessary_wraps, reason = "compared with what is always an Option")]
fn missing(first: i64, last: i64, records: Option<u64>, reason: MissingReason) -> Option<Missing> {
    Some(Missing { range: OffsetRange { first, last }, records, reason })
}

/// Judges a chunk with these offsets; returns what is missing and what to do with each record.
fn chunk(
    positions: &mut Positions,
    header: ChunkHeader<'_>,
    offsets: &[i64],
) -> (Option<Missing>, Vec<Disposition>) {
    let visit = positions.enter(&header, offsets.len() as u32);
    let judged = offsets.iter().map(|offset| visit.disposition(*offset)).collect();
    let missing = visit.missing;
    visit.finish();
    (missing, judged)
}

/// The offsets of the partition's holes.
fn open_holes(positions: &Positions) -> BTreeSet<i64> {
    positions.get(&key()).map(|position| offsets_of(position.holes())).unwrap_or_default()
}

fn offsets_of(ranges: &[OffsetRange]) -> BTreeSet<i64> {
    ranges.iter().flat_map(|range| range.first..=range.last).collect()
}

use Disposition::{Ahead, Deliver, Duplicate, Late};

#[test]
fn a_chain_without_gaps_says_nothing() {
    let mut positions = Positions::default();
    assert_eq!(chunk(&mut positions, header(None, 110, 2), &[100, 105]), (None, vec![Deliver; 2]));
    // 106 to 109 never existed.
    assert_eq!(chunk(&mut positions, header(Some(105), 112, 3), &[110]), (None, vec![Deliver]));
    assert_eq!(chunk(&mut positions, header(Some(105), 112, 3), &[110]), (None, vec![Duplicate]));
    assert_eq!(
        chunk(&mut positions, header(Some(110), 120, 3), &[]),
        (None, vec![]),
        "end moves without records"
    );
    assert_eq!(positions.get(&key()).unwrap().next(), 120);
    assert_eq!(positions.ledger(&ledger(Some(110), 3)), LedgerVerdict::default());
}

#[test]
fn a_gap_is_named_once_and_may_be_filled_late() {
    let mut positions = Positions::default();
    chunk(&mut positions, header(None, 110, 10), &(100..110).collect::<Vec<_>>());
    let gap = missing(110, 119, Some(8), MissingReason::Lost);
    assert_eq!(chunk(&mut positions, header(Some(119), 122, 20), &[120, 121]), (gap, vec![Deliver; 2]));
    assert_eq!(positions.get(&key()).unwrap().holes(), [OffsetRange { first: 110, last: 119 }]);
    // Re-sent under a lower epoch: offsets decide.
    let resent = ChunkHeader { epoch: Epoch(9), ..header(Some(104), 113, 13) };
    assert!(positions.enter(&resent, 3).older_epoch);
    assert_eq!(chunk(&mut positions, resent, &[105, 110, 112]), (None, vec![Duplicate, Late, Late]));
    assert_eq!(positions.get(&key()).unwrap().holes(), [OffsetRange { first: 113, last: 119 }]);
    assert_eq!(positions.get(&key()).unwrap().count(), 20, "what lies behind does not move the count");
    // A replay fills holes, makes none, and brings nothing that the chain has not reached.
    let replay = ChunkHeader { kind: ChunkKind::Replay, ..header(Some(114), 130, 0) };
    assert_eq!(chunk(&mut positions, replay, &[115, 121, 125]), (None, vec![Late, Duplicate, Ahead]));
    let position = positions.get(&key()).unwrap();
    assert_eq!((position.next(), position.holes()), (122, &[OffsetRange { first: 113, last: 114 }][..]));
}

#[test]
fn the_first_chunk_ever_names_everything_before_it() {
    let mut positions = Positions::default();
    let gap = missing(100, 149, Some(40), MissingReason::NoPosition);
    assert_eq!(chunk(&mut positions, header(Some(149), 151, 41), &[150]), (gap, vec![Deliver]));
    // Nothing before the origin, nothing without a previous; no position from a replay.
    let mut positions = Positions::default();
    assert_eq!(chunk(&mut positions, header(Some(99), 101, 1), &[100]).0, None);
    let mut positions = Positions::default();
    assert_eq!(chunk(&mut positions, header(None, 500, 1), &[499]).0, None);
    assert_eq!(chunk(&mut positions, header(None, 900, 1), &[899]), (None, vec![Deliver]), "metadata lost");
    let mut positions = Positions::default();
    let replay = ChunkHeader { kind: ChunkKind::Replay, ..header(Some(149), 151, 0) };
    assert_eq!(chunk(&mut positions, replay, &[150]), (None, vec![Ahead]));
    assert!(positions.is_empty());
}

/// A replay has no owner: whatever epoch its chunks carry, the next live chunk is not of an older one.
#[test]
fn a_replay_leaves_epoch_origin_and_count_alone() {
    let mut positions = Positions::default();
    chunk(&mut positions, header(None, 110, 10), &[]);
    chunk(&mut positions, header(Some(119), 121, 20), &[120]);
    let alien = ChunkHeader {
        kind: ChunkKind::Replay,
        epoch: Epoch(99),
        origin: 112,
        count: 7,
        ..header(None, 300, 0)
    };
    assert_eq!(chunk(&mut positions, alien, &[113, 120, 200]), (None, vec![Late, Duplicate, Ahead]));
    let position = positions.get(&key()).unwrap();
    assert_eq!((position.epoch(), position.origin(), position.count()), (Epoch(10), 100, 20));
    assert_eq!((position.next(), position.holes()), (121, &[OffsetRange { first: 110, last: 111 }][..]));
    assert!(!positions.enter(&header(Some(120), 122, 21), 1).older_epoch);
}

#[test]
fn a_ledger_names_a_lost_tail_and_a_wholly_lost_stream() {
    let mut positions = Positions::default();
    assert_eq!(positions.ledger(&ledger(None, 0)), LedgerVerdict::default());
    assert!(positions.is_empty());
    assert_eq!(
        positions.ledger(&ledger(Some(104), 5)).missing,
        missing(100, 104, Some(5), MissingReason::NoPosition)
    );
    assert_eq!(positions.ledger(&ledger(Some(104), 5)).missing, None, "once");
    assert_eq!(
        positions.ledger(&ledger(Some(109), 9)).missing,
        missing(105, 109, Some(4), MissingReason::Lost)
    );
    assert_eq!(chunk(&mut positions, header(Some(109), 111, 10), &[110]), (None, vec![Deliver]));
}

#[test]
fn the_reason_tells_what_happened_meanwhile() {
    let mut positions = Positions::default();
    chunk(&mut positions, header(None, 110, 10), &[]);
    positions.note_dropped(MissingReason::BufferFull);
    let gap = missing(110, 111, Some(2), MissingReason::BufferFull);
    assert_eq!(chunk(&mut positions, header(Some(111), 113, 13), &[112]).0, gap);
    let gap = missing(113, 113, Some(1), MissingReason::Lost);
    assert_eq!(chunk(&mut positions, header(Some(113), 115, 15), &[114]).0, gap, "only the next gap");

    let json = serde_json::to_string(&positions).unwrap();
    let mut restored: Positions = serde_json::from_str(&json).unwrap();
    let gap = missing(115, 119, Some(5), MissingReason::Restart);
    assert_eq!(chunk(&mut restored, header(Some(119), 121, 21), &[120]).0, gap);
    let mut damaged: Positions = serde_json::from_str(&json).unwrap();
    damaged.note_dropped(MissingReason::SpoolDamaged);
    let gap = missing(115, 119, Some(5), MissingReason::SpoolDamaged);
    assert_eq!(chunk(&mut damaged, header(Some(119), 121, 21), &[120]).0, gap, "what is known comes first");
    let gap = missing(121, 121, Some(1), MissingReason::Lost);
    assert_eq!(chunk(&mut restored, header(Some(121), 123, 23), &[122]).0, gap);

    // Judged late, from before something was dropped: that reason is kept for what came behind it.
    let dropped = Some(MissingReason::DiskFull);
    restored.dropped_before(1, dropped);
    restored.dropped_before(0, None);
    assert_eq!(chunk(&mut restored, header(Some(122), 124, 24), &[123]).0, None);
    restored.dropped_before(1, dropped);
    let gap = missing(124, 124, Some(1), MissingReason::DiskFull);
    assert_eq!(chunk(&mut restored, header(Some(124), 126, 26), &[125]).0, gap);

    let (refused, forgotten) = restored.refuse(&key(), 122);
    assert_eq!((Some(refused), forgotten), (missing(122, 122, Some(1), MissingReason::Refused), None));
    assert!(restored.get(&key()).unwrap().is_hole(122));
}

#[test]
fn counts_that_cannot_be_compared_say_nothing() {
    let mut positions = Positions::default();
    chunk(&mut positions, header(None, 110, 10), &[]);
    let other_origin = ChunkHeader { origin: 105, ..header(Some(119), 121, 3) };
    assert_eq!(chunk(&mut positions, other_origin, &[120]).0, missing(110, 119, None, MissingReason::Lost));
    for count in [0, 1, 1000] {
        let mut positions = Positions::default();
        chunk(&mut positions, header(None, 110, 10), &[]);
        let gap = chunk(&mut positions, header(Some(119), 121, count), &[120]).0;
        assert_eq!(
            gap,
            missing(110, 119, None, MissingReason::Lost),
            "fewer than before, or more than offsets"
        );
    }
}

#[test]
fn holes_and_partitions_are_bounded_and_what_goes_is_named() {
    let mut positions = Positions::default();
    chunk(&mut positions, header(None, 101, 1), &[100]);
    for number in 0..MAX_HOLES as i64 {
        let at = 102 + 2 * number;
        assert_eq!(positions.enter(&header(Some(at - 1), at + 1, 0), 1).forgotten, None);
        chunk(&mut positions, header(Some(at - 1), at + 1, 0), &[at]);
    }
    assert_eq!(positions.get(&key()).unwrap().holes().len(), MAX_HOLES);
    let end = positions.get(&key()).unwrap().next();
    let visit = positions.enter(&header(Some(end), end + 2, 0), 1);
    assert_eq!(visit.forgotten, Some(OffsetRange { first: 101, last: 101 }), "the oldest");
    visit.finish();

    let mut positions = Positions::default();
    for partition in 0..MAX_PARTITIONS as i32 {
        let visit = positions.enter(&ChunkHeader { partition, ..header(None, 101, 1) }, 1);
        assert!(visit.evicted.is_none());
        visit.finish();
    }
    positions.enter(&ChunkHeader { partition: 0, ..header(None, 101, 1) }, 1).finish();
    let other = ChunkHeader { topic: "other", ..header(None, 101, 1) };
    let evicted = positions.enter(&other, 1).evicted.unwrap();
    assert_eq!(evicted.partition, 1, "0 was touched since");
    assert_eq!((positions.len(), positions.get(&evicted)), (MAX_PARTITIONS, None));
}

#[test]
fn the_written_form_is_read_back_and_nothing_else_is() {
    let mut positions = Positions::default();
    chunk(&mut positions, header(Some(109), 121, 12), &[120]);
    let configured = ChunkHeader { topic_id: TopicId::Configured(5), ..header(None, 101, 1) };
    chunk(&mut positions, configured, &[100]);
    let json = serde_json::to_string(&positions).unwrap();
    let read: Positions = serde_json::from_str(&json).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), json);
    assert_eq!(read.get(&key()).unwrap().holes(), [OffsetRange { first: 100, last: 109 }]);
    for (from, to, problem) in [
        (r#""format":1"#, r#""format":7"#, "format 7, this program reads format 1"),
        ("[[100,109]]", "[[100,109],[110,111]]", "holes are not ascending"),
        ("[[100,109]]", "[[100,121]]", "holes are not ascending"),
        ("[[100,109]]", "[[109,100]]", "holes are not ascending"),
        (r#""topic_id":"07"#, r#""topic_id":"0x"#, "topic `orders`, partition 3: its topic_id"),
        (r#""partition":3"#, r#""partition":-3"#, "negative"),
        (r#""epoch-5""#, r#""07070707070707070707070707070707""#, "appears twice"),
        (r#""count""#, r#""counts""#, "counts"),
    ] {
        assert!(json.contains(from), "{from} in {json}");
        let error = serde_json::from_str::<Positions>(&json.replacen(from, to, 1)).unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
    }
}

/// One step of a partition's life as the model sees it.
#[derive(Debug, Clone)]
enum Step {
    /// Sends so many offsets, each a record or not; the chunk arrives or is lost.
    Send { records: Vec<bool>, arrives: bool },
    /// The sender goes back some offsets, under a new epoch, and sends them again.
    Rewind { back: i64 },
    /// A ledger arrives.
    Ledger,
    /// A replay of some offsets arrives.
    Replay { back: i64, len: i64 },
    /// The table is written and read.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let send = (prop::collection::vec(any::<bool>(), 0..8), prop::bool::weighted(0.7));
    let step = prop_oneof![
        6 => send.prop_map(|(records, arrives)| Step::Send { records, arrives }),
        1 => (0i64..30).prop_map(|back| Step::Rewind { back }),
        1 => Just(Step::Ledger),
        1 => ((0i64..30), (0i64..20)).prop_map(|(back, len)| Step::Replay { back, len }),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever is lost, sent again, replayed or restarted: everything lost lies in a reported range, nothing
    /// delivered is reported lost or delivered twice, and in order but for what is marked late.
    #[test]
    fn as_the_naive_model(steps in steps()) {
        let origin = 100i64;
        let mut positions = Positions::default();
        let mut epoch = 1u64;
        // The source's log, and what the sender knows: next to read, last sent, records sent.
        let mut log: Vec<bool> = Vec::new();
        let (mut read, mut last, mut count) = (origin, None::<i64>, 0u64);
        // The model: every offset sent, delivered, reported.
        let (mut sent, mut delivered, mut reported) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut highest = i64::MIN;
        let mut report = |missing: Option<Missing>, sent: &BTreeSet<i64>, delivered: &BTreeSet<i64>| {
            let Some(missing) = missing else { return };
            for offset in missing.range.first..=missing.range.last {
                assert!(!delivered.contains(&offset), "{offset} was delivered");
                assert!(reported.insert(offset), "{offset} reported twice");
            }
            let records = sent.range(missing.range.first..=missing.range.last).count() as u64;
            assert_eq!(missing.records, Some(records));
        };
        for step in steps {
            match step {
                Step::Send { records, arrives } => {
                    let base_previous = last;
                    let mut offsets = Vec::new();
                    for record in records {
                        let at = (read - origin) as usize;
                        if at == log.len() { log.push(record); }
                        if log[at] { offsets.push(read); last = Some(read); count += 1; sent.insert(read); }
                        read += 1;
                    }
                    if !arrives { continue; }
                    let head = ChunkHeader { epoch: Epoch(epoch), ..header(base_previous, read, count) };
                    let mut holes = open_holes(&positions);
                    let visit = positions.enter(&head, offsets.len() as u32);
                    holes.extend(visit.missing.iter().flat_map(|missing| missing.range.first..=missing.range.last));
                    report(visit.missing, &sent, &delivered);
                    for offset in offsets {
                        match visit.disposition(offset) {
                            Deliver => {
                                prop_assert!(offset > highest, "in order");
                                highest = offset;
                                prop_assert!(delivered.insert(offset), "once");
                            }
                            Late => prop_assert!(delivered.insert(offset), "once"),
                            Duplicate => prop_assert!(delivered.contains(&offset)),
                            Ahead => prop_assert!(false),
                        }
                    }
                    let filled = visit.finish().filled;
                    prop_assert_eq!(offsets_of(&filled), &holes - &open_holes(&positions));
                }
                Step::Rewind { back } => {
                    epoch += 1;
                    read = (read - back).max(origin);
                    let before = |offset: i64| log[(offset - origin) as usize];
                    last = (origin..read).rev().find(|&offset| before(offset));
                    count = (origin..read).filter(|&offset| before(offset)).count() as u64;
                }
                Step::Ledger => {
                    let entry = ledger(last, count);
                    report(positions.ledger(&entry).missing, &sent, &delivered);
                    if last.is_some() { highest = highest.max(last.unwrap()); }
                }
                Step::Replay { back, len } => {
                    let first = (read - back).max(origin);
                    let end = (first + len).min(read);
                    if first >= end { continue; }
                    let previous = Some(first - 1);
                    let head = ChunkHeader { kind: ChunkKind::Replay, ..header(previous, end, 0) };
                    let offsets: Vec<_> = (first..end).filter(|at| log[(at - origin) as usize]).collect();
                    let holes = open_holes(&positions);
                    let visit = positions.enter(&head, offsets.len() as u32);
                    prop_assert_eq!(visit.missing, None);
                    for offset in offsets {
                        match visit.disposition(offset) {
                            Late => prop_assert!(delivered.insert(offset), "once"),
                            Duplicate => prop_assert!(delivered.contains(&offset)),
                            Ahead => prop_assert!(!delivered.contains(&offset)),
                            Deliver => prop_assert!(false, "a replay is outside of the chain"),
                        }
                    }
                    let filled = visit.finish().filled;
                    prop_assert_eq!(offsets_of(&filled), &holes - &open_holes(&positions));
                }
                Step::Restart => {
                    let json = serde_json::to_string(&positions).unwrap();
                    positions = serde_json::from_str(&json).unwrap();
                }
            }
            if let Some(position) = positions.get(&key()) {
                let next = position.next();
                for offset in sent.range(..next) {
                    prop_assert!(delivered.contains(offset) != position.is_hole(*offset), "{}", offset);
                }
                prop_assert_eq!(delivered.range(next..).count(), 0);
            }
        }
        // The last ledger of the partition names what is left.
        let furthest = sent.last().copied();
        let total = sent.len() as u64;
        report(positions.ledger(&ledger(furthest, total)).missing, &sent, &delivered);
        for offset in &sent {
            prop_assert!(delivered.contains(offset) || reported.contains(offset), "{} is nowhere", offset);
        }
    }
}
