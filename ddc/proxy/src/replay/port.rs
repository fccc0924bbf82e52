//! From a replay's thread to the source's outlet: slices, as many as the link has room for beside what is live.
//!
//! ```text
//!  replay thread ─▶ slices, at most 4 MiB ─▶ ReplayOut ─▶ blocks, between live batches ─▶ link thread
//!        ▲                                      │
//!        └──── how many were sent, losses ──────┘
//! ```
//!
//! Live records have precedence: a slice begins only when no live block is ready, little waits for the link, and a replay
//! has had less than half of the rate. Where live records fill the link for good, one slice in a second goes all the same,
//! so that a replay ends. A slice's blocks go one behind the other, since they are one batch.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use ddc_fec::Code;
use ddc_link::sender::{PackedBlock, ReplaySlice, block_wire_bytes};

use crate::config::IngressConfig;
use crate::ingress::RateCell;

/// Bytes of slices that may wait for the source's thread; one slice always may.
const WAITING_BYTES: u64 = 4 << 20;
/// The same in number.
const WAITING_SLICES: usize = 1024;
/// A replay may use this much of its share at once.
const BURST: Duration = Duration::from_millis(50);
/// Blocks that wait for the link for longer than this are too many to add a replay's to.
const SHORT_QUEUE: Duration = Duration::from_millis(10);
/// The same with an unlimited rate, in bytes.
const SHORT_QUEUE_BYTES: u64 = 1 << 20;
/// With a link that is full of live records, one slice goes in this time.
const STARVED: Duration = Duration::from_secs(1);

/// Makes both ends. `rate` is the link's.
pub(crate) fn port(config: &IngressConfig, rate: RateCell) -> Option<(ReplayIn, ReplayOut)> {
    let code = Code::new(config.fec.code.source.into(), config.fec.code.repair.into()).ok()?;
    let share = Share {
        rate,
        code,
        symbol_size: config.link.mtu.symbol_size(config.target.ip()),
        ip_overhead: if config.target.is_ipv4() { 20 } else { 40 },
        credit: 0.0,
        since: Instant::now(),
        last: Instant::now(),
    };
    let (sender, receiver) = bounded(WAITING_SLICES);
    let flow = Arc::new(Flow::default());
    let input = ReplayIn { sender, flow: Arc::clone(&flow) };
    Some((
        input,
        ReplayOut { receiver, flow, share, rest: VecDeque::new(), serial: 0, on_way: VecDeque::new() },
    ))
}

/// What both ends know.
#[derive(Debug, Default)]
struct Flow {
    /// Bytes of blocks between both ends.
    waiting: AtomicU64,
    /// The serial number of the next slice, over all replays of the process.
    next: AtomicU64,
    /// Slices below this serial number have been handed to the kernel.
    sent: AtomicU64,
    /// Times the link lost blocks: slices that were not sent by then must be made again.
    losses: AtomicU64,
    /// A replay is under way.
    active: AtomicBool,
}

/// A slice on its way.
struct Handed {
    serial: u64,
    /// [`Flow::losses`] when it was made.
    losses: u64,
    blocks: Vec<PackedBlock>,
    bytes: u64,
}

/// The replay thread's end.
#[derive(Clone)]
pub(crate) struct ReplayIn {
    sender: Sender<Handed>,
    flow: Arc<Flow>,
}

/// Why a slice was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// No room now; it is given back.
    Full(ReplaySlice),
    /// The source's thread has ended.
    Closed,
}

impl ReplayIn {
    /// Whether a replay is under way; the source looks for slices more often then.
    pub(super) fn set_active(&self, active: bool) {
        self.flow.active.store(active, Ordering::Relaxed);
    }

    /// Hands a slice over; its serial number, which rises from slice to slice. `losses` as [`Self::losses`] said before
    /// it was read. By one thread at a time.
    pub(super) fn hand(&self, losses: u64, slice: ReplaySlice) -> Result<u64, NotTaken> {
        let bytes: u64 = slice.blocks.iter().map(|block| block.bytes.len() as u64).sum();
        let waiting = self.flow.waiting.load(Ordering::Relaxed);
        if waiting > 0 && waiting + bytes > WAITING_BYTES {
            return Err(NotTaken::Full(slice));
        }
        let ReplaySlice { base, end, records, blocks } = slice;
        let serial = self.flow.next.load(Ordering::Relaxed);
        self.flow.waiting.fetch_add(bytes, Ordering::Relaxed);
        let refused = match self.sender.try_send(Handed { serial, losses, blocks, bytes }) {
            Ok(()) => {
                self.flow.next.store(serial + 1, Ordering::Relaxed);
                return Ok(serial);
            }
            Err(TrySendError::Full(Handed { blocks, .. })) => {
                NotTaken::Full(ReplaySlice { base, end, records, blocks })
            }
            Err(TrySendError::Disconnected(_)) => NotTaken::Closed,
        };
        self.flow.waiting.fetch_sub(bytes, Ordering::Relaxed);
        Err(refused)
    }

    /// Slices below this serial number have been handed to the kernel.
    pub(super) fn sent(&self) -> u64 {
        self.flow.sent.load(Ordering::Acquire)
    }

    /// How often blocks were lost before they were sent. When it rises, everything from [`Self::sent`] on goes again.
    pub(super) fn losses(&self) -> u64 {
        self.flow.losses.load(Ordering::Acquire)
    }
}

/// The end at the source's outlet.
pub struct ReplayOut {
    receiver: Receiver<Handed>,
    flow: Arc<Flow>,
    share: Share,
    /// The rest of the slice that has begun.
    rest: VecDeque<PackedBlock>,
    /// Of that slice.
    serial: u64,
    /// Slices that are with the link: the number of the block behind their last one, and their serial number.
    on_way: VecDeque<(u64, u64)>,
}

impl ReplayOut {
    /// Whether a replay is under way.
    pub fn is_active(&self) -> bool {
        self.flow.active.load(Ordering::Relaxed) || !self.receiver.is_empty() || self.is_mid_slice()
    }

    /// Whether a slice has begun: its next block must be the next one.
    pub fn is_mid_slice(&self) -> bool {
        !self.rest.is_empty()
    }

    /// The next block of the slice that has begun. `number` is the one that it gets.
    pub fn rest(&mut self, number: u64) -> Option<PackedBlock> {
        let block = self.rest.pop_front()?;
        self.flow.waiting.fetch_sub(block.bytes.len() as u64, Ordering::Relaxed);
        if self.rest.is_empty() {
            self.on_way.push_back((number + 1, self.serial));
        }
        Some(block)
    }

    /// Whether live records have kept every slice back for so long that one goes before them.
    pub fn is_starved(&self, now: Instant) -> bool {
        !self.receiver.is_empty() && now.duration_since(self.share.last) >= STARVED
    }

    /// Begins a slice, if one waits and `admitted` (it is starved), or its share of the rate allows it and little is
    /// `queued` for the link, in bytes.
    pub fn begin(&mut self, now: Instant, queued: u64, admitted: bool, number: u64) -> Option<PackedBlock> {
        if self.receiver.is_empty() {
            if !self.flow.active.load(Ordering::Relaxed) {
                self.share.last = now;
            }
            return None;
        }
        if !self.share.admits(now, queued, admitted) {
            return None;
        }
        let losses = self.flow.losses.load(Ordering::Relaxed);
        // Bounded by the channel: what was made before a loss is made again.
        while let Ok(Handed { serial, losses: of, blocks, bytes }) = self.receiver.try_recv() {
            if of != losses {
                self.flow.waiting.fetch_sub(bytes, Ordering::Relaxed);
                continue;
            }
            self.share.pay(now, &blocks);
            (self.serial, self.rest) = (serial, blocks.into());
            return self.rest(number);
        }
        None
    }

    /// All blocks below `sent` have been handed to the kernel.
    pub fn note_sent(&mut self, sent: u64) {
        while self.on_way.front().is_some_and(|(behind, _)| *behind <= sent) {
            if let Some((_, serial)) = self.on_way.pop_front() {
                self.flow.sent.store(serial + 1, Ordering::Release);
            }
        }
    }

    /// What is on its way will not be sent.
    pub fn note_lost(&mut self) {
        for block in self.rest.drain(..) {
            self.flow.waiting.fetch_sub(block.bytes.len() as u64, Ordering::Relaxed);
        }
        self.on_way.clear();
        self.flow.losses.fetch_add(1, Ordering::Release);
    }
}

/// A replay's share of the link: half of its rate, repair symbols and framing counted.
struct Share {
    rate: RateCell,
    code: Code,
    symbol_size: usize,
    ip_overhead: usize,
    /// Bits that may be sent; below 0 after a slice, which is paid for afterwards.
    credit: f64,
    since: Instant,
    /// When a slice was begun last, or nothing was there to begin.
    last: Instant,
}

impl Share {
    fn admits(&mut self, now: Instant, queued: u64, starved: bool) -> bool {
        let Some(rate) = self.rate.get() else {
            // Without a rate there is no half of it: live records come first by what is queued.
            return starved || queued <= SHORT_QUEUE_BYTES;
        };
        let half = rate as f64 / 2.0;
        let passed = now.duration_since(self.since).as_secs_f64();
        self.since = now;
        self.credit = (self.credit + passed * half).min(BURST.as_secs_f64() * half);
        let short = (rate as f64 / 8.0 * SHORT_QUEUE.as_secs_f64()) as u64;
        self.credit >= 0.0 && (starved || queued <= short)
    }

    fn pay(&mut self, now: Instant, blocks: &[PackedBlock]) {
        let bytes = |block: &PackedBlock| {
            block_wire_bytes(block.bytes.len(), self.code, self.symbol_size, self.ip_overhead)
        };
        self.credit -= 8.0 * blocks.iter().map(bytes).sum::<u64>() as f64;
        self.last = now;
    }
}

#[cfg(test)]
#[path = "port_tests.rs"]
mod tests;
