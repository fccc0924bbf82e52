//! One session at the receiver: its keys, its window, its blocks, and the signs of its life.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ddc_wire::{BlockNumber, Goodbye, Header, Heartbeat, KeyId, Kind, Session as SessionId};
use serde::{Deserialize, Serialize};

use super::counters::{Counters, Reject};
use super::join::{Joined, Joiner};
use super::loss::PathLoss;
use super::open::{Deriver, SessionKeys};
use super::order::{GiveUpCause, Moment, Order, Patience, Step};
use super::recover::{Memory, Symbol};
use super::replay::ReplayWindow;
use super::{Event, GivenUpReason, RetiredWhy};

/// A session whose first packet has a number below this is taken from its beginning: what is missing of it was
/// lost, not sent before we listened.
pub const FRESH_PACKETS: u64 = 4096;
/// How long a block is waited for in silence while no heartbeat has told what was sent.
pub const SILENCE_BEFORE_HEARTBEAT: Duration = Duration::from_secs(2);
/// Block numbers at and above it are refused: no sender gets there, and sums with them stay in range.
pub const MAX_BLOCK: u64 = 1 << 62;
/// The last packet that a goodbye may name lies at most this far ahead of the goodbye itself.
pub const MAX_GOODBYE_AHEAD: u64 = 1024;
/// A sender that pauses longer (three heartbeats) begins to send anew, for finding two senders.
const SENDING_PAUSE: Duration = Duration::from_secs(3);

/// What the egress keeps of a session across its own restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredSession {
    /// The key that sealed it.
    pub key_id: KeyId,
    /// The session.
    pub session: SessionId,
    /// The first block that was neither released nor given up; 0 of a retired session.
    pub next_block: BlockNumber,
    /// Whether it may go on.
    pub state: StoredState,
}

/// Whether a stored session may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredState {
    /// Open or dormant: it goes on with its next packet.
    Open,
    /// The newest retired session of its key id: only newer ones may be opened.
    Retired,
}

/// [`StoredSession`] as it is written; `session` in hexadecimal.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredForm {
    key_id: u8,
    session: String,
    next_block: u64,
    state: StoredState,
}

impl Serialize for StoredSession {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let session = self.session.to_string();
        StoredForm { key_id: self.key_id.0, session, next_block: self.next_block.0, state: self.state }
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StoredSession {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = StoredForm::deserialize(deserializer)?;
        let session = form
            .session
            .parse()
            .map_err(|error| serde::de::Error::custom(format!("session `{}`: {error}", form.session)))?;
        if form.next_block >= MAX_BLOCK {
            return Err(serde::de::Error::custom(format!("block {} is out of range", form.next_block)));
        }
        let next_block = BlockNumber(form.next_block);
        Ok(Self { key_id: KeyId(form.key_id), session, next_block, state: form.state })
    }
}

/// An open or dormant session.
pub(crate) struct Session {
    pub(crate) key_id: KeyId,
    pub(crate) id: SessionId,
    pub(crate) source: Option<SocketAddr>,
    pub(crate) opened_at: Instant,
    pub(crate) last_heard: Instant,
    /// Since when it has been sending without a long pause.
    pub(crate) sending_since: Instant,
    pub(crate) ending: Option<Ending>,
    /// Symbols of blocks below it are refused, for this reason.
    floor: (u64, Reject),
    heard: Option<Heard>,
    order: Order,
    joiner: Joiner,
    /// Whether a heartbeat came in this life of the receiver.
    has_heartbeat: bool,
    /// The greatest D_max of its headers.
    d_max: u8,
}

/// What exists once a packet of the session was authentic in this life of the receiver.
struct Heard {
    keys: SessionKeys,
    window: ReplayWindow,
    loss: PathLoss,
}

/// A session that is being retired.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending {
    /// From when on nothing more is waited for.
    pub(crate) at: Instant,
    pub(crate) why: RetiredWhy,
    /// The number after its last packet, if it said so.
    packets_end: Option<u64>,
}

impl Session {
    /// A session met for the first time.
    pub(crate) fn join(header: &Header, now: Instant, max_batch_bytes: usize) -> Self {
        let start = if header.packet_number.0 < FRESH_PACKETS {
            0
        } else {
            // No symbol of an earlier block can still come.
            header.block.0.saturating_sub(2 * u64::from(header.d_max))
        };
        Self::new(header.key_id, header.session, start, Reject::BlockOld, now, max_batch_bytes)
    }

    /// A session that an earlier life of this receiver left open. It is unheard until its next packet.
    pub(crate) fn restore(stored: &StoredSession, now: Instant, max_batch_bytes: usize) -> Self {
        let next = stored.next_block.0.min(MAX_BLOCK);
        Self::new(stored.key_id, stored.session, next, Reject::Replay, now, max_batch_bytes)
    }

    fn new(
        key_id: KeyId,
        id: SessionId,
        start: u64,
        below: Reject,
        now: Instant,
        max_batch_bytes: usize,
    ) -> Self {
        Self {
            key_id,
            id,
            source: None,
            opened_at: now,
            last_heard: now,
            sending_since: now,
            ending: None,
            floor: (start, below),
            heard: None,
            order: Order::new(start),
            joiner: Joiner::new(id, key_id, max_batch_bytes),
            has_heartbeat: false,
            d_max: 1,
        }
    }

    pub(crate) fn is(&self, header: &Header) -> bool {
        self.key_id == header.key_id && self.id == header.session
    }

    /// The keys and the window, once a packet of this life was authentic.
    pub(crate) fn heard(&self) -> Option<(&SessionKeys, &ReplayWindow)> {
        self.heard.as_ref().map(|heard| (&heard.keys, &heard.window))
    }

    pub(crate) fn next_block(&self) -> u64 {
        self.order.next()
    }

    /// The first authentic packet of this life: from now on there are keys and a window.
    pub(crate) fn hear(&mut self, header: &Header, keys: SessionKeys, now: Instant) {
        // A session from its beginning accounts for every number, another from the first that came.
        let fresh = self.floor == (0, Reject::BlockOld) && header.packet_number.0 < FRESH_PACKETS;
        let base = if fresh { 0 } else { header.packet_number.0 };
        self.opened_at = now;
        self.sending_since = now;
        self.heard = Some(Heard { keys, window: ReplayWindow::new(), loss: PathLoss::new(base) });
    }

    /// Whether the packet is of a time before this life of the receiver: nothing may follow from it.
    pub(crate) fn is_before_floor(&self, header: &Header) -> Result<(), Reject> {
        let (floor, reject) = self.floor;
        // A late heartbeat of a session just joined is harmless; one of a former life may be a replay.
        let judged = header.kind.is_symbol() || reject == Reject::Replay;
        if judged && header.block.0 < floor { Err(reject) } else { Ok(()) }
    }

    /// An authentic packet, not seen before.
    pub(crate) fn packet(
        &mut self,
        deriver: &Deriver,
        header: &Header,
        len: usize,
        source: SocketAddr,
        now: Instant,
        counters: &mut Counters,
    ) {
        counters.packets += 1;
        counters.bytes += len as u64;
        if now.saturating_duration_since(self.last_heard) > SENDING_PAUSE {
            self.sending_since = now;
        }
        self.last_heard = self.last_heard.max(now);
        self.source = Some(source);
        self.d_max = self.d_max.max(header.d_max);
        if let Some(heard) = &mut self.heard {
            let number = header.packet_number;
            heard.loss.packet(&heard.window, number.0, now, counters);
            heard.window.mark(number.0);
            heard.keys.advance(deriver, self.key_id, self.id, number);
        }
    }

    /// The blocks before the header's (or with it, when it is a symbol) have begun.
    pub(crate) fn begun(&mut self, header: &Header, now: Instant) {
        let end = header.block.0 + u64::from(header.kind.is_symbol());
        self.order.begun(end, now, self.highest_packet());
    }

    /// Bytes for which the window needs room before this symbol is taken.
    pub(crate) fn room_for(&self, symbol: &Symbol<'_>) -> usize {
        self.order.room_for(symbol)
    }

    /// Takes a symbol; an event when a block is complete that had been given up.
    pub(crate) fn symbol(
        &mut self,
        memory: &mut Memory,
        counters: &mut Counters,
        now: Instant,
        symbol: &Symbol<'_>,
    ) -> Result<Option<Event>, Reject> {
        let late = self.order.symbol(memory, counters, now, symbol)?;
        counters.blocks_late += u64::from(late);
        Ok(late.then_some(Event::LateBlock { session: self.id, block: symbol.block }))
    }

    /// Learns which blocks have been sent whole.
    pub(crate) fn heartbeat(&mut self, header: &Header, heartbeat: &Heartbeat, now: Instant) {
        self.has_heartbeat = true;
        self.order.finished(heartbeat.blocks.min(header.block.0), now, self.highest_packet());
    }

    /// The session ends `reorder_timeout` after its first goodbye.
    pub(crate) fn goodbye(
        &mut self,
        header: &Header,
        goodbye: &Goodbye,
        now: Instant,
        reorder_timeout: Duration,
    ) -> Result<(), Reject> {
        let ahead = goodbye.last_packet.0.checked_sub(header.packet_number.0);
        if ahead.is_none_or(|ahead| ahead > MAX_GOODBYE_AHEAD) {
            return Err(Reject::Payload);
        }
        if self.ending.is_none() {
            let why = RetiredWhy::Goodbye(goodbye.reason);
            let packets_end = goodbye.last_packet.0.checked_add(1);
            self.ending = Some(Ending { at: now + reorder_timeout, why, packets_end });
        }
        Ok(())
    }

    /// The session ends now; an end that was fixed before stands, but not later.
    pub(crate) fn end(&mut self, now: Instant, why: RetiredWhy) {
        let packets_end = self.ending.and_then(|ending| ending.packets_end);
        self.ending = Some(Ending { at: now, why, packets_end });
    }

    /// Whether nothing more is waited for.
    pub(crate) fn has_ended(&self, now: Instant) -> bool {
        self.ending.is_some_and(|ending| ending.at <= now)
    }

    /// The next batch or given-up range, if one is due.
    pub(crate) fn release(
        &mut self,
        memory: &mut Memory,
        counters: &mut Counters,
        now: Instant,
        timers: bool,
        reorder_timeout: Duration,
        hurry: Option<GiveUpCause>,
    ) -> Option<Event> {
        if let Some(heard) = &mut self.heard {
            heard.loss.tick(&heard.window, now, counters);
        }
        let patience = self.patience(reorder_timeout);
        let moment = Moment { now, highest_packet: self.highest_packet(), timers, hurry };
        // Ends: each step removes a held block or a range of begun ones, and both are finite.
        while let Some(step) = self.order.step(memory, patience, moment) {
            if let Some(event) = self.event(counters, step) {
                return Some(event);
            }
        }
        None
    }

    /// Gives up what is before the first held block and that block, to make room.
    pub(crate) fn give_up_oldest(
        &mut self,
        memory: &mut Memory,
        counters: &mut Counters,
        now: Instant,
        reorder_timeout: Duration,
    ) -> Vec<Event> {
        let patience = self.patience(reorder_timeout);
        let hurry = Some(GiveUpCause::WindowFull);
        let moment = Moment { now, highest_packet: self.highest_packet(), timers: true, hurry };
        let mut events = Vec::new();
        // Two steps at most: the unseen blocks before it, and the block itself.
        while self.order.oldest_incomplete().is_some() {
            let Some(step) = self.order.step(memory, patience, moment) else { break };
            let freed = matches!(step, Step::GivenUp { symbols_seen: 1.., .. });
            events.extend(self.event(counters, step));
            if freed {
                break;
            }
        }
        events
    }

    /// See [`Order::oldest_incomplete`].
    pub(crate) fn oldest_incomplete(&self) -> Option<Instant> {
        self.order.oldest_incomplete()
    }

    /// When something becomes due without a datagram.
    pub(crate) fn deadline(&self, reorder_timeout: Duration) -> Option<Instant> {
        let blocks = self.order.deadline(self.patience(reorder_timeout));
        [blocks, self.ending.map(|ending| ending.at)].into_iter().flatten().min()
    }

    /// The last judgement on its packets, when it is retired.
    pub(crate) fn close(&mut self, counters: &mut Counters) {
        counters.fragments_discarded += self.joiner.gap();
        let Some(heard) = &mut self.heard else { return };
        let seen_end = heard.window.highest().map_or(0, |highest| highest.saturating_add(1));
        let end = self.ending.and_then(|ending| ending.packets_end).unwrap_or(0).max(seen_end);
        heard.loss.decide(&heard.window, end, counters);
    }

    fn highest_packet(&self) -> u64 {
        self.heard.as_ref().and_then(|heard| heard.window.highest()).unwrap_or(0)
    }

    fn patience(&self, reorder_timeout: Duration) -> Patience {
        let silence = (!self.has_heartbeat).then_some(SILENCE_BEFORE_HEARTBEAT);
        Patience { reach: 2 * u64::from(self.d_max), reorder_timeout, silence }
    }

    fn event(&mut self, counters: &mut Counters, step: Step) -> Option<Event> {
        let session = self.id;
        let (block, bytes, received_at) = match step {
            Step::Whole { block, bytes, received_at } => (block, bytes, received_at),
            Step::GivenUp { first, last, symbols_seen, cause } => {
                counters.fragments_discarded += self.joiner.gap();
                let reason = if symbols_seen == 0 {
                    counters.blocks_lost += last - first + 1;
                    GivenUpReason::Lost
                } else {
                    counters.blocks_unrepairable += 1;
                    GivenUpReason::Unrepairable
                };
                return Some(Event::GivenUp { session, first, last, reason, cause, symbols_seen });
            }
        };
        let (joined, discarded) = self.joiner.block(block, bytes, received_at);
        counters.fragments_discarded += discarded;
        let reason = match joined {
            Joined::Batch(batch) => {
                counters.batches += 1;
                return Some(Event::Batch(*batch));
            }
            Joined::Pending => return None,
            Joined::Discarded => {
                counters.fragments_discarded += 1;
                return None;
            }
            Joined::Malformed => GivenUpReason::Malformed,
            Joined::TooLarge => GivenUpReason::TooLarge,
        };
        counters.blocks_refused += 1;
        let cause = GiveUpCause::Unreadable;
        Some(Event::GivenUp { session, first: block, last: block, reason, cause, symbols_seen: 0 })
    }
}

impl Session {
    /// What is kept of it across a restart of the receiver.
    pub(crate) fn stored(&self) -> StoredSession {
        StoredSession {
            key_id: self.key_id,
            session: self.id,
            next_block: BlockNumber(self.order.next()),
            state: StoredState::Open,
        }
    }
}

/// Whether this kind is served at all.
pub(crate) fn is_served(kind: Kind) -> bool {
    !matches!(kind, Kind::Probe | Kind::Status)
}
