//! What can go wrong when a socket is opened or a datagram sent; each message says what to do.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::io::Errno;

use crate::sender::SEND_WAIT;

/// A socket could not be opened as configured.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The process or system may not have another socket.
    #[error("cannot create a UDP socket: {cause}")]
    Socket {
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The named interface does not exist or may not be used.
    #[error("cannot use interface {name}: {cause}; list the interfaces with: ip link")]
    Interface {
        /// As configured.
        name: String,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// A socket option that the link depends on was refused.
    #[error("the kernel refused socket option {option}: {cause}")]
    Option {
        /// The option's name in socket(7), ip(7) or ipv6(7).
        option: &'static str,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The local address is taken, or is not an address of this host.
    #[error(
        "cannot bind {address}: {cause}; the address must belong to this host and the port be free \
         (ip address; ss -lunp)"
    )]
    Bind {
        /// As configured.
        address: SocketAddr,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// There is no way to the target.
    #[error("cannot send to {target}: {cause}; check the route with: ip route get {}", .target.ip())]
    Connect {
        /// As configured.
        target: SocketAddr,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The multicast group could not be joined.
    #[error("cannot join multicast group {group}: {cause}; name the interface that the diode feeds")]
    Join {
        /// As configured.
        group: IpAddr,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The target has no port.
    #[error("target {target} has port 0; write the port that the egress listens on")]
    NoPort {
        /// As configured.
        target: SocketAddr,
    },
    /// IPv4 and IPv6 mixed in one socket.
    #[error("{first} and {second} are of different IP versions; use IPv4 or IPv6 for both")]
    MixedVersions {
        /// One address.
        first: IpAddr,
        /// The other.
        second: IpAddr,
    },
    /// A group that is no group.
    #[error("{group} is no multicast address; use one of 224.0.0.0/4 or ff00::/8, or leave the group out")]
    NotMulticast {
        /// As configured.
        group: IpAddr,
    },
    /// Listening on one group while joining another: nothing would ever arrive.
    #[error("listen address {listen} is another multicast group than {group}; write one of them only")]
    TwoGroups {
        /// The listen address.
        listen: IpAddr,
        /// The group.
        group: IpAddr,
    },
}

impl OpenError {
    /// Whether waiting may help: an interface that is not up yet, an address not yet assigned.
    pub fn is_temporary(&self) -> bool {
        match self {
            OpenError::Interface { cause, .. }
            | OpenError::Bind { cause, .. }
            | OpenError::Connect { cause, .. }
            | OpenError::Join { cause, .. } => matches!(
                Errno::from_io_error(cause),
                Some(
                    Errno::NETUNREACH
                        | Errno::HOSTUNREACH
                        | Errno::NETDOWN
                        | Errno::ADDRNOTAVAIL
                        | Errno::NODEV
                        | Errno::NXIO
                )
            ),
            _ => false,
        }
    }
}

/// A datagram could not be handed to the kernel.
///
/// The first datagram not reported as sent is the one it speaks of; nothing behind it was sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The kernel or the interface took nothing for [`SEND_WAIT`]: the network is slower than the rate. Try again.
    #[error("the network took nothing for {} ms; is the rate above what the interface carries?", SEND_WAIT.as_millis())]
    Busy,
    /// Interface down, address gone or no route. Try again later; after a change of this host's address the socket
    /// must be opened again, since a connected socket keeps its source address.
    #[error("no way to {target}: {cause}; check with: ip link; ip route get {}", .target.ip())]
    Unreachable {
        /// Where the socket sends.
        target: SocketAddr,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// A packet filter on this host refuses the datagrams. Try again: filters are changed at run time.
    #[error("a packet filter of this host refuses datagrams to {target}: {cause}; see: nft list ruleset")]
    Filtered {
        /// Where the socket sends.
        target: SocketAddr,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The datagram does not fit the interface's MTU and is never fragmented. Sending it again is in vain.
    #[error(
        "a datagram of {bytes} bytes does not fit MTU {mtu} on the way to {target}, which carries {room}; \
         lower the link's mtu or raise the interface's"
    )]
    TooLarge {
        /// Payload bytes of the datagram.
        bytes: usize,
        /// Bytes of an IP packet on the way to the target, as the kernel knows it; 0 when it would not say.
        mtu: usize,
        /// Payload bytes of the largest datagram that fits.
        room: usize,
        /// Where the socket sends.
        target: SocketAddr,
    },
    /// Anything else.
    #[error("cannot send to {target}: {cause}")]
    Io {
        /// Where the socket sends.
        target: SocketAddr,
        /// The kernel's answer.
        cause: io::Error,
    },
}

impl SendError {
    /// Whether the same datagram may be sent later without anything being changed in the configuration.
    pub fn is_temporary(&self) -> bool {
        matches!(self, SendError::Busy | SendError::Unreachable { .. } | SendError::Filtered { .. })
    }
}
