//! From the packer to the link thread: blocks, as long as there is room, and what they cover for the commit log.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender as BlockSender;
use ddc_link::sender::{PackError, PackedBlock, Packer, Slot};
use ddc_telemetry::catalogue::IngressMetrics;
use ddc_telemetry::exposition::LinkMetrics;
use ddc_wire::{Prelude, RecordHeader, Timestamp};

use super::commit::CommitLog;
use crate::ingress::Shared;
use crate::replay::ReplayOut;

/// The longest wait for room before looking again; room comes at the link's rate.
pub const ROOM_WAIT: Duration = Duration::from_millis(1);

/// Packs records and hands blocks on. Nothing is dropped here: without room it says so, and the source stops reading.
pub struct Outlet {
    /// The packer.
    pub packer: Packer,
    /// What was packed, sent, and may be committed.
    pub log: CommitLog,
    blocks: BlockSender<PackedBlock>,
    shared: Arc<Shared>,
    metrics: Arc<LinkMetrics<IngressMetrics>>,
    /// `[link] buffer`.
    buffer_bytes: u64,
    /// A block that found no room; the packer is not asked for another before it is through.
    waiting: Option<PackedBlock>,
    packed_blocks: u64,
    /// Packed since telemetry was told last.
    packed_records: u64,
    /// [`Shared::blocks_lost`] as it was seen last.
    blocks_lost: u64,
    /// The last live block was not the last fragment of its batch.
    mid_batch: bool,
    /// Blocks of a replay, for which live ones leave room.
    replay: Option<ReplayOut>,
}

impl Outlet {
    /// An outlet towards the link thread at the other end of `blocks`.
    pub fn new(
        packer: Packer,
        log: CommitLog,
        blocks: BlockSender<PackedBlock>,
        shared: Arc<Shared>,
        metrics: Arc<LinkMetrics<IngressMetrics>>,
        buffer_bytes: u64,
    ) -> Self {
        Self {
            packer,
            log,
            blocks,
            shared,
            metrics,
            buffer_bytes,
            waiting: None,
            packed_blocks: 0,
            packed_records: 0,
            blocks_lost: 0,
            mid_batch: false,
            replay: None,
        }
    }

    /// Replays may use what live records leave of the link.
    pub fn set_replay(&mut self, replay: ReplayOut) {
        self.replay = Some(replay);
    }

    /// Whether a replay is under way: blocks should be moved each millisecond.
    pub fn is_replaying(&self) -> bool {
        self.replay.as_ref().is_some_and(ReplayOut::is_active)
    }

    /// Whether a block waits for room: nothing should be read then.
    pub fn is_full(&self) -> bool {
        self.waiting.is_some()
    }

    /// Packs one record. `Full`: there is no room for it now, see [`Outlet::is_full`]; nothing waits here, because the
    /// group must be served meanwhile.
    pub fn push<'h, H>(&mut self, slot: Slot, record: &Record<'_, H>) -> Result<(), PackError>
    where
        H: ExactSizeIterator<Item = RecordHeader<'h>> + Clone,
    {
        loop {
            let now = Instant::now();
            let headers = record.headers.clone();
            match self.packer.push(
                now,
                slot,
                record.offset,
                record.timestamp,
                record.key,
                record.value,
                headers,
            ) {
                Err(PackError::Full) => {}
                result => {
                    self.packed_records += u64::from(result.is_ok());
                    return result;
                }
            }
            self.move_blocks(now);
            if self.is_full() {
                return Err(PackError::Full);
            }
        }
    }

    /// Hands packed blocks to the link thread while there is room.
    pub fn move_blocks(&mut self, now: Instant) {
        self.metrics.records_packed.add(std::mem::take(&mut self.packed_records));
        let was_full = self.is_full();
        while let Some(block) = self.next_block(now) {
            let len = block.bytes.len() as u64;
            let queued = self.shared.queued_bytes.load(Ordering::Relaxed);
            if queued > 0 && queued + len > self.buffer_bytes {
                self.waiting = Some(block);
                break;
            }
            self.shared.queued_bytes.fetch_add(len, Ordering::Relaxed);
            if let Err(error) = self.blocks.try_send(block) {
                // Too many small blocks wait, or the link thread has ended, upon which a stop follows.
                self.shared.queued_bytes.fetch_sub(len, Ordering::Relaxed);
                self.waiting = Some(error.into_inner());
                break;
            }
        }
        if self.is_full() && !was_full {
            self.metrics.common.buffer_full.inc();
        }
        self.metrics.queue_bytes.set(self.shared.queued_bytes.load(Ordering::Relaxed) as i64);
        self.metrics.kafka_paused.set(i64::from(self.is_full()));
    }

    fn next_block(&mut self, now: Instant) -> Option<PackedBlock> {
        if let Some(block) = self.waiting.take() {
            return Some(block);
        }
        if !self.mid_batch
            && let Some(block) = self.replayed(now, true)
        {
            return Some(block);
        }
        let ready = self.shared.link_idle.load(Ordering::Relaxed) && self.blocks.is_empty();
        let Some(block) = self.packer.poll(now, ready) else { return self.replayed(now, false) };
        // What stands between two fragments of a batch would tear it.
        self.mid_batch =
            Prelude::decode(&block.bytes).is_ok_and(|(prelude, _)| prelude.fragment + 1 < prelude.fragments);
        self.log.packed(self.packed_blocks, &block.marks);
        self.packed_blocks += 1;
        Some(block)
    }

    /// A block of a replay: of the slice that has begun, or of a new one, which does not begin during a stop. Before live
    /// blocks (`first`) a slice begins only when they have kept all back for long.
    fn replayed(&mut self, now: Instant, first: bool) -> Option<PackedBlock> {
        let replay = self.replay.as_mut()?;
        let number = self.packed_blocks;
        let block = if replay.is_mid_slice() {
            replay.rest(number)?
        } else {
            let starved = replay.is_starved(now);
            if (first && !starved) || self.shared.stop.load(Ordering::Relaxed) {
                return None;
            }
            let queued = self.shared.queued_bytes.load(Ordering::Relaxed);
            replay.begin(now, queued, starved, number)?
        };
        self.packed_blocks += 1;
        Some(block)
    }

    /// Takes over what the link thread has sent meanwhile. `true`: it has lost blocks; nothing that was packed so far is
    /// committed, and everything must be read again from what the group has committed.
    #[must_use]
    pub fn note_sent(&mut self, now: Instant) -> bool {
        // In this order: losses are told before the numbers that pass them.
        let sent = self.shared.sent_blocks.load(Ordering::Acquire);
        let lost = self.shared.blocks_lost.load(Ordering::Acquire);
        let news = lost != self.blocks_lost;
        if news {
            self.blocks_lost = lost;
            self.log.forget_all();
            // What is packed already lies behind the hole. It is read again, in order.
            while self.packer.poll(now, true).is_some() {}
            self.mid_batch = false;
            if let Some(replay) = &mut self.replay {
                replay.note_lost();
            }
            self.packed_blocks -= u64::from(self.waiting.take().is_some());
            self.shared.good_from.store(self.packed_blocks, Ordering::Release);
            self.shared.loss_seen.store(lost, Ordering::Release);
        }
        self.log.sent(now, sent);
        if let Some(replay) = &mut self.replay {
            replay.note_sent(sent);
        }
        news
    }

    /// Whether everything that was packed has been handed to the kernel.
    pub fn is_sent(&self) -> bool {
        self.waiting.is_none()
            && !self.replay.as_ref().is_some_and(ReplayOut::is_mid_slice)
            && self.packer.queued_bytes() == 0
            && self.shared.sent_blocks.load(Ordering::Acquire) >= self.packed_blocks
    }

    /// Whether what waits will never be sent, because the link thread has ended.
    pub fn is_cut_off(&self) -> bool {
        self.shared.link_done.load(Ordering::Acquire)
    }
}

/// A record as the packer takes it; the headers may be walked twice.
pub struct Record<'r, H> {
    /// The offset at the source.
    pub offset: i64,
    /// The time.
    pub timestamp: Option<Timestamp>,
    /// The key, or null.
    pub key: Option<&'r [u8]>,
    /// The value, or null.
    pub value: Option<&'r [u8]>,
    /// The headers.
    pub headers: H,
}
