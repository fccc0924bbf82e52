//! The blocks of one session in their order: which comes next, and when a block is given up.
//!
//! Block b is given up (DESIGN: the give-up rule) when
//!
//! - **overtaken**: a packet of a block ≥ b + 2·D_max came, after which the sender sends nothing of b, and since
//!   then [`OVERTAKEN_PACKETS`] packet numbers or the reorder timeout passed; or
//! - **finished**: a heartbeat said that all symbols of b were sent, and since then, and since the last symbol of b
//!   came, the reorder timeout passed. Before the first heartbeat: no symbol of b came for
//!   [`super::SILENCE_BEFORE_HEARTBEAT`]; or
//! - **window full**: the memory of all sessions is used up and b is the oldest; or
//! - **session ended**.
//!
//! Silence alone proves nothing once heartbeats come: a sender that stood still in the middle of a block goes on with
//! it (docs/decisions/0007).
//!
//! Only the first block in order is ever judged, so that a block behind it may still become whole. Unseen blocks
//! are given up as ranges: a jump over 2⁴⁰ blocks costs as much as one over two.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::counters::{Counters, Reject};
use super::recover::{Block, Memory, Symbol, SymbolsSeen};

/// Packet numbers after which an overtaken block is given up, without waiting for the reorder timeout.
pub const OVERTAKEN_PACKETS: u64 = 256;
/// Points in time kept at which more blocks were known to have begun. When there are more, the last two merge, and
/// blocks are given up a little later.
const MAX_BEGUN_MARKS: usize = 1024;
/// Given-up blocks, or ranges of them, of which late symbols are still followed.
const MAX_STEPPED_OVER: usize = 64;

/// Why a block was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GiveUpCause {
    /// The sender had gone on to later blocks.
    Overtaken,
    /// All of it had been sent, or nothing of it came for too long.
    Silent,
    /// The window was full and it was the oldest.
    WindowFull,
    /// Its session was retired.
    SessionEnded,
    /// It came whole, but cannot be read.
    Unreadable,
}

impl GiveUpCause {
    /// The cause's name in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Overtaken => "overtaken",
            Self::Silent => "silent",
            Self::WindowFull => "window_full",
            Self::SessionEnded => "session_ended",
            Self::Unreadable => "unreadable",
        }
    }
}

/// How long a block is waited for, as of now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// 2·D_max.
    pub(crate) reach: u64,
    pub(crate) reorder_timeout: Duration,
    /// How long silence is borne, while no heartbeat has told what was sent.
    pub(crate) silence: Option<Duration>,
}

/// The moment of a judgement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: Instant,
    /// The session's highest packet number.
    pub(crate) highest_packet: u64,
    /// Whether time may be held against a block; not after the receiver itself stood still.
    pub(crate) timers: bool,
    /// Gives up whatever is not whole, for this cause.
    pub(crate) hurry: Option<GiveUpCause>,
}

/// What comes next in the session.
#[derive(Debug)]
pub(crate) enum Step {
    /// A block is whole.
    Whole { block: u64, bytes: Vec<u8>, received_at: Instant },
    /// The blocks `first..=last` are given up.
    GivenUp { first: u64, last: u64, symbols_seen: usize, cause: GiveUpCause },
}

/// The blocks of a session that are not released yet.
pub(crate) struct Order {
    next: u64,
    held: BTreeMap<u64, Block>,
    begun: Begun,
    /// The same marks for blocks of which all symbols have been sent.
    finished: Begun,
    stepped_over: SteppedOver,
}

impl Order {
    /// The first block to release is `next`.
    pub(crate) fn new(next: u64) -> Self {
        Self {
            next,
            held: BTreeMap::new(),
            begun: Begun { marks: VecDeque::new(), end: next },
            finished: Begun { marks: VecDeque::new(), end: next },
            stepped_over: SteppedOver::default(),
        }
    }

    /// The first block that is neither released nor given up.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The blocks before `end` are known to have begun.
    pub(crate) fn begun(&mut self, end: u64, now: Instant, highest_packet: u64) {
        self.begun.note(end, now, highest_packet);
    }

    /// All symbols of the blocks before `end` have been sent.
    pub(crate) fn finished(&mut self, end: u64, now: Instant, highest_packet: u64) {
        self.finished.note(end, now, highest_packet);
    }

    /// Bytes for which the window needs room before this symbol is taken.
    pub(crate) fn room_for(&self, symbol: &Symbol<'_>) -> usize {
        if symbol.block < self.next {
            return 0;
        }
        match self.held.get(&symbol.block) {
            Some(block) => block.room_for_next(symbol.kind),
            None => Block::room_for_first(symbol.shape, symbol.kind),
        }
    }

    /// Takes a symbol; true when its block, given up before, would be complete now.
    pub(crate) fn symbol(
        &mut self,
        memory: &mut Memory,
        counters: &mut Counters,
        now: Instant,
        symbol: &Symbol<'_>,
    ) -> Result<bool, Reject> {
        if symbol.block < self.next {
            return self.stepped_over.symbol(symbol, counters);
        }
        let block = self.held.entry(symbol.block).or_insert_with(|| {
            counters.blocks_received += 1;
            Block::new(memory, symbol.shape, now)
        });
        block.symbol(memory, counters, now, symbol)?;
        Ok(false)
    }

    /// Releases or gives up what is next, if anything is due.
    pub(crate) fn step(&mut self, memory: &mut Memory, patience: Patience, moment: Moment) -> Option<Step> {
        let head = self.next;
        let (first_held, state) = match self.held.first_key_value() {
            Some((number, block)) => (*number, Some((block.is_complete(), block.last_symbol_at()))),
            None => (self.begun.end, None),
        };
        if first_held > head {
            let (end, cause) = self.unseen_due(head, patience, moment)?;
            let end = end.min(first_held);
            self.pass(end);
            self.stepped_over.range(head, end - 1);
            return Some(Step::GivenUp { first: head, last: end - 1, symbols_seen: 0, cause });
        }
        let (complete, last_symbol_at) = state?;
        let cause = if complete { None } else { Some(self.due(head, last_symbol_at, patience, moment)?) };
        let block = self.held.remove(&head)?;
        self.pass(head + 1);
        let Some(cause) = cause else {
            let received_at = block.last_symbol_at();
            return Some(Step::Whole { block: head, bytes: block.into_bytes(memory), received_at });
        };
        let symbols_seen = block.symbols();
        self.stepped_over.partial(head, block.give_up(memory));
        Some(Step::GivenUp { first: head, last: head, symbols_seen, cause })
    }

    /// When [`Self::step`] is worth a call again without a datagram.
    pub(crate) fn deadline(&self, patience: Patience) -> Option<Instant> {
        let head = self.next;
        let overtaken = self.begun.first_beyond(head.saturating_add(patience.reach));
        let overtaken = overtaken.map(|mark| mark.at + patience.reorder_timeout);
        let last_symbol_at = match self.held.get(&head) {
            Some(block) if block.is_complete() => return Some(block.last_symbol_at()),
            Some(block) => Some(block.last_symbol_at()),
            None => None,
        };
        let silent = self.silent_at(head, last_symbol_at, patience).map(|(at, _)| at);
        [overtaken, silent].into_iter().flatten().min()
    }

    /// Since when the first held block takes memory, if giving it up would free some.
    pub(crate) fn oldest_incomplete(&self) -> Option<Instant> {
        let (_, block) = self.held.first_key_value()?;
        (!block.is_complete()).then(|| block.first_symbol_at())
    }

    /// Why a block of which some symbols came is due, if it is.
    fn due(
        &self,
        head: u64,
        last_symbol_at: Instant,
        patience: Patience,
        moment: Moment,
    ) -> Option<GiveUpCause> {
        let overtaken = || self.overtaken(head, patience, moment).map(|_| GiveUpCause::Overtaken);
        let silent = || {
            let (at, _) = self.silent_at(head, Some(last_symbol_at), patience)?;
            moment.reached(at).then_some(GiveUpCause::Silent)
        };
        moment.hurry.or_else(overtaken).or_else(silent)
    }

    /// When `head` need not be waited for any longer, and up to which block (excluded) that holds for unseen ones.
    fn silent_at(
        &self,
        head: u64,
        last_symbol_at: Option<Instant>,
        patience: Patience,
    ) -> Option<(Instant, u64)> {
        if let Some(mark) = self.finished.first_beyond(head) {
            let since = last_symbol_at.map_or(mark.at, |last| last.max(mark.at));
            return Some((since + patience.reorder_timeout, mark.end));
        }
        let silence = patience.silence?;
        let begun = self.begun.first_beyond(head)?;
        Some((last_symbol_at.unwrap_or(begun.at) + silence, begun.end))
    }

    /// Up to which block (excluded) the unseen blocks from `head` on are due, if they are.
    fn unseen_due(&self, head: u64, patience: Patience, moment: Moment) -> Option<(u64, GiveUpCause)> {
        if let Some(cause) = moment.hurry {
            return (self.begun.end > head).then_some((self.begun.end, cause));
        }
        if let Some(end) = self.overtaken(head, patience, moment) {
            return Some((end, GiveUpCause::Overtaken));
        }
        let (at, end) = self.silent_at(head, None, patience)?;
        moment.reached(at).then_some((end, GiveUpCause::Silent))
    }

    /// Up to which block (excluded) all are overtaken, if `head` is: those with b + reach < the mark's end.
    fn overtaken(&self, head: u64, patience: Patience, moment: Moment) -> Option<u64> {
        let mark = self.begun.first_beyond(head.saturating_add(patience.reach))?;
        let packets = moment.highest_packet.saturating_sub(mark.highest_packet) >= OVERTAKEN_PACKETS;
        (packets || moment.reached(mark.at + patience.reorder_timeout)).then(|| mark.end - patience.reach)
    }

    fn pass(&mut self, next: u64) {
        self.next = next;
        self.begun.forget(next);
        self.finished.forget(next);
    }
}

impl Moment {
    fn reached(&self, at: Instant) -> bool {
        self.timers && self.now >= at
    }
}

/// Since when which blocks are known to have begun.
struct Begun {
    /// Rising in every field; at most [`MAX_BEGUN_MARKS`].
    marks: VecDeque<BegunMark>,
    /// The blocks before this one have begun.
    end: u64,
}

#[derive(Debug, Clone, Copy)]
struct BegunMark {
    end: u64,
    at: Instant,
    highest_packet: u64,
}

impl Begun {
    fn note(&mut self, end: u64, at: Instant, highest_packet: u64) {
        if end <= self.end {
            return;
        }
        self.end = end;
        if self.marks.len() == MAX_BEGUN_MARKS {
            self.marks.pop_back();
        }
        self.marks.push_back(BegunMark { end, at, highest_packet });
    }

    fn forget(&mut self, next: u64) {
        while self.marks.front().is_some_and(|mark| mark.end <= next) {
            self.marks.pop_front();
        }
    }

    /// The first mark that proves that `block` has begun.
    fn first_beyond(&self, block: u64) -> Option<BegunMark> {
        self.marks.get(self.marks.partition_point(|mark| mark.end <= block)).copied()
    }
}

/// The blocks given up last, so that a late one is told from a spare symbol. A memory of fixed size: what drops
/// out of it is counted as spare.
#[derive(Default)]
struct SteppedOver {
    partial: VecDeque<Partial>,
    ranges: VecDeque<(u64, u64)>,
}

struct Partial {
    block: u64,
    seen: SymbolsSeen,
    complete: bool,
}

impl SteppedOver {
    fn partial(&mut self, block: u64, seen: SymbolsSeen) {
        if self.partial.len() == MAX_STEPPED_OVER {
            self.partial.pop_front();
        }
        self.partial.push_back(Partial { block, seen, complete: false });
    }

    fn range(&mut self, first: u64, last: u64) {
        if self.ranges.len() == MAX_STEPPED_OVER {
            self.ranges.pop_front();
        }
        self.ranges.push_back((first, last));
    }

    /// A symbol of a block that is released or given up; true when it makes a given-up block complete.
    fn symbol(&mut self, symbol: &Symbol<'_>, counters: &mut Counters) -> Result<bool, Reject> {
        let known = self.partial.iter().position(|partial| partial.block == symbol.block);
        let at = match known {
            Some(at) => at,
            None if self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&symbol.block)) => {
                self.partial(symbol.block, SymbolsSeen::none(symbol.shape));
                self.partial.len() - 1
            }
            None => {
                counters.symbols_spare += 1;
                return Ok(false);
            }
        };
        let partial = &mut self.partial[at];
        let enough = partial.seen.add(symbol)?;
        counters.symbols_late += 1;
        let completed = enough && !partial.complete;
        partial.complete |= enough;
        Ok(completed)
    }
}
