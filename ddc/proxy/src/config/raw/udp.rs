//! The UDP tables of both sides: streams of datagrams.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::choices;
use crate::config::units::ByteSize;
use crate::config::values::Endpoint;

/// Instead of `[source.kafka]`: UDP datagrams, each carried as it is. Whoever can send to one of the addresses writes into
/// the destination; UDP does not tell who it was. A sender cannot be held back: what comes faster than `rate` fills
/// `[link] buffer`, and then datagrams are dropped and counted (`ddc_ingress_source_drops_total`). So a small `buffer` keeps
/// what arrives fresh.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct RawUdpSource {
    /// The streams, 1 to 16: name = address and port to listen on. A name has 1 to 63 of `a-z`, `0-9` and `-`; the egress's
    /// `[sink.udp]` has the same names. Over `[sink.kafka]` a stream is a topic of this name with one partition.
    #[schemars(example = serde_json::json!({ "statsd": "127.0.0.1:8126", "syslog": "127.0.0.1:5141" }))]
    pub(crate) streams: BTreeMap<String, Endpoint>,
    /// The longest datagram that is carried, 1 to 65507 bytes; longer ones are dropped and counted, never cut. Empty ones are
    /// carried.
    #[serde(default = "default_max_datagram")]
    pub(crate) max_datagram: ByteSize,
    /// How large a socket buffer is asked of the kernel, for each stream: it takes what comes while the ingress is busy. The
    /// kernel's limit is raised with `sysctl net.core.rmem_max`.
    #[serde(default = "default_receive_buffer")]
    pub(crate) receive_buffer: ByteSize,
}

fn default_max_datagram() -> ByteSize {
    ByteSize(8 << 10)
}

fn default_receive_buffer() -> ByteSize {
    ByteSize::mib(4)
}

/// Instead of `[sink.kafka]`: every record is sent as one UDP datagram. UDP has no acknowledgement: a datagram counts as
/// delivered once the kernel has taken it and no refusal came back at once. What cannot be sent is tried again for a moment, then
/// dropped, counted and reported; a target that is away never holds up the others or the link.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct RawUdpSink {
    /// The streams, 1 to 16: name = address and port to send to. The names are those of the ingress's `[source.udp]`;
    /// datagrams of a stream that is not named here are dropped, counted and reported.
    #[schemars(example = serde_json::json!({ "statsd": "127.0.0.1:8127", "syslog": "127.0.0.1:5142" }))]
    pub(crate) streams: BTreeMap<String, Endpoint>,
    /// What happens to a datagram that arrives after the gap it belongs to was reported.
    #[serde(default = "default_late")]
    pub(crate) late: LateDatagrams,
}

fn default_late() -> LateDatagrams {
    LateDatagrams::Pass
}

choices! {
    /// What happens to a datagram that arrives after the gap it belongs to was reported.
    LateDatagrams {
        /// It is sent, behind those that overtook it.
        Pass = "pass",
        /// It is dropped and counted.
        Drop = "drop",
    }
}
