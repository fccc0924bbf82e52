//! The tables of an egress: a link that receives and a sink.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    RawAdmin, RawDeadLetters, RawKafkaClient, RawKafkaSink, RawLinkCommon, RawLog, RawSpool, RawTelemetry,
    RawUdpSink,
};
use crate::config::units::{ByteSize, Span};
use crate::config::values::{Address, Endpoint, TopicName};

/// The destination side of one link: receives datagrams and writes to a Kafka cluster, or sends UDP datagrams on;
/// it never sends anything back over the link. Run it
/// with `ddc egress -c FILE`, look at it first with `ddc check -c FILE`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct RawEgress {
    pub(crate) link: RawEgressLink,
    #[serde(default)]
    pub(crate) sink: RawSink,
    #[serde(default)]
    pub(crate) spool: RawSpool,
    pub(crate) missing_records: Option<RawMissingRecords>,
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
pub(crate) struct RawEgressLink {
    #[serde(flatten)]
    pub(crate) common: RawLinkCommon,
    /// The address and port on which datagrams arrive; `0.0.0.0` or `[::]` for all addresses. By custom the port is
    /// 7400 + link id.
    #[schemars(example = "0.0.0.0:7401")]
    pub(crate) listen: Endpoint,
    /// The multicast group to join, when the ingress sends to one.
    pub(crate) multicast_group: Option<Address>,
    #[serde(default)]
    pub(crate) receive: RawReceive,
}

/// How datagrams become records again.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(crate) struct RawReceive {
    /// How long a late datagram is waited for before its block is given up.
    pub(crate) reorder_timeout: Span,
    /// The memory for blocks that are not complete yet.
    pub(crate) window: ByteSize,
    /// The largest record (key, value and headers) that is taken. Not smaller than the ingress's.
    pub(crate) max_record_bytes: ByteSize,
}

impl Default for RawReceive {
    fn default() -> Self {
        Self {
            reorder_timeout: Span(Duration::from_millis(50)),
            window: ByteSize::mib(32),
            max_record_bytes: ByteSize::mib(16),
        }
    }
}

/// Where records go: one of `[sink.kafka]` and `[sink.udp]`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(crate) struct RawSink {
    /// How much may be held in memory between the link and the destination while the destination is slow or away. With a spool (see
    /// `[spool]`) the rest lies on disk. Without one, records are dropped when it is full, counted and reported by topic, partition and offset.
    pub(crate) buffer: ByteSize,
    pub(crate) kafka: Option<RawKafkaSink>,
    pub(crate) udp: Option<RawUdpSink>,
}

impl Default for RawSink {
    fn default() -> Self {
        Self { buffer: ByteSize::mib(64), kafka: None, udp: None }
    }
}

/// A topic that gets a record for each change of a gap: found, closed, given up; as JSON (docs/missing-records.schema.json),
/// with the gap's id as key. It may lie in another cluster than the one of `[sink.kafka]`. When it cannot be written, no record
/// of the link waits for that: it is written later, also after a restart. The topic must be there.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct RawMissingRecords {
    #[serde(flatten)]
    pub(crate) client: RawKafkaClient,
    /// The topic.
    #[schemars(example = "ddc-missing-records")]
    pub(crate) topic: TopicName,
}
