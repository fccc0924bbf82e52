//! Streams of UDP datagrams, checked: `[source.udp]` and `[sink.udp]`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use super::common::Checker;
use super::raw::{LateDatagrams, RawUdpSink, RawUdpSource};
use super::together::same_socket;
use super::units::ByteSize;
use super::values::{Endpoint, StreamName};

/// The most streams of one link: each is a socket that its thread looks at.
const MOST_STREAMS: usize = 16;
/// The most that a UDP datagram holds over IPv4.
pub(crate) const LARGEST_DATAGRAM: u64 = 65_507;

/// One stream of datagrams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Its name; the chunk's topic name on the wire.
    pub name: StreamName,
    /// Where the ingress listens, or where the egress sends.
    pub address: SocketAddr,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.address)
    }
}

/// Sockets that datagrams are read from.
#[derive(Debug, Clone)]
pub struct UdpSource {
    /// By name, 1 to 16, no two on one socket.
    pub streams: Vec<Stream>,
    /// The longest datagram that is carried, 1 to 65507 bytes.
    pub max_datagram: ByteSize,
    /// The socket buffer to ask of the kernel, for each stream.
    pub receive_buffer: ByteSize,
}

/// Addresses that datagrams are sent to.
#[derive(Debug, Clone)]
pub struct UdpSink {
    /// By name, 1 to 16, no two to one address.
    pub streams: Vec<Stream>,
    /// What happens to datagrams that come after their gap was reported.
    pub late: LateDatagrams,
}

impl UdpSource {
    /// What one read of a socket may bring.
    pub(crate) fn read_bytes(&self) -> ByteSize {
        ByteSize(self.max_datagram.0 * ddc_udp::BATCH as u64)
    }
}

pub(crate) fn udp_source(raw: RawUdpSource, target: SocketAddr, checker: &mut Checker<'_>) -> UdpSource {
    let table = ["source", "udp"];
    let streams = streams(raw.streams, table, checker);
    for Stream { name, address } in &streams {
        let path = ["source", "udp", "streams", name.as_str()];
        if leads_to(target, *address) {
            let message = format!(
                "`{name}` in [source.udp] streams: {address} is where [link] `target` leads; the link's datagrams would be carried again and again"
            );
            checker.problem(&path, message);
        } else if !address.ip().is_loopback() {
            checker.notice(
                &path,
                format!("stream {name}: whoever can send to {address} writes into the destination; UDP does not tell who it was"),
            );
        }
    }
    if !(ByteSize(1)..=ByteSize(LARGEST_DATAGRAM)).contains(&raw.max_datagram) {
        let message = format!(
            "`max_datagram` in [source.udp]: {} is out of range; it can be 1B to {LARGEST_DATAGRAM}B",
            raw.max_datagram
        );
        checker.problem(&["source", "udp", "max_datagram"], message);
    }
    if !(ByteSize(64 << 10)..=ByteSize::mib(1024)).contains(&raw.receive_buffer) {
        let message = format!(
            "`receive_buffer` in [source.udp]: {} is out of range; it can be 64KiB to 1GiB",
            raw.receive_buffer
        );
        checker.problem(&["source", "udp", "receive_buffer"], message);
    }
    UdpSource { streams, max_datagram: raw.max_datagram, receive_buffer: raw.receive_buffer }
}

pub(crate) fn udp_sink(raw: RawUdpSink, listen: SocketAddr, checker: &mut Checker<'_>) -> UdpSink {
    let streams = streams(raw.streams, ["sink", "udp"], checker);
    for Stream { name, address } in &streams {
        let path = ["sink", "udp", "streams", name.as_str()];
        if address.ip().is_unspecified() {
            let message = format!(
                "`{name}` in [sink.udp] streams: {address} names no host; for this host \"127.0.0.1:{}\"",
                address.port()
            );
            checker.problem(&path, message);
        } else if leads_to(*address, listen) {
            let message = format!(
                "`{name}` in [sink.udp] streams: {address} is where [link] `listen` takes the link's datagrams; its data would come back in there"
            );
            checker.problem(&path, message);
        }
    }
    UdpSink { streams, late: raw.late }
}

/// Whether what is sent to `target` comes in where `listen` listens, as far as the addresses tell.
fn leads_to(target: SocketAddr, listen: SocketAddr) -> bool {
    let same_host = target.ip() == listen.ip() || (listen.ip().is_unspecified() && target.ip().is_loopback());
    target.port() == listen.port() && target.is_ipv4() == listen.is_ipv4() && same_host
}

/// What both sides ask of names and addresses. Bad streams are reported and left out.
fn streams(raw: BTreeMap<String, Endpoint>, table: [&str; 2], checker: &mut Checker<'_>) -> Vec<Stream> {
    let header = table.join(".");
    let [side, udp] = table;
    if raw.is_empty() {
        let message = format!(
            "`streams` in [{header}]: there is none; for example streams = {{ syslog = \"127.0.0.1:5141\" }}"
        );
        checker.problem(&[side, udp, "streams"], message);
    }
    if raw.len() > MOST_STREAMS {
        let message =
            format!("`streams` in [{header}]: {} streams; a link carries at most {MOST_STREAMS}", raw.len());
        checker.problem(&[side, udp, "streams"], message);
    }
    let mut streams: Vec<Stream> = Vec::new();
    for (name, Endpoint(address)) in raw {
        let path = [side, udp, "streams", &name];
        let stream = name.parse::<StreamName>();
        let stream = stream.map_err(|error| format!("`streams` in [{header}]: {error}"));
        let Some(name) = checker.take(&path, stream) else { continue };
        if address.ip().is_multicast() || address.ip() == std::net::Ipv4Addr::BROADCAST {
            let message = format!(
                "`{name}` in [{header}] streams: {address} is not the address of one host; streams are unicast"
            );
            checker.problem(&path, message);
            continue;
        }
        if let Some(other) = streams.iter().find(|other| same_socket(other.address, address)) {
            let message = format!(
                "`{name}` in [{header}] streams: {address} is taken by the stream {other}; every stream needs its own"
            );
            checker.problem(&path, message);
            continue;
        }
        streams.push(Stream { name, address });
    }
    streams
}
