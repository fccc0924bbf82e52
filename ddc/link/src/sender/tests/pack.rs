//! Whatever is pushed comes out once, in order, in blocks that fit; marks and ledger tell the truth.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ddc_wire::{
    Chunks, Codec, Content, Epoch, LedgerEntries, Prelude, RecordHeader, Timestamp, TopicId, validate_ledger,
    validate_records,
};
use proptest::prelude::*;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::sender::{
    Compression, PackConfig, PackConfigError, PackError, PackedBlock, Packer, PartitionStart, Slot,
};

#[derive(Debug, Clone, PartialEq, Eq)]
struct Owned {
    offset: i64,
    timestamp: Option<Timestamp>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Owned {
    fn plain(offset: i64, value: Vec<u8>) -> Self {
        Self {
            offset,
            timestamp: Some(Timestamp::Create(1_700_000_000_000 + offset)),
            key: None,
            value: Some(value),
            headers: Vec::new(),
        }
    }

    fn push(&self, packer: &mut Packer, now: Instant, slot: Slot) -> Result<(), PackError> {
        let headers: Vec<RecordHeader<'_>> =
            self.headers.iter().map(|(name, value)| RecordHeader { name, value: value.as_deref() }).collect();
        packer.push(
            now,
            slot,
            self.offset,
            self.timestamp,
            self.key.as_deref(),
            self.value.as_deref(),
            headers.iter().copied(),
        )
    }
}

fn config(compression: Compression) -> PackConfig {
    PackConfig {
        stream: String::new(),
        symbol_size: 1412,
        source_symbols: 64,
        linger: Duration::from_millis(5),
        compression,
        max_record_bytes: 16 << 20,
        ledger_interval: Duration::from_secs(30),
        ledger_changed: Duration::from_secs(1),
        max_partitions: 100,
    }
}

fn start(partition: i32, epoch: u64, previous: Option<i64>, count: u64, next: i64) -> PartitionStart {
    PartitionStart {
        topic: Arc::from("orders"),
        topic_id: TopicId::Uuid([9; 16]),
        partition,
        partition_count: 8,
        epoch: Epoch(epoch),
        origin: 10,
        previous,
        count,
        next,
    }
}

/// What one ownership of a partition has delivered.
#[derive(Debug)]
struct Life {
    slot: Slot,
    start: PartitionStart,
    records: Vec<Owned>,
    last: Option<i64>,
    end: i64,
    marked: i64,
    in_ledger: u32,
}

/// Receives blocks, checks all that can be checked without knowing what was pushed.
struct Model {
    block_len: usize,
    /// By partition and epoch.
    lives: BTreeMap<(i32, u64), Life>,
    fragments: Vec<u8>,
    next_fragment: u32,
    blocks: u32,
    full_bytes: u64,
    full_blocks: u64,
    codecs: Vec<Codec>,
}

impl Model {
    fn new(config: &PackConfig) -> Self {
        Self {
            block_len: config.symbol_size * config.source_symbols,
            lives: BTreeMap::new(),
            fragments: Vec::new(),
            next_fragment: 0,
            blocks: 0,
            full_bytes: 0,
            full_blocks: 0,
            codecs: Vec::new(),
        }
    }

    fn assigned(&mut self, slot: Slot, start: PartitionStart) {
        let (last, end) = (start.previous, start.next);
        let key = (start.partition, start.epoch.0);
        let life = Life { slot, start, records: Vec::new(), last, end, marked: end, in_ledger: 0 };
        assert!(self.lives.insert(key, life).is_none());
    }

    fn take(&mut self, block: &PackedBlock) {
        self.blocks += 1;
        assert!((1..=self.block_len).contains(&block.bytes.len()), "{} bytes", block.bytes.len());
        let (prelude, data) = Prelude::decode(&block.bytes).unwrap();
        assert_eq!(prelude.content, block.content);
        assert_eq!(prelude.fragment, self.next_fragment, "fragments come one after the other");
        self.fragments.extend_from_slice(data);
        self.next_fragment += 1;
        if prelude.fragments > 1 && self.next_fragment < prelude.fragments {
            assert!(block.full && block.marks.is_empty() && block.records == 0);
            assert!(block.bytes.len() + Prelude::MAX_LEN > self.block_len, "all but the last are full");
            return;
        }
        if block.full && prelude.fragments == 1 && block.content == Content::Records {
            self.full_bytes += block.bytes.len() as u64;
            self.full_blocks += 1;
        }
        self.next_fragment = 0;
        let joined = std::mem::take(&mut self.fragments);
        let raw_len = prelude.raw_len as usize;
        let raw = match prelude.codec {
            Codec::None => joined,
            Codec::Zstd => zstd::bulk::decompress(&joined, raw_len).unwrap(),
            Codec::Lz4 => lz4_flex::block::decompress(&joined, raw_len).unwrap(),
        };
        self.codecs.push(prelude.codec);
        assert_eq!(raw.len(), raw_len);
        match prelude.content {
            Content::Records => {
                self.records(&raw, block, prelude.fragments);
            }
            Content::Ledger => self.ledger(&raw),
        }
        for mark in &block.marks {
            let life = self.lives.values_mut().find(|life| life.slot == mark.slot).unwrap();
            assert_eq!(mark.last, life.last, "a mark speaks for what has been sent and no more");
            assert_eq!(mark.count, life.start.count + life.records.len() as u64);
            assert!(mark.end >= life.end && mark.end > life.marked, "marks rise: {mark:?} {life:?}");
            life.marked = mark.end;
        }
    }

    fn records(&mut self, raw: &[u8], block: &PackedBlock, fragments: u32) {
        assert_eq!(validate_records(raw), Ok(u64::from(block.records)));
        assert!(block.records > 0, "no empty batches");
        assert!(fragments == 1 || block.records == 1, "only one record spans blocks");
        assert!(raw.len() <= (8 * self.block_len).min(1 << 20) || block.records == 1);
        let mut bytes = 0;
        for chunk in Chunks::new(raw) {
            let chunk = chunk.unwrap();
            let key = (chunk.header.partition, chunk.header.epoch.0);
            let life = self.lives.get_mut(&key).unwrap();
            assert_eq!(chunk.header.previous, life.last, "the chain is whole");
            assert_eq!(
                (chunk.header.origin, chunk.header.topic, chunk.header.topic_id),
                (life.start.origin, &*life.start.topic, life.start.topic_id)
            );
            for record in chunk.records {
                let record = record.unwrap();
                life.last = Some(record.offset);
                let owned = Owned {
                    offset: record.offset,
                    timestamp: record.timestamp,
                    key: record.key.map(<[u8]>::to_vec),
                    value: record.value.map(<[u8]>::to_vec),
                    headers: record
                        .headers
                        .map(|header| (header.name.to_vec(), header.value.map(<[u8]>::to_vec)))
                        .collect(),
                };
                bytes += owned.key.iter().chain(&owned.value).map(Vec::len).sum::<usize>();
                bytes += owned
                    .headers
                    .iter()
                    .map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len))
                    .sum::<usize>();
                life.records.push(owned);
            }
            assert!(chunk.header.end > life.last.unwrap() && chunk.header.end >= life.end);
            life.end = chunk.header.end;
            assert_eq!(chunk.header.count, life.start.count + life.records.len() as u64);
        }
        assert_eq!(block.record_bytes, bytes as u64);
        for chunk in Chunks::new(raw).flatten() {
            let slot = self.lives[&(chunk.header.partition, chunk.header.epoch.0)].slot;
            // A partition that was revoked meanwhile may have marks or not.
            assert!(block.marks.iter().filter(|mark| mark.slot == slot).count() <= 1);
        }
    }

    fn ledger(&mut self, raw: &[u8]) {
        assert!(validate_ledger(raw).unwrap() > 0, "no empty ledgers");
        for entry in LedgerEntries::new(raw) {
            let entry = entry.unwrap();
            let life = self.lives.get_mut(&(entry.partition, entry.epoch.0)).unwrap();
            assert_eq!(entry.blocks_back, 1);
            assert_eq!(entry.last, life.last, "the ledger speaks for all blocks before it");
            assert_eq!(entry.count, life.start.count + life.records.len() as u64);
            life.in_ledger += 1;
        }
    }
}

fn noise(rng: &mut impl Rng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rng.fill_bytes(&mut bytes);
    bytes
}

fn text(rng: &mut impl Rng, len: usize) -> Vec<u8> {
    let words = [&b"temperature="[..], b"valve;", b"{\"id\":", b"7", b"3", b"1", b"\n"];
    let mut bytes = Vec::with_capacity(len + 16);
    while bytes.len() < len {
        bytes.extend_from_slice(words[rng.random_range(0..words.len())]);
    }
    bytes.truncate(len);
    bytes
}

fn drain(packer: &mut Packer, now: Instant, ready: bool, model: &mut Model) -> usize {
    let mut blocks = 0;
    while let Some(block) = packer.poll(now, ready) {
        model.take(&block);
        blocks += 1;
    }
    blocks
}

#[derive(Debug, Clone)]
enum Act {
    Push { partition: i32, skip: i64, len: usize, noisy: bool, key: Option<u8>, headers: u8, time: u8 },
    Advance { partition: i32, by: i64 },
    Revoke { partition: i32 },
    Wait { micros: u64 },
    Poll { ready: bool },
    Flush,
}

fn act() -> impl Strategy<Value = Act> {
    let len = prop_oneof![
        8 => 0usize..300,
        4 => 0usize..20_000,
        2 => 0usize..200_000,
        1 => 0usize..1_048_577,
    ];
    let push = (0i32..4, 0i64..3, len, any::<bool>(), any::<Option<u8>>(), 0u8..3, 0u8..3).prop_map(
        |(partition, skip, len, noisy, key, headers, time)| Act::Push {
            partition,
            skip,
            len,
            noisy,
            key,
            headers,
            time,
        },
    );
    prop_oneof![
        40 => push,
        2 => (0i32..4, 0i64..50).prop_map(|(partition, by)| Act::Advance { partition, by }),
        1 => (0i32..4).prop_map(|partition| Act::Revoke { partition }),
        4 => (0u64..8_000).prop_map(|micros| Act::Wait { micros }),
        1 => (0u64..3_000_000).prop_map(|micros| Act::Wait { micros }),
        8 => any::<bool>().prop_map(|ready| Act::Poll { ready }),
        1 => Just(Act::Flush),
    ]
}

/// Plays the acts; returns the model after everything was flushed, checked against what was pushed.
fn play(config: &PackConfig, acts: &[Act], seed: u64) -> Model {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut now = Instant::now();
    let mut packer = Packer::new(config.clone(), now).unwrap();
    let mut model = Model::new(config);
    // (slot, epoch, next offset, what was pushed)
    let mut owned: Vec<(Slot, u64, i64, Vec<Owned>)> = Vec::new();
    for partition in 0..4 {
        let first = start(partition, 1, None, 0, 10);
        let slot = packer.assign(first.clone()).unwrap();
        model.assigned(slot, first);
        owned.push((slot, 1, 10, Vec::new()));
    }
    for act in acts {
        match *act {
            Act::Push { partition, skip, len, noisy, key, headers, time } => {
                let (slot, _, next, pushed) = &mut owned[partition as usize];
                let record = Owned {
                    offset: *next + skip,
                    timestamp: [None, Some(Timestamp::Create(-5)), Some(Timestamp::LogAppend(1 << 40))]
                        [time as usize],
                    key: key.map(|len| noise(&mut rng, len as usize)),
                    value: (len % 7 != 3)
                        .then(|| if noisy { noise(&mut rng, len) } else { text(&mut rng, len) }),
                    headers: (0..headers).map(|h| (vec![h; 3], (h > 0).then(|| vec![h; 5]))).collect(),
                };
                if record.push(&mut packer, now, *slot) == Err(PackError::Full) {
                    assert!(drain(&mut packer, now, false, &mut model) > 0, "full means that blocks wait");
                    record.push(&mut packer, now, *slot).unwrap();
                }
                let below = Owned::plain(record.offset, Vec::new()).push(&mut packer, now, *slot);
                assert!(matches!(below, Err(PackError::OffsetOrder { .. })));
                *next = record.offset + 1;
                pushed.push(record);
            }
            Act::Advance { partition, by } => {
                let (slot, _, next, _) = &mut owned[partition as usize];
                *next += by;
                packer.advance(*slot, *next).unwrap();
                packer.advance(*slot, *next - 20).unwrap();
            }
            Act::Revoke { partition } => {
                drain(&mut packer, now, false, &mut model);
                let (slot, epoch, next, pushed) = &mut owned[partition as usize];
                packer.revoke(*slot);
                packer.revoke(*slot);
                let life = &model.lives[&(partition, *epoch)];
                assert_eq!(life.records[..], pushed[..life.records.len()]);
                assert_eq!(
                    Owned::plain(*next, Vec::new()).push(&mut packer, now, *slot),
                    Err(PackError::UnknownSlot)
                );
                // The next owner goes on where the blocks end: as after a commit.
                let (last, end, count) = (life.last, life.end, life.start.count + life.records.len() as u64);
                let again = start(partition, *epoch + 1, last, count, end);
                let fresh = packer.assign(again.clone()).unwrap();
                assert_ne!(fresh, *slot, "marks of the former owner are told apart");
                model.assigned(fresh, again);
                (*slot, *next) = (fresh, end);
                *epoch += 1;
                pushed.clear();
            }
            Act::Wait { micros } => now += Duration::from_micros(micros),
            Act::Poll { ready } => {
                drain(&mut packer, now, ready, &mut model);
                if ready {
                    assert!(packer.next_deadline().is_none_or(|at| at > now), "nothing that is due stays");
                }
            }
            Act::Flush => packer.flush(now),
        }
    }
    packer.flush(now);
    drain(&mut packer, now, false, &mut model);
    assert_eq!(packer.queued_bytes(), 0);
    drain(&mut packer, now + Duration::from_secs(2), true, &mut model);
    for (partition, (slot, epoch, next, pushed)) in owned.iter().enumerate() {
        let life = &model.lives[&(partition as i32, *epoch)];
        assert_eq!(life.slot, *slot);
        assert!(life.records == *pushed, "partition {partition}: all records, once, in order");
        assert_eq!(life.marked, *next, "partition {partition}: everything read can be committed");
        assert!(life.in_ledger > 0);
    }
    model
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn everything_comes_out_once_and_in_order(
        acts in prop::collection::vec(act(), 1..120),
        compression in prop_oneof![Just(Compression::None), Just(Compression::Lz4), Just(Compression::Zstd(1))],
        symbols in 1usize..129,
        symbol_size in 64usize..2000,
        linger_millis in prop_oneof![Just(0u64), 1u64..6],
        seed: u64,
    ) {
        let config = PackConfig {
            symbol_size,
            source_symbols: symbols,
            linger: Duration::from_millis(linger_millis),
            max_record_bytes: 2 << 20,
            ..config(compression)
        };
        play(&config, &acts, seed);
    }
}

/// Text, then noise, then text: guesses that are too bold are mended, and learnt from.
#[test]
fn changing_compressibility_never_overflows_a_block() {
    for compression in [Compression::Lz4, Compression::Zstd(1)] {
        let acts: Vec<Act> = (0..40_000)
            .map(|i| Act::Push {
                partition: i % 3,
                skip: 0,
                len: 200,
                noisy: (i / 10_000) % 2 == 1,
                key: None,
                headers: 0,
                time: 1,
            })
            .flat_map(|push| [push, Act::Poll { ready: false }])
            .collect();
        let model = play(&config(compression), &acts, 3);
        assert!(model.codecs.contains(&Codec::None));
        assert!(model.codecs.iter().any(|codec| *codec != Codec::None));
    }
}

/// Under a steady load blocks are at least nine tenths full.
#[test]
fn blocks_fill_under_load() {
    let now = Instant::now();
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd(1)] {
        let config = config(compression);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut packer = Packer::new(config.clone(), now).unwrap();
        let mut model = Model::new(&config);
        let first = start(0, 1, None, 0, 10);
        let slot = packer.assign(first.clone()).unwrap();
        model.assigned(slot, first);
        for offset in 10..60_010 {
            // About a third of its size when compressed.
            let value = [text(&mut rng, 75), noise(&mut rng, 25)].concat();
            Owned::plain(offset, value).push(&mut packer, now, slot).unwrap();
            drain(&mut packer, now, false, &mut model);
            if offset == 20_000 {
                // What the first blocks taught is in the guess now.
                (model.full_bytes, model.full_blocks) = (0, 0);
            }
        }
        let mean = model.full_bytes / model.full_blocks;
        assert!(
            mean > 90_368 * 9 / 10,
            "{compression:?}: {mean} of 90368 bytes in {} blocks",
            model.full_blocks
        );
    }
}

#[test]
fn linger_waits_for_time_and_link() {
    let t0 = Instant::now();
    let config = config(Compression::None);
    let mut packer = Packer::new(config.clone(), t0).unwrap();
    let slot = packer.assign(start(0, 1, None, 0, 10)).unwrap();
    Owned::plain(10, vec![1; 100]).push(&mut packer, t0, slot).unwrap();
    let due = t0 + config.linger;
    assert_eq!(packer.next_deadline(), Some(due));
    assert_eq!(packer.poll(t0 + Duration::from_micros(4_999), true), None);
    assert_eq!(packer.poll(due, false), None, "while the link is busy the block fills");
    let block = packer.poll(due, true).unwrap();
    assert!(!block.full && block.records == 1 && block.record_bytes == 100);
    assert!(block.bytes.len() < 250, "{} bytes for a record of 100", block.bytes.len());
    assert_eq!((block.marks[0].end, block.marks[0].last, block.marks[0].count), (11, Some(10), 1));
    assert_eq!(packer.poll(due, true), None);

    let mut packer = Packer::new(PackConfig { linger: Duration::ZERO, ..config }, t0).unwrap();
    let slot = packer.assign(start(0, 1, None, 0, 10)).unwrap();
    Owned::plain(10, vec![1; 100]).push(&mut packer, t0, slot).unwrap();
    assert!(packer.poll(t0, true).is_some(), "linger = 0 does not wait");
}

#[test]
fn ledger_speaks_after_a_second_and_every_thirty() {
    let t0 = Instant::now();
    let config = config(Compression::None);
    let mut packer = Packer::new(config.clone(), t0).unwrap();
    let mut model = Model::new(&config);
    for partition in 0..50 {
        let first = start(partition, 1, Some(20), 7, 40);
        model.assigned(packer.assign(first.clone()).unwrap(), first);
    }
    let at = |millis| t0 + Duration::from_millis(millis);
    assert_eq!(drain(&mut packer, at(999), true, &mut model), 0);
    assert_eq!(drain(&mut packer, at(1_000), false, &mut model), 0, "not while nothing can be sent");
    assert_eq!(drain(&mut packer, at(1_000), true, &mut model), 1);
    assert!(model.lives.values().all(|life| life.in_ledger == 1), "new partitions are known at once");
    assert_eq!(packer.next_deadline(), Some(at(30_000)));

    let slot = model.lives[&(3, 1)].slot;
    packer.poll(at(5_000), true);
    packer.advance(slot, 60).unwrap();
    let block = packer.poll(at(6_000), true).unwrap();
    assert_eq!((block.content, block.marks.len(), block.marks[0].end), (Content::Ledger, 1, 60));
    model.take(&block);
    assert_eq!(model.lives.values().map(|life| life.in_ledger).sum::<u32>(), 51, "only what changed");

    packer.revoke(slot);
    assert_eq!(drain(&mut packer, at(30_000), true, &mut model), 1);
    assert!(model.lives.iter().all(|(key, life)| life.in_ledger == 2 || key.0 == 3));
    assert_eq!(model.lives[&(3, 1)].in_ledger, 2, "the ledger forgets what was revoked");
    assert_eq!(drain(&mut packer, at(59_999), true, &mut model), 0);
    assert_eq!(drain(&mut packer, at(60_000), true, &mut model), 1);
}

#[test]
fn a_large_ledger_takes_several_blocks() {
    let t0 = Instant::now();
    let config = PackConfig { source_symbols: 2, max_partitions: 2_000, ..config(Compression::None) };
    let mut packer = Packer::new(config.clone(), t0).unwrap();
    let mut model = Model::new(&config);
    for partition in 0..2_000 {
        let first = start(partition, 1, None, 0, 10);
        model.assigned(packer.assign(first.clone()).unwrap(), first);
    }
    assert_eq!(packer.assign(start(2_000, 1, None, 0, 10)), Err(PackError::TooManyPartitions { max: 2_000 }));
    let blocks = drain(&mut packer, t0 + Duration::from_secs(1), true, &mut model);
    assert!(blocks > 10, "{blocks}");
    assert!(model.lives.values().all(|life| life.in_ledger == 1));
}

/// Up to 16 MiB, the default of `max_record_bytes`; one byte more is refused and changes nothing.
#[test]
fn large_records_span_blocks() {
    let now = Instant::now();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd(1)] {
        let config = config(compression);
        let mut packer = Packer::new(config.clone(), now).unwrap();
        let mut model = Model::new(&config);
        let first = start(0, 1, None, 0, 10);
        let slot = packer.assign(first.clone()).unwrap();
        model.assigned(slot, first);
        let mut pushed = Vec::new();
        for (offset, len) in (10..).zip([10, 90_000, 90_400, 1 << 20, 3 << 20, 16 << 20, 50]) {
            for noisy in [true, false] {
                let value = if noisy { noise(&mut rng, len) } else { text(&mut rng, len) };
                let record = Owned::plain(offset * 2 + i64::from(!noisy), value);
                let over = Owned::plain(record.offset, vec![0; (16 << 20) + 1]);
                let before = packer.queued_bytes();
                assert_eq!(
                    over.push(&mut packer, now, slot),
                    Err(PackError::TooLarge { len: (16 << 20) + 1, max: 16 << 20 })
                );
                assert_eq!(packer.queued_bytes(), before);
                record.push(&mut packer, now, slot).unwrap();
                drain(&mut packer, now, false, &mut model);
                pushed.push(record);
            }
        }
        packer.flush(now);
        drain(&mut packer, now, false, &mut model);
        assert!(model.lives[&(0, 1)].records == pushed);
        assert!(packer.raw.capacity() <= 4 << 20, "memory of large records is given back");
    }
}

#[test]
fn the_outbox_is_bounded() {
    let now = Instant::now();
    let mut packer = Packer::new(config(Compression::None), now).unwrap();
    let slot = packer.assign(start(0, 1, None, 0, 10)).unwrap();
    let mut refused = None;
    for offset in 10..100 {
        if let Err(error) = Owned::plain(offset, vec![0; 10 << 20]).push(&mut packer, now, slot) {
            refused = Some((offset, error));
            break;
        }
    }
    assert_eq!(refused, Some((12, PackError::Full)));
    while packer.poll(now, false).is_some() {}
    assert_eq!(Owned::plain(12, vec![0; 10 << 20]).push(&mut packer, now, slot), Ok(()));
}

#[test]
fn impossible_configurations_and_starts_are_refused() {
    let now = Instant::now();
    let refused = |change: fn(&mut PackConfig)| {
        let mut config = config(Compression::None);
        change(&mut config);
        Packer::new(config, now).unwrap_err()
    };
    assert!(matches!(refused(|c| c.symbol_size = 10), PackConfigError::Block { .. }));
    assert!(matches!(refused(|c| c.symbol_size = 9200), PackConfigError::Block { .. }));
    assert!(matches!(refused(|c| c.source_symbols = 0), PackConfigError::Block { .. }));
    assert!(matches!(refused(|c| c.source_symbols = 129), PackConfigError::Block { .. }));
    assert!(matches!(refused(|c| c.max_record_bytes = 300 << 20), PackConfigError::MaxRecord { .. }));
    assert!(matches!(
        refused(|c| (c.source_symbols, c.max_record_bytes) = (1, 200 << 20)),
        PackConfigError::MaxRecord { .. }
    ));
    assert!(matches!(refused(|c| c.stream = "s".repeat(256)), PackConfigError::Stream(256)));

    let mut packer = Packer::new(config(Compression::None), now).unwrap();
    for bad in [
        start(-1, 1, None, 0, 10),
        start(0, 1, Some(10), 0, 10),
        start(0, 1, Some(-1), 0, 10),
        start(0, 1, None, 0, 9),
        start(0, 1, None, 0, i64::MAX),
    ] {
        assert!(matches!(packer.assign(bad), Err(PackError::BadStart { .. })));
    }
    let long = PartitionStart { topic: Arc::from("t".repeat(256)), ..start(0, 1, None, 0, 10) };
    assert_eq!(packer.assign(long), Err(PackError::NameTooLong { len: 256 }));
    packer.assign(start(0, 1, None, 0, 10)).unwrap();
    assert!(matches!(packer.assign(start(0, 2, None, 0, 10)), Err(PackError::AssignedTwice { .. })));
}
