//! Names and numbers of the protocol as types of their own, so that they cannot be mixed up.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

number! {
    /// The number of a link, equal on both sides.
    LinkId(u16)
}
number! {
    /// Which key of the link's keyring sealed a datagram.
    KeyId(u8)
}
number! {
    /// Counts the datagrams of a session from 0; part of the nonce, so never used twice.
    PacketNumber(u64)
}
number! {
    /// Counts the blocks of a session from 0.
    BlockNumber(u64)
}
number! {
    /// Who owns a partition now: rises with every assignment (max(old + 1, now in µs)).
    Epoch(u64)
}

/// One run of a sender: its start in µs since 1970, then 32 random bits.
///
/// Ordered by time: a later session is greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Session(pub [u8; 12]);

impl Session {
    /// A session that began at `start_micros` (µs since 1970).
    pub fn new(start_micros: u64, random: u32) -> Self {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&start_micros.to_be_bytes());
        bytes[8..].copy_from_slice(&random.to_be_bytes());
        Self(bytes)
    }

    /// The sender's clock when the session began, in µs since 1970.
    pub fn start_micros(self) -> u64 {
        self.0[..8].iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl FromStr for Session {
    type Err = NotAnId;

    /// Reads what [`Display`](fmt::Display) writes, and nothing else.
    fn from_str(text: &str) -> Result<Self, NotAnId> {
        hex(text).map(Self).ok_or(NotAnId)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({self})")
    }
}

/// One life of a topic: Kafka's UUID, or a configured epoch where the broker has no ids.
///
/// A re-created topic has another id, so its offsets are not confused with those of its namesake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TopicId {
    /// The topic's UUID as Kafka knows it.
    Uuid([u8; 16]),
    /// `topic_epoch` of the source's configuration; the broker has no topic ids.
    Configured(u64),
}

impl Default for TopicId {
    fn default() -> Self {
        Self::Configured(0)
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Self::Configured(epoch) => write!(f, "epoch-{epoch}"),
        }
    }
}

impl FromStr for TopicId {
    type Err = NotAnId;

    /// Reads what [`Display`](fmt::Display) writes, and nothing else: an id has one spelling.
    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let id = match text.strip_prefix("epoch-") {
            Some(epoch) => Self::Configured(epoch.parse().map_err(|_| NotAnId)?),
            None => return hex(text).map(Self::Uuid).ok_or(NotAnId),
        };
        // `parse` also takes a plus sign and leading zeros.
        if id.to_string() == text { Ok(id) } else { Err(NotAnId) }
    }
}

/// A text that is no session or no topic id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("neither lower-case hexadecimal digits of the right number nor epoch-N")]
pub struct NotAnId;

/// The bytes of exactly `2·N` lower-case hexadecimal digits.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N || digits.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = (digit(0)? << 4 | digit(1)?) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_have_one_spelling(uuid: [u8; 16], number: u64, session: [u8; 12], text in "(epoch-)?[0-9a-fA-F+]{0,33}") {
            for id in [TopicId::Uuid(uuid), TopicId::Configured(number)] {
                prop_assert_eq!(id.to_string().parse(), Ok(id));
            }
            prop_assert_eq!(Session(session).to_string().parse(), Ok(Session(session)));
            if let Ok(id) = text.parse::<TopicId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn texts_that_are_no_ids() {
        for text in
            ["", "epoch-", "epoch-01", "epoch-+1", "epoch--1", "Epoch-1", "00", "epoch-18446744073709551616"]
        {
            assert_eq!(text.parse::<TopicId>(), Err(NotAnId), "{text:?}");
        }
        for text in ["0A".repeat(16), "0g".repeat(16), "0".repeat(33), "é".repeat(16), "0a".repeat(12)] {
            assert_eq!(text.parse::<TopicId>(), Err(NotAnId), "{text:?}");
        }
        assert!("0a".repeat(12).parse::<Session>().is_ok());
        assert_eq!("0A".repeat(12).parse::<Session>(), Err(NotAnId));
    }

    #[test]
    fn sessions_are_ordered_by_their_start() {
        let early = Session::new(5, u32::MAX);
        let late = Session::new(6, 0);
        assert!(early < late);
        assert_eq!(late.start_micros(), 6);
        assert_eq!(Session::new(0x0102_0304_0506_0708, 9).to_string(), "010203040506070800000009");
    }
}
