//! Names and numbers of the protocol as types of their own, so that they cannot be mixed up.

use std::fmt;
use std::str::FromStr;

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

/// A text that is not the written form of a session or a topic's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A session is 24 hexadecimal digits, as [`Session`]'s `Display` writes them.
    #[error("a session is 24 hexadecimal digits, in lower case")]
    Session,
    /// A topic's id is written as [`TopicId`]'s `Display` does.
    #[error("a topic's id is 32 hexadecimal digits, in lower case, or epoch-N")]
    TopicId,
}

impl FromStr for Session {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        hex(text).map(Self).ok_or(IdError::Session)
    }
}

impl FromStr for TopicId {
    type Err = IdError;

    /// Only what `Display` writes: one id has one text.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let id = match text.strip_prefix("epoch-") {
            Some(epoch) => epoch.parse().ok().map(Self::Configured),
            None => hex(text).map(Self::Uuid),
        };
        id.filter(|id| id.to_string() == text).ok_or(IdError::TopicId)
    }
}

/// The bytes of exactly `2·N` hexadecimal digits in lower case.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_ids_are_read_and_nothing_else() {
        for id in [TopicId::Uuid([0xA7; 16]), TopicId::Configured(0), TopicId::Configured(u64::MAX)] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        let session = Session::new(0x0102_0304_0506_0708, 0xABCD);
        assert_eq!(session.to_string().parse(), Ok(session));
        let long = "a7".repeat(16);
        for wrong in ["", "epoch-", "epoch-+1", "epoch-01", "epoch--1", "epoch-18446744073709551616"]
            .into_iter()
            .map(str::to_owned)
            .chain([
                long[1..].to_owned(),
                format!("{long}a"),
                long.to_uppercase(),
                format!("é{}", &long[2..]),
            ])
        {
            assert_eq!(wrong.parse::<TopicId>(), Err(IdError::TopicId), "{wrong}");
            assert_eq!(wrong.parse::<Session>(), Err(IdError::Session), "{wrong}");
        }
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
