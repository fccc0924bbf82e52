//! What both ends do to a socket before it is used: IP version, interface, and the options a one-way link rests on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use crate::OpenError;

/// An error that names the socket option.
pub(crate) fn option(option: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |cause| OpenError::Option { option, cause }
}

/// A non-blocking UDP socket of the address's IP version.
pub(crate) fn new_socket(address: SocketAddr) -> Result<Socket, OpenError> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))
        .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
        .map_err(|cause| OpenError::Socket { cause })?;
    if address.is_ipv6() {
        // One IP version per link: the payload that fits the MTU depends on it.
        socket.set_only_v6(true).map_err(option("IPV6_V6ONLY"))?;
    }
    Ok(socket)
}

/// Ties the socket to one interface, for both directions; returns the interface's index.
pub(crate) fn bind_interface(socket: &Socket, name: &str) -> Result<u32, OpenError> {
    let failed = |cause: io::Error| OpenError::Interface { name: name.to_owned(), cause };
    let index = rustix::net::netdevice::name_to_index(socket, name).map_err(|e| failed(e.into()))?;
    socket.bind_device(Some(name.as_bytes())).map_err(failed)?;
    Ok(index)
}

/// An IPv6 link-local or multicast address means something on one interface only.
pub(crate) fn with_scope(address: SocketAddr, index: Option<u32>) -> SocketAddr {
    match (address, index) {
        (SocketAddr::V6(v6), Some(index))
            if v6.scope_id() == 0 && (v6.ip().is_unicast_link_local() || v6.ip().is_multicast()) =>
        {
            SocketAddrV6::new(*v6.ip(), v6.port(), v6.flowinfo(), index).into()
        }
        _ => address,
    }
}

/// The address the socket got.
pub(crate) fn local_address(socket: &Socket) -> Result<SocketAddr, OpenError> {
    socket
        .local_addr()
        .and_then(|address| {
            address.as_socket().ok_or_else(|| io::Error::other("the socket has no IP address"))
        })
        .map_err(|cause| OpenError::Socket { cause })
}

/// Sets DF and has datagrams above the interface's MTU refused (EMSGSIZE), never split.
///
/// PROBE, not DO. Both set DF and never fragment here. But DO also believes ICMP "fragmentation needed" about the path's
/// MTU. Across a diode no honest one ever comes back, and a single forged one would make every datagram too large for
/// ten minutes. PROBE goes by the interface's own MTU and is deaf to the rest, to `ip route … mtu` too: what the path
/// beyond the interface carries is the operator's to know, and stands in the configuration as `mtu`.
pub(crate) fn never_fragment(socket: &Socket, ipv6: bool) -> Result<(), OpenError> {
    if ipv6 {
        sockopt::set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::PROBE)
            .map_err(|e| option("IPV6_MTU_DISCOVER")(e.into()))
    } else {
        sockopt::set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::PROBE)
            .map_err(|e| option("IP_MTU_DISCOVER")(e.into()))
    }
}

/// A socket filter that accepts nothing: the sender has no use for a datagram, so none may take memory or time.
/// ICMP messages pass by another way and are handled in `SenderSocket::send`.
pub(crate) fn throw_away_replies(socket: &Socket) -> Result<(), OpenError> {
    // Classic BPF: "ret 0", keep no byte of the packet.
    const RETURN: u16 = 0x06;
    socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)]).map_err(option("SO_ATTACH_FILTER"))
}

/// What multicast and broadcast targets need.
pub(crate) fn reach_out(
    socket: &Socket,
    target: SocketAddr,
    index: Option<u32>,
    hops: u32,
) -> Result<(), OpenError> {
    match target.ip() {
        IpAddr::V4(address) if address.is_multicast() => {
            socket.set_multicast_ttl_v4(hops).map_err(option("IP_MULTICAST_TTL"))?;
            if let Some(index) = index {
                sockopt::set_ip_multicast_if_with_ifindex(
                    socket,
                    &Ipv4Addr::UNSPECIFIED,
                    &Ipv4Addr::UNSPECIFIED,
                    index,
                )
                .map_err(|e| option("IP_MULTICAST_IF")(e.into()))?;
            }
        }
        // Whether an address is a subnet's broadcast address only the routes know, and the kernel refuses to connect
        // to one without this. The socket is connected to the configured target, so nothing else can be meant.
        IpAddr::V4(_) => socket.set_broadcast(true).map_err(option("SO_BROADCAST"))?,
        IpAddr::V6(address) if address.is_multicast() => {
            socket.set_multicast_hops_v6(hops).map_err(option("IPV6_MULTICAST_HOPS"))?;
            if let Some(index) = index {
                socket.set_multicast_if_v6(index).map_err(option("IPV6_MULTICAST_IF"))?;
            }
        }
        IpAddr::V6(_) => {}
    }
    Ok(())
}

/// A time to wait, for poll.
pub(crate) fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs().min(i64::MAX as u64) as i64, tv_nsec: time.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_one_segment_get_the_interface() {
        let scope = |address: &str| match with_scope(address.parse().unwrap(), Some(7)) {
            SocketAddr::V6(v6) => v6.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        assert_eq!(scope("[fe80::1]:9"), 7);
        assert_eq!(scope("[ff02::1]:9"), 7);
        assert_eq!(scope("[fe80::1%3]:9"), 3, "what is written stands");
        assert_eq!(scope("[2001:db8::1]:9"), 0);
        assert_eq!(scope("198.18.0.1:9"), 0);
    }
}
