//! What the sender says of itself: the heartbeat, every second, and the goodbye.

use crate::ids::PacketNumber;
use crate::varint::{Malformed, Reader};

/// What the ingress's source is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum SourceState {
    /// Not connected or not assigned yet.
    #[default]
    Starting = 0,
    /// Reading.
    Running = 1,
    /// Paused because what waits for the link has reached its bound.
    Full = 2,
    /// Paused by an operator or the health checker.
    Paused = 3,
    /// The source cannot be reached.
    Unreachable = 4,
    /// Stopping: sending what is packed.
    Draining = 5,
}

impl SourceState {
    /// The state's name in logs, metrics and `/status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Full => "full",
            Self::Paused => "paused",
            Self::Unreachable => "unreachable",
            Self::Draining => "draining",
        }
    }

    /// The state with this number, if there is one.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Starting, Self::Running, Self::Full, Self::Paused, Self::Unreachable, Self::Draining]
            .into_iter()
            .find(|state| *state as u8 == byte)
    }
}

/// The payload of a heartbeat. Totals count from the start of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heartbeat {
    /// The sender's wall clock in µs since 1970.
    pub wall_clock_micros: u64,
    /// µs since the session began, by the sender's monotonic clock.
    pub uptime_micros: u64,
    /// Datagrams sent before this one.
    pub packets: u64,
    /// Blocks of which all symbols have been sent.
    pub blocks: u64,
    /// Records in those blocks.
    pub records: u64,
    /// Bytes of the datagrams sent, UDP payload only.
    pub bytes: u64,
    /// Records at the source that have not been sent; `None` when unknown.
    pub lag: Option<u64>,
    /// The rate to which the sender paces in bits per second on the wire; 0 is unlimited.
    pub rate_bits: u64,
    /// How long the sender may keep a group of interleaved blocks open, in µs.
    pub interleave_span_micros: u32,
    /// The source's state.
    pub source_state: SourceState,
}

impl Heartbeat {
    /// Bytes of the payload in this version.
    pub const LEN: usize = 8 * 8 + 4 + 1;
    const UNKNOWN_LAG: u64 = u64::MAX;

    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for number in [
            self.wall_clock_micros,
            self.uptime_micros,
            self.packets,
            self.blocks,
            self.records,
            self.bytes,
            self.lag.unwrap_or(Self::UNKNOWN_LAG),
            self.rate_bits,
        ] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.interleave_span_micros.to_be_bytes());
        out.push(self.source_state as u8);
    }

    /// Reads the payload. DDC-W-031: bytes behind the known fields are left for later versions.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload, "heartbeat");
        let heartbeat = Self {
            wall_clock_micros: reader.u64()?,
            uptime_micros: reader.u64()?,
            packets: reader.u64()?,
            blocks: reader.u64()?,
            records: reader.u64()?,
            bytes: reader.u64()?,
            lag: Some(reader.u64()?).filter(|&lag| lag != Self::UNKNOWN_LAG),
            rate_bits: reader.u64()?,
            interleave_span_micros: reader.u32()?,
            source_state: SourceState::default(),
        };
        let state = reader.u8()?;
        let Some(source_state) = SourceState::from_byte(state) else {
            return reader.fail("has an unknown source state");
        };
        Ok(Self { source_state, ..heartbeat })
    }
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum GoodbyeReason {
    /// The sender stops as planned.
    Stop = 0,
    /// The sender goes on in a new session.
    NewSession = 1,
}

/// The payload of a goodbye. It is sent several times; each names the same last packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goodbye {
    /// The number of the session's last datagram, the last goodbye included.
    pub last_packet: PacketNumber,
    /// Why the session ends.
    pub reason: GoodbyeReason,
}

impl Goodbye {
    /// Bytes of the payload in this version.
    pub const LEN: usize = 9;

    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.last_packet.0.to_be_bytes());
        out.push(self.reason as u8);
    }

    /// Reads the payload; bytes behind the known fields are left for later versions.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload, "goodbye");
        let last_packet = PacketNumber(reader.u64()?);
        let reason = match reader.u8()? {
            0 => GoodbyeReason::Stop,
            1 => GoodbyeReason::NewSession,
            _ => return reader.fail("has an unknown reason"),
        };
        Ok(Self { last_packet, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeat_round_trip_and_truncation() {
        let heartbeat = Heartbeat {
            wall_clock_micros: 1,
            uptime_micros: 2,
            packets: 3,
            blocks: 4,
            records: 5,
            bytes: 6,
            lag: None,
            rate_bits: 8,
            interleave_span_micros: 9,
            source_state: SourceState::Full,
        };
        let mut bytes = Vec::new();
        heartbeat.encode(&mut bytes);
        assert_eq!(bytes.len(), Heartbeat::LEN);
        assert_eq!(Heartbeat::decode(&bytes), Ok(heartbeat));
        for len in 0..bytes.len() {
            assert!(Heartbeat::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
        bytes.push(77);
        assert_eq!(Heartbeat::decode(&bytes), Ok(heartbeat), "DDC-W-031");
        bytes[Heartbeat::LEN - 1] = 6;
        assert!(Heartbeat::decode(&bytes).is_err(), "unknown state");
    }

    #[test]
    fn goodbye_round_trip_and_truncation() {
        let goodbye = Goodbye { last_packet: PacketNumber(7), reason: GoodbyeReason::NewSession };
        let mut bytes = Vec::new();
        goodbye.encode(&mut bytes);
        assert_eq!(bytes.len(), Goodbye::LEN);
        assert_eq!(Goodbye::decode(&bytes), Ok(goodbye));
        for len in 0..bytes.len() {
            assert!(Goodbye::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
        bytes[8] = 2;
        assert!(Goodbye::decode(&bytes).is_err());
    }
}
