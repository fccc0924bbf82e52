//! The receiving end of a link: datagrams in, batches in order out.
//!
//! ```text
//!  datagram → open ──────────▶ recover ─────────▶ order ───────▶ join ─▶ Event::Batch ═ queue ═▶ unpack ─▶ gaps
//!             header, session,  symbols, parity,   next block,    fragments                       (sink thread)
//!             key, tag, replay  decode             give up
//! ```
//!
//! [`Receiver`] is a state machine without I/O: the caller says what came and when, and asks what is due. Its
//! memory is bounded: the blocks of all sessions by `window_bytes`; up to a quarter of it for reuse; the fragments
//! of one batch per session by `max_batch_bytes`; 16 KiB of replay window for each of [`MAX_SESSIONS`] sessions.
//! What does not fit is counted and refused, or the oldest is given up and reported; nothing is queued without bound.
//!
//! Behind the queue, on the sink's thread, [`Unpacker`] decompresses and checks a batch, and [`gaps`] with
//! [`Positions`] decides what is missing and what is a duplicate.

mod counters;
pub mod gaps;
mod join;
mod loss;
mod open;
mod order;
mod position;
mod positions;
mod recover;
mod replay;
mod session;
mod stored;
mod unpack;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ddc_wire::{
    BlockNumber, Goodbye, GoodbyeReason, Header, HeaderError, Heartbeat, KeyId, Kind, LinkId,
    Session as SessionId,
};

pub use counters::{Counters, Reject};
pub use gaps::{Disposition, Missing, MissingReason, OffsetRange};
pub use join::{BatchHead, ReleasedBatch};
pub use loss::{DECIDE_AFTER, DECIDE_BEHIND};
pub use open::{DERIVATION_BURST, DERIVATIONS_PER_SECOND};
pub use order::{GiveUpCause, OVERTAKEN_PACKETS};
pub use position::{MAX_HOLES, Position, Settled};
pub use positions::{LedgerVerdict, MAX_PARTITIONS, PartitionKey, Positions, Visit};
pub use replay::WINDOW as REPLAY_WINDOW;
pub use session::{
    FRESH_PACKETS, MAX_BLOCK, MAX_GOODBYE_AHEAD, SILENCE_BEFORE_HEARTBEAT, StoredSession, StoredState,
};
pub use stored::{FORMAT, PositionsError};
pub use unpack::{UnpackError, Unpacker};

use crate::keys::{Keyring, SealMode};
use open::{DerivationLimit, Deriver, SessionKeys, key_epoch};
use recover::{Memory, Symbol};
use replay::Seen;
use session::Session;

/// Sessions served at once; the one silent longest makes way for one more.
pub const MAX_SESSIONS: usize = 4;
/// How long a session is silent, while a newer one is open, until it is retired.
pub const RETIRE_AFTER_SILENCE: Duration = Duration::from_secs(10);
/// How far ahead of the egress's clock a session may have begun.
pub const MAX_SESSION_AHEAD: Duration = Duration::from_hours(24);
/// How long two sessions send side by side until they are called two senders, and how often that is said.
pub const TWO_SENDERS_AFTER: Duration = Duration::from_secs(10);
/// The least window that is used: it holds the largest block there is with its parity.
pub const MIN_WINDOW_BYTES: usize = 4 << 20;
/// Facts that wait to be polled. Those that report loss are never dropped for it.
const MAX_EVENTS: usize = 1024;
/// A session counts as sending this long after its last packet (three heartbeats).
const STILL_SENDING: Duration = Duration::from_secs(3);
/// A caller that comes later than this after its deadline stood still; see [`Receiver::notice_standstill`].
const STANDSTILL: Duration = Duration::from_millis(20);
/// Key ids there are; one newest retired session is kept for each.
const KEY_IDS: usize = 256;

/// What a receiver is made with.
#[derive(Debug, Clone)]
pub struct ReceiverConfig {
    /// The link; datagrams of another are refused.
    pub link_id: LinkId,
    /// The keys by their ids; datagrams of other ids are refused.
    pub keyring: Keyring,
    /// How datagrams are sealed; never taken from the wire.
    pub seal: SealMode,
    /// How much reordering is waited for.
    pub reorder_timeout: Duration,
    /// Memory for blocks that are not released, of all sessions; at least [`MIN_WINDOW_BYTES`] are used.
    pub window_bytes: usize,
    /// The largest batch accepted, before and after compression: `max_record_bytes` and room for its framing.
    pub max_batch_bytes: usize,
    /// When this program was built, in µs since 1970: a clock before it is not believed.
    pub build_micros: u64,
}

/// What the receiver has to tell, in order within each session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A batch is whole and next in its session.
    Batch(ReleasedBatch),
    /// The blocks `first..=last` of a session will not be delivered.
    GivenUp {
        /// The session.
        session: SessionId,
        /// The first block.
        first: u64,
        /// The last block; the first, unless nothing came of any of them.
        last: u64,
        /// What was wrong with them.
        reason: GivenUpReason,
        /// Why they were not waited for any longer.
        cause: GiveUpCause,
        /// Symbols that came of the block.
        symbols_seen: usize,
    },
    /// A block became complete after it had been given up; it is discarded.
    LateBlock {
        /// The session.
        session: SessionId,
        /// The block.
        block: u64,
    },
    /// A session was met, or goes on after a restart of the receiver.
    SessionOpened {
        /// The session.
        session: SessionId,
        /// The key it is sealed with.
        key_id: KeyId,
        /// Where its first packet came from.
        source: SocketAddr,
        /// The first block that is expected.
        first_block: u64,
        /// Whether an earlier life of this receiver had served it.
        continued: bool,
    },
    /// A session is over; everything of it was released or given up before.
    SessionRetired {
        /// The session.
        session: SessionId,
        /// The key it was sealed with.
        key_id: KeyId,
        /// Why it is over.
        why: RetiredWhy,
    },
    /// The sender's heartbeat.
    Heartbeat {
        /// The session.
        session: SessionId,
        /// What it says.
        heartbeat: Heartbeat,
        /// The egress's clock less the ingress's in µs; the way of the heartbeat is part of it.
        clock_difference_micros: i64,
    },
    /// Two sessions have been sending side by side for [`TWO_SENDERS_AFTER`]: two ingresses on one link.
    TwoSenders {
        /// The older session and where its last packet came from.
        older: (SessionId, SocketAddr),
        /// The newer session and where its last packet came from.
        newer: (SessionId, SocketAddr),
    },
}

/// What was wrong with blocks that were given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GivenUpReason {
    /// Not one symbol came.
    Lost,
    /// Some symbols came, too few to repair the block.
    Unrepairable,
    /// It came whole, but its prelude is not one, or does not follow the block before it.
    Malformed,
    /// It came whole, but its batch is larger than `max_batch_bytes`.
    TooLarge,
}

impl GivenUpReason {
    /// The reason's name in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Unrepairable => "unrepairable",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
        }
    }
}

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetiredWhy {
    /// Its sender said goodbye.
    Goodbye(GoodbyeReason),
    /// It was silent while a newer session was open.
    Silent,
    /// It was silent longest when a fifth session came.
    Replaced,
    /// Its key is no longer in the keyring.
    KeyRemoved,
}

/// The receiving end of a link. See the top of this file.
pub struct Receiver {
    deriver: Deriver,
    reorder_timeout: Duration,
    max_batch_bytes: usize,
    build_micros: u64,
    /// Open, dormant and restored sessions, at most [`MAX_SESSIONS`].
    sessions: Vec<Session>,
    /// A session that was replaced and is not yet drained.
    leaving: Option<Session>,
    /// The newest retired session of each key id; at most [`KEY_IDS`].
    retired: Vec<(KeyId, SessionId)>,
    derivations: DerivationLimit,
    memory: Memory,
    counters: Counters,
    events: VecDeque<Event>,
    /// When the caller was asked to come back.
    due: Option<Instant>,
    /// Until when nothing is held against blocks and sessions, because the receiver itself stood still.
    grace: Option<Instant>,
    two_senders_at: Option<Instant>,
}

impl Receiver {
    /// A receiver that goes on from what an earlier life stored.
    ///
    /// With `seal = "none"` nothing is taken over, as nothing is stored.
    pub fn new(config: ReceiverConfig, now: Instant, stored: &[StoredSession]) -> Self {
        let ReceiverConfig {
            link_id,
            keyring,
            seal,
            reorder_timeout,
            window_bytes,
            max_batch_bytes,
            build_micros,
        } = config;
        let mut receiver = Self {
            deriver: Deriver { mode: seal, link_id, keyring },
            reorder_timeout,
            max_batch_bytes,
            build_micros,
            sessions: Vec::with_capacity(MAX_SESSIONS),
            leaving: None,
            retired: Vec::new(),
            derivations: DerivationLimit::new(now),
            memory: Memory::new(window_bytes.max(MIN_WINDOW_BYTES)),
            counters: Counters::default(),
            events: VecDeque::new(),
            due: None,
            grace: None,
            two_senders_at: None,
        };
        let trusted = if seal == SealMode::None { &[][..] } else { stored };
        for stored in trusted {
            // More open ones than we serve are in no file that we wrote: they are treated as retired.
            if stored.state == StoredState::Open && receiver.sessions.len() < MAX_SESSIONS {
                receiver.sessions.push(Session::restore(stored, now, max_batch_bytes));
            } else {
                receiver.note_retired(stored.key_id, stored.session);
            }
        }
        receiver
    }

    /// What the next life of this receiver needs. Nothing with `seal = "none"`: what anyone can write is not kept.
    pub fn stored(&self) -> Vec<StoredSession> {
        if self.deriver.mode == SealMode::None {
            return Vec::new();
        }
        let open = self.sessions.iter().map(Session::stored);
        let retired = self.retired.iter().map(|&(key_id, session)| StoredSession {
            key_id,
            session,
            next_block: BlockNumber(0),
            state: StoredState::Retired,
        });
        open.chain(retired).collect()
    }

    /// Takes one datagram as it came off the wire; it is opened where it lies.
    ///
    /// `wall_micros` is the egress's clock in µs since 1970. A refused datagram is counted by its reason and changes
    /// nothing else. Drain [`Self::poll`] after each burst.
    pub fn handle(
        &mut self,
        now: Instant,
        wall_micros: u64,
        source: SocketAddr,
        datagram: &mut [u8],
    ) -> Result<(), Reject> {
        self.notice_standstill(now);
        let result = self.accept(now, wall_micros, source, datagram);
        if let Err(reject) = result {
            self.counters.reject(reject);
        }
        result
    }

    /// The next thing that is ready; call until there is none.
    pub fn poll(&mut self, now: Instant) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        self.notice_standstill(now);
        let timers = self.grace.is_none_or(|grace| now >= grace);
        let event = self.drain_leaving(now).or_else(|| self.release(now, timers));
        let event = event.or_else(|| if timers { self.lifecycle(now) } else { None });
        if event.is_none() {
            if timers {
                self.grace = None;
            }
            self.due = self.next_deadline();
        }
        event
    }

    /// When to call [`Self::poll`] again even if nothing arrives. May lie in the past: then at once.
    pub fn next_deadline(&self) -> Option<Instant> {
        let sessions = self.sessions.iter().chain(&self.leaving);
        let blocks = sessions.filter_map(|session| session.deadline(self.reorder_timeout)).min();
        let silent = (0..self.sessions.len()).filter_map(|index| self.silent_at(index)).min();
        let due = [blocks, silent].into_iter().flatten().min()?;
        Some(self.grace.map_or(due, |grace| due.max(grace)))
    }

    /// The totals so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Sessions that are open or dormant now; at most [`MAX_SESSIONS`].
    pub fn sessions(&self) -> impl Iterator<Item = (KeyId, SessionId)> {
        self.sessions.iter().map(|session| (session.key_id, session.id))
    }

    /// Bytes of blocks that are not released.
    pub fn window_bytes(&self) -> usize {
        self.memory.held_bytes()
    }

    /// Takes back the buffer of a batch ([`ReleasedBatch::into_buffer`]), so that the next block needs none.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        self.memory.recycle(buffer);
    }

    /// Replaces the keyring. Sessions whose key is gone or is another one now are retired.
    pub fn set_keyring(&mut self, now: Instant, keyring: Keyring) {
        let old = std::mem::replace(&mut self.deriver.keyring, keyring);
        for session in &mut self.sessions {
            if old.get(session.key_id) != self.deriver.keyring.get(session.key_id) {
                session.end(now, RetiredWhy::KeyRemoved);
            }
        }
    }
}

/// The way of a datagram: the checks, cheapest first.
impl Receiver {
    fn accept(
        &mut self,
        now: Instant,
        wall_micros: u64,
        source: SocketAddr,
        datagram: &mut [u8],
    ) -> Result<(), Reject> {
        let len = datagram.len();
        let header = Header::decode(datagram, self.deriver.mode.trailer_len())?;
        if !session::is_served(header.kind) {
            return Err(Reject::Reserved);
        }
        if header.link_id != self.deriver.link_id {
            return Err(Reject::Link);
        }
        if self.deriver.keyring.get(header.key_id).is_none() {
            return Err(Reject::Key);
        }
        let index = self.sessions.iter().position(|session| session.is(&header));
        let heard = index.and_then(|index| self.sessions[index].heard());
        let (index, payload) = if let (Some(index), Some((keys, window))) = (index, heard) {
            // Nothing is decided here, so a forger gains nothing: it only spares the work on a copy.
            if window.seen(header.packet_number.0) != Seen::New {
                return Err(Reject::Replay);
            }
            let key = keys.get(header.packet_number).ok_or(Reject::PacketNumber)?;
            let payload = key.open(header.packet_number, datagram).map_err(|_| Reject::Seal)?;
            self.sessions[index].is_before_floor(&header)?;
            (index, payload)
        } else {
            self.meet(now, wall_micros, source, index, &header, datagram)?
        };
        if header.block.0 >= MAX_BLOCK || header.d_max == 0 {
            return Err(Reject::Header);
        }
        self.sessions[index].packet(&self.deriver, &header, len, source, now, &mut self.counters);
        match header.kind {
            Kind::Source | Kind::Repair => self.symbol(now, index, &header, payload),
            Kind::Heartbeat => self.heartbeat(now, wall_micros, index, &header, payload),
            Kind::Goodbye => {
                let goodbye = Goodbye::decode(payload).map_err(|_| Reject::Payload)?;
                let session = &mut self.sessions[index];
                session.goodbye(&header, &goodbye, now, self.reorder_timeout)?;
                session.begun(&header, now);
                self.counters.goodbyes += 1;
                Ok(())
            }
            Kind::Probe | Kind::Status => Err(Reject::Reserved),
        }
    }

    /// A packet of a session that has no keys yet: unknown (`known` is none), or left open by an earlier life.
    /// Until its tag has verified nothing of it is kept.
    fn meet<'d>(
        &mut self,
        now: Instant,
        wall_micros: u64,
        source: SocketAddr,
        known: Option<usize>,
        header: &Header,
        datagram: &'d mut [u8],
    ) -> Result<(usize, &'d mut [u8]), Reject> {
        if known.is_none() {
            self.may_open(wall_micros, header)?;
        }
        if !self.derivations.take(now) {
            return Err(Reject::SessionRate);
        }
        let epoch = key_epoch(header.packet_number);
        let (key_id, id) = (header.key_id, header.session);
        let key = self.deriver.key(key_id, id, epoch).ok_or(Reject::Key)?;
        let payload = key.open(header.packet_number, datagram).map_err(|_| Reject::Seal)?;
        if header.block.0 >= MAX_BLOCK || header.d_max == 0 {
            return Err(Reject::Header);
        }
        let index = match known {
            Some(index) => {
                self.sessions[index].is_before_floor(header)?;
                index
            }
            None => self.admit(Session::join(header, now, self.max_batch_bytes), now)?,
        };
        let keys = SessionKeys::new(&self.deriver, key_id, id, epoch, key);
        let session = &mut self.sessions[index];
        session.hear(header, keys, now);
        let first_block = session.next_block();
        self.counters.sessions_opened += 1;
        let continued = known.is_some();
        self.tell(Event::SessionOpened { session: id, key_id, source, first_block, continued });
        Ok((index, payload))
    }

    /// Whether a session that is not open may be opened, as far as its header tells.
    fn may_open(&self, wall_micros: u64, header: &Header) -> Result<(), Reject> {
        let retired = self.retired.iter().find(|(key_id, _)| *key_id == header.key_id);
        if retired.is_some_and(|(_, newest)| header.session <= *newest) {
            return Err(Reject::SessionRetired);
        }
        let known = self.sessions.iter().map(|session| session.id);
        let newest = known.chain(self.retired.iter().map(|(_, session)| *session)).max();
        let believed = wall_micros > self.build_micros
            && newest.is_none_or(|newest| wall_micros > newest.start_micros());
        let latest = wall_micros.saturating_add(MAX_SESSION_AHEAD.as_micros() as u64);
        if believed && header.session.start_micros() > latest {
            return Err(Reject::SessionFuture);
        }
        Ok(())
    }

    /// Finds a place for a session whose tag has verified.
    fn admit(&mut self, session: Session, now: Instant) -> Result<usize, Reject> {
        if self.sessions.len() == MAX_SESSIONS {
            // Not drained since the last replacement: the caller polls after each burst, so this passes soon.
            if self.leaving.is_some() || self.events.len() >= MAX_EVENTS {
                return Err(Reject::SessionRate);
            }
            let silent_longest =
                (0..self.sessions.len()).min_by_key(|index| self.sessions[*index].last_heard);
            if let Some(index) = silent_longest {
                let mut old = self.sessions.swap_remove(index);
                old.end(now, RetiredWhy::Replaced);
                self.note_retired(old.key_id, old.id);
                self.leaving = Some(old);
            }
        }
        self.sessions.push(session);
        Ok(self.sessions.len() - 1)
    }

    fn symbol(&mut self, now: Instant, index: usize, header: &Header, payload: &[u8]) -> Result<(), Reject> {
        let shape = header.shape(payload.len()).map_err(|_| Reject::Header)?;
        let (block, at) = (header.block.0, header.symbol_index as usize);
        let symbol = Symbol { block, kind: header.kind, shape, index: at, payload };
        self.sessions[index].begun(header, now);
        let room = self.sessions[index].room_for(&symbol);
        if !self.make_room(now, room) {
            return Err(Reject::WindowFull);
        }
        let session = &mut self.sessions[index];
        if let Some(late) = session.symbol(&mut self.memory, &mut self.counters, now, &symbol)? {
            self.tell(late);
        }
        Ok(())
    }

    fn heartbeat(
        &mut self,
        now: Instant,
        wall_micros: u64,
        index: usize,
        header: &Header,
        payload: &[u8],
    ) -> Result<(), Reject> {
        let heartbeat = Heartbeat::decode(payload).map_err(|_| Reject::Payload)?;
        let session = &mut self.sessions[index];
        session.heartbeat(header, &heartbeat, now);
        session.begun(header, now);
        let session = session.id;
        self.counters.heartbeats += 1;
        let difference = i128::from(wall_micros) - i128::from(heartbeat.wall_clock_micros);
        let limits = i128::from(i64::MIN)..=i128::from(i64::MAX);
        let clock_difference_micros = difference.clamp(*limits.start(), *limits.end()) as i64;
        self.tell(Event::Heartbeat { session, heartbeat, clock_difference_micros });
        Ok(())
    }

    /// Gives up the oldest blocks until `bytes` fit; false when nothing is left that could be given up.
    fn make_room(&mut self, now: Instant, bytes: usize) -> bool {
        // Ends: each turn frees a block.
        while !self.memory.has_room(bytes) {
            if self.events.len() >= MAX_EVENTS {
                return false;
            }
            let sessions = self.sessions.iter_mut();
            let oldest = sessions.filter_map(|session| Some((session.oldest_incomplete()?, session)));
            let Some((_, session)) = oldest.min_by_key(|(since, _)| *since) else { return false };
            let (memory, counters) = (&mut self.memory, &mut self.counters);
            self.events.extend(session.give_up_oldest(memory, counters, now, self.reorder_timeout));
        }
        true
    }
}

/// What time brings.
impl Receiver {
    /// A caller that comes much later than it was asked to has stood still (stopped, starved, suspended), and what
    /// it was waiting for may lie in the socket's buffer. So nothing is held against it for one more
    /// `reorder_timeout`. Granted once for each deadline, so that a caller that is always late gets on too.
    fn notice_standstill(&mut self, now: Instant) {
        if self.grace.is_none() && self.due.is_some_and(|due| now > due + STANDSTILL) {
            self.grace = Some(now + self.reorder_timeout);
        }
    }

    fn drain_leaving(&mut self, now: Instant) -> Option<Event> {
        let session = self.leaving.as_mut()?;
        let (memory, counters) = (&mut self.memory, &mut self.counters);
        let hurry = Some(GiveUpCause::SessionEnded);
        if let Some(event) = session.release(memory, counters, now, true, self.reorder_timeout, hurry) {
            return Some(event);
        }
        let session = self.leaving.take()?;
        Some(self.retire(session))
    }

    fn release(&mut self, now: Instant, timers: bool) -> Option<Event> {
        let (memory, counters) = (&mut self.memory, &mut self.counters);
        self.sessions.iter_mut().find_map(|session| {
            let ended = timers && session.has_ended(now);
            let hurry = ended.then_some(GiveUpCause::SessionEnded);
            session.release(memory, counters, now, timers, self.reorder_timeout, hurry)
        })
    }

    /// Called when nothing is left to release.
    fn lifecycle(&mut self, now: Instant) -> Option<Event> {
        if let Some(index) = self.sessions.iter().position(|session| session.has_ended(now)) {
            let session = self.sessions.swap_remove(index);
            self.note_retired(session.key_id, session.id);
            return Some(self.retire(session));
        }
        let silent =
            (0..self.sessions.len()).find(|index| self.silent_at(*index).is_some_and(|at| at <= now));
        if let Some(index) = silent {
            self.sessions[index].end(now, RetiredWhy::Silent);
            // What is left of it comes first; the session itself follows.
            return self.release(now, true).or_else(|| self.lifecycle_of_ended(now));
        }
        self.two_senders(now)
    }

    fn lifecycle_of_ended(&mut self, now: Instant) -> Option<Event> {
        let index = self.sessions.iter().position(|session| session.has_ended(now))?;
        let session = self.sessions.swap_remove(index);
        self.note_retired(session.key_id, session.id);
        Some(self.retire(session))
    }

    /// When a session will have been silent for long enough beside a newer one.
    fn silent_at(&self, index: usize) -> Option<Instant> {
        let session = &self.sessions[index];
        let newer = self.sessions.iter().filter(|other| other.id > session.id && other.heard().is_some());
        let newer_since = newer.map(|other| other.opened_at).min()?;
        Some(session.last_heard.max(newer_since) + RETIRE_AFTER_SILENCE)
    }

    fn two_senders(&mut self, now: Instant) -> Option<Event> {
        let said = self.two_senders_at;
        if said.is_some_and(|at| now.saturating_duration_since(at) < TWO_SENDERS_AFTER) {
            return None;
        }
        let long = |since: Instant| now.saturating_duration_since(since) >= TWO_SENDERS_AFTER;
        let sends = |session: &&Session| {
            session.ending.is_none()
                && long(session.sending_since)
                && now.saturating_duration_since(session.last_heard) <= STILL_SENDING
        };
        let mut senders: Vec<_> = self
            .sessions
            .iter()
            .filter(sends)
            .filter_map(|session| Some((session.id, session.source?)))
            .collect();
        senders.sort_unstable();
        let (newer, older) = (senders.pop()?, senders.pop()?);
        self.two_senders_at = Some(now);
        self.counters.two_senders += 1;
        Some(Event::TwoSenders { older, newer })
    }

    fn retire(&mut self, mut session: Session) -> Event {
        session.close(&mut self.counters);
        self.counters.sessions_retired += 1;
        let why = session.ending.map_or(RetiredWhy::Silent, |ending| ending.why);
        Event::SessionRetired { session: session.id, key_id: session.key_id, why }
    }

    fn note_retired(&mut self, key_id: KeyId, session: SessionId) {
        if let Some((_, newest)) = self.retired.iter_mut().find(|(known, _)| *known == key_id) {
            *newest = session.max(*newest);
        } else {
            debug_assert!(self.retired.len() < KEY_IDS, "one for each value of a byte");
            self.retired.push((key_id, session));
        }
    }

    /// Queues a fact of little weight; dropped and counted when nobody polls.
    fn tell(&mut self, event: Event) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        } else {
            self.counters.events_dropped += 1;
        }
    }
}

impl From<HeaderError> for Reject {
    fn from(error: HeaderError) -> Self {
        match error {
            HeaderError::TooShort(_) => Self::Short,
            HeaderError::TooLong(_) => Self::Long,
            HeaderError::Magic => Self::Magic,
            HeaderError::Version(_) => Self::Version,
            HeaderError::Kind(_) => Self::Kind,
        }
    }
}
