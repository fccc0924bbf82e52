//! The receiver's preallocated slots: filled by one `receive`, read in place, used again.

use std::net::{Ipv4Addr, SocketAddr};

use crate::BATCH;

/// Bytes of a slot: the payload of a datagram at MTU 9000 (8972 over IPv4), rounded up to 9 KiB.
pub const DATAGRAM_ROOM: usize = 9216;

/// Room for up to [`BATCH`] datagrams, allocated once.
///
/// The slots lie in one block of memory, `room` bytes each. Contents are valid until the next receive.
#[derive(Debug)]
pub struct ReceiveBatch {
    room: usize,
    bytes: Vec<u8>,
    slots: [Slot; BATCH],
    filled: usize,
}

/// What the kernel said about the datagram in a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// Bytes the datagram had on the wire, which may be more than the slot holds.
    pub(crate) wire_bytes: usize,
    pub(crate) truncated: bool,
    pub(crate) source: SocketAddr,
}

impl Slot {
    const EMPTY: Slot = Slot {
        wire_bytes: 0,
        truncated: false,
        source: SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
    };
}

/// One received datagram, to be opened where it lies.
#[derive(Debug)]
pub struct Datagram<'a> {
    /// Who sent it, as the IP header says; not authenticated.
    pub source: SocketAddr,
    /// It was longer than the slot and its end is lost. Never to be parsed; count it as too large.
    pub truncated: bool,
    /// Payload bytes it had on the wire; `bytes.len()` unless truncated.
    pub wire_bytes: usize,
    /// The payload, or its beginning when truncated.
    pub bytes: &'a mut [u8],
}

impl Default for ReceiveBatch {
    fn default() -> Self {
        Self::with_room(DATAGRAM_ROOM)
    }
}

impl ReceiveBatch {
    /// Slots of [`DATAGRAM_ROOM`] bytes: 576 KiB in all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Slots of `room` bytes, at least one. A datagram longer than that arrives truncated, and flagged so.
    pub fn with_room(room: usize) -> Self {
        let room = room.max(1);
        Self { room, bytes: vec![0; room * BATCH], slots: [Slot::EMPTY; BATCH], filled: 0 }
    }

    /// Datagrams of the last receive.
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Whether the last receive brought nothing.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// The datagrams of the last receive, in the order in which they came.
    pub fn datagrams(&mut self) -> impl ExactSizeIterator<Item = Datagram<'_>> {
        let slots = &self.slots[..self.filled];
        self.bytes.chunks_exact_mut(self.room).zip(slots).map(|(bytes, slot)| {
            let held = slot.wire_bytes.min(bytes.len());
            Datagram {
                source: slot.source,
                truncated: slot.truncated,
                wire_bytes: slot.wire_bytes,
                bytes: &mut bytes[..held],
            }
        })
    }

    /// Forgets the last receive and hands out the slots, each `room` bytes, with their descriptions.
    pub(crate) fn slots(&mut self) -> impl Iterator<Item = (&mut [u8], &mut Slot)> {
        self.filled = 0;
        self.bytes.chunks_exact_mut(self.room).zip(self.slots.iter_mut())
    }

    /// The first `count` slots have been filled.
    pub(crate) fn set_filled(&mut self, count: usize) {
        self.filled = count.min(BATCH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_batch_is_empty_and_a_slot_never_shows_more_than_it_holds() {
        let mut batch = ReceiveBatch::with_room(8);
        assert_eq!(batch.datagrams().count(), 0);
        for (index, (bytes, slot)) in batch.slots().enumerate().take(2) {
            bytes.fill(index as u8 + 1);
            slot.wire_bytes = 3 + 6 * index;
            slot.truncated = index == 1;
        }
        batch.set_filled(2);
        let seen: Vec<_> = batch.datagrams().map(|d| (d.bytes.to_vec(), d.truncated, d.wire_bytes)).collect();
        assert_eq!(seen, [(vec![1; 3], false, 3), (vec![2; 8], true, 9)]);
    }
}
