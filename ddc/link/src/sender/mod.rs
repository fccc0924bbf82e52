//! The sending end of a link: records in, sealed datagrams out, at the pace of the link.
//!
//! ```text
//!  source's thread                     link's thread
//!  push ─▶ Packer ─▶ PackedBlock ═══▶ Sender: group ─▶ FEC ─▶ seal ─▶ pace ─▶ Datagrams
//!          pack.rs    (queue of          protect.rs      seal.rs   pace.rs
//!                     the caller)
//! ```
//!
//! Neither owns a thread, a socket or a clock. A block's [`Mark`]s become true when
//! [`Totals::blocks`] has passed it: all its symbols, and those of all blocks before it, have been
//! handed out, and the caller sends what it is handed before it polls again.

mod compress;
mod outbox;
mod pace;
mod pack;
mod partitions;
mod protect;
mod replay;
mod seal;
mod split;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use ddc_fec::Code;
use ddc_wire::{
    BlockNumber, Goodbye, GoodbyeReason, Heartbeat, KeyId, Kind, LinkId, MAX_DATAGRAM, OVERHEAD,
    PacketNumber, Session, SourceState,
};

pub use compress::Compression;
pub use outbox::PackedBlock;
pub use pace::{Pacer, wire_bytes};
pub use pack::{PackConfig, PackConfigError, PackError, Packer};
pub use partitions::{Mark, PartitionStart, Slot};
pub use replay::{ReplayPacker, ReplayRange, ReplaySlice, block_wire_bytes};
pub use seal::{Datagrams, MAX_BURST_DATAGRAMS};

use crate::keys::{LinkKey, SealMode};
use protect::{Block, Group};
use seal::{Sealer, SymbolHeader};

/// What a sender needs to know. One sender is one session.
#[derive(Debug, Clone)]
pub struct SenderConfig {
    /// The link's number.
    pub link_id: LinkId,
    /// Which key of the keyring seals.
    pub key_id: KeyId,
    /// That key.
    pub key: LinkKey,
    /// How datagrams are authenticated.
    pub seal: SealMode,
    /// A session that never began before.
    pub session: Session,
    /// Source and repair symbols of a full block.
    pub code: Code,
    /// Bytes of a full symbol, S_max.
    pub symbol_size: usize,
    /// How many blocks are interleaved at most, D_max; 1 does not interleave.
    pub interleave: u8,
    /// How long a group waits for its blocks when `interleave` > 1.
    pub interleave_span: Duration,
    /// Bits per second on the wire, Ethernet included; `None` is unlimited.
    pub rate: Option<u64>,
    /// Most wire time of a burst.
    pub burst: Duration,
    /// Bytes of the IP header: 20 or 40.
    pub ip_overhead: usize,
}

/// Why a sender cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SenderConfigError {
    /// The symbol size is 0 or over what a datagram holds.
    #[error("symbols of {0} bytes do not fit a datagram; check `mtu`")]
    SymbolSize(usize),
    /// `interleave` is 0.
    #[error("interleave = 0 is none; set 1 to 255")]
    Interleave,
}

/// Why a block was not taken; it is given back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// There is no room; see [`Sender::ready`].
    #[error("the sender has no room for another block")]
    NotReady(Vec<u8>),
    /// It has no bytes, or more than k · S_max.
    #[error("a block of {} bytes does not fit the code", .0.len())]
    BlockLen(Vec<u8>),
}

/// What the caller says in a heartbeat; the sender adds its own totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeartbeatFacts {
    /// The wall clock in µs since 1970.
    pub wall_clock_micros: u64,
    /// Records at the source that have not been sent; `None` when unknown.
    pub lag: Option<u64>,
    /// The source's state.
    pub source_state: SourceState,
}

/// What to do after [`Sender::poll`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Send the datagrams, all of them and in order, then poll again.
    Send,
    /// Nothing may leave before this time; a push may change that.
    Wait(Instant),
    /// Nothing waits.
    Idle,
}

/// What a session has sent so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Datagrams.
    pub packets: u64,
    /// Their bytes, UDP payload only.
    pub bytes: u64,
    /// Blocks 0 to `blocks` − 1 have been handed out with all their symbols.
    pub blocks: u64,
    /// Records that end in those blocks.
    pub records: u64,
    /// Source symbols.
    pub source_symbols: u64,
    /// Repair symbols.
    pub repair_symbols: u64,
    /// Heartbeats.
    pub heartbeats: u64,
}

/// Sends one session: protects, numbers, seals and paces. See the module's text.
///
/// Holds at most 2 · `interleave` blocks. Nothing is allocated per datagram.
#[derive(Debug)]
pub struct Sender {
    code: Code,
    symbol_size: usize,
    interleave: usize,
    interleave_span: Duration,
    ip_overhead: usize,
    started: Instant,
    sealer: Sealer,
    pacer: Pacer,
    /// Blocks of the next group, and when the first of them came.
    filling: Vec<Block>,
    filling_since: Instant,
    sending: Group,
    next_block: BlockNumber,
    /// The first block of which no symbol has been handed out.
    next_to_begin: BlockNumber,
    heartbeat: Option<HeartbeatFacts>,
    goodbye: Option<Farewell>,
    /// The payload of the heartbeat or goodbye that is being made.
    scratch: Vec<u8>,
    totals: Totals,
}

/// The goodbyes that are still to be sent.
#[derive(Debug, Clone, Copy)]
struct Farewell {
    reason: GoodbyeReason,
    left: u64,
    /// Set with the first one.
    last_packet: Option<PacketNumber>,
    not_before: Instant,
}

/// How often a goodbye is said.
const GOODBYES: u64 = 3;
/// Between goodbyes, so that one burst of loss does not take them all.
const GOODBYE_GAP: Duration = Duration::from_millis(5);

/// What leaves next.
#[derive(Clone, Copy)]
enum Next {
    Heartbeat,
    Symbol(usize),
    Goodbye(Farewell),
}

impl Sender {
    /// A sender that begins its session with packet 0 and block 0.
    pub fn new(config: SenderConfig, now: Instant) -> Result<Self, SenderConfigError> {
        if !(1..=MAX_DATAGRAM - OVERHEAD).contains(&config.symbol_size) {
            return Err(SenderConfigError::SymbolSize(config.symbol_size));
        }
        if config.interleave == 0 {
            return Err(SenderConfigError::Interleave);
        }
        let sealer = Sealer::new(
            config.link_id,
            config.key_id,
            config.key,
            config.seal,
            config.session,
            config.interleave,
        );
        Ok(Self {
            code: config.code,
            symbol_size: config.symbol_size,
            interleave: config.interleave as usize,
            // A group of one waits for nobody.
            interleave_span: if config.interleave == 1 { Duration::ZERO } else { config.interleave_span },
            ip_overhead: config.ip_overhead,
            started: now,
            sealer,
            pacer: Pacer::new(config.rate, config.burst, now),
            filling: Vec::with_capacity(config.interleave as usize),
            filling_since: now,
            sending: Group::default(),
            next_block: BlockNumber(0),
            next_to_begin: BlockNumber(0),
            heartbeat: None,
            goodbye: None,
            scratch: Vec::with_capacity(Heartbeat::LEN),
            totals: Totals::default(),
        })
    }

    /// Whether [`Self::push`] takes another block.
    pub fn ready(&self) -> bool {
        self.goodbye.is_none() && self.filling.len() < self.interleave && !self.sealer.exhausted()
    }

    /// Whether a block that came now would begin to leave at once: nothing waits and the pacer has
    /// credit. This is what the packer's `link_ready` asks for.
    pub fn could_send_now(&self, now: Instant) -> bool {
        let full = self.sealer.datagram_len(self.symbol_size);
        self.ready()
            && self.filling.is_empty()
            && self.sending.is_done()
            && self.pacer.could_send(now, wire_bytes(full, self.ip_overhead))
    }

    /// Takes a block: a [`PackedBlock`]'s `bytes`, `full` and `records`. Returns its number; they
    /// are consecutive from 0.
    pub fn push(
        &mut self,
        now: Instant,
        bytes: Vec<u8>,
        full: bool,
        records: u32,
    ) -> Result<BlockNumber, PushError> {
        if !self.ready() {
            return Err(PushError::NotReady(bytes));
        }
        if bytes.is_empty() || bytes.len() > self.code.k() * self.symbol_size {
            return Err(PushError::BlockLen(bytes));
        }
        if self.filling.is_empty() {
            self.filling_since = now;
        }
        let number = self.next_block;
        self.next_block = BlockNumber(number.0 + 1);
        self.filling.push(Block::new(number, bytes, full, records, self.code, self.symbol_size));
        Ok(number)
    }

    /// Queues a heartbeat in front of the symbols; one that still waits is replaced. None follows
    /// a goodbye.
    pub fn heartbeat(&mut self, _now: Instant, facts: HeartbeatFacts) {
        if self.goodbye.is_none_or(|farewell| farewell.last_packet.is_none()) {
            self.heartbeat = Some(facts);
        }
    }

    /// Ends the session: what waits is sent, then three goodbyes. Only the first call counts.
    pub fn goodbye(&mut self, now: Instant, reason: GoodbyeReason) {
        self.goodbye.get_or_insert(Farewell { reason, left: GOODBYES, last_packet: None, not_before: now });
    }

    /// Whether the last goodbye has been handed out.
    pub fn finished(&self) -> bool {
        self.goodbye.is_some_and(|farewell| farewell.left == 0)
    }

    /// Puts the datagrams that may leave now into `out`, which is cleared first: at most
    /// [`MAX_BURST_DATAGRAMS`] and one burst of the pacer. They count as sent.
    pub fn poll(&mut self, now: Instant, out: &mut Datagrams) -> Step {
        out.clear();
        while !out.is_full() {
            let Some(next) = self.next(now) else { break };
            let payload = match next {
                Next::Heartbeat => Heartbeat::LEN,
                Next::Symbol(len) => len,
                Next::Goodbye(_) => Goodbye::LEN,
            };
            let len = self.sealer.datagram_len(payload);
            if let Err(at) = self.pacer.admit(now, wire_bytes(len, self.ip_overhead)) {
                return if out.is_empty() { Step::Wait(at) } else { Step::Send };
            }
            match next {
                Next::Heartbeat => self.send_heartbeat(now, out),
                Next::Symbol(_) => self.send_symbol(out),
                Next::Goodbye(farewell) => self.send_goodbye(now, farewell, out),
            }
            self.totals.packets += 1;
            self.totals.bytes += len as u64;
        }
        if !out.is_empty() {
            return Step::Send;
        }
        let group = (!self.filling.is_empty()).then(|| self.filling_since + self.interleave_span);
        let goodbye = self.goodbye.filter(|farewell| farewell.left > 0).map(|farewell| farewell.not_before);
        match group.or(goodbye) {
            Some(at) if !self.sealer.exhausted() => Step::Wait(at),
            _ => Step::Idle,
        }
    }

    /// Changes the rate from `now` on; `None` is unlimited.
    pub fn set_rate(&mut self, now: Instant, rate: Option<u64>) {
        self.pacer.set_rate(now, rate);
    }

    /// The rate in bits per second; `None` is unlimited.
    pub fn rate(&self) -> Option<u64> {
        self.pacer.rate()
    }

    /// What has been handed out so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Blocks that were pushed and are not in [`Totals::blocks`] yet; at most 2 · `interleave`.
    pub fn blocks_waiting(&self) -> u64 {
        self.next_block.0 - self.totals.blocks
    }

    fn next(&mut self, now: Instant) -> Option<Next> {
        if self.sealer.exhausted() {
            return None;
        }
        if self.heartbeat.is_some() {
            return Some(Next::Heartbeat);
        }
        if self.sending.is_done() && self.group_closes(now) {
            self.sending.begin(&mut self.filling);
        }
        if let Some(len) = self.sending.next_len() {
            return Some(Next::Symbol(len));
        }
        let due = |farewell: &Farewell| farewell.left > 0 && farewell.not_before <= now;
        self.goodbye.filter(due).filter(|_| self.filling.is_empty()).map(Next::Goodbye)
    }

    fn group_closes(&self, now: Instant) -> bool {
        !self.filling.is_empty()
            && (self.filling.len() == self.interleave
                || self.goodbye.is_some()
                || self.filling_since + self.interleave_span <= now)
    }

    fn send_symbol(&mut self, out: &mut Datagrams) {
        let symbol = self.sending.symbol();
        self.sealer.seal(out, symbol.kind, symbol.block, symbol.header, symbol.payload);
        match symbol.kind {
            Kind::Repair => self.totals.repair_symbols += 1,
            _ => self.totals.source_symbols += 1,
        }
        self.next_to_begin = self.next_to_begin.max(BlockNumber(symbol.block.0 + 1));
        let totals = &mut self.totals;
        self.sending.advance(|block| {
            debug_assert_eq!(block.number.0, totals.blocks, "blocks are done in order");
            totals.blocks += 1;
            totals.records += u64::from(block.records);
        });
    }

    fn send_heartbeat(&mut self, now: Instant, out: &mut Datagrams) {
        let Some(facts) = self.heartbeat.take() else { return };
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let heartbeat = Heartbeat {
            wall_clock_micros: facts.wall_clock_micros,
            uptime_micros: micros(now.saturating_duration_since(self.started)),
            packets: self.totals.packets,
            blocks: self.totals.blocks,
            records: self.totals.records,
            bytes: self.totals.bytes,
            lag: facts.lag,
            rate_bits: self.pacer.rate().unwrap_or(0),
            interleave_span_micros: micros(self.interleave_span).try_into().unwrap_or(u32::MAX),
            source_state: facts.source_state,
        };
        self.scratch.clear();
        heartbeat.encode(&mut self.scratch);
        self.send_control(Kind::Heartbeat, out);
        self.totals.heartbeats += 1;
    }

    fn send_goodbye(&mut self, now: Instant, farewell: Farewell, out: &mut Datagrams) {
        let last_packet = farewell.last_packet.unwrap_or(PacketNumber(self.sealer.next().0 + GOODBYES - 1));
        self.scratch.clear();
        Goodbye { last_packet, reason: farewell.reason }.encode(&mut self.scratch);
        self.send_control(Kind::Goodbye, out);
        self.goodbye = Some(Farewell {
            left: farewell.left - 1,
            last_packet: Some(last_packet),
            not_before: now + GOODBYE_GAP,
            ..farewell
        });
    }

    /// Sends what `scratch` holds: it carries no symbol and names the next block to begin.
    fn send_control(&mut self, kind: Kind, out: &mut Datagrams) {
        self.sealer.seal(out, kind, self.next_to_begin, SymbolHeader::default(), &self.scratch);
    }
}
