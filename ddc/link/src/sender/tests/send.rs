//! What leaves can be opened, decoded after any r' losses, and keeps the sender's contract.

use std::time::{Duration, Instant};

use ddc_fec::{Code, Decoder, SymbolSet};
use ddc_wire::{
    BlockNumber, Goodbye, GoodbyeReason, HEADER_LEN, Header, Heartbeat, KeyId, Kind, LinkId, PacketNumber,
    Session, SourceState,
};
use proptest::prelude::*;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::keys::{DatagramKey, Direction, KEY_EPOCH_BITS, LinkKey, SealMode};
use crate::sender::{
    Datagrams, HeartbeatFacts, PushError, Sender, SenderConfig, SenderConfigError, Step, wire_bytes,
};

const SYMBOL: usize = 300;

fn config(interleave: u8, code: Code) -> SenderConfig {
    SenderConfig {
        link_id: LinkId(3),
        key_id: KeyId(4),
        key: LinkKey::new([1; 32]),
        seal: SealMode::Aes256Gcm,
        session: Session::new(1_700_000_000_000_000, 7),
        code,
        symbol_size: SYMBOL,
        interleave,
        interleave_span: Duration::from_millis(20),
        rate: None,
        burst: Duration::from_micros(250),
        ip_overhead: 20,
    }
}

/// Opens datagrams and keeps what they carry.
struct Opened {
    config: SenderConfig,
    datagrams: Vec<(Header, Vec<u8>)>,
    sent_at: Vec<(Instant, usize)>,
}

impl Opened {
    fn new(config: &SenderConfig) -> Self {
        Self { config: config.clone(), datagrams: Vec::new(), sent_at: Vec::new() }
    }

    fn take(&mut self, now: Instant, out: &Datagrams) {
        assert_eq!(out.as_bytes().len(), out.iter().map(<[u8]>::len).sum::<usize>());
        for datagram in out.iter() {
            let trailer = self.config.seal.trailer_len();
            assert!(datagram.len() <= HEADER_LEN + SYMBOL + trailer);
            let header = Header::decode(datagram, trailer).unwrap();
            assert_eq!(
                (header.link_id, header.key_id, header.session, header.d_max),
                (self.config.link_id, self.config.key_id, self.config.session, self.config.interleave)
            );
            let key = DatagramKey::derive(
                self.config.seal,
                &self.config.key,
                Direction::Data,
                header.link_id,
                header.key_id,
                header.session,
                header.packet_number.0 >> KEY_EPOCH_BITS,
            );
            let mut bytes = datagram.to_vec();
            let payload = key.open(header.packet_number, &mut bytes).unwrap().to_vec();
            if header.kind.is_symbol() {
                header.shape(payload.len()).unwrap();
            }
            self.datagrams.push((header, payload));
            self.sent_at.push((now, datagram.len()));
        }
    }

    /// Polls until nothing more comes, moving the time as asked.
    fn run(&mut self, sender: &mut Sender, now: &mut Instant) {
        let mut out = Datagrams::new();
        loop {
            match sender.poll(*now, &mut out) {
                Step::Send => self.take(*now, &out),
                Step::Wait(at) => {
                    assert!(at > *now && out.is_empty());
                    *now = at;
                }
                Step::Idle => return,
            }
        }
    }

    fn symbols_of(&self, block: u64) -> Vec<&(Header, Vec<u8>)> {
        self.datagrams
            .iter()
            .filter(|(header, _)| header.kind.is_symbol() && header.block == BlockNumber(block))
            .collect()
    }

    /// The block's bytes from all symbols but r' of them, chosen at random.
    fn decode(&self, block: u64, rng: &mut impl Rng) -> Vec<u8> {
        let mut symbols = self.symbols_of(block);
        let head = symbols[0].0;
        let (k, r) = (head.source_symbols as usize, head.repair_symbols as usize);
        let size = head.symbol_size as usize;
        assert_eq!(symbols.len(), k + r, "every symbol leaves once");
        symbols.shuffle(rng);
        symbols.truncate(k);
        let (mut sources, mut repairs) = (vec![0xEE; k * size], vec![0; r * size]);
        let (mut present, mut repaired) = (SymbolSet::EMPTY, SymbolSet::EMPTY);
        for (header, payload) in symbols {
            assert_eq!(
                header.shape(payload.len()).unwrap(),
                head.shape(size).unwrap_or(header.shape(payload.len()).unwrap())
            );
            let index = header.symbol_index as usize;
            if index < k {
                assert!(present.insert(index));
                let symbol = &mut sources[index * size..(index + 1) * size];
                symbol.fill(0);
                symbol[..payload.len()].copy_from_slice(payload);
            } else {
                assert!(repaired.insert(index - k));
                repairs[(index - k) * size..][..size].copy_from_slice(payload);
            }
        }
        Decoder::new().decode(size, &mut sources, present, &repairs, repaired).unwrap();
        assert!(sources[head.block_len as usize..].iter().all(|byte| *byte == 0), "padding is zeros");
        sources.truncate(head.block_len as usize);
        sources
    }

    /// No symbol of block b after the first of b + D_max, which is stricter than 2 · D_max; each
    /// packet number once; blocks begin in order.
    fn keeps_the_contract(&self) {
        let mut first_number = None;
        let mut highest = 0;
        for ((header, _), index) in self.datagrams.iter().zip(0..) {
            let first = *first_number.get_or_insert(header.packet_number.0);
            assert_eq!(header.packet_number.0, first + index);
            if header.kind.is_symbol() {
                assert!(header.block.0 + u64::from(header.d_max) > highest, "block {}", header.block);
                assert!(header.block.0 <= highest + 1);
                highest = highest.max(header.block.0);
            }
        }
    }
}

fn blocks(rng: &mut impl Rng, count: usize, k: usize) -> Vec<(Vec<u8>, bool)> {
    (0..count)
        .map(|_| {
            let full = rng.random_bool(0.5);
            let least = if full { k * SYMBOL / 2 } else { 1 };
            let mut bytes = vec![0; rng.random_range(least.max(1)..=k * SYMBOL)];
            rng.fill_bytes(&mut bytes);
            (bytes, full)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_loss_of_r_symbols_is_repaired(
        interleave in prop::sample::select(vec![1u8, 2, 8]),
        (k, r) in (1usize..129, 0usize..20),
        count in 1usize..25,
        mode in prop::sample::select(vec![SealMode::Aes256Gcm, SealMode::None]),
        rate in prop::option::of(1_000_000u64..1_000_000_000),
        seed: u64,
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let code = Code::new(k, r).unwrap();
        let config = SenderConfig { seal: mode, rate, ..config(interleave, code) };
        let t0 = Instant::now();
        let mut now = t0;
        let mut sender = Sender::new(config.clone(), now).unwrap();
        let mut opened = Opened::new(&config);
        let mut out = Datagrams::new();
        let sent = blocks(&mut rng, count, k);
        for (index, (bytes, full)) in sent.iter().enumerate() {
            while !sender.ready() || rng.random_bool(0.3) {
                match sender.poll(now, &mut out) {
                    Step::Send => opened.take(now, &out),
                    Step::Wait(at) => now = at,
                    Step::Idle => {}
                }
            }
            prop_assert_eq!(sender.push(now, bytes.clone(), *full, 2), Ok(BlockNumber(index as u64)));
            prop_assert!(sender.blocks_waiting() <= 2 * u64::from(interleave));
            if rng.random_bool(0.1) {
                sender.heartbeat(now, HeartbeatFacts::default());
            }
        }
        opened.run(&mut sender, &mut now);
        opened.keeps_the_contract();
        for (index, (bytes, full)) in sent.iter().enumerate() {
            prop_assert!(opened.decode(index as u64, &mut rng) == *bytes);
            let symbols = opened.symbols_of(index as u64);
            let head = symbols[0].0;
            prop_assert_eq!(head.source_symbols as usize, bytes.len().div_ceil(SYMBOL));
            prop_assert_eq!(head.repair_symbols as usize, code.short(head.source_symbols as usize).r());
            if *full {
                prop_assert!(symbols.iter().all(|(_, payload)| payload.len() == SYMBOL), "equal sizes for GSO");
            } else {
                let source = symbols.iter().filter(|(header, _)| header.kind == Kind::Source);
                prop_assert_eq!(source.map(|(_, payload)| payload.len()).sum::<usize>(), bytes.len());
            }
        }
        let totals = sender.totals();
        prop_assert_eq!(totals.packets, opened.datagrams.len() as u64);
        prop_assert_eq!(totals.bytes, opened.sent_at.iter().map(|(_, len)| *len as u64).sum::<u64>());
        prop_assert_eq!((totals.blocks, totals.records), (count as u64, 2 * count as u64));
        prop_assert_eq!(totals.packets, totals.source_symbols + totals.repair_symbols + totals.heartbeats);
        if let Some(rate) = rate {
            let bits = |len: usize| wire_bytes(len, 20) as u128 * 8;
            let total: u128 = opened.sent_at.iter().map(|(_, len)| bits(*len)).sum();
            let longest = bits(HEADER_LEN + SYMBOL + 16);
            let burst = (u128::from(rate) * 250 / 1_000_000).max(longest);
            let elapsed = (now - t0).as_nanos();
            prop_assert!(total <= u128::from(rate) * elapsed / 1_000_000_000 + burst + 1);
        }
    }
}

#[test]
fn groups_are_interleaved_round_robin_and_closed_by_the_span() {
    let config = config(3, Code::new(4, 2).unwrap());
    let mut now = Instant::now();
    let mut sender = Sender::new(config.clone(), now).unwrap();
    let mut opened = Opened::new(&config);
    for _ in 0..4 {
        sender.push(now, vec![7; 4 * SYMBOL], true, 0).ok();
    }
    assert!(!sender.ready() && sender.push(now, vec![7], false, 0) == Err(PushError::NotReady(vec![7])));
    let mut out = Datagrams::new();
    assert_eq!(sender.poll(now, &mut out), Step::Send);
    opened.take(now, &out);
    assert_eq!(sender.push(now, vec![7; 4 * SYMBOL], true, 0), Ok(BlockNumber(3)));
    let deadline = now + config.interleave_span;
    assert_eq!(sender.poll(now, &mut out), Step::Wait(deadline), "the second group waits for company");
    opened.run(&mut sender, &mut now);
    assert_eq!(now, deadline);
    let order: Vec<(u64, u8)> =
        opened.datagrams.iter().map(|(header, _)| (header.block.0, header.symbol_index)).collect();
    let mut expected: Vec<(u64, u8)> = (0..6).flat_map(|i| (0..3).map(move |b| (b, i))).collect();
    expected.extend((0..6).map(|i| (3, i)));
    assert_eq!(order, expected);
}

#[test]
fn without_interleaving_nothing_waits() {
    let config = config(1, Code::DEFAULT);
    let now = Instant::now();
    let mut sender = Sender::new(config, now).unwrap();
    assert!(sender.could_send_now(now));
    sender.push(now, vec![1; 10], false, 1).unwrap();
    assert!(!sender.could_send_now(now));
    let mut out = Datagrams::new();
    assert_eq!(sender.poll(now, &mut out), Step::Send);
    assert_eq!(out.len(), 5, "one source symbol, four repairs");
    assert!(out.iter().all(|datagram| datagram.len() == HEADER_LEN + 10 + 16));
    assert_eq!(sender.totals().blocks, 1);
    assert_eq!(sender.poll(now, &mut out), Step::Idle);
    assert!(out.is_empty() && sender.could_send_now(now));
}

/// `blocks` counts leading blocks only: a short block that ends early waits for its elders.
#[test]
fn blocks_are_done_in_order() {
    let config = config(2, Code::new(64, 0).unwrap());
    let now = Instant::now();
    let mut sender = Sender::new(config, now).unwrap();
    sender.push(now, vec![1; 64 * SYMBOL], true, 5).unwrap();
    sender.push(now, vec![2; 10], false, 6).unwrap();
    let mut out = Datagrams::new();
    sender.poll(now, &mut out);
    assert_eq!((out.len(), sender.totals().blocks, sender.totals().records), (64, 0, 0));
    sender.poll(now, &mut out);
    assert_eq!((out.len(), sender.totals().blocks, sender.totals().records), (1, 2, 11));
}

#[test]
fn heartbeats_go_first_and_tell_the_totals() {
    let config = SenderConfig { rate: Some(800_000_000), ..config(1, Code::new(4, 2).unwrap()) };
    let t0 = Instant::now();
    let mut sender = Sender::new(config.clone(), t0).unwrap();
    let mut opened = Opened::new(&config);
    let mut now = t0 + Duration::from_secs(2);
    let facts = HeartbeatFacts { wall_clock_micros: 99, lag: Some(5), source_state: SourceState::Running };
    sender.push(now, vec![7; 4 * SYMBOL], true, 3).unwrap();
    sender.heartbeat(now, HeartbeatFacts::default());
    sender.heartbeat(now, facts);
    opened.run(&mut sender, &mut now);
    sender.heartbeat(now, facts);
    opened.run(&mut sender, &mut now);
    let beats: Vec<(Header, Heartbeat)> = opened
        .datagrams
        .iter()
        .filter(|(header, _)| header.kind == Kind::Heartbeat)
        .map(|(header, payload)| (*header, Heartbeat::decode(payload).unwrap()))
        .collect();
    assert_eq!(beats.len(), 2, "one that waits is replaced");
    let (first, second) = (beats[0], beats[1]);
    assert_eq!((first.0.packet_number, first.0.block), (PacketNumber(0), BlockNumber(0)));
    assert_eq!((second.0.packet_number, second.0.block), (PacketNumber(7), BlockNumber(1)));
    for (header, beat) in beats {
        let zeros = (header.symbol_size, header.symbol_index, header.source_symbols, header.repair_symbols);
        assert_eq!((zeros, header.block_len), ((0, 0, 0, 0), 0));
        assert_eq!((beat.wall_clock_micros, beat.lag, beat.rate_bits), (99, Some(5), 800_000_000));
        assert_eq!((beat.packets, beat.interleave_span_micros), (header.packet_number.0, 0));
    }
    assert_eq!((first.1.blocks, first.1.records, first.1.bytes), (0, 0, 0));
    assert_eq!((second.1.blocks, second.1.records), (1, 3));
    let before: usize = opened.sent_at[..7].iter().map(|(_, len)| len).sum();
    assert_eq!(second.1.bytes, before as u64);
    assert!(first.1.uptime_micros == 2_000_000 && second.1.uptime_micros >= 2_000_000);
}

#[test]
fn goodbyes_end_the_session() {
    let config = config(4, Code::new(4, 2).unwrap());
    let mut now = Instant::now();
    let mut sender = Sender::new(config.clone(), now).unwrap();
    let mut opened = Opened::new(&config);
    sender.push(now, vec![7; 4 * SYMBOL], true, 3).unwrap();
    sender.goodbye(now, GoodbyeReason::NewSession);
    sender.goodbye(now, GoodbyeReason::Stop);
    assert!(!sender.ready());
    sender.heartbeat(now, HeartbeatFacts::default());
    let began = now;
    opened.run(&mut sender, &mut now);
    assert!(now < began + Duration::from_millis(20), "the group is closed at once");
    assert!(sender.finished());
    sender.heartbeat(now, HeartbeatFacts::default());
    opened.run(&mut sender, &mut now);
    assert_eq!(opened.datagrams.len(), 1 + 6 + 3, "nothing follows the last goodbye");
    for (header, payload) in &opened.datagrams[7..] {
        assert_eq!((header.kind, header.block), (Kind::Goodbye, BlockNumber(1)));
        let goodbye = Goodbye { last_packet: PacketNumber(9), reason: GoodbyeReason::NewSession };
        assert_eq!(Goodbye::decode(payload), Ok(goodbye));
    }
    assert_eq!(sender.totals().blocks, 1);
}

/// `Opened::take` derives the key by the packet number, so a border that is missed would not open.
#[test]
fn the_key_changes_every_2_to_the_28_packets() {
    let config = config(1, Code::new(4, 2).unwrap());
    let mut now = Instant::now();
    let mut sender = Sender::new(config.clone(), now).unwrap();
    sender.sealer.skip_to(PacketNumber((1 << KEY_EPOCH_BITS) - 3));
    let mut opened = Opened::new(&config);
    sender.push(now, vec![7; 4 * SYMBOL], true, 3).unwrap();
    opened.run(&mut sender, &mut now);
    assert_eq!(opened.datagrams[5].0.packet_number.0, (1 << KEY_EPOCH_BITS) + 2);

    sender.sealer.skip_to(PacketNumber(u64::MAX - 8));
    assert!(!sender.ready());
    sender.heartbeat(now, HeartbeatFacts::default());
    let mut out = Datagrams::new();
    assert_eq!(sender.poll(now, &mut out), Step::Idle, "a number is never used twice");
}

#[test]
fn a_new_rate_holds_at_once() {
    let config = SenderConfig { rate: Some(1_000_000), ..config(1, Code::new(64, 8).unwrap()) };
    let mut now = Instant::now();
    let mut sender = Sender::new(config.clone(), now).unwrap();
    let mut opened = Opened::new(&config);
    let mut took = Vec::new();
    for rate in [Some(1_000_000), Some(10_000_000), None] {
        sender.set_rate(now, rate);
        assert_eq!(sender.rate(), rate);
        sender.push(now, vec![7; 64 * SYMBOL], true, 1).unwrap();
        let began = now;
        opened.run(&mut sender, &mut now);
        took.push(now - began);
    }
    let wire = (72 * wire_bytes(HEADER_LEN + SYMBOL + 16, 20) * 8) as f64;
    assert!((took[0].as_secs_f64() - wire / 1e6).abs() < 0.01, "{took:?}");
    assert!((took[1].as_secs_f64() - wire / 1e7).abs() < 0.01, "{took:?}");
    assert_eq!(took[2], Duration::ZERO);
}

#[test]
fn what_does_not_fit_is_given_back() {
    let now = Instant::now();
    let good = config(1, Code::new(4, 2).unwrap());
    let bad = SenderConfig { symbol_size: 0, ..good.clone() };
    assert_eq!(Sender::new(bad, now).err(), Some(SenderConfigError::SymbolSize(0)));
    let bad = SenderConfig { interleave: 0, ..good.clone() };
    assert_eq!(Sender::new(bad, now).err(), Some(SenderConfigError::Interleave));
    let mut sender = Sender::new(good, now).unwrap();
    assert_eq!(sender.push(now, vec![], false, 0), Err(PushError::BlockLen(vec![])));
    let long = vec![0; 4 * SYMBOL + 1];
    assert_eq!(sender.push(now, long.clone(), true, 0), Err(PushError::BlockLen(long)));
    assert!(sender.ready() && sender.blocks_waiting() == 0, "a refusal changes nothing");
}
