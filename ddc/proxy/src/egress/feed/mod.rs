//! What lies between the receive thread and the sink thread: a queue in memory, or the spool on disk.
//!
//! ```text
//!  receive thread ─ FeedIn::offer ─▶ queue, at most [sink] buffer                    ─▶ FeedOut::take ─ sink thread
//!                                 └▶ spool: file, tail in memory, at most max_size ─┘        │
//!                                      ▲   keeper thread: checkpoint, oldest, metrics        │
//!                                      └────────────────────────────── FeedOut::settle ◀─────┘
//! ```
//!
//! The receive thread never waits here: what has no room is refused, and the next item says so. The spool is for a destination that
//! can be away: a sealed link that ends in Kafka. `seal = "none"` persists nothing from the wire (what anyone can send must not
//! fill a disk), and a UDP destination is never away: these have the queue.
//!
//! Order matters: what an item changed (positions, progress, reports) must be durable before it is settled, since what is
//! settled is trimmed and never read again.
//!
//! | module   | what it is for                                                 |
//! |----------|----------------------------------------------------------------|
//! | `item`   | a batch, wherever it comes from                                |
//! | `queue`  | the queue                                                      |
//! | `open`   | opens the spool and says what was found                        |
//! | `spooled`| both ends of the spool                                         |
//! | `frame`  | what stands in a frame of the spool                            |
//! | `keeper` | the thread that checkpoints, drops the oldest, and measures    |
//! | `notes`  | what the next life must know: what was dropped, and whether progress was written |
//! | `lost`   | who is hit when the oldest goes                                |

mod frame;
mod item;
mod keeper;
mod lost;
mod notes;
mod open;
mod queue;
mod spooled;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender as ChannelSender;
use ddc_link::receiver::ReleasedBatch;
use ddc_spool::{ReadError, Span};

pub(crate) use item::Item;
pub(crate) use open::{SpoolParts, open_spool};
pub(crate) use queue::queue;
use queue::{QueueIn, QueueOut};
use spooled::{SpoolIn, SpoolOut, SpoolSettler};

/// The receive thread's end.
pub(crate) enum FeedIn {
    /// In memory.
    Queue(QueueIn),
    /// On disk.
    Spool(Box<SpoolIn>),
}

/// The sink thread's end.
pub(crate) enum FeedOut {
    /// In memory.
    Queue(QueueOut, ChannelSender<Vec<u8>>),
    /// On disk.
    Spool(Box<SpoolOut>),
}

/// What [`FeedOut::take`] gives.
pub(crate) enum Taken {
    /// The next batch.
    Item(Box<Item>),
    /// None came in time, or none may be taken before something is settled.
    Nothing,
    /// The receive thread has ended and everything was taken.
    Closed,
}

/// Why a batch was not taken in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    /// The queue is full.
    #[error("[sink] buffer is full: the destination is slower than the link")]
    Queue,
    /// The spool refused it.
    #[error(transparent)]
    Spool(#[from] ddc_spool::Refused),
}

impl FeedIn {
    /// Takes a batch in, or drops it and says why; the next item will tell of it. Never waits, but for an fsync under
    /// `fsync = "always"`.
    pub(crate) fn offer(&mut self, batch: ReleasedBatch) -> Result<(), NotTaken> {
        match self {
            Self::Queue(queue) => queue.offer(batch).then_some(()).ok_or(NotTaken::Queue),
            Self::Spool(spool) => spool.offer(batch),
        }
    }

    /// Bytes of memory held.
    pub(crate) fn used(&self) -> u64 {
        match self {
            Self::Queue(queue) => queue.used(),
            Self::Spool(spool) => spool.used(),
        }
    }
}

impl FeedOut {
    /// The next batch, waited for at most so long.
    pub(crate) fn take(&mut self, wait: Duration) -> Taken {
        match self {
            Self::Queue(queue, _) => queue.take(wait),
            Self::Spool(spool) => spool.take(wait),
        }
    }

    /// Everything of this batch is settled, and that is durable: its place in the spool, or its buffer, is free.
    pub(crate) fn settle(&mut self, item: Arc<Item>) {
        self.settler().settle(item);
    }

    /// As [`Self::settle`], for a batch that is no longer in memory.
    pub(crate) fn settle_span(&mut self, span: Span) {
        if let Self::Spool(spool) = self {
            spool.settler().settle_span(span);
        }
    }

    /// A batch that was taken before, again. `None`: it was dropped meanwhile (too old, or no room), or there is no spool.
    ///
    /// Damaged, or a disk that does not answer: the error. What is given up by the caller is settled by it, and what is missing is found
    /// by offsets.
    pub(crate) fn reread(&mut self, span: Span) -> Result<Option<Box<Item>>, ReadError> {
        match self {
            Self::Queue(..) => Ok(None),
            Self::Spool(spool) => spool.reread(span),
        }
    }

    /// To be called once a second: settles what could not be settled before. The rest of the housekeeping has a thread of its
    /// own, since the sink thread can be held for hours by a destination that is away.
    pub(crate) fn house_keeping(&mut self) {
        if let Self::Spool(spool) = self {
            spool.settler().settle_owed();
        }
    }

    /// Something to settle with, for those who have not the feed itself.
    pub(crate) fn settler(&self) -> Settler {
        match self {
            Self::Queue(_, recycle) => Settler { spool: None, recycle: recycle.clone() },
            Self::Spool(spool) => Settler { spool: Some(spool.settler()), recycle: spool.recycle().clone() },
        }
    }

    /// Progress was written for what is settled next: from now on the destination must know of some.
    pub(crate) fn progress_written(&self) {
        if let Self::Spool(spool) = self {
            spool.progress_written();
        }
    }

    /// Whether progress was ever written from this spool: then the destination must know of some.
    pub(crate) fn was_used(&self) -> bool {
        matches!(self, Self::Spool(spool) if spool.was_used())
    }

    /// Whether a former life of the egress received the batch.
    pub(crate) fn is_left_over(&self, item: &Item) -> bool {
        matches!(self, Self::Spool(spool) if item.span.is_some_and(|span| span.start < spool.begins()))
    }

    /// Whether what is not settled outlives the process.
    pub(crate) fn is_kept(&self) -> bool {
        matches!(self, Self::Spool(_))
    }

    /// Bytes of memory held.
    pub(crate) fn used(&self) -> u64 {
        match self {
            Self::Queue(queue, _) => queue.used(),
            Self::Spool(spool) => spool.used(),
        }
    }

    /// Batches that wait; of those that a former process left in the spool, only what was read of them counts.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Queue(queue, _) => queue.len(),
            Self::Spool(spool) => spool.len(),
        }
    }
}

/// Settles items; clones settle the same.
#[derive(Clone)]
pub(crate) struct Settler {
    spool: Option<SpoolSettler>,
    recycle: ChannelSender<Vec<u8>>,
}

impl Settler {
    /// See [`FeedOut::settle`].
    pub(crate) fn settle(&self, item: Arc<Item>) {
        if let Some(spool) = &self.spool {
            spool.settle(&item);
        }
        self.recycle(item);
    }

    /// Gives only the item's buffer back, unless somebody still reads it.
    fn recycle(&self, item: Arc<Item>) {
        if item.span.is_none()
            && let Some(item) = Arc::into_inner(item)
        {
            // A full channel frees the buffer, which is as good.
            let _ = self.recycle.try_send(item.into_buffer());
        }
    }
}
