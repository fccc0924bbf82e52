//! A batch on its way to the sink, from memory or from the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ddc_link::receiver::{MissingReason, ReleasedBatch};
use ddc_spool::Span;

/// What a batch costs besides its bytes.
pub(crate) const OVERHEAD: u64 = 256;

/// What the sink thread gets.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) batch: ReleasedBatch,
    /// When it was received, in µs since 1970 by this host's clock.
    #[allow(dead_code, reason = "for an engine that reports when a batch was received")]
    pub(crate) received_micros: u64,
    /// What was dropped between the item before and this one, in [`super::FeedIn::offer`] or after it.
    pub(crate) dropped_before: Option<Dropped>,
    /// Where it lies in the spool; `None` behind a queue.
    pub(crate) span: Option<Span>,
    /// Given back to the budget when the item is dropped.
    pub(super) _held: Held,
}

impl Item {
    /// The batch's buffer, for reuse.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.batch.into_buffer()
    }
}

/// Batches that were dropped between the receiver and the sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// How many; at least so many when some could not even be counted.
    pub(crate) batches: u64,
    /// Why, of the last of them: for [`ddc_link::receiver::Positions::note_dropped`].
    pub(crate) reason: MissingReason,
}

impl Dropped {
    /// These, and then others.
    pub(super) fn and(before: Option<Self>, batches: u64, reason: MissingReason) -> Self {
        Self { batches: before.map_or(0, |before| before.batches).saturating_add(batches), reason }
    }
}

/// Bytes of memory; given back on drop.
#[derive(Debug)]
pub(super) struct Held {
    bytes: u64,
    used: Arc<AtomicU64>,
}

impl Held {
    pub(super) fn new(bytes: u64, used: &Arc<AtomicU64>) -> Self {
        used.fetch_add(bytes, Relaxed);
        Self { bytes, used: Arc::clone(used) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Relaxed);
    }
}
