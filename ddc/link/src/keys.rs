//! The link key, and the keys derived from it: one per session, direction and 2²⁸ packets.
//!
//! ```text
//!  key = HKDF-SHA256(ikm = link key, salt = session (12 bytes),
//!                    info = "ddc/1 " ‖ direction ("data" | "status") ‖ link id (u16) ‖ key id (u8) ‖ packet number >> 28 (u64))
//!  nonce = 32 zero bits ‖ packet number (u64);   associated data = the header (44 bytes)
//! ```
//!
//! A packet number is never used twice in a session and a session never begins twice, so that no
//! nonce repeats under a key; no key seals more than 2²⁸ datagrams.

use std::fmt;

use ddc_wire::{CRC_LEN, HEADER_LEN, KeyId, LinkId, PacketNumber, Session, TAG_LEN};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};

/// How many packets one derived key seals, as a power of two.
pub const KEY_EPOCH_BITS: u32 = 28;

/// How the datagrams of a link are authenticated. It is the configuration's, never the packet's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SealMode {
    /// Encrypted and authenticated with AES-256-GCM.
    #[default]
    Aes256Gcm,
    /// Neither; a CRC-32C finds accidents. For measurements only.
    None,
}

impl SealMode {
    /// Bytes behind the payload of each datagram.
    pub fn trailer_len(self) -> usize {
        match self {
            Self::Aes256Gcm => TAG_LEN,
            Self::None => CRC_LEN,
        }
    }
}

/// The 256-bit secret that both sides of a link share. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkKey([u8; 32]);

impl LinkKey {
    /// A key from its bytes, as `ddc keygen` made them.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkKey(…)")
    }
}

/// The keys of a link by their ids. At most 256, in practice one or two.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    keys: Vec<(KeyId, LinkKey)>,
}

impl Keyring {
    /// Adds a key; one with the same id is replaced.
    pub fn insert(&mut self, id: KeyId, key: LinkKey) {
        self.keys.retain(|(known, _)| *known != id);
        self.keys.push((id, key));
    }

    /// The key with this id.
    pub fn get(&self, id: KeyId) -> Option<&LinkKey> {
        self.keys.iter().find(|(known, _)| *known == id).map(|(_, key)| key)
    }
}

/// Which way a datagram goes. Keys of the two directions are unrelated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the ingress to the egress.
    Data,
    /// The separate status channel of the return direction; reserved.
    Status,
}

/// Seals or opens the datagrams of one session, direction and key epoch.
pub struct DatagramKey {
    mode: DatagramKeyMode,
}

#[expect(
    clippy::large_enum_variant,
    reason = "deriving a key for an unknown session must not allocate (DDC-W-071)"
)]
enum DatagramKeyMode {
    Aes256Gcm(LessSafeKey),
    Crc32c,
}

/// A datagram whose tag or checksum does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAuthentic;

impl DatagramKey {
    /// Derives the key for the packets whose number shifted right by [`KEY_EPOCH_BITS`] is `epoch`.
    pub fn derive(
        mode: SealMode,
        key: &LinkKey,
        direction: Direction,
        link: LinkId,
        key_id: KeyId,
        session: Session,
        epoch: u64,
    ) -> Self {
        if mode == SealMode::None {
            return Self { mode: DatagramKeyMode::Crc32c };
        }
        let direction: &[u8] = match direction {
            Direction::Data => b"data",
            Direction::Status => b"status",
        };
        let info: [&[u8]; 5] =
            [b"ddc/1 ", direction, &link.0.to_be_bytes(), &[key_id.0], &epoch.to_be_bytes()];
        let mut bytes = [0; 32];
        Salt::new(HKDF_SHA256, &session.0)
            .extract(&key.0)
            .expand(&info, KeyLength)
            .and_then(|okm| okm.fill(&mut bytes))
            // HKDF fails only for outputs of more than 255 hashes; ours is one.
            .unwrap_or_else(|_| unreachable!("32 bytes are one SHA-256"));
        let unbound = UnboundKey::new(&AES_256_GCM, &bytes)
            .unwrap_or_else(|_| unreachable!("AES-256-GCM takes keys of 32 bytes"));
        Self { mode: DatagramKeyMode::Aes256Gcm(LessSafeKey::new(unbound)) }
    }

    /// Seals a datagram in place: header, payload, then room for the trailer.
    pub fn seal(&self, packet: PacketNumber, datagram: &mut [u8]) {
        let (header, rest) = datagram.split_at_mut(HEADER_LEN);
        match &self.mode {
            DatagramKeyMode::Aes256Gcm(key) => {
                let (payload, trailer) = rest.split_at_mut(rest.len() - TAG_LEN);
                let tag = key
                    .seal_in_place_separate_tag(nonce(packet), Aad::from(&*header), payload)
                    // It fails only for payloads of more than 64 GiB.
                    .unwrap_or_else(|_| unreachable!("a datagram is shorter than 64 GiB"));
                trailer.copy_from_slice(tag.as_ref());
            }
            DatagramKeyMode::Crc32c => {
                let (payload, trailer) = rest.split_at_mut(rest.len() - CRC_LEN);
                let crc = crc32c::crc32c_append(crc32c::crc32c(header), payload);
                trailer.copy_from_slice(&crc.to_be_bytes());
            }
        }
    }

    /// Verifies a datagram and opens its payload in place; the payload's bytes are returned.
    ///
    /// When it is not authentic, nothing of the payload may be used.
    pub fn open<'d>(
        &self,
        packet: PacketNumber,
        datagram: &'d mut [u8],
    ) -> Result<&'d mut [u8], NotAuthentic> {
        let (header, rest) = datagram.split_at_mut_checked(HEADER_LEN).ok_or(NotAuthentic)?;
        match &self.mode {
            DatagramKeyMode::Aes256Gcm(key) => {
                let at = rest.len().checked_sub(TAG_LEN).ok_or(NotAuthentic)?;
                let (payload, trailer) = rest.split_at_mut(at);
                let tag = Tag::try_from(&*trailer).map_err(|_| NotAuthentic)?;
                key.open_in_place_separate_tag(nonce(packet), Aad::from(&*header), tag, payload, 0..)
                    .map_err(|_| NotAuthentic)
            }
            DatagramKeyMode::Crc32c => {
                let at = rest.len().checked_sub(CRC_LEN).ok_or(NotAuthentic)?;
                let (payload, trailer) = rest.split_at_mut(at);
                let crc = crc32c::crc32c_append(crc32c::crc32c(header), payload);
                if *trailer == crc.to_be_bytes() { Ok(payload) } else { Err(NotAuthentic) }
            }
        }
    }
}

impl fmt::Debug for DatagramKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatagramKey(…)")
    }
}

fn nonce(packet: PacketNumber) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&packet.0.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

struct KeyLength;

impl KeyType for KeyLength {
    fn len(&self) -> usize {
        32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(mode: SealMode, session: Session, epoch: u64) -> DatagramKey {
        let link_key = LinkKey::new([7; 32]);
        DatagramKey::derive(mode, &link_key, Direction::Data, LinkId(1), KeyId(2), session, epoch)
    }

    fn sealed(key: &DatagramKey, mode: SealMode) -> Vec<u8> {
        let mut datagram: Vec<u8> = (0..HEADER_LEN + 100 + mode.trailer_len()).map(|i| i as u8).collect();
        key.seal(PacketNumber(5), &mut datagram);
        datagram
    }

    #[test]
    fn opens_what_was_sealed_and_nothing_else() {
        for mode in [SealMode::Aes256Gcm, SealMode::None] {
            let session = Session::new(1, 2);
            let good = key(mode, session, 0);
            let datagram = sealed(&good, mode);
            let payload: Vec<u8> = (HEADER_LEN..HEADER_LEN + 100).map(|i| i as u8).collect();
            assert_eq!(good.open(PacketNumber(5), &mut datagram.clone()).unwrap(), payload);
            for bit in 0..datagram.len() * 8 {
                let mut flipped = datagram.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(good.open(PacketNumber(5), &mut flipped).err(), Some(NotAuthentic), "bit {bit}");
            }
            for len in 0..datagram.len() {
                assert!(good.open(PacketNumber(5), &mut datagram[..len].to_vec()).is_err(), "{len} bytes");
            }
        }
    }

    #[test]
    fn keys_of_other_sessions_epochs_and_numbers_do_not_open() {
        let session = Session::new(1, 2);
        let mode = SealMode::Aes256Gcm;
        let datagram = sealed(&key(mode, session, 0), mode);
        assert!(key(mode, Session::new(1, 3), 0).open(PacketNumber(5), &mut datagram.clone()).is_err());
        assert!(key(mode, session, 1).open(PacketNumber(5), &mut datagram.clone()).is_err());
        assert!(key(mode, session, 0).open(PacketNumber(6), &mut datagram.clone()).is_err());
    }

    #[test]
    fn secrets_are_not_printed() {
        assert_eq!(format!("{:?}", LinkKey::new([0xab; 32])), "LinkKey(…)");
        assert_eq!(format!("{:?}", key(SealMode::Aes256Gcm, Session::new(1, 1), 0)), "DatagramKey(…)");
    }
}
