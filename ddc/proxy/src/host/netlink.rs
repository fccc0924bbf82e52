//! Questions to the kernel about interfaces, addresses, routes and neighbours (rtnetlink(7)).
//!
//! Only asks, needs no privileges, and answers for this process's network namespace, which `/sys/class/net` does not
//! always. Every answer is bounded in size and time, and read byte by byte: nothing here trusts a length.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};

const GET_LINK: u16 = 18;
const GET_ADDRESS: u16 = 22;
const GET_ROUTE: u16 = 26;
const GET_NEIGHBOUR: u16 = 30;
const ERROR: u16 = 2;
const DONE: u16 = 3;

const REQUEST: u16 = 0x1;
const MULTIPART: u16 = 0x2;
const DUMP: u16 = 0x300;

/// An answer takes microseconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// The kernel never puts more into one message.
const MESSAGE_ROOM: usize = 64 * 1024;
/// The most messages that are read for one question: a host with more addresses is not looked at further.
const MOST_MESSAGES: usize = 65_536;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mtu: u32,
    flags: u32,
}

impl Interface {
    /// Whether an administrator has switched it on.
    pub(super) fn is_up(&self) -> bool {
        self.flags & 0x1 != 0
    }

    /// Whether it sees a signal.
    pub(super) fn has_carrier(&self) -> bool {
        self.flags & 0x1_0000 != 0
    }

    pub(super) fn is_loopback(&self) -> bool {
        self.flags & 0x8 != 0
    }

    /// Whether frames on it need the receiver's hardware address: not on loopback, not on tunnels from end to end.
    pub(super) fn has_neighbours(&self) -> bool {
        self.flags & (0x8 | 0x10) == 0
    }
}

/// The way to an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// The index of the interface.
    pub(super) interface: u32,
    /// The next hop, when the address is not on the link itself.
    pub(super) gateway: Option<IpAddr>,
    /// Whether the way leads to one other host, rather than to this one, a group or everybody.
    pub(super) is_unicast: bool,
}

/// What the kernel knows of a neighbour's hardware address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Neighbour {
    /// Written down by an administrator.
    Permanent(String),
    /// Learned by asking (ARP, neighbour discovery).
    Learned(String),
    /// Nothing that could be sent to: never asked, asked in vain, or asking.
    Unknown,
}

/// A connection to the kernel.
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// The bodies of an answer's messages, without their headers.
type Bodies = Vec<Vec<u8>>;

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        // Protocol 0 is NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        // Connected to the kernel: messages of other processes do not come in.
        connect(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// `None`: there is no such interface.
    pub(super) fn interface_named(&mut self, name: &str) -> io::Result<Option<Interface>> {
        const NAME: u16 = 3;
        let mut body = vec![0; 16];
        attribute(&mut body, NAME, &[name.as_bytes(), b"\0"].concat());
        self.one_interface(&body)
    }

    /// `None`: there is no such interface.
    pub(super) fn interface(&mut self, index: u32) -> io::Result<Option<Interface>> {
        let mut body = vec![0; 16];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        self.one_interface(&body)
    }

    fn one_interface(&mut self, body: &[u8]) -> io::Result<Option<Interface>> {
        match self.ask(GET_LINK, 0, body) {
            Ok(bodies) => Ok(bodies.iter().find_map(|body| interface(body))),
            Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn interfaces(&mut self) -> io::Result<Vec<Interface>> {
        Ok(self.ask(GET_LINK, DUMP, &[0; 16])?.iter().filter_map(|body| interface(body)).collect())
    }

    /// The index of the interface that has this address, if one has.
    pub(super) fn interface_of(&mut self, address: IpAddr) -> io::Result<Option<u32>> {
        const ADDRESS: u16 = 1;
        const LOCAL: u16 = 2;
        let bodies = self.ask(GET_ADDRESS, DUMP, &[0; 8])?;
        let has = |body: &&Vec<u8>| {
            // On a link from end to end ADDRESS is the other end's; then LOCAL is there and ours.
            let find = |kind| attributes(body, 8).find(|(found, _)| *found == kind);
            find(LOCAL).or_else(|| find(ADDRESS)).and_then(|(_, value)| ip(value)) == Some(address)
        };
        Ok(bodies.iter().find(has).and_then(|body| number(body, 4)))
    }

    /// The way that the kernel would take. `None`: none.
    pub(super) fn route(&mut self, to: IpAddr, through: Option<u32>) -> io::Result<Option<Route>> {
        const DESTINATION: u16 = 1;
        const THROUGH: u16 = 4;
        let bytes = octets(to);
        let mut body = vec![family(to), bytes.len() as u8 * 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        attribute(&mut body, DESTINATION, &bytes);
        if let Some(index) = through {
            attribute(&mut body, THROUGH, &index.to_ne_bytes());
        }
        let refusals = [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::ACCESS, Errno::INVAL];
        match self.ask(GET_ROUTE, 0, &body) {
            Ok(bodies) => Ok(bodies.iter().find_map(|body| route(body))),
            Err(error) if Errno::from_io_error(&error).is_some_and(|code| refusals.contains(&code)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn neighbour(&mut self, of: IpAddr, on: u32) -> io::Result<Neighbour> {
        const DESTINATION: u16 = 1;
        let mut body = vec![0; 12];
        body[0] = family(of);
        body[4..8].copy_from_slice(&on.to_ne_bytes());
        attribute(&mut body, DESTINATION, &octets(of));
        match self.ask(GET_NEIGHBOUR, 0, &body) {
            Ok(bodies) => Ok(bodies.iter().find_map(|body| neighbour(body)).unwrap_or(Neighbour::Unknown)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Neighbour::Unknown),
            Err(error) => Err(error),
        }
    }

    /// Sends one question and gathers the answer.
    fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Bodies> {
        self.sequence += 1;
        let mut request = Vec::with_capacity(16 + body.len());
        request.extend(((16 + body.len()) as u32).to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend((REQUEST | flags).to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend(0u32.to_ne_bytes());
        request.extend(body);
        send(&self.socket, &request, SendFlags::empty())?;
        let mut gathered = Vec::new();
        let mut room = vec![0; MESSAGE_ROOM];
        while gathered.len() < MOST_MESSAGES {
            let (length, _) = recv(&self.socket, &mut room[..], RecvFlags::empty())?;
            if self.gather(&room[..length], &mut gathered)? {
                break;
            }
        }
        Ok(gathered)
    }

    /// Takes one datagram apart. `true`: the answer is complete.
    fn gather(&self, mut datagram: &[u8], gathered: &mut Bodies) -> io::Result<bool> {
        while let (Some(length), Some(kinds)) = (number(datagram, 0), number(datagram, 4)) {
            let length = length as usize;
            let Some(body) = datagram.get(16..length) else { break };
            let [a, b, c, d] = kinds.to_ne_bytes();
            let (kind, flags) = (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]));
            let is_ours = number(datagram, 8) == Some(self.sequence);
            match kind {
                _ if !is_ours => {}
                DONE => return Ok(true),
                ERROR => {
                    let code = number(body, 0).map_or(0, |code| (code as i32).saturating_neg());
                    return if code == 0 { Ok(true) } else { Err(io::Error::from_raw_os_error(code)) };
                }
                _ => {
                    gathered.push(body.to_vec());
                    if flags & MULTIPART == 0 {
                        return Ok(true);
                    }
                }
            }
            datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(false)
    }
}

fn interface(body: &[u8]) -> Option<Interface> {
    const NAME: u16 = 3;
    const MTU: u16 = 4;
    let mut found =
        Interface { index: number(body, 4)?, name: String::new(), mtu: 0, flags: number(body, 8)? };
    for (kind, value) in attributes(body, 16) {
        match kind {
            NAME => found.name = String::from_utf8_lossy(value.strip_suffix(b"\0")?).into_owned(),
            MTU => found.mtu = number(value, 0)?,
            _ => {}
        }
    }
    Some(found)
}

fn route(body: &[u8]) -> Option<Route> {
    const THROUGH: u16 = 4;
    const GATEWAY: u16 = 5;
    /// A gateway of the other IP version: a family before the address.
    const VIA: u16 = 18;
    const UNICAST: u8 = 1;
    let mut found = Route { interface: 0, gateway: None, is_unicast: *body.get(7)? == UNICAST };
    for (kind, value) in attributes(body, 12) {
        match kind {
            THROUGH => found.interface = number(value, 0)?,
            GATEWAY => found.gateway = ip(value),
            VIA => found.gateway = value.get(2..).and_then(ip),
            _ => {}
        }
    }
    (found.interface != 0).then_some(found)
}

fn neighbour(body: &[u8]) -> Option<Neighbour> {
    const HARDWARE_ADDRESS: u16 = 2;
    const PERMANENT: u16 = 0x80;
    /// Reachable, stale, delayed, probed.
    const LEARNED: u16 = 0x02 | 0x04 | 0x08 | 0x10;
    let state = u16::from_ne_bytes([*body.get(8)?, *body.get(9)?]);
    let address = attributes(body, 12)
        .find(|(kind, _)| *kind == HARDWARE_ADDRESS)
        .map(|(_, value)| value.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"));
    Some(match address {
        Some(address) if state & PERMANENT != 0 => Neighbour::Permanent(address),
        Some(address) if state & LEARNED != 0 => Neighbour::Learned(address),
        _ => Neighbour::Unknown,
    })
}

/// The u32 at a place, in the host's byte order.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes)
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(((4 + value.len()) as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Kind and value of each attribute behind a message's fixed part.
fn attributes(body: &[u8], fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(fixed..).unwrap_or_default();
    std::iter::from_fn(move || {
        let [a, b, c, d, ..] = *rest else { return None };
        let length = usize::from(u16::from_ne_bytes([a, b]));
        // The highest bits are flags.
        let kind = u16::from_ne_bytes([c, d]) & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AddressFamily::INET.as_raw() as u8 } else { AddressFamily::INET6.as_raw() as u8 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|bytes| Ipv4Addr::from(bytes).into()),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|bytes| Ipv6Addr::from(bytes).into()),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_everywhere() {
        let mut netlink = Netlink::open().unwrap();
        let lo = netlink.interface_named("lo").unwrap().unwrap();
        assert!(lo.is_loopback() && !lo.has_neighbours(), "{lo:?}");
        assert_eq!(netlink.interface(lo.index).unwrap().as_ref(), Some(&lo));
        assert!(netlink.interfaces().unwrap().contains(&lo));
        assert_eq!(netlink.interface_named("ddc-none").unwrap(), None);
        let here = Ipv4Addr::LOCALHOST.into();
        assert_eq!(netlink.interface_of(here).unwrap(), Some(lo.index));
        assert_eq!(netlink.interface_of("198.51.100.77".parse().unwrap()).unwrap(), None);
        let route = netlink.route(here, None).unwrap().unwrap();
        assert_eq!(route, Route { interface: lo.index, gateway: None, is_unicast: false });
    }

    #[test]
    fn no_bytes_panic() {
        let bytes: Vec<u8> = (0..200u32).map(|n| (n * 7919 % 251) as u8).collect();
        for end in 0..bytes.len() {
            for start in 0..end.min(20) {
                let cut = &bytes[start..end];
                let _ = (interface(cut), route(cut), neighbour(cut), attributes(cut, 8).count());
            }
        }
        // An attribute of length 0 ends the list instead of standing still.
        assert_eq!(attributes(&[0, 0, 1, 0, 9, 9, 9, 9], 0).count(), 0);
    }
}
