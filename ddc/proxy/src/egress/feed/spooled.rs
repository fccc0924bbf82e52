//! Both ends of the spool: the receive thread appends, the sink thread reads and settles.
//!
//! The sink thread holds at most `held_limit` bytes that are not settled; beyond it, and while the table of settled ranges is
//! full, it gets nothing, so memory is bounded however long the destination is away. What the sink thread has not come to
//! lies in the spool's tail in memory, at most `tail_bytes`, and behind that on disk only.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender as ChannelSender;
use ddc_link::receiver::{MissingReason, ReleasedBatch};
use ddc_spool::{Appender, Damage, Frame, Next, ReadError, Reader, Refused, Span, Spool};
use ddc_telemetry::log::RateLimit;

use super::frame;
use super::item::{Dropped, Held, Item, OVERHEAD};
use super::keeper::Keeper;
use super::notes::Notes;
use super::queue::received_micros;
use super::{NotTaken, Taken};

/// How long the sink thread sleeps at most when it may take nothing: answers that make room come any moment.
const FULL_NAP: Duration = Duration::from_millis(20);
/// Between two attempts at something that cannot be read.
const READ_AGAIN: Duration = Duration::from_millis(100);
/// How long something that cannot be read is tried, before it is given up: a device can come back.
const READ_PATIENCE: Duration = Duration::from_mins(1);
/// One kind of trouble is logged this often at most.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// What both ends, the settlers and the keeper share.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) link: String,
    pub(super) spool: Spool,
    /// Bytes that the sink thread holds.
    pub(super) held: Arc<AtomicU64>,
    /// Batches taken by the sink thread in this life.
    pub(super) taken: AtomicU64,
    /// Batches that a former life had left behind the lowest unsettled position; an upper bound.
    pub(super) left: u64,
    pub(super) gate: Mutex<Gate>,
    pub(super) notes: Mutex<Notes>,
    /// What could not be settled, since too many separate ranges were; while there is any, nothing new is taken.
    owed: Mutex<Vec<Span>>,
    /// Places that cannot be read, by the position of the batch behind them that tells of the loss: they are settled with it, also
    /// when it was held and read again meanwhile.
    lost: Mutex<HashMap<u64, Vec<Span>>>,
}

/// Keeps the sink thread from reading what the keeper lets go.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Nothing below it is read any more.
    pub(super) closed_below: u64,
    /// Everything below it was read.
    pub(super) read_to: u64,
}

impl Common {
    pub(super) fn new(link: &str, spool: Spool, left: u64, notes: Notes) -> Self {
        let read_to = spool.lowest();
        Self {
            link: link.to_owned(),
            spool,
            held: Arc::default(),
            taken: AtomicU64::new(0),
            left,
            gate: Mutex::new(Gate { closed_below: 0, read_to }),
            notes: Mutex::new(notes),
            owed: Mutex::default(),
            lost: Mutex::default(),
        }
    }
}

/// What is guarded here is valid after every statement, so a panic elsewhere does not spoil it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The receive thread's end.
pub(crate) struct SpoolIn {
    appender: Appender,
    common: Arc<Common>,
    recycle: ChannelSender<Vec<u8>>,
    dropped: Option<Dropped>,
}

impl SpoolIn {
    /// What came while no egress ran is missing before the first batch: it says so, in the spool of a former life.
    pub(super) fn new(appender: Appender, common: Arc<Common>, recycle: ChannelSender<Vec<u8>>) -> Self {
        let reason = MissingReason::Restart;
        let dropped = (appender.position() > 0).then_some(Dropped { batches: 0, reason });
        Self { appender, common, recycle, dropped }
    }

    /// See [`super::FeedIn::offer`]. The batch's buffer goes back at once: file and tail have copies.
    pub(super) fn offer(&mut self, batch: ReleasedBatch) -> Result<(), NotTaken> {
        let head = frame::head(&batch, received_micros(&batch), self.dropped);
        let appended = self.appender.append(&head, &[batch.bytes()]);
        // A full channel frees the buffer, which is as good.
        let _ = self.recycle.try_send(batch.into_buffer());
        match appended {
            Ok(_) => {
                self.dropped = None;
                Ok(())
            }
            Err(refused) => {
                let reason = match refused {
                    Refused::Full { .. } => MissingReason::SpoolFull,
                    Refused::DiskFull(_) => MissingReason::DiskFull,
                    Refused::Io(_) | Refused::TooLarge { .. } => MissingReason::SpoolError,
                };
                self.dropped = Some(Dropped::and(self.dropped, 1, reason));
                Err(refused.into())
            }
        }
    }

    pub(super) fn used(&self) -> u64 {
        used(&self.common)
    }
}

fn used(common: &Common) -> u64 {
    common.held.load(Relaxed) + common.spool.stats().tail_bytes as u64
}

/// The sink thread's end.
pub(crate) struct SpoolOut {
    reader: Reader,
    common: Arc<Common>,
    recycle: ChannelSender<Vec<u8>>,
    held_limit: u64,
    /// Where this life begins, and how many batches before that were read.
    begins: u64,
    former: u64,
    /// What the next item has to tell.
    dropped: Option<Dropped>,
    lost: Vec<Span>,
    /// Since when the place where the reader stands cannot be read.
    unreadable: Option<Instant>,
    limit: RateLimit<&'static str>,
    /// Ends with this.
    _keeper: Keeper,
}

impl SpoolOut {
    pub(super) fn new(
        reader: Reader,
        common: Arc<Common>,
        recycle: ChannelSender<Vec<u8>>,
        held_limit: u64,
        begins: u64,
        keeper: Keeper,
    ) -> Self {
        let reason = lock(&common.notes).before(reader.position());
        let dropped = reason.map(|reason| Dropped { batches: 0, reason });
        let limit = RateLimit::new(LOG_EVERY);
        Self {
            reader,
            common,
            recycle,
            held_limit,
            begins,
            former: 0,
            dropped,
            lost: Vec::new(),
            unreadable: None,
            limit,
            _keeper: keeper,
        }
    }

    /// See [`super::FeedOut::take`].
    pub(super) fn take(&mut self, wait: Duration) -> Taken {
        if self.is_full() {
            thread::sleep(wait.min(FULL_NAP));
            return Taken::Nothing;
        }
        let deadline = Instant::now() + wait;
        // Ends: each turn moves the reader on, or time passes.
        loop {
            match self.next(deadline.saturating_duration_since(Instant::now())) {
                Ok(Next::Frame(frame)) => {
                    self.unreadable = None;
                    if let Some(item) = self.item(&frame) {
                        return Taken::Item(Box::new(item));
                    }
                }
                Ok(Next::Damaged(damage)) => self.damaged(&damage, MissingReason::SpoolDamaged),
                Ok(Next::Skipped(span)) => {
                    // Without a note the operator has removed files under our hands.
                    let reason = lock(&self.common.notes).within(span);
                    let reason = reason.unwrap_or(MissingReason::SpoolDamaged);
                    self.dropped = Some(Dropped::and(self.dropped, 1, reason));
                }
                Ok(Next::Nothing) => return Taken::Nothing,
                Ok(Next::Closed) => return Taken::Closed,
                Err(error) => {
                    self.unreadable(&error);
                    return Taken::Nothing;
                }
            }
        }
    }

    /// See [`super::FeedOut::reread`].
    pub(super) fn reread(&mut self, span: Span) -> Result<Option<Box<Item>>, ReadError> {
        match self.common.spool.read(span.start) {
            Ok(frame) => Ok(made(&frame, &self.common).map(Box::new)),
            Err(ReadError::Absent(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn settler(&self) -> SpoolSettler {
        SpoolSettler { common: Arc::clone(&self.common) }
    }

    /// The first position of this life.
    pub(super) fn begins(&self) -> u64 {
        self.begins
    }

    /// See [`super::FeedOut::progress_written`].
    pub(super) fn progress_written(&self) {
        lock(&self.common.notes).progress_written = true;
    }

    pub(super) fn was_used(&self) -> bool {
        lock(&self.common.notes).progress_written
    }

    pub(super) fn recycle(&self) -> &ChannelSender<Vec<u8>> {
        &self.recycle
    }

    pub(super) fn used(&self) -> u64 {
        used(&self.common)
    }

    pub(super) fn len(&self) -> usize {
        // How many a former life has left is known exactly once all of them were read.
        let left = if self.reader.position() >= self.begins { self.former } else { self.common.left };
        let appended = self.common.spool.stats().counts.appended_frames + left;
        appended.saturating_sub(self.common.taken.load(Relaxed)) as usize
    }

    /// Whether something must be settled before more is taken. What is larger than the whole limit goes alone.
    fn is_full(&self) -> bool {
        if !lock(&self.common.owed).is_empty() {
            self.settler().settle_owed();
            return !lock(&self.common.owed).is_empty();
        }
        self.common.held.load(Relaxed) >= self.held_limit
    }

    /// The next thing, and never from what the keeper is letting go.
    fn next(&mut self, wait: Duration) -> Result<Next, ReadError> {
        {
            let mut gate = lock(&self.common.gate);
            if self.reader.position() < gate.closed_below && self.common.spool.lowest() < gate.closed_below {
                drop(gate);
                thread::sleep(wait.min(FULL_NAP));
                return Ok(Next::Nothing);
            }
            let next = self.reader.next(Duration::ZERO);
            gate.read_to = self.reader.position();
            if !matches!(next, Ok(Next::Nothing)) {
                return next;
            }
        }
        // At the end of the log, where nothing can be let go.
        let next = self.reader.next(wait);
        lock(&self.common.gate).read_to = self.reader.position();
        next
    }

    /// The item of a frame, with what it has to tell. `None`: it is settled, or none of ours.
    fn item(&mut self, frame: &Frame) -> Option<Item> {
        self.common.taken.fetch_add(1, Relaxed);
        self.former += u64::from(frame.span.start < self.begins);
        if self.common.spool.is_settled(frame.span) {
            return None;
        }
        let Some(mut item) = made(frame, &self.common) else {
            tracing::error!(
                link = self.common.link,
                position = frame.span.start,
                kind = frame.head.kind,
                "a frame of the spool was written by another version and cannot be used; its records are named as missing"
            );
            self.drop_place(frame.span, MissingReason::SpoolDamaged);
            return None;
        };
        if let Some(before) = self.dropped.take() {
            let reason = item.dropped_before.map_or(before.reason, |own| own.reason);
            let batches = item.dropped_before.map_or(0, |own| own.batches);
            item.dropped_before = Some(Dropped::and(Some(before), batches, reason));
        }
        if !self.lost.is_empty() {
            lock(&self.common.lost).insert(frame.span.start, std::mem::take(&mut self.lost));
        }
        Some(item)
    }

    fn damaged(&mut self, damage: &Damage, reason: MissingReason) {
        tracing::error!(
            link = self.common.link,
            %damage,
            "a place of the spool is lost; the records that were there are named as missing when the next ones come"
        );
        self.drop_place(damage.span, reason);
    }

    fn drop_place(&mut self, span: Span, reason: MissingReason) {
        self.dropped = Some(Dropped::and(self.dropped, 1, reason));
        self.lost.push(span);
    }

    /// The disk does not answer: again, and again, and at last on without this place.
    fn unreadable(&mut self, error: &ReadError) {
        let since = *self.unreadable.get_or_insert_with(Instant::now);
        if let Some(suppressed) = self.limit.allow("read", Instant::now()) {
            tracing::error!(link = self.common.link, %error, suppressed, "the spool cannot be read; trying again");
        }
        if since.elapsed() < READ_PATIENCE {
            thread::sleep(READ_AGAIN);
            return;
        }
        self.unreadable = None;
        if let Some(damage) = self.reader.skip() {
            self.damaged(&damage, MissingReason::SpoolError);
        }
    }
}

fn made(frame: &Frame, common: &Common) -> Option<Item> {
    let (batch, dropped_before) = frame::batch_of(frame)?;
    Some(Item {
        received_micros: frame.head.received_micros,
        dropped_before,
        span: Some(frame.span),
        _held: Held::new(batch.memory_bytes() as u64 + OVERHEAD, &common.held),
        batch,
    })
}

/// Settles in the spool; clones settle the same.
#[derive(Clone)]
pub(super) struct SpoolSettler {
    common: Arc<Common>,
}

impl SpoolSettler {
    pub(super) fn settle(&self, item: &Item) {
        if let Some(span) = item.span {
            self.settle_span(span);
        }
    }

    pub(super) fn settle_span(&self, span: Span) {
        let lost = lock(&self.common.lost).remove(&span.start).unwrap_or_default();
        for span in lost.into_iter().chain([span]) {
            if self.common.spool.settle(span).is_err() {
                lock(&self.common.owed).push(span);
            }
        }
        lock(&self.common.notes).settled(span.start);
    }

    pub(super) fn settle_owed(&self) {
        let owed = std::mem::take(&mut *lock(&self.common.owed));
        for span in owed {
            self.settle_span(span);
        }
    }
}
