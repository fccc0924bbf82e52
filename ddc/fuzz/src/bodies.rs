//! What each fuzz target does with its bytes, and what must hold whatever they are.
//!
//! This file is used twice: by the fuzz targets, and by `ddc/link/tests/corpus_replay.rs`, which replays the corpora on a
//! stable compiler. So it uses nothing but the crates under test. A body that returns has passed; it must neither panic
//! nor hang, and its own assertions say what must not happen.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ddc_link::keys::{DatagramKey, Direction, KEY_EPOCH_BITS, Keyring, LinkKey, SealMode};
use ddc_link::receiver::{Event, MAX_SESSIONS, MIN_WINDOW_BYTES, Receiver, ReceiverConfig, Unpacker};
use ddc_wire::{
    BlockNumber, Chunks, FilteredRange, Goodbye, GoodbyeReason, HEADER_LEN, Header, Heartbeat, KeyId, Kind,
    LedgerEntries, LinkId, PacketNumber, Prelude, RecordWriter, Session, SourceState, validate_ledger,
    validate_records, write_chunk, write_ledger_entry,
};

/// What one target does with its bytes.
pub type Body = fn(&[u8]);

/// All targets by name: the directories of the corpora.
pub const TARGETS: [(&str, Body); 6] = [
    ("header", header),
    ("batch", batch),
    ("ledger", ledger),
    ("heartbeat", heartbeat),
    ("unpack", unpack),
    ("receiver", receiver),
];

/// A datagram's header: what is accepted is written back as the same bytes, and a shape that is accepted adds up.
pub fn header(data: &[u8]) {
    for mode in [SealMode::Aes256Gcm, SealMode::None] {
        let Ok(header) = Header::decode(data, mode.trailer_len()) else { continue };
        let mut again = [0; HEADER_LEN];
        header.encode(&mut again);
        assert_eq!(again, data[..HEADER_LEN]);
        let payload_len = data.len() - HEADER_LEN - mode.trailer_len();
        if let Ok(shape) = header.shape(payload_len) {
            let size = usize::from(shape.symbol_size);
            assert!((1..=size).contains(&shape.last_symbol_len()) && payload_len <= size);
            assert!(shape.padded_len() >= shape.block_len as usize && header.kind.is_symbol());
        }
    }
}

/// A batch of records: it is refused, or it is well-formed to its last byte and written back as the same bytes.
pub fn batch(data: &[u8]) {
    let Ok(records) = validate_records(data) else {
        // Reading on by hand ends too.
        assert!(Chunks::new(data).count() <= data.len() + 1);
        return;
    };
    let (mut again, mut seen) = (Vec::new(), 0);
    for chunk in Chunks::new(data).map(Result::unwrap) {
        let filtered: Vec<FilteredRange> = chunk.filtered.clone().collect();
        let head = &chunk.header;
        let mut last = head.base() - 1;
        assert!(filtered.iter().all(|range| {
            let apart = range.first > last && range.last >= range.first && range.last < head.end;
            last = range.last;
            apart
        }));
        let mut writer = RecordWriter::default();
        writer.start(head.base());
        for record in chunk.records.clone().map(Result::unwrap) {
            assert!((head.base()..head.end).contains(&record.offset), "DDC-W-051");
            assert_eq!(record.headers.len(), record.headers.clone().count());
            // Offsets rise (DDC-W-052), or the writer refuses.
            writer.push(record.offset, record.timestamp, record.key, record.value, record.headers).unwrap();
            seen += 1;
        }
        assert_eq!(writer.records(), chunk.record_count);
        write_chunk(&mut again, head, &filtered, &writer);
    }
    assert_eq!((again.as_slice(), seen), (data, records));
}

/// A ledger: as a batch.
pub fn ledger(data: &[u8]) {
    let Ok(count) = validate_ledger(data) else { return };
    let mut again = Vec::new();
    let entries = LedgerEntries::new(data).map(Result::unwrap).inspect(|entry| {
        assert!(entry.blocks_back > 0);
        write_ledger_entry(&mut again, entry);
    });
    assert_eq!(entries.count() as u64, count);
    assert_eq!(again, data);
}

/// The payloads of heartbeat and goodbye: what is accepted is written back as the known fields were.
pub fn heartbeat(data: &[u8]) {
    let mut again = Vec::new();
    if let Ok(heartbeat) = Heartbeat::decode(data) {
        heartbeat.encode(&mut again);
        assert_eq!(again, data[..Heartbeat::LEN]);
    }
    again.clear();
    if let Ok(goodbye) = Goodbye::decode(data) {
        goodbye.encode(&mut again);
        assert_eq!(again, data[..Goodbye::LEN]);
    }
}

/// Blocks as the receiver joins and unpacks them: `data` is a row of blocks, each a length (u16) and its bytes.
pub fn unpack(data: &[u8]) {
    const MAX_BATCH: usize = 1 << 20;
    let _ = Prelude::decode(data);
    let mut bench = Bench::new(SealMode::None, MAX_BATCH);
    let mut input = Input(data);
    for _ in 0..MAX_STEPS {
        if input.0.is_empty() {
            break;
        }
        let len = usize::from(input.u16()).min(MAX_SYMBOL);
        let block = input.take(len);
        bench.block(0, block, MAX_SYMBOL, 0, 0);
        bench.poll();
    }
    // Whatever the blocks were, each was told of, in order, as a batch or as given up, or waits for its fragments.
    assert!(bench.told.values().all(|last| *last < MAX_STEPS as u64));
}

/// The receiver as a whole. `data` is a program: blocks with losses, symbols with any header, heartbeats, goodbyes,
/// raw bytes, repeated and damaged datagrams, time steps, restarts.
pub fn receiver(data: &[u8]) {
    play(data);
}

/// What a program reached, for the test that the corpora still reach something.
#[derive(Debug, Default, Clone, Copy)]
pub struct Reached {
    /// Batches that were released.
    pub batches: u64,
    /// Of these, well-formed to their last byte.
    pub unpacked: u64,
    /// Reports of blocks that were given up.
    pub given_up: u64,
    /// Blocks that were completed too late.
    pub late: u64,
    /// Sessions that were retired.
    pub retired: u64,
}

/// Plays a program to a receiver; see [`receiver`].
pub fn play(data: &[u8]) -> Reached {
    let mut input = Input(data);
    let mode = if input.u8() & 1 == 0 { SealMode::Aes256Gcm } else { SealMode::None };
    let mut bench = Bench::new(mode, 1 << 18);
    for _ in 0..MAX_STEPS {
        if input.0.is_empty() {
            break;
        }
        bench.step(&mut input);
        bench.check();
    }
    bench.poll();
    bench.now += Duration::from_hours(1);
    bench.poll();
    bench.check();
    bench.reached
}

/// Steps of one program: it must end.
const MAX_STEPS: usize = 512;
/// The largest symbol there is.
const MAX_SYMBOL: usize = 9128;
const LINK: LinkId = LinkId(7);
const KEYS: [u8; 2] = [1, 2];
const START: u64 = 1_767_225_600_000_000;
const SECOND: u64 = 1_000_000;

/// A receiver, the sessions that are played to it, and what was seen of it.
struct Bench {
    mode: SealMode,
    max_batch: usize,
    receiver: Receiver,
    unpacker: Unpacker,
    now: Instant,
    begin: Instant,
    senders: [Sender; 6],
    sent: Vec<Vec<u8>>,
    /// (key id, session, packet number) of what was accepted in this life of the receiver.
    accepted: HashSet<(u8, Session, u64)>,
    /// The last block of each session that was released or given up in this life.
    told: HashMap<Session, u64>,
    reached: Reached,
}

#[derive(Clone, Copy)]
struct Sender {
    session: Session,
    key_id: u8,
    packet: u64,
    block: u64,
}

impl Bench {
    fn new(mode: SealMode, max_batch: usize) -> Self {
        let now = Instant::now();
        let sender = |at: u64| Sender {
            // The sessions begin a second apart; every other one has the other key.
            session: Session::new(START + at * SECOND, at as u32),
            key_id: KEYS[at as usize % 2],
            packet: 0,
            block: 0,
        };
        Self {
            mode,
            max_batch,
            receiver: Receiver::new(config(mode, max_batch), now, &[]),
            unpacker: Unpacker::new(max_batch).unwrap(),
            now,
            begin: now,
            senders: [0, 2, 4, 1, 3, 5].map(sender),
            sent: Vec::new(),
            accepted: HashSet::new(),
            told: HashMap::new(),
            reached: Reached::default(),
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let (act, who) = (input.u8(), input.u8() as usize % 6);
        match act % 10 {
            0 | 1 => {
                let (size, repairs, losses) = (usize::from(input.u8()) + 1, input.u8() % 8, input.u16());
                let len = usize::from(input.u16()).min(128 * size);
                let block = input.take(len);
                self.block(who, block, size, repairs, losses);
            }
            2 => self.symbol(who, input),
            3 => self.heartbeat(who, input),
            4 => self.goodbye(who, input),
            5 => {
                let len = usize::from(input.u16());
                let raw = input.take(len).to_vec();
                self.hand_over(&raw);
            }
            6 => self.again(input),
            7 => self.now += Duration::from_millis(u64::from(input.u16())),
            8 => self.life(input.u8()),
            _ => self.poll(),
        }
    }

    /// A proper block, of which the symbols in `losses` do not arrive.
    fn block(&mut self, who: usize, block: &[u8], size: usize, repairs: u8, losses: u16) {
        if block.is_empty() {
            return;
        }
        let k = block.len().div_ceil(size);
        let mut sources = block.to_vec();
        sources.resize(k * size, 0);
        let mut parity = vec![0; usize::from(repairs) * size];
        ddc_fec::encode(size, &sources, &mut parity).unwrap();
        let number = self.senders[who].block;
        self.senders[who].block += 1;
        for (index, symbol) in sources.chunks(size).chain(parity.chunks(size)).enumerate() {
            let kind = if index < k { Kind::Source } else { Kind::Repair };
            let mut header = self.header(who, kind);
            header.block = BlockNumber(number);
            header.symbol_size = size as u16;
            header.symbol_index = index as u8;
            header.source_symbols = k as u8;
            header.repair_symbols = repairs;
            header.block_len = block.len() as u32;
            let datagram = self.seal(&header, symbol);
            if losses >> (index % 16) & 1 == 0 {
                self.hand_over(&datagram);
            }
        }
    }

    /// A symbol whose header says what the program wants.
    fn symbol(&mut self, who: usize, input: &mut Input<'_>) {
        let kind = if input.u8() & 1 == 0 { Kind::Source } else { Kind::Repair };
        let mut header = self.header(who, kind);
        let ahead = input.u16();
        header.packet_number = match ahead >> 14 {
            0 => header.packet_number,
            1 => PacketNumber(header.packet_number.0.wrapping_add(u64::from(ahead & 0x3fff))),
            2 => PacketNumber(header.packet_number.0.wrapping_sub(u64::from(ahead & 0x3fff))),
            _ => PacketNumber(header.packet_number.0.wrapping_add(u64::from(ahead & 0x3fff) << 22)),
        };
        let block = input.u16();
        header.block = BlockNumber(match block >> 14 {
            0 | 1 => header.block.0.wrapping_add(u64::from(block)),
            2 => header.block.0.wrapping_sub(u64::from(block & 0x3fff)),
            _ => u64::from(block & 0x3fff).rotate_right(16),
        });
        header.d_max = input.u8();
        header.symbol_size = input.u16() % 10_000;
        header.symbol_index = input.u8();
        header.source_symbols = input.u8();
        header.repair_symbols = input.u8();
        header.block_len = u32::from(input.u16()) << (input.u8() % 9);
        let payload_len = match input.u8() % 3 {
            0 => usize::from(header.symbol_size),
            1 => header.block_len as usize % usize::from(header.symbol_size.max(1)),
            _ => usize::from(input.u16()),
        };
        let mut payload = input.take(payload_len.min(16)).to_vec();
        payload.resize(payload_len.min(MAX_SYMBOL), 0x5a);
        self.senders[who].packet = header.packet_number.0.saturating_add(1);
        self.senders[who].block = self.senders[who].block.max(header.block.0.saturating_add(1)).min(1 << 62);
        let datagram = self.seal(&header, &payload);
        self.hand_over(&datagram);
    }

    fn heartbeat(&mut self, who: usize, input: &mut Input<'_>) {
        let mut header = self.header(who, Kind::Heartbeat);
        header.d_max = input.u8();
        let mut payload = Vec::new();
        let heartbeat = Heartbeat {
            wall_clock_micros: u64::from(input.u16()) << (input.u8() % 64),
            rate_bits: u64::from(input.u16()) << (input.u8() % 49),
            interleave_span_micros: u32::from(input.u16()) << (input.u8() % 17),
            source_state: SourceState::Running,
            ..Heartbeat::default()
        };
        heartbeat.encode(&mut payload);
        payload.truncate(100 - usize::from(input.u8() % 64));
        let datagram = self.seal(&header, &payload);
        self.hand_over(&datagram);
    }

    fn goodbye(&mut self, who: usize, input: &mut Input<'_>) {
        let header = self.header(who, Kind::Goodbye);
        let last = header.packet_number.0.wrapping_add(u64::from(input.u16())).wrapping_sub(2);
        let mut payload = Vec::new();
        let goodbye = Goodbye { last_packet: PacketNumber(last), reason: GoodbyeReason::Stop };
        goodbye.encode(&mut payload);
        let datagram = self.seal(&header, &payload);
        self.hand_over(&datagram);
    }

    /// A datagram that was sent before, as it was or with one bit changed.
    fn again(&mut self, input: &mut Input<'_>) {
        let (which, at) = (usize::from(input.u8()), usize::from(input.u16()));
        let Some(mut datagram) = self.sent.get(which % self.sent.len().max(1)).cloned() else { return };
        let at = at % (2 * 8 * datagram.len());
        let Some(byte) = datagram.get_mut(at / 8) else {
            self.hand_over(&datagram);
            return;
        };
        *byte ^= 1 << (at % 8);
        let (now, wall, source) = (self.now, self.wall(), source());
        let result = self.receiver.handle(now, wall, source, &mut datagram);
        // A CRC finds every flipped bit too.
        assert!(result.is_err(), "one bit was flipped and the datagram was taken");
    }

    /// A restart of the receiver, or another keyring.
    fn life(&mut self, how: u8) {
        if how & 1 == 0 {
            self.poll();
            let stored = self.receiver.stored();
            self.receiver = Receiver::new(config(self.mode, self.max_batch), self.now, &stored);
            self.accepted.clear();
            self.told.clear();
        } else {
            let mut keys = keyring();
            if how & 2 != 0 {
                keys.insert(KeyId(KEYS[1]), LinkKey::new([9; 32]));
            }
            self.receiver.set_keyring(self.now, keys);
        }
    }

    fn header(&mut self, who: usize, kind: Kind) -> Header {
        let sender = &mut self.senders[who];
        let packet_number = PacketNumber(sender.packet);
        sender.packet = sender.packet.saturating_add(1);
        Header {
            kind,
            link_id: LINK,
            key_id: KeyId(sender.key_id),
            d_max: 1,
            session: sender.session,
            packet_number,
            block: BlockNumber(sender.block),
            symbol_size: 0,
            symbol_index: 0,
            source_symbols: 0,
            repair_symbols: 0,
            block_len: 0,
        }
    }

    fn seal(&mut self, header: &Header, payload: &[u8]) -> Vec<u8> {
        let mut head = [0; HEADER_LEN];
        header.encode(&mut head);
        let mut datagram = [&head[..], payload].concat();
        datagram.resize(datagram.len() + self.mode.trailer_len(), 0);
        let epoch = header.packet_number.0 >> KEY_EPOCH_BITS;
        let link_key = link_key(header.key_id.0);
        let (direction, id) = (Direction::Data, header.key_id);
        let key = DatagramKey::derive(self.mode, &link_key, direction, LINK, id, header.session, epoch);
        key.seal(header.packet_number, &mut datagram);
        if self.sent.len() < MAX_STEPS {
            self.sent.push(datagram.clone());
        }
        datagram
    }

    fn hand_over(&mut self, datagram: &[u8]) {
        let (now, wall) = (self.now, self.wall());
        let result = self.receiver.handle(now, wall, source(), &mut datagram.to_vec());
        if result.is_ok() {
            let header = Header::decode(datagram, self.mode.trailer_len()).unwrap();
            assert_eq!(header.link_id, LINK);
            let number = (header.key_id.0, header.session, header.packet_number.0);
            assert!(self.accepted.insert(number), "DDC-W-072: {number:?} twice");
        }
    }

    fn wall(&self) -> u64 {
        START + 60 * SECOND + self.now.saturating_duration_since(self.begin).as_micros() as u64
    }

    /// Drains the receiver; each session's blocks come in order, each once.
    fn poll(&mut self) {
        let mut polls = 0;
        while let Some(event) = self.receiver.poll(self.now) {
            polls += 1;
            assert!(polls < 1_000_000, "the receiver does not come to an end");
            let (session, first, last) = match event {
                Event::Batch(batch) => {
                    self.reached.batches += 1;
                    if self.unpacker.unpack(&batch).is_ok() {
                        assert!(batch.raw_len <= self.max_batch);
                        self.reached.unpacked += 1;
                    }
                    let (first, last) = (batch.first_block, batch.last_block);
                    let session = batch.session;
                    self.receiver.recycle(batch.into_buffer());
                    (session, first, last)
                }
                Event::GivenUp { session, first, last, .. } => {
                    self.reached.given_up += 1;
                    (session, first, last)
                }
                Event::LateBlock { .. } => {
                    self.reached.late += 1;
                    continue;
                }
                Event::SessionRetired { .. } => {
                    self.reached.retired += 1;
                    continue;
                }
                _ => continue,
            };
            assert!(first <= last);
            let before = self.told.insert(session, last);
            assert!(before.is_none_or(|before| before < first), "DDC-W-083: {first} after {before:?}");
        }
        if let Some(deadline) = self.receiver.next_deadline() {
            // Nothing is due any more that a poll could have brought.
            assert!(deadline > self.now || self.now < deadline + Duration::from_secs(1));
        }
    }

    fn check(&self) {
        assert!(self.receiver.window_bytes() <= MIN_WINDOW_BYTES, "the window has a bound");
        assert!(self.receiver.sessions().count() <= MAX_SESSIONS);
    }
}

fn config(mode: SealMode, max_batch_bytes: usize) -> ReceiverConfig {
    ReceiverConfig {
        link_id: LINK,
        keyring: keyring(),
        seal: mode,
        reorder_timeout: Duration::from_millis(50),
        window_bytes: MIN_WINDOW_BYTES,
        max_batch_bytes,
        build_micros: START - SECOND,
    }
}

fn keyring() -> Keyring {
    let mut keyring = Keyring::default();
    for id in KEYS {
        keyring.insert(KeyId(id), link_key(id));
    }
    keyring
}

fn link_key(id: u8) -> LinkKey {
    LinkKey::new([id; 32])
}

fn source() -> SocketAddr {
    SocketAddr::from(([198, 18, 0, 1], 7401))
}

/// The rest of a program; behind its end there are zeros.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        head
    }

    fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn u16(&mut self) -> u16 {
        u16::from(self.u8()) << 8 | u16::from(self.u8())
    }
}
