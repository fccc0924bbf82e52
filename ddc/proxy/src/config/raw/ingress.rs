//! The tables of an ingress: a source and a link that sends.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    RawAdmin, RawDeadLetters, RawKafkaSource, RawLinkCommon, RawLog, RawTelemetry, RawUdpSource, choices,
};
use crate::config::units::{ByteSize, Rate, Span};
use crate::config::values::{Address, Endpoint, FecCode};

/// The source side of one link: reads a Kafka cluster, or UDP datagrams, and sends datagrams one way. Run it with `ddc ingress -c FILE`,
/// look at it first with `ddc check -c FILE`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct RawIngress {
    pub(crate) link: RawIngressLink,
    #[serde(default)]
    pub(crate) source: RawSource,
    pub(crate) dead_letters: Option<RawDeadLetters>,
    #[serde(default)]
    pub(crate) admin: RawAdmin,
    #[serde(default)]
    pub(crate) log: RawLog,
    #[serde(default)]
    pub(crate) telemetry: RawTelemetry,
}

/// The one-way path and what protects it.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct RawIngressLink {
    #[serde(flatten)]
    pub(crate) common: RawLinkCommon,
    /// Where datagrams are sent: the egress's address and port, or a multicast or broadcast address. By custom the port
    /// is 7400 + link id.
    #[schemars(example = "198.18.0.2:7401")]
    pub(crate) target: Endpoint,
    /// The local address to send from. Without it the kernel chooses.
    pub(crate) source_address: Option<Address>,
    /// The most that is sent, in bits per second on the wire, Ethernet framing included; or `unlimited`. Stay below what
    /// the diode carries: what it drops is lost.
    #[serde(default = "default_rate")]
    pub(crate) rate: Rate,
    /// The rate as the delay in milliseconds between two datagrams of 65,507 bytes, for configurations written for that
    /// scheme; decimals are taken. It is translated into `rate`; only one of the two may be written.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub(crate) send_delay_ms: Option<f64>,
    /// The longest burst, as time on the wire at `rate`; a single datagram is always allowed.
    #[serde(default = "default_burst")]
    pub(crate) burst: Span,
    /// How many packed bytes may wait for the link. When it is full, reading from Kafka pauses and nothing is dropped; UDP
    /// datagrams, whose senders do not wait, are dropped and counted.
    #[serde(default = "default_buffer")]
    pub(crate) buffer: ByteSize,
    /// The id of the key that seals what is sent. Needed when there is more than one key.
    pub(crate) active_key: Option<u8>,
    #[serde(default)]
    pub(crate) fec: RawFec,
    #[serde(default)]
    pub(crate) pack: RawPack,
}

pub(crate) fn default_rate() -> Rate {
    // Cannot be None: the number is not zero.
    crate::config::units::BitRate::new(800_000_000).map_or(Rate::Unlimited, Rate::Limited)
}

fn default_burst() -> Span {
    Span(Duration::from_micros(250))
}

fn default_buffer() -> ByteSize {
    ByteSize::mib(64)
}

/// Forward error correction: repair symbols that replace lost datagrams.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(crate) struct RawFec {
    /// Source symbols + repair symbols of a full block: any so many lost datagrams of a block are repaired. Good values:
    /// `64+8`, `32+4` (lower latency), `64+16` (lossy paths), `128+16` (least overhead).
    pub(crate) code: FecCode,
    /// Over how many blocks neighbouring datagrams are spread, so that a burst of losses hits each only a little.
    #[schemars(range(min = 1, max = 64))]
    pub(crate) interleave: u8,
    /// An interleaved group of blocks is sent after this time even when it is not complete.
    pub(crate) interleave_span: Span,
}

impl Default for RawFec {
    fn default() -> Self {
        Self {
            code: FecCode { source: 64, repair: 8 },
            interleave: 1,
            interleave_span: Span(Duration::from_millis(20)),
        }
    }
}

/// How records are put together into blocks.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(crate) struct RawPack {
    /// How long a record may wait for others that share its block. `0` sends at once.
    pub(crate) linger: Span,
    /// How a block is compressed; a block that would grow is sent plain.
    pub(crate) compression: Compression,
    /// The level of `zstd`: higher is smaller and slower.
    #[schemars(range(min = 1, max = 19))]
    pub(crate) level: i32,
    /// The largest record (key, value and headers) that is carried. The egress's must not be smaller.
    pub(crate) max_record_bytes: ByteSize,
}

impl Default for RawPack {
    fn default() -> Self {
        Self {
            linger: Span(Duration::from_millis(5)),
            compression: Compression::Zstd,
            level: 1,
            max_record_bytes: ByteSize::mib(16),
        }
    }
}

choices! {
    /// How a block is compressed.
    Compression {
        /// Small.
        Zstd = "zstd",
        /// Fast.
        Lz4 = "lz4",
        /// Not at all.
        None = "none",
    }
}

/// Where records come from: one of `[source.kafka]` and `[source.udp]`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(crate) struct RawSource {
    pub(crate) kafka: Option<RawKafkaSource>,
    pub(crate) udp: Option<RawUdpSource>,
}
