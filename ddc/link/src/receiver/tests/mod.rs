//! Tests of the receiver as a whole, fed by a maker of datagrams instead of the sender: it makes what a sender
//! makes, and what none ever would.

mod hostile;
mod order;
mod positions;
mod sessions;
mod stored;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ddc_wire::{
    BlockNumber, Codec, Content, Goodbye, GoodbyeReason, HEADER_LEN, Header, Heartbeat, KeyId, Kind, LinkId,
    PacketNumber, Prelude, Session as SessionId,
};

use super::*;
use crate::keys::{DatagramKey, Direction, LinkKey};

const BUILD: u64 = 1_700_000_000_000_000;
const WALL: u64 = 1_800_000_000_000_000;
const REORDER: Duration = Duration::from_millis(50);

/// Makes datagrams of one session.
#[derive(Clone)]
struct Maker {
    link_id: LinkId,
    key_id: KeyId,
    key: LinkKey,
    seal: SealMode,
    session: SessionId,
    packet: u64,
    next_block: u64,
    d_max: u8,
    symbol_size: usize,
    repairs: usize,
}

impl Maker {
    fn new(session: u64) -> Self {
        Self {
            link_id: LinkId(1),
            key_id: KeyId(1),
            key: LinkKey::new([1; 32]),
            seal: SealMode::Aes256Gcm,
            session: SessionId::new(WALL + session, 7),
            packet: 0,
            next_block: 0,
            d_max: 1,
            symbol_size: 20,
            repairs: 2,
        }
    }

    fn header(&mut self, kind: Kind, block: u64) -> Header {
        self.packet += 1;
        Header {
            kind,
            link_id: self.link_id,
            key_id: self.key_id,
            d_max: self.d_max,
            session: self.session,
            packet_number: PacketNumber(self.packet - 1),
            block: BlockNumber(block),
            symbol_size: 0,
            symbol_index: 0,
            source_symbols: 0,
            repair_symbols: 0,
            block_len: 0,
        }
    }

    /// Seals any header with any payload.
    fn seal(&self, header: &Header, payload: &[u8]) -> Vec<u8> {
        let mut head = [0; HEADER_LEN];
        header.encode(&mut head);
        let mut datagram = head.to_vec();
        datagram.extend_from_slice(payload);
        datagram.resize(datagram.len() + self.seal.trailer_len(), 0);
        let epoch = key_epoch(header.packet_number);
        let (direction, number) = (Direction::Data, header.packet_number);
        DatagramKey::derive(self.seal, &self.key, direction, self.link_id, self.key_id, self.session, epoch)
            .seal(number, &mut datagram);
        datagram
    }

    /// The datagrams of a block with these bytes, prelude included; its last source symbol unpadded.
    fn raw_block(&mut self, number: u64, block: &[u8]) -> Vec<Vec<u8>> {
        let size = self.symbol_size;
        let k = block.len().div_ceil(size);
        let mut padded = block.to_vec();
        padded.resize(k * size, 0);
        let mut repair = vec![0; self.repairs * size];
        ddc_fec::encode(size, &padded, &mut repair).unwrap();
        let sources = block.chunks(size).map(|bytes| (Kind::Source, bytes));
        let repairs = repair.chunks(size).map(|bytes| (Kind::Repair, bytes));
        let symbols: Vec<_> = sources.chain(repairs).enumerate().collect();
        self.next_block = self.next_block.max(number + 1);
        let seal = |(index, (kind, bytes)): (usize, (Kind, &[u8]))| {
            let header = Header {
                symbol_size: size as u16,
                symbol_index: index as u8,
                source_symbols: k as u8,
                repair_symbols: self.repairs as u8,
                block_len: block.len() as u32,
                ..self.header(kind, number)
            };
            self.seal(&header, bytes)
        };
        symbols.into_iter().map(seal).collect()
    }

    /// The next block: a whole batch that is not compressed.
    fn block(&mut self, data: &[u8]) -> Vec<Vec<u8>> {
        self.fragment(data, 0, 1)
    }

    fn fragment(&mut self, data: &[u8], fragment: u32, fragments: u32) -> Vec<Vec<u8>> {
        let (codec, content) = (Codec::None, Content::Records);
        let mut block = Vec::new();
        Prelude { codec, content, fragment, fragments, raw_len: data.len() as u32 }.encode(&mut block);
        block.extend_from_slice(data);
        self.raw_block(self.next_block, &block)
    }

    /// A heartbeat after all symbols of every block that was made.
    fn heartbeat(&mut self, rate_bits: u64, span: Duration) -> Vec<u8> {
        self.heartbeat_after(self.next_block, rate_bits, span)
    }

    /// A heartbeat that says that the blocks before `blocks` have been sent whole.
    fn heartbeat_after(&mut self, blocks: u64, rate_bits: u64, span: Duration) -> Vec<u8> {
        let header = self.header(Kind::Heartbeat, self.next_block);
        let interleave_span_micros = span.as_micros() as u32;
        let heartbeat = Heartbeat {
            wall_clock_micros: WALL,
            blocks,
            rate_bits,
            interleave_span_micros,
            ..Default::default()
        };
        let mut payload = Vec::new();
        heartbeat.encode(&mut payload);
        self.seal(&header, &payload)
    }

    /// A goodbye that is the last packet, or has so many behind it.
    fn goodbye(&mut self, ahead: u64) -> Vec<u8> {
        let header = self.header(Kind::Goodbye, self.next_block);
        let last_packet = PacketNumber(header.packet_number.0 + ahead);
        let mut payload = Vec::new();
        Goodbye { last_packet, reason: GoodbyeReason::Stop }.encode(&mut payload);
        self.seal(&header, &payload)
    }
}

/// A receiver with its clock.
struct Bench {
    receiver: Receiver,
    now: Instant,
    wall: u64,
    events: Vec<Event>,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| {}, &[])
    }

    fn with(change: impl FnOnce(&mut ReceiverConfig), stored: &[StoredSession]) -> Self {
        let mut keyring = Keyring::default();
        keyring.insert(KeyId(1), LinkKey::new([1; 32]));
        let mut config = ReceiverConfig {
            link_id: LinkId(1),
            keyring,
            seal: SealMode::Aes256Gcm,
            reorder_timeout: REORDER,
            window_bytes: 32 << 20,
            max_batch_bytes: 1 << 20,
            build_micros: BUILD,
        };
        change(&mut config);
        let now = Instant::now();
        Self { receiver: Receiver::new(config, now, stored), now, wall: WALL, events: Vec::new() }
    }

    fn handle(&mut self, datagram: &[u8]) -> Result<(), Reject> {
        let source = SocketAddr::from(([198, 18, 0, 1], 7401));
        self.receiver.handle(self.now, self.wall, source, &mut datagram.to_vec())
    }

    fn poll(&mut self) -> Vec<Event> {
        let mut new = Vec::new();
        while let Some(event) = self.receiver.poll(self.now) {
            new.push(event);
        }
        self.events.extend(new.iter().cloned());
        new
    }

    /// Takes all of them, then polls.
    fn take<'d>(&mut self, datagrams: impl IntoIterator<Item = &'d Vec<u8>>) -> Vec<Event> {
        for datagram in datagrams {
            assert_eq!(self.handle(datagram), Ok(()));
        }
        self.poll()
    }

    /// Lets time pass as a punctual caller does: polled at each deadline.
    fn pass(&mut self, time: Duration) -> Vec<Event> {
        let end = self.now + time;
        let mut new = self.poll();
        // Bounded, so that a deadline that does not go away fails instead of hanging.
        for _ in 0..10_000 {
            match self.receiver.next_deadline() {
                Some(due) if due <= end => {
                    self.now = self.now.max(due);
                    new.extend(self.poll());
                }
                _ => {
                    self.now = end;
                    new.extend(self.poll());
                    return new;
                }
            }
        }
        panic!("a deadline that polling does not settle: {:?}", self.receiver.next_deadline());
    }

    fn rejected(&self, reason: Reject) -> u64 {
        self.receiver.counters().rejected(reason)
    }
}

/// The bytes of the batches among the events.
fn batches(events: &[Event]) -> Vec<Vec<u8>> {
    let bytes = events.iter().filter_map(|event| match event {
        Event::Batch(batch) => Some(batch.bytes().to_vec()),
        _ => None,
    });
    bytes.collect()
}

/// The ranges given up among the events, with reason and cause.
fn given_up(events: &[Event]) -> Vec<(u64, u64, GivenUpReason, GiveUpCause)> {
    let ranges = events.iter().filter_map(|event| match event {
        Event::GivenUp { first, last, reason, cause, .. } => Some((*first, *last, *reason, *cause)),
        _ => None,
    });
    ranges.collect()
}

fn text(number: usize) -> Vec<u8> {
    format!("batch {number} with some bytes that take more than one symbol").into_bytes()
}

fn just_before(limit: Duration) -> Duration {
    limit.saturating_sub(Duration::from_millis(1))
}
