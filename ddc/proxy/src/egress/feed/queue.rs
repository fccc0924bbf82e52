//! The bounded queue between the receive thread and the sink thread.
//!
//! Its bound is `[sink] buffer` in bytes, and covers a batch until the destination has acknowledged all of it, not
//! only until the sink thread takes it; and [`MAX_BATCHES`] in number. The receive thread never waits: what does not
//! fit is dropped, and the next item that fits says so, so that the gap that is found then has the right reason. Once
//! something was dropped, everything is until a quarter of the room is free again: one long gap instead of many short ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError, bounded};
use ddc_link::receiver::{MissingReason, ReleasedBatch};
use ddc_udp::clock::wall_clock_micros;

use super::Taken;
use super::item::{Dropped, Held, Item, OVERHEAD};

/// Batches that may wait for the sink thread, whatever their size.
pub(crate) const MAX_BATCHES: usize = 16_384;

/// The receive thread's end.
#[derive(Debug)]
pub(crate) struct QueueIn {
    sender: Sender<Item>,
    used: Arc<AtomicU64>,
    limit: u64,
    dropped: u64,
}

/// The sink thread's end.
#[derive(Debug)]
pub(crate) struct QueueOut {
    receiver: Receiver<Item>,
    used: Arc<AtomicU64>,
}

/// A queue of at most `limit` bytes.
pub(crate) fn queue(limit: u64) -> (QueueIn, QueueOut) {
    let (sender, receiver) = bounded(MAX_BATCHES);
    let used = Arc::new(AtomicU64::new(0));
    let input = QueueIn { sender, used: Arc::clone(&used), limit, dropped: 0 };
    (input, QueueOut { receiver, used })
}

impl QueueIn {
    /// Appends a batch, or drops it and returns false.
    pub(crate) fn offer(&mut self, batch: ReleasedBatch) -> bool {
        let bytes = batch.memory_bytes() as u64 + OVERHEAD;
        // Only this thread adds, so the check cannot be overtaken. A batch larger than the whole budget goes alone.
        let used = self.used.load(Relaxed);
        let limit = if self.dropped > 0 { self.limit - self.limit / 4 } else { self.limit };
        if used > 0 && used + bytes > limit {
            self.dropped += 1;
            return false;
        }
        let reason = MissingReason::BufferFull;
        let item = Item {
            received_micros: received_micros(&batch),
            batch,
            dropped_before: (self.dropped > 0).then_some(Dropped { batches: self.dropped, reason }),
            span: None,
            _held: Held::new(bytes, &self.used),
        };
        match self.sender.try_send(item) {
            Ok(()) => {
                self.dropped = 0;
                true
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped += 1;
                false
            }
        }
    }

    /// Bytes held.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }
}

/// When a batch became whole, by the wall clock.
pub(super) fn received_micros(batch: &ReleasedBatch) -> u64 {
    let ago = batch.received_at.map_or(Duration::ZERO, |at| at.elapsed());
    wall_clock_micros().saturating_sub(ago.as_micros() as u64)
}

impl QueueOut {
    /// The next item, waited for at most so long.
    pub(crate) fn take(&self, wait: Duration) -> Taken {
        let taken = if wait.is_zero() {
            self.receiver.try_recv().map_err(|error| error == TryRecvError::Disconnected)
        } else {
            self.receiver.recv_timeout(wait).map_err(|error| error == RecvTimeoutError::Disconnected)
        };
        match taken {
            Ok(item) => Taken::Item(Box::new(item)),
            Err(true) => Taken::Closed,
            Err(false) => Taken::Nothing,
        }
    }

    /// Bytes held.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Batches that wait.
    pub(crate) fn len(&self) -> usize {
        self.receiver.len()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use std::time::Instant;

    use ddc_link::receiver::{Event, Receiver, ReceiverConfig};
    use ddc_link::sender::{Datagrams, Sender, SenderConfig, Step};
    use ddc_wire::{Codec, Content, KeyId, LinkId, Prelude, Session};

    use super::*;
    use ddc_link::keys::{Keyring, LinkKey, SealMode};

    /// Batches can only be made by a receiver: so one makes them, of blocks of about `len` bytes.
    fn batches(count: usize, len: usize) -> Vec<ReleasedBatch> {
        let now = Instant::now();
        let config = SenderConfig {
            link_id: LinkId(1),
            key_id: KeyId(0),
            key: LinkKey::new([0; 32]),
            seal: SealMode::None,
            session: Session::new(1, 1),
            code: ddc_fec::Code::new(8, 0).unwrap(),
            symbol_size: 1400,
            interleave: 1,
            interleave_span: Duration::ZERO,
            rate: None,
            burst: Duration::ZERO,
            ip_overhead: 20,
        };
        let mut keyring = Keyring::default();
        keyring.insert(KeyId(0), LinkKey::new([0; 32]));
        let receiver = ReceiverConfig {
            link_id: LinkId(1),
            keyring,
            seal: SealMode::None,
            reorder_timeout: Duration::from_millis(50),
            window_bytes: 4 << 20,
            max_batch_bytes: 1 << 20,
            build_micros: 0,
        };
        let (mut sender, mut receiver) =
            (Sender::new(config, now).unwrap(), Receiver::new(receiver, now, &[]));
        let (mut made, mut datagrams) = (Vec::new(), Datagrams::default());
        for _ in 0..count {
            let mut block = Vec::new();
            let prelude = Prelude {
                codec: Codec::None,
                content: Content::Records,
                fragment: 0,
                fragments: 1,
                raw_len: len as u32,
            };
            prelude.encode(&mut block);
            block.resize(block.len() + len, 0);
            sender.push(now, block, false, 0).unwrap();
            while sender.poll(now, &mut datagrams) == Step::Send {
                for datagram in datagrams.iter() {
                    let mut datagram = datagram.to_vec();
                    receiver.handle(now, 1, "127.0.0.1:1".parse().unwrap(), &mut datagram).unwrap();
                }
            }
            while let Some(event) = receiver.poll(now) {
                made.extend(if let Event::Batch(batch) = event { Some(batch) } else { None });
            }
        }
        made
    }

    fn taken(queue: &QueueOut) -> Option<Item> {
        match queue.take(Duration::ZERO) {
            Taken::Item(item) => Some(*item),
            Taken::Nothing | Taken::Closed => None,
        }
    }

    #[test]
    fn the_bound_holds_until_a_batch_is_settled_and_the_next_one_tells_of_the_drops() {
        let mut all = batches(12, 8_000);
        assert_eq!(all.len(), 12);
        let each = all[0].memory_bytes() as u64 + OVERHEAD;
        let (mut input, output) = queue(4 * each);
        let offered: Vec<_> = all.drain(..6).map(|batch| input.offer(batch)).collect();
        assert_eq!(offered, [true, true, true, true, false, false]);
        assert_eq!((input.used(), output.len()), (4 * each, 4));
        let mut items: Vec<_> = (0..4).map(|_| taken(&output).unwrap()).collect();
        assert!(items.iter().all(|item| item.dropped_before.is_none()));
        assert!(!input.offer(all.remove(0)), "taken is not settled");
        drop(items.pop());
        assert!(!input.offer(all.remove(0)), "a quarter must be free");
        drop(items.pop());
        assert!(input.offer(all.remove(0)));
        assert!(input.offer(all.remove(0)), "up to the whole limit again");
        let dropped = Dropped { batches: 4, reason: MissingReason::BufferFull };
        assert_eq!(taken(&output).unwrap().dropped_before, Some(dropped));
        assert_eq!(taken(&output).unwrap().dropped_before, None);
        drop((items, input));
        assert_eq!(output.used(), 0);
        assert!(matches!(output.take(Duration::ZERO), Taken::Closed));
    }

    #[test]
    fn a_batch_larger_than_the_bound_goes_alone() {
        let mut all = batches(2, 8_000);
        let (mut input, output) = queue(100);
        assert!(input.offer(all.remove(0)));
        assert!(!input.offer(all.remove(0)));
        assert!(taken(&output).is_some() && taken(&output).is_none());
    }
}
