//! From a symbol to a sealed datagram: the header, the packet number, the key.
//!
//! A packet number is never used twice: it is taken when a datagram is made and made datagrams
//! count as sent. The key follows the number: one per 2²⁸ packets, derived at the border.

use ddc_wire::{BlockNumber, HEADER_LEN, Header, KeyId, Kind, LinkId, MAX_DATAGRAM, PacketNumber, Session};

use crate::keys::{DatagramKey, Direction, KEY_EPOCH_BITS, LinkKey, SealMode};

/// Most datagrams handed out by one [`super::Sender::poll`]; also what one system call takes.
pub const MAX_BURST_DATAGRAMS: usize = 64;

/// Sealed datagrams, one behind the other in one buffer that is allocated once.
#[derive(Debug)]
pub struct Datagrams {
    buffer: Box<[u8]>,
    /// Where each ends; at most [`MAX_BURST_DATAGRAMS`].
    ends: Vec<usize>,
}

impl Datagrams {
    /// Room for [`MAX_BURST_DATAGRAMS`] datagrams of the largest size the wire allows.
    pub fn new() -> Self {
        Self {
            buffer: vec![0; MAX_BURST_DATAGRAMS * MAX_DATAGRAM].into_boxed_slice(),
            ends: Vec::with_capacity(MAX_BURST_DATAGRAMS),
        }
    }

    /// The datagrams, in the order in which they are to be sent.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.ends.len()).map(|index| &self.buffer[self.start(index)..self.ends[index]])
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All datagrams' bytes without a gap, for segmentation by the kernel.
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer[..self.ends.last().copied().unwrap_or(0)]
    }

    /// Takes all out.
    pub fn clear(&mut self) {
        self.ends.clear();
    }

    pub(super) fn is_full(&self) -> bool {
        self.ends.len() == MAX_BURST_DATAGRAMS
    }

    fn start(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    /// Room for one more. The caller has asked [`Self::is_full`].
    fn add(&mut self, len: usize) -> &mut [u8] {
        debug_assert!(!self.is_full() && len <= MAX_DATAGRAM);
        let start = self.start(self.ends.len());
        self.ends.push(start + len);
        &mut self.buffer[start..start + len]
    }
}

impl Default for Datagrams {
    fn default() -> Self {
        Self::new()
    }
}

/// Numbers and seals the datagrams of one session.
#[derive(Debug)]
pub(super) struct Sealer {
    link_id: LinkId,
    key_id: KeyId,
    key: LinkKey,
    mode: SealMode,
    session: Session,
    d_max: u8,
    next: PacketNumber,
    current: (u64, DatagramKey),
}

/// What of a header says which symbol of which block it is; zeros for what carries no symbol.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SymbolHeader {
    pub(super) symbol_size: u16,
    pub(super) symbol_index: u8,
    pub(super) source_symbols: u8,
    pub(super) repair_symbols: u8,
    pub(super) block_len: u32,
}

impl Sealer {
    pub(super) fn new(
        link_id: LinkId,
        key_id: KeyId,
        key: LinkKey,
        mode: SealMode,
        session: Session,
        d_max: u8,
    ) -> Self {
        let first = DatagramKey::derive(mode, &key, Direction::Data, link_id, key_id, session, 0);
        Self { link_id, key_id, key, mode, session, d_max, next: PacketNumber(0), current: (0, first) }
    }

    /// The number of the next datagram: how many were made.
    pub(super) fn next(&self) -> PacketNumber {
        self.next
    }

    /// Whether all numbers are used up, which takes longer than links live; then nothing is sent
    /// any more. The goodbyes' numbers are kept back.
    pub(super) fn exhausted(&self) -> bool {
        self.next.0 >= u64::MAX - 8
    }

    /// Bytes of a datagram with this payload.
    pub(super) fn datagram_len(&self, payload: usize) -> usize {
        HEADER_LEN + payload + self.mode.trailer_len()
    }

    /// Makes the next datagram. `out` is not full.
    pub(super) fn seal(
        &mut self,
        out: &mut Datagrams,
        kind: Kind,
        block: BlockNumber,
        symbol: SymbolHeader,
        payload: &[u8],
    ) {
        let packet = self.next;
        self.next = PacketNumber(packet.0 + 1);
        let epoch = packet.0 >> KEY_EPOCH_BITS;
        if epoch != self.current.0 {
            self.current = (epoch, self.derive(epoch));
        }
        let header = Header {
            kind,
            link_id: self.link_id,
            key_id: self.key_id,
            d_max: self.d_max,
            session: self.session,
            packet_number: packet,
            block,
            symbol_size: symbol.symbol_size,
            symbol_index: symbol.symbol_index,
            source_symbols: symbol.source_symbols,
            repair_symbols: symbol.repair_symbols,
            block_len: symbol.block_len,
        };
        let datagram = out.add(self.datagram_len(payload.len()));
        let (head, rest) = datagram.split_at_mut(HEADER_LEN);
        // Split at exactly its length.
        if let Some(head) = head.first_chunk_mut::<HEADER_LEN>() {
            header.encode(head);
        }
        rest[..payload.len()].copy_from_slice(payload);
        self.current.1.seal(packet, datagram);
    }

    fn derive(&self, epoch: u64) -> DatagramKey {
        DatagramKey::derive(
            self.mode,
            &self.key,
            Direction::Data,
            self.link_id,
            self.key_id,
            self.session,
            epoch,
        )
    }

    #[cfg(test)]
    pub(super) fn skip_to(&mut self, next: PacketNumber) {
        self.next = next;
    }
}
