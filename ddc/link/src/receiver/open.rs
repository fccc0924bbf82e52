//! The keys of a session at the receiver, and how often keys of unknown sessions are derived.

use std::time::{Duration, Instant};

use ddc_wire::{KeyId, LinkId, PacketNumber, Session};

use crate::keys::{DatagramKey, Direction, KEY_EPOCH_BITS, Keyring, SealMode};

/// Keys of unknown sessions derived per second; more are refused unread. A flood of made-up sessions then costs
/// some ms of a core per second, and a real one is met within a fraction of a second all the same.
pub const DERIVATIONS_PER_SECOND: u32 = 1000;
/// How many derivations may come at once.
pub const DERIVATION_BURST: u32 = 64;

/// What a key is derived from, beside the session.
pub(crate) struct Deriver {
    pub(crate) mode: SealMode,
    pub(crate) link_id: LinkId,
    pub(crate) keyring: Keyring,
}

impl Deriver {
    /// The key for the packets with `packet number >> 28 == epoch`; none when the key id is unknown.
    pub(crate) fn key(&self, key_id: KeyId, session: Session, epoch: u64) -> Option<DatagramKey> {
        let key = self.keyring.get(key_id)?;
        Some(DatagramKey::derive(self.mode, key, Direction::Data, self.link_id, key_id, session, epoch))
    }
}

/// Which key seals this packet.
pub(crate) fn key_epoch(packet: PacketNumber) -> u64 {
    packet.0 >> KEY_EPOCH_BITS
}

/// The keys of an open session: that of its highest authenticated packet, the one before, the one after.
pub(crate) struct SessionKeys {
    epoch: u64,
    before: Option<DatagramKey>,
    current: DatagramKey,
    after: Option<DatagramKey>,
}

impl SessionKeys {
    /// `current` has just opened a packet of this epoch.
    pub(crate) fn new(
        deriver: &Deriver,
        key_id: KeyId,
        session: Session,
        epoch: u64,
        current: DatagramKey,
    ) -> Self {
        let neighbour = |epoch: Option<u64>| epoch.and_then(|epoch| deriver.key(key_id, session, epoch));
        Self {
            epoch,
            before: neighbour(epoch.checked_sub(1)),
            current,
            after: neighbour(epoch.checked_add(1)),
        }
    }

    /// The key of this packet; none when its number is too far from the highest.
    pub(crate) fn get(&self, packet: PacketNumber) -> Option<&DatagramKey> {
        let epoch = key_epoch(packet);
        if epoch == self.epoch {
            Some(&self.current)
        } else if Some(epoch) == self.epoch.checked_add(1) {
            self.after.as_ref()
        } else if epoch.checked_add(1) == Some(self.epoch) {
            self.before.as_ref()
        } else {
            None
        }
    }

    /// A packet was authentic: the keys move on when it is the first of the next epoch.
    pub(crate) fn advance(
        &mut self,
        deriver: &Deriver,
        key_id: KeyId,
        session: Session,
        packet: PacketNumber,
    ) {
        let epoch = key_epoch(packet);
        if epoch > self.epoch
            && let Some(next) = self.after.take()
        {
            self.before = Some(std::mem::replace(&mut self.current, next));
            self.epoch = epoch;
            self.after = epoch.checked_add(1).and_then(|epoch| deriver.key(key_id, session, epoch));
        }
    }
}

/// A token bucket over [`DERIVATIONS_PER_SECOND`] and [`DERIVATION_BURST`].
pub(crate) struct DerivationLimit {
    tokens: u32,
    refilled_at: Instant,
}

impl DerivationLimit {
    pub(crate) fn new(now: Instant) -> Self {
        Self { tokens: DERIVATION_BURST, refilled_at: now }
    }

    /// Whether one more key may be derived now.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let per_token = Duration::from_secs(1) / DERIVATIONS_PER_SECOND;
        let due = now.saturating_duration_since(self.refilled_at).as_nanos() / per_token.as_nanos();
        let room = u128::from(DERIVATION_BURST - self.tokens);
        if due >= room {
            self.tokens = DERIVATION_BURST;
            self.refilled_at = now.max(self.refilled_at);
        } else {
            // Below the burst, so that both fit.
            self.tokens += due as u32;
            self.refilled_at += per_token * due as u32;
        }
        let granted = self.tokens > 0;
        self.tokens -= u32::from(granted);
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::LinkKey;

    #[test]
    fn derivations_are_bounded_by_burst_and_rate() {
        let start = Instant::now();
        let mut limit = DerivationLimit::new(start);
        let granted = |limit: &mut DerivationLimit, at: Instant| (0..1000).filter(|_| limit.take(at)).count();
        assert_eq!(granted(&mut limit, start), DERIVATION_BURST as usize);
        assert_eq!(granted(&mut limit, start + Duration::from_millis(10)), 10);
        assert_eq!(granted(&mut limit, start + Duration::from_secs(100)), DERIVATION_BURST as usize);
        let mut total = 0;
        for micros in 0..100_000u64 {
            total +=
                usize::from(limit.take(start + Duration::from_secs(100) + Duration::from_micros(micros)));
        }
        assert!((99..=100).contains(&total), "{total} in 100 ms");
    }

    #[test]
    fn keys_follow_the_highest_packet() {
        let mut keyring = Keyring::default();
        keyring.insert(KeyId(1), LinkKey::new([1; 32]));
        let deriver = Deriver { mode: SealMode::Aes256Gcm, link_id: LinkId(1), keyring };
        let (id, session) = (KeyId(1), Session::new(1, 1));
        let at = |epoch: u64| PacketNumber(epoch << KEY_EPOCH_BITS);
        let mut keys = SessionKeys::new(&deriver, id, session, 5, deriver.key(id, session, 5).unwrap());
        let known =
            |keys: &SessionKeys| (0..10).filter(|&epoch| keys.get(at(epoch)).is_some()).collect::<Vec<_>>();
        assert_eq!(known(&keys), [4, 5, 6]);
        keys.advance(&deriver, id, session, at(4));
        assert_eq!(known(&keys), [4, 5, 6], "an older packet moves nothing");
        keys.advance(&deriver, id, session, at(6));
        assert_eq!(known(&keys), [5, 6, 7]);
        for epoch in [5, 6, 7] {
            let mut datagram = vec![7; 44 + 20 + 16];
            deriver.key(id, session, epoch).unwrap().seal(at(epoch), &mut datagram);
            assert!(keys.get(at(epoch)).unwrap().open(at(epoch), &mut datagram).is_ok(), "epoch {epoch}");
        }
        let last = u64::MAX >> KEY_EPOCH_BITS;
        let keys = SessionKeys::new(&deriver, id, session, 0, deriver.key(id, session, 0).unwrap());
        assert_eq!((known(&keys), keys.get(at(last)).is_some()), (vec![0, 1], false));
    }
}
