//! The wire against known answers: `vectors/v1.json`, made from docs/protocol.md by a script that shares nothing with
//! this code (`vectors/make.py`; run by hand when the page changes). Each is checked both ways: what is encoded has exactly
//! these bytes, what is decoded has these fields.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is the failed test")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ddc_fec::{Code, Decoder, SymbolSet};
use ddc_link::keys::{DatagramKey, Direction, KEY_EPOCH_BITS, Keyring, LinkKey, SealMode};
use ddc_link::receiver::{Event, MIN_WINDOW_BYTES, Receiver, ReceiverConfig, Reject, RetiredWhy, Unpacker};
use ddc_wire::{
    BlockNumber, ChunkHeader, ChunkKind, Chunks, Codec, Content, Epoch, FilteredRange, Goodbye,
    GoodbyeReason, HEADER_LEN, Header, HeaderError, Heartbeat, KeyId, Kind, LedgerEntries, LedgerEntry,
    LinkId, PacketNumber, Prelude, RecordHeader, RecordWriter, Session, SourceState, Timestamp, TopicId,
    validate_ledger, validate_records, write_chunk, write_ledger_entry,
};

use self::file::{ChunkFields, EntryFields, HeaderFields, Vectors};

mod file;

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("v1.json")).unwrap()
}

/// DDC-W-062, 063: keys of every link, key id, session, direction and epoch. The derived bytes are not to be seen
/// from outside, so each is known by what it seals.
#[test]
fn keys() {
    let all = vectors().keys;
    assert_eq!(all.len(), 9);
    for case in all {
        let direction = if case.direction == "data" { Direction::Data } else { Direction::Status };
        let (link, id, epoch) = (LinkId(case.link_id), KeyId(case.key_id), case.epoch);
        let key = LinkKey::new(case.link_key.array());
        let key = |epoch| {
            let session = Session(case.session.array());
            DatagramKey::derive(SealMode::Aes256Gcm, &key, direction, link, id, session, epoch)
        };
        let header = Header::from(&case.header);
        assert_eq!(header.packet_number.0 >> KEY_EPOCH_BITS, epoch);
        let packet = header.packet_number;
        assert_eq!(sealed(&key(epoch), &header, &case.payload, SealMode::Aes256Gcm), *case.datagram);
        assert_eq!(*key(epoch).open(packet, &mut case.datagram.clone()).unwrap(), *case.payload);
        assert!(key(epoch ^ 1).open(packet, &mut case.datagram.clone()).is_err(), "one epoch for another");
    }
}

/// DDC-W-010, 020 to 024, 060, 061, 064: datagrams of every kind in both seal modes.
#[test]
fn datagrams() {
    let all = vectors().datagrams;
    assert_eq!(all.len(), 16);
    for case in all {
        let (mode, header) = (mode(&case.seal), Header::from(&case.header));
        let key = key_for(mode, &case.link_key, &header);
        assert_eq!(Header::decode(&case.datagram, mode.trailer_len()), Ok(header), "{}", case.name);
        assert_eq!(sealed(&key, &header, &case.payload, mode), *case.datagram, "{}", case.name);
        let mut datagram = case.datagram.clone();
        assert_eq!(*key.open(header.packet_number, &mut datagram).unwrap(), *case.payload, "{}", case.name);
        if header.kind.is_symbol() {
            let shape = header.shape(case.payload.len()).unwrap();
            assert_eq!(shape.block_len, header.block_len);
        }
    }
}

/// DDC-W-030 to 032.
#[test]
fn heartbeats_and_goodbyes() {
    let vectors = vectors();
    for case in &vectors.heartbeats {
        let heartbeat = Heartbeat {
            wall_clock_micros: case.wall_clock_micros,
            uptime_micros: case.uptime_micros,
            packets: case.packets,
            blocks: case.blocks,
            records: case.records,
            bytes: case.bytes,
            lag: case.lag,
            rate_bits: case.rate_bits,
            interleave_span_micros: case.interleave_span_micros,
            source_state: SourceState::from_byte(case.source_state).unwrap(),
        };
        assert_eq!(Heartbeat::decode(&case.payload), Ok(heartbeat));
        let mut bytes = Vec::new();
        heartbeat.encode(&mut bytes);
        assert_eq!(bytes, *case.payload);
    }
    for case in &vectors.goodbyes {
        let reason = [GoodbyeReason::Stop, GoodbyeReason::NewSession][usize::from(case.reason)];
        let goodbye = Goodbye { last_packet: PacketNumber(case.last_packet), reason };
        assert_eq!(Goodbye::decode(&case.payload), Ok(goodbye));
        let mut bytes = Vec::new();
        goodbye.encode(&mut bytes);
        assert_eq!(bytes, *case.payload);
    }
    assert_eq!((vectors.heartbeats.len(), vectors.goodbyes.len()), (2, 2));
}

/// DDC-W-053.
#[test]
fn preludes() {
    let all = vectors().preludes;
    assert_eq!(all.len(), 4);
    for case in all {
        let content = if case.content == 0 { Content::Records } else { Content::Ledger };
        let (codec, fragment) = (codec(case.codec), case.fragment);
        let prelude = Prelude { codec, content, fragment, fragments: case.fragments, raw_len: case.raw_len };
        let mut bytes = Vec::new();
        prelude.encode(&mut bytes);
        assert_eq!(bytes, *case.bytes);
        bytes.extend_from_slice(b"batch");
        assert_eq!(Prelude::decode(&bytes), Ok((prelude, &b"batch"[..])));
    }
}

/// DDC-W-055: every codec, as other libraries write it.
#[test]
fn blocks() {
    let all = vectors().blocks;
    assert_eq!(all.len(), 4);
    for case in all {
        let (prelude, body) = Prelude::decode(&case.block).unwrap();
        assert_eq!(prelude.codec, codec(case.codec), "{}", case.name);
        let len = prelude.raw_len as usize;
        let raw = match prelude.codec {
            Codec::None => body.to_vec(),
            Codec::Zstd => zstd::bulk::decompress(body, len).unwrap(),
            Codec::Lz4 => lz4_flex::block::decompress(body, len).unwrap(),
        };
        assert_eq!(raw, *case.raw, "{}", case.name);
        assert_eq!(validate_records(&raw), Ok(40), "{}", case.name);
    }
}

/// DDC-W-050 to 052, 056, 057: every form of every field, both ways.
#[test]
fn batches() {
    let all = vectors().batches;
    assert_eq!(all.len(), 6);
    for case in all {
        let mut written = Vec::new();
        for chunk in &case.chunks {
            write(&mut written, chunk);
        }
        assert_eq!(written, *case.raw, "{}", case.name);
        check_batch(&case.raw, &case.chunks, &case.name);
    }
}

/// DDC-W-058.
#[test]
fn ledgers() {
    let all = vectors().ledgers;
    assert_eq!(all.len(), 2);
    for case in all {
        let entries: Vec<_> = case.entries.iter().map(LedgerEntry::from).collect();
        let mut written = Vec::new();
        for entry in &entries {
            write_ledger_entry(&mut written, entry);
        }
        assert_eq!(written, *case.raw, "{}", case.name);
        assert_eq!(LedgerEntries::new(&case.raw).collect::<Result<Vec<_>, _>>().unwrap(), entries);
        assert_eq!(validate_ledger(&case.raw), Ok(entries.len() as u64));
    }
}

/// DDC-W-026: repair symbols of short blocks, and blocks put together again from them.
#[test]
fn codes() {
    let all = vectors().codes;
    assert_eq!(all.len(), 4);
    for case in all {
        let (k, r, size) = (case.source_symbols, case.repair_symbols, case.symbol_size);
        let mut padded = case.block.to_vec();
        padded.resize(k * size, 0);
        let repairs = case.repairs.concat();
        let mut encoded = vec![0; r * size];
        ddc_fec::encode(size, &padded, &mut encoded).unwrap();
        assert_eq!(encoded, repairs, "{k}+{r}");
        let mut torn = padded.clone();
        for &index in &case.lost {
            torn[index * size..][..size].fill(0xee);
        }
        let present: SymbolSet = (0..k).filter(|index| !case.lost.contains(index)).collect();
        // The last repairs, not the first: these are the coefficients that are not all ones.
        let there: SymbolSet = (r - case.lost.len()..r).collect();
        let restored = Decoder::new().decode(size, &mut torn, present, &repairs, there);
        assert_eq!((restored, torn), (Ok(case.lost.len()), padded), "{k}+{r}");
    }
}

/// A session from its first datagram to its last, opened, put together without its first source symbols, and read.
#[test]
fn session() {
    let vectors = vectors();
    let session = &vectors.session;
    let mut blocks: Vec<Block> = Vec::new();
    let mut goodbyes = 0;
    for (number, case) in session.datagrams.iter().enumerate() {
        let mut datagram = case.datagram.clone();
        let header = Header::decode(&datagram, SealMode::Aes256Gcm.trailer_len()).unwrap();
        assert_eq!(header, Header::from(&case.header));
        assert_eq!(header.packet_number.0, number as u64, "DDC-W-014");
        let key = key_for(SealMode::Aes256Gcm, &session.link_key, &header);
        let payload = key.open(header.packet_number, &mut datagram).unwrap();
        match header.kind {
            Kind::Heartbeat => assert_eq!(Heartbeat::decode(payload).unwrap().records, 9),
            Kind::Goodbye => {
                goodbyes += 1;
                let last = Goodbye::decode(payload).unwrap().last_packet;
                assert_eq!(last.0, session.datagrams.len() as u64 - 1, "DDC-W-033");
            }
            Kind::Probe | Kind::Status => panic!("a kind that is not sent"),
            Kind::Source | Kind::Repair => {
                if header.block.0 == blocks.len() as u64 {
                    blocks.push(Block::default());
                }
                blocks[header.block.0 as usize].add(&header, payload);
            }
        }
    }
    assert_eq!((goodbyes, blocks.len()), (3, 2));
    for (block, raw) in blocks.iter_mut().zip(&session.raw) {
        let bytes = block.restore_without_first();
        let (prelude, rest) = Prelude::decode(&bytes).unwrap();
        assert_eq!((prelude.codec, prelude.fragments, prelude.raw_len), (Codec::None, 1, raw.len() as u32));
        assert_eq!(rest, &**raw);
    }
    let chunks =
        &vectors.batches.iter().find(|batch| batch.name.starts_with("a chunk with every")).unwrap().chunks;
    check_batch(&session.raw[1], chunks, "session");
}

/// The same session through the receiver, with as many symbols lost of each block as it has repairs.
#[test]
fn session_through_the_receiver() {
    let vectors = vectors();
    let (mut receiver, mut now) = (receiver(SealMode::Aes256Gcm), Instant::now());
    let mut unpacker = Unpacker::new(1 << 20).unwrap();
    let (mut batches, mut ended) = (Vec::new(), false);
    for case in &vectors.session.datagrams {
        let header = Header::from(&case.header);
        let lost = header.kind.is_symbol() && header.symbol_index < header.repair_symbols;
        now += Duration::from_millis(1);
        if !lost {
            receiver.handle(now, WALL_MICROS, SocketAddr::from(SOURCE), &mut case.datagram.clone()).unwrap();
        }
    }
    for _ in 0..100 {
        now += Duration::from_millis(1);
        while let Some(event) = receiver.poll(now) {
            match event {
                Event::Batch(batch) => batches.push(unpacker.unpack(&batch).unwrap().to_vec()),
                Event::SessionRetired { why, .. } => {
                    ended = why == RetiredWhy::Goodbye(GoodbyeReason::Stop);
                }
                Event::SessionOpened { .. } | Event::Heartbeat { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(batches, vectors.session.raw.iter().map(|raw| raw.to_vec()).collect::<Vec<_>>());
    assert!(ended, "the goodbye retires the session");
}

/// What must be refused, and why: DDC-W-011, 012, 020 to 024, 031, 040 to 044, 050, 060, 070.
#[test]
fn refused() {
    let all = vectors().refused;
    let mut counts = [0; 4];
    for case in all {
        let what = format!("{}: {}", case.what, case.name);
        match case.what.as_str() {
            "datagram" => {
                counts[0] += 1;
                let mode = mode(case.seal.as_deref().unwrap());
                assert_eq!(refusal(&case.bytes, mode), case.reason.as_deref(), "{what}");
                // The receiver as a whole gives the same reason, and makes nothing of it.
                let mut receiver = receiver(mode);
                let (now, wall) = (Instant::now(), WALL_MICROS);
                let result = receiver.handle(now, wall, SocketAddr::from(SOURCE), &mut case.bytes.clone());
                assert_eq!(result.err().map(Reject::as_str), case.reason.as_deref(), "{what}");
                let event = receiver.poll(now);
                let opened = matches!(event, None | Some(Event::SessionOpened { .. }));
                assert!(opened && receiver.poll(now).is_none(), "{what}: {event:?}");
            }
            "prelude" => {
                counts[1] += 1;
                assert!(Prelude::decode(&case.bytes).is_err(), "{what}");
            }
            "records" => {
                counts[2] += 1;
                assert!(validate_records(&case.bytes).is_err(), "{what}");
            }
            "ledger" => {
                counts[3] += 1;
                assert!(validate_ledger(&case.bytes).is_err(), "{what}");
            }
            other => panic!("vectors of an unknown part: {other}"),
        }
    }
    assert_eq!(counts, [44, 10, 15, 5]);
}

/// A minute after the vectors' session began.
const WALL_MICROS: u64 = 1_767_225_660_000_000;
const SOURCE: ([u8; 4], u16) = ([198, 18, 0, 1], 7401);

fn receiver(seal: SealMode) -> Receiver {
    let mut keyring = Keyring::default();
    keyring.insert(KeyId(3), LinkKey::new(std::array::from_fn(|at| at as u8)));
    let config = ReceiverConfig {
        link_id: LinkId(258),
        keyring,
        seal,
        reorder_timeout: Duration::from_millis(50),
        window_bytes: MIN_WINDOW_BYTES,
        max_batch_bytes: 1 << 20,
        build_micros: 0,
    };
    Receiver::new(config, Instant::now(), &[])
}

/// Why a receiver of link 258 with the key 3 refuses a datagram: DDC-W-070, as far as no session is needed.
fn refusal(datagram: &[u8], mode: SealMode) -> Option<&'static str> {
    let header = match Header::decode(datagram, mode.trailer_len()) {
        Ok(header) => header,
        Err(HeaderError::TooShort(_)) => return Some("short"),
        Err(HeaderError::TooLong(_)) => return Some("long"),
        Err(HeaderError::Magic) => return Some("magic"),
        Err(HeaderError::Version(_)) => return Some("version"),
        Err(HeaderError::Kind(_)) => return Some("kind"),
    };
    if matches!(header.kind, Kind::Probe | Kind::Status) {
        return Some("reserved");
    }
    if header.link_id != LinkId(258) {
        return Some("link");
    }
    if header.key_id != KeyId(3) {
        return Some("key");
    }
    let link_key: Vec<u8> = (0..32).collect();
    let mut datagram = datagram.to_vec();
    let Ok(payload) = key_for(mode, &link_key, &header).open(header.packet_number, &mut datagram) else {
        return Some("seal");
    };
    let payload_is_bad = match header.kind {
        Kind::Heartbeat => Heartbeat::decode(payload).is_err(),
        Kind::Goodbye => Goodbye::decode(payload).is_err(),
        _ => return header.shape(payload.len()).err().map(|_| "header"),
    };
    payload_is_bad.then_some("payload")
}

#[derive(Default)]
struct Block {
    shape: Option<ddc_wire::BlockShape>,
    sources: Vec<u8>,
    repairs: Vec<u8>,
}

impl Block {
    fn add(&mut self, header: &Header, payload: &[u8]) {
        let shape = header.shape(payload.len()).unwrap();
        assert_eq!(*self.shape.get_or_insert(shape), shape, "DDC-W-025");
        let symbols = if header.kind == Kind::Source { &mut self.sources } else { &mut self.repairs };
        symbols.extend_from_slice(payload);
    }

    /// The block from its repair symbols, as if as many of its first source symbols had not come.
    fn restore_without_first(&mut self) -> Vec<u8> {
        let shape = self.shape.unwrap();
        let (size, k) = (usize::from(shape.symbol_size), usize::from(shape.source_symbols));
        assert_eq!(self.sources.len(), shape.block_len as usize, "the last symbol came without padding");
        let r = usize::from(shape.repair_symbols);
        assert_eq!(Code::DEFAULT.short(k).r(), r, "DDC-W-028");
        self.sources.resize(shape.padded_len(), 0);
        let lost = r.min(k);
        self.sources[..lost * size].fill(0);
        let repairs = SymbolSet::first(r);
        let present = (lost..k).collect();
        Decoder::new().decode(size, &mut self.sources, present, &self.repairs, repairs).unwrap();
        self.sources[..shape.block_len as usize].to_vec()
    }
}

fn mode(name: &str) -> SealMode {
    if name == "none" { SealMode::None } else { SealMode::Aes256Gcm }
}

fn codec(number: u8) -> Codec {
    [Codec::None, Codec::Zstd, Codec::Lz4][usize::from(number)]
}

fn key_for(mode: SealMode, link_key: &[u8], header: &Header) -> DatagramKey {
    let link_key = LinkKey::new(link_key.try_into().unwrap());
    let epoch = header.packet_number.0 >> KEY_EPOCH_BITS;
    let direction = Direction::Data;
    DatagramKey::derive(mode, &link_key, direction, header.link_id, header.key_id, header.session, epoch)
}

fn sealed(key: &DatagramKey, header: &Header, payload: &[u8], mode: SealMode) -> Vec<u8> {
    let mut head = [0; HEADER_LEN];
    header.encode(&mut head);
    let mut datagram = [&head[..], payload].concat();
    datagram.resize(datagram.len() + mode.trailer_len(), 0);
    key.seal(header.packet_number, &mut datagram);
    datagram
}

fn write(out: &mut Vec<u8>, chunk: &ChunkFields) {
    let header = ChunkHeader::from(chunk);
    let mut writer = RecordWriter::default();
    writer.start(header.base());
    for record in &chunk.records {
        let headers =
            record.headers.iter().map(|(name, value)| RecordHeader { name, value: value.as_deref() });
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        writer.push(record.offset, record.timestamp(), key, value, headers).unwrap();
    }
    let filtered: Vec<_> =
        chunk.filtered.iter().map(|&(first, last)| FilteredRange { first, last }).collect();
    write_chunk(out, &header, &filtered, &writer);
}

fn check_batch(raw: &[u8], expected: &[ChunkFields], name: &str) {
    let records: usize = expected.iter().map(|chunk| chunk.records.len()).sum();
    assert_eq!(validate_records(raw), Ok(records as u64), "{name}");
    let chunks: Vec<_> = Chunks::new(raw).map(Result::unwrap).collect();
    assert_eq!(chunks.len(), expected.len(), "{name}");
    for (chunk, fields) in chunks.iter().zip(expected) {
        assert_eq!(chunk.header, ChunkHeader::from(fields), "{name}");
        let filtered: Vec<_> = chunk.filtered.clone().map(|range| (range.first, range.last)).collect();
        assert_eq!(filtered, fields.filtered, "{name}");
        let read: Vec<_> = chunk.records.clone().map(Result::unwrap).collect();
        assert_eq!(read.len(), fields.records.len(), "{name}");
        for (record, wanted) in read.iter().zip(&fields.records) {
            assert_eq!((record.offset, record.timestamp), (wanted.offset, wanted.timestamp()), "{name}");
            assert_eq!(
                (record.key, record.value),
                (wanted.key.as_deref(), wanted.value.as_deref()),
                "{name}"
            );
            let headers: Vec<_> = record.headers.clone().map(|h| (h.name, h.value)).collect();
            let wanted: Vec<_> = wanted.headers.iter().map(|(n, v)| (&n[..], v.as_deref())).collect();
            assert_eq!(headers, wanted, "{name}");
        }
    }
}

impl From<&HeaderFields> for Header {
    fn from(fields: &HeaderFields) -> Self {
        let kinds = [Kind::Source, Kind::Repair, Kind::Heartbeat, Kind::Goodbye, Kind::Probe, Kind::Status];
        Self {
            kind: kinds[usize::from(fields.kind)],
            link_id: LinkId(fields.link_id),
            key_id: KeyId(fields.key_id),
            d_max: fields.d_max,
            session: Session(fields.session.array()),
            packet_number: PacketNumber(fields.packet_number),
            block: BlockNumber(fields.block),
            symbol_size: fields.symbol_size,
            symbol_index: fields.symbol_index,
            source_symbols: fields.source_symbols,
            repair_symbols: fields.repair_symbols,
            block_len: fields.block_len,
        }
    }
}

impl<'a> From<&'a ChunkFields> for ChunkHeader<'a> {
    fn from(fields: &'a ChunkFields) -> Self {
        Self {
            kind: if fields.kind == "live" { ChunkKind::Live } else { ChunkKind::Replay },
            stream: &fields.stream,
            topic: &fields.topic,
            topic_id: topic_id(fields.uuid.as_ref(), fields.configured),
            partition: fields.partition,
            partition_count: fields.partition_count,
            epoch: Epoch(fields.epoch),
            origin: fields.origin,
            previous: fields.previous,
            end: fields.end,
            count: fields.count,
        }
    }
}

impl<'a> From<&'a EntryFields> for LedgerEntry<'a> {
    fn from(fields: &'a EntryFields) -> Self {
        Self {
            stream: &fields.stream,
            topic: &fields.topic,
            topic_id: topic_id(fields.uuid.as_ref(), fields.configured),
            partition: fields.partition,
            epoch: Epoch(fields.epoch),
            origin: fields.origin,
            last: fields.last,
            count: fields.count,
            blocks_back: fields.blocks_back,
        }
    }
}

fn topic_id(uuid: Option<&file::Hex>, configured: u64) -> TopicId {
    uuid.map_or(TopicId::Configured(configured), |uuid| TopicId::Uuid(uuid.array()))
}

impl file::RecordFields {
    fn timestamp(&self) -> Option<Timestamp> {
        match self.time_kind.as_deref() {
            None => None,
            Some("create") => Some(Timestamp::Create(self.time)),
            Some(_) => Some(Timestamp::LogAppend(self.time)),
        }
    }
}
