//! What the receiver counts, and why it refuses a datagram.

use std::fmt;

macro_rules! rejects {
    ($($(#[doc = $doc:literal])+ $Name:ident = $text:literal,)+) => {
        /// Why a datagram was not used. Nothing of it was delivered and the stream goes on.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reject {
            $($(#[doc = $doc])+ $Name,)+
        }

        impl Reject {
            /// Every reason, in the order of [`Counters::rejected`].
            pub const ALL: &'static [Self] = &[$(Self::$Name),+];

            /// The reason's name in metrics and logs.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$Name => $text),+ }
            }
        }
    };
}

rejects! {
    /// Shorter than a header and its trailer; empty ones too.
    Short = "short",
    /// Longer than any datagram of this version can be.
    Long = "long",
    /// Does not begin with our magic: not our traffic.
    Magic = "magic",
    /// Another version of the wire format.
    Version = "version",
    /// A kind that this version does not know.
    Kind = "kind",
    /// A kind that is reserved and not served yet (probe, status).
    Reserved = "reserved",
    /// Another link's id.
    Link = "link",
    /// A key id that is not in the keyring.
    Key = "key",
    /// A session not newer than the newest one retired: an old recording, or a source clock set back.
    SessionRetired = "session_retired",
    /// A session more than a day ahead of this host's clock.
    SessionFuture = "session_future",
    /// More unknown sessions at once than keys are derived for.
    SessionRate = "session_rate",
    /// A packet number so far from the session's highest that no key is held for it.
    PacketNumber = "packet_number",
    /// The seal is wrong: damaged on the way, or not made with our key.
    Seal = "seal",
    /// A packet that was seen already, lies behind the replay window, or is of a block that an
    /// earlier life of this receiver released.
    Replay = "replay",
    /// Sealed rightly, but its header describes an impossible block or disagrees with its block.
    Header = "header",
    /// Sealed rightly, but what it carries cannot be read (a heartbeat, a goodbye).
    Payload = "payload",
    /// A symbol of a block before the one at which this receiver joined the session.
    BlockOld = "block_old",
    /// A symbol that its block holds already, under another packet number.
    Duplicate = "duplicate",
    /// The window is full of blocks that wait to be polled; nothing can be given up for this one.
    WindowFull = "window_full",
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Totals since the receiver was made.
///
/// Every datagram ends either in `packets` or in `rejected` or, when it was authentic but of no
/// use, in both. Lost on the path are `packets_lost − packets_late`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counters {
    /// Authentic datagrams, each counted once.
    pub packets: u64,
    /// Their bytes, UDP payload only.
    pub bytes: u64,
    /// Packet numbers given up as lost on the path.
    pub packets_lost: u64,
    /// Packets that came after they had been counted as lost.
    pub packets_late: u64,
    /// Refused datagrams by reason, in the order of [`Reject::ALL`].
    pub rejected: [u64; Reject::ALL.len()],
    /// Blocks of which at least one symbol came in time.
    pub blocks_received: u64,
    /// Blocks completed with repair symbols.
    pub blocks_repaired: u64,
    /// Blocks given up with some symbols, but too few.
    pub blocks_unrepairable: u64,
    /// Blocks given up without one symbol.
    pub blocks_lost: u64,
    /// Blocks completed after they had been given up; discarded.
    pub blocks_late: u64,
    /// Blocks that came whole and whose prelude could not be used; discarded.
    pub blocks_refused: u64,
    /// Source symbols computed from repair symbols.
    pub symbols_repaired: u64,
    /// Symbols for blocks that were complete or released already: no fault, the usual end of a repair symbol.
    pub symbols_spare: u64,
    /// Symbols for blocks that had been given up.
    pub symbols_late: u64,
    /// Blocks that came and were discarded because another block of their batch was given up.
    pub fragments_discarded: u64,
    /// Batches released.
    pub batches: u64,
    /// Heartbeats read.
    pub heartbeats: u64,
    /// Goodbyes read, repetitions included.
    pub goodbyes: u64,
    /// Sessions opened, those continued after a restart included.
    pub sessions_opened: u64,
    /// Sessions retired.
    pub sessions_retired: u64,
    /// Times two sessions were found sending side by side.
    pub two_senders: u64,
    /// Facts of little weight that were dropped because nobody polled.
    pub events_dropped: u64,
}

impl Counters {
    /// How many datagrams were refused for this reason.
    pub fn rejected(&self, reason: Reject) -> u64 {
        self.rejected[reason as usize]
    }

    pub(crate) fn reject(&mut self, reason: Reject) {
        self.rejected[reason as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_has_its_own_name_and_place() {
        let names: BTreeSet<_> = Reject::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), Reject::ALL.len());
        for (index, reason) in Reject::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            let mut counters = Counters::default();
            counters.reject(*reason);
            assert_eq!(counters.rejected(*reason), 1);
            assert_eq!(counters.rejected.iter().sum::<u64>(), 1);
        }
    }
}
