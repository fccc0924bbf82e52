//! Slices of a replay against a naive partition: what exists, what was compacted or aborted, what the far end misses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ddc_fec::Code;
use ddc_wire::{
    ChunkHeader, ChunkKind, Chunks, Codec, Content, Epoch, Prelude, RecordHeader, Timestamp, TopicId,
};
use proptest::prelude::*;

use crate::receiver::{Disposition, PartitionKey, Positions};
use crate::sender::{
    Compression, PackConfig, PackError, PackedBlock, ReplayPacker, ReplayRange, ReplaySlice,
    block_wire_bytes, wire_bytes,
};

const ID: TopicId = TopicId::Uuid([9; 16]);

fn config(compression: Compression, symbol_size: usize, source_symbols: usize) -> PackConfig {
    PackConfig {
        stream: String::new(),
        symbol_size,
        source_symbols,
        linger: std::time::Duration::from_millis(5),
        compression,
        max_record_bytes: 100_000,
        ledger_interval: std::time::Duration::from_secs(30),
        ledger_changed: std::time::Duration::from_secs(1),
        max_partitions: 1,
    }
}

fn range(first: i64, last: i64) -> ReplayRange {
    let topic = Arc::from("orders");
    ReplayRange { topic, topic_id: ID, partition: 3, partition_count: 8, first, last }
}

fn no_headers() -> impl ExactSizeIterator<Item = RecordHeader<'static>> + Clone {
    std::iter::empty()
}

/// The batch of a slice, as the far end gets it: fragments joined, decompressed.
fn raw(blocks: &[PackedBlock]) -> Vec<u8> {
    let mut joined = Vec::new();
    let mut prelude = None;
    for (number, block) in blocks.iter().enumerate() {
        let (found, data) = Prelude::decode(&block.bytes).unwrap();
        assert_eq!((found.fragment as usize, found.fragments as usize), (number, blocks.len()));
        assert_eq!(found.content, Content::Records);
        assert!(block.marks.is_empty(), "nothing is committed for a replay");
        joined.extend_from_slice(data);
        prelude = Some(found);
    }
    let prelude = prelude.expect("a slice has a block");
    let raw = match prelude.codec {
        Codec::None => joined,
        Codec::Zstd => zstd::bulk::decompress(&joined, prelude.raw_len as usize).unwrap(),
        Codec::Lz4 => lz4_flex::block::decompress(&joined, prelude.raw_len as usize).unwrap(),
    };
    assert_eq!(raw.len(), prelude.raw_len as usize);
    raw
}

/// Replays `first..=last` of a partition whose records are `log`; values decide their sizes.
fn replay(
    packer: &mut ReplayPacker,
    log: &BTreeMap<i64, Vec<u8>>,
    first: i64,
    last: i64,
) -> Vec<ReplaySlice> {
    packer.begin(range(first, last)).unwrap();
    let mut slices = Vec::new();
    for (offset, value) in log.range(first..=last) {
        let headers = [RecordHeader { name: b"h", value: Some(&value[..value.len().min(3)]) }];
        let time = Some(Timestamp::Create(offset * 7));
        packer.push(*offset, time, Some(b"k"), Some(value), headers.into_iter()).unwrap();
        slices.extend(std::iter::from_fn(|| packer.pop()));
    }
    packer.finish(last + 1);
    slices.extend(std::iter::from_fn(|| packer.pop()));
    slices
}

#[derive(Debug, Clone)]
struct Case {
    compression: Compression,
    shape: (usize, usize),
    log: BTreeMap<i64, Vec<u8>>,
    first: i64,
    last: i64,
    /// What the far end misses, of 0 … 400.
    missing: BTreeSet<i64>,
    /// Which slices are lost on their way.
    lost: Vec<bool>,
}

fn cases() -> impl Strategy<Value = Case> {
    let compression =
        prop_oneof![Just(Compression::None), Just(Compression::Lz4), Just(Compression::Zstd(1))];
    // Bytes that compress and bytes that don't, so that the guess at a block's fill is wrong at times.
    let value = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..120),
        2 => (any::<u8>(), 0usize..3000).prop_map(|(byte, len)| vec![byte; len]),
        2 => (any::<u64>(), 0usize..3000).prop_map(|(seed, len)| {
            let mut state = seed | 1;
            (0..len).map(|_| { state ^= state << 13; state ^= state >> 7; state ^= state << 17; state as u8 }).collect()
        }),
    ];
    let log = prop::collection::btree_map(0i64..400, value, 0..200);
    let shape = prop_oneof![Just((64, 4)), Just((100, 16)), Just((1412, 64))];
    let missing = prop::collection::btree_set(0i64..400, 0..300);
    let lost = prop::collection::vec(prop::bool::weighted(0.2), 1..40);
    (compression, shape, log, 0i64..400, 0i64..400, missing, lost).prop_map(
        |(compression, shape, log, a, b, missing, lost)| Case {
            compression,
            shape,
            log,
            first: a.min(b),
            last: a.max(b),
            missing,
            lost,
        },
    )
}

/// The far end: everything below 400 is settled but `missing`.
fn positions(missing: &BTreeSet<i64>) -> Positions {
    let mut positions = Positions::default();
    let chunk = |previous: Option<i64>, end: i64| ChunkHeader {
        kind: ChunkKind::Live,
        stream: "",
        topic: "orders",
        topic_id: ID,
        partition: 3,
        partition_count: 8,
        epoch: Epoch(5),
        origin: 0,
        previous,
        end,
        count: 0,
    };
    positions.enter(&chunk(None, 0), 0).finish();
    for offset in (0..400).filter(|offset| !missing.contains(offset)) {
        positions.enter(&chunk((offset > 0).then(|| offset - 1), offset + 1), 1).finish();
    }
    positions.enter(&chunk(Some(399), 400), 0).finish();
    positions
}

fn key() -> PartitionKey {
    PartitionKey { stream: String::new(), topic: "orders".into(), topic_id: ID, partition: 3 }
}

fn holes(positions: &Positions) -> BTreeSet<i64> {
    positions.get(&key()).unwrap().holes().iter().flat_map(|hole| hole.first..=hole.last).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// DDC-W-106: slices are disjoint and join up to the range; each record is in the slice of its offset, as it was; what
    /// arrives closes its part of every hole and writes exactly the records that were missing, what is lost closes none.
    #[test]
    fn slices_join_up_and_close_exactly_their_part(case in cases()) {
        let Case { compression, shape, log, first, last, missing, lost } = case;
        let config = config(compression, shape.0, shape.1);
        let mut packer = ReplayPacker::new(&config).unwrap();
        let slices = replay(&mut packer, &log, first, last);
        let mut egress = positions(&missing);
        prop_assert_eq!(holes(&egress), missing.clone());
        let (mut next, mut open, mut written) = (first, missing.clone(), BTreeSet::new());
        for (slice, lost) in slices.iter().zip(lost.into_iter().chain(std::iter::repeat(false))) {
            prop_assert_eq!(slice.base, next, "the slices join up");
            prop_assert!(slice.end > slice.base);
            next = slice.end;
            let block = shape.0 * shape.1;
            prop_assert!(slice.blocks.iter().all(|block_| block_.bytes.len() <= block));
            prop_assert!(slice.blocks.len() == 1 || slice.records == 1, "only one record takes several blocks");
            prop_assert_eq!(slice.blocks.iter().map(|block| block.records).sum::<u32>(), slice.records);
            let raw = raw(&slice.blocks);
            let chunks: Vec<_> = Chunks::new(&raw).map(Result::unwrap).collect();
            prop_assert_eq!(chunks.len(), 1);
            let (header, records) = (chunks[0].header, chunks[0].records.clone());
            prop_assert_eq!((header.kind, header.previous, header.epoch), (ChunkKind::Replay, None, Epoch(0)));
            prop_assert_eq!((header.base(), header.end), (slice.base, slice.end));
            prop_assert_eq!(chunks[0].filtered.clone().count(), 0);
            let expected: Vec<_> = log.range(slice.base..slice.end).collect();
            prop_assert_eq!(expected.len() as u32, slice.records);
            let visit = egress.enter(&header, chunks[0].record_count);
            for (record, (offset, value)) in records.map(Result::unwrap).zip(expected) {
                prop_assert_eq!((record.offset, record.value), (*offset, Some(&value[..])));
                prop_assert_eq!((record.key, record.timestamp), (Some(&b"k"[..]), Some(Timestamp::Create(offset * 7))));
                let kept: Vec<_> = record.headers.map(|header| (header.name.to_vec(), header.value.map(<[u8]>::to_vec))).collect();
                prop_assert_eq!(kept, vec![(b"h".to_vec(), Some(value[..value.len().min(3)].to_vec()))]);
                let wanted = if open.contains(offset) { Disposition::Late } else { Disposition::Duplicate };
                prop_assert_eq!(visit.disposition(*offset), wanted);
                if !lost && wanted == Disposition::Late {
                    prop_assert!(written.insert(*offset), "once");
                }
            }
            if lost {
                continue;
            }
            visit.finish();
            open.retain(|offset| !(slice.base..slice.end).contains(offset));
            prop_assert_eq!(holes(&egress), open.clone());
        }
        prop_assert_eq!(next, last + 1, "and reach the end of what was asked for");
        let position = egress.get(&key()).unwrap();
        prop_assert_eq!((position.next(), position.epoch()), (400, Epoch(5)), "the chain is left alone");
        // The same again, nothing lost: what was written is not written twice.
        let mut egress_after = egress.clone();
        for slice in replay(&mut packer, &log, first, last) {
            let raw = raw(&slice.blocks);
            for chunk in Chunks::new(&raw).map(Result::unwrap) {
                let visit = egress_after.enter(&chunk.header, chunk.record_count);
                for record in chunk.records.clone().map(Result::unwrap) {
                    if visit.disposition(record.offset) == Disposition::Late {
                        prop_assert!(written.insert(record.offset), "once");
                    }
                }
                visit.finish();
            }
        }
        let within = |offset: &&i64| (first..=last).contains(*offset);
        let existing: BTreeSet<i64> = missing.iter().filter(within).filter(|offset| log.contains_key(offset)).copied().collect();
        prop_assert_eq!(written, existing, "exactly what was missing and exists was written");
        prop_assert_eq!(holes(&egress_after), missing.iter().filter(|offset| !within(offset)).copied().collect::<BTreeSet<_>>());
    }

    /// The estimate of what a block costs on the wire is what the sender hands out.
    #[test]
    fn a_block_costs_what_its_datagrams_cost(len in 1usize..64 * 1412, full: bool) {
        let code = Code::new(64, 8).unwrap();
        let sources = len.div_ceil(1412);
        let symbol = if full { 1412 } else { len.div_ceil(sources) };
        let datagram = wire_bytes(symbol + ddc_wire::OVERHEAD, 20);
        let exact = ((sources + code.short(sources).r()) * datagram) as u64;
        let estimate = block_wire_bytes(len, code, 1412, 20);
        prop_assert!(estimate <= exact && estimate + (sources as u64 + 8) * (1412 / sources as u64 + 1) >= exact,
            "{} of {}", estimate, exact);
    }
}

#[test]
fn a_range_without_records_is_answered_for_by_one_slice() {
    let mut packer = ReplayPacker::new(&config(Compression::None, 1412, 64)).unwrap();
    let slices = replay(&mut packer, &BTreeMap::new(), 0, 1_000_000);
    assert_eq!(slices.len(), 1);
    assert_eq!((slices[0].base, slices[0].end, slices[0].records), (0, 1_000_001, 0));
}

#[test]
fn a_range_that_could_not_be_read_to_its_end_is_answered_for_up_to_there() {
    let mut packer = ReplayPacker::new(&config(Compression::None, 1412, 64)).unwrap();
    packer.begin(range(10, 20)).unwrap();
    packer.push(12, None, None, Some(b"v"), no_headers()).unwrap();
    packer.finish(15);
    assert_eq!(packer.pop().map(|slice| (slice.base, slice.end, slice.records)), Some((10, 15, 1)));
    packer.begin(range(15, 20)).unwrap();
    packer.finish(15);
    assert_eq!(packer.pop(), None, "nothing was read, nothing is answered for");
}

#[test]
fn what_is_not_of_the_range_is_refused_and_changes_nothing() {
    let mut packer = ReplayPacker::new(&config(Compression::None, 1412, 64)).unwrap();
    let push = |packer: &mut ReplayPacker, offset: i64, len: usize| {
        packer.push(offset, None, None, Some(&vec![0; len]), no_headers())
    };
    assert_eq!(push(&mut packer, 1, 1), Err(PackError::UnknownSlot), "no range was begun");
    for (first, last) in [(-1, 5), (6, 5), (0, i64::MAX)] {
        assert!(
            matches!(packer.begin(range(first, last)), Err(PackError::BadStart { .. })),
            "{first} {last}"
        );
    }
    let long = ReplayRange { topic: "x".repeat(256).into(), ..range(0, 1) };
    assert_eq!(packer.begin(long), Err(PackError::NameTooLong { len: 256 }));
    packer.begin(range(10, 20)).unwrap();
    push(&mut packer, 12, 1).unwrap();
    for offset in [9, 12, 21] {
        assert_eq!(push(&mut packer, offset, 1), Err(PackError::OffsetOrder { offset, next: 13 }));
    }
    assert!(matches!(push(&mut packer, 13, 100_001), Err(PackError::TooLarge { .. })));
    packer.finish(21);
    let slice = packer.pop().unwrap();
    assert_eq!((slice.base, slice.end, slice.records), (10, 21, 1));
    packer.begin(range(0, 3)).unwrap();
    push(&mut packer, 0, 1).unwrap();
    packer.clear();
    assert_eq!(packer.pop(), None);
}
