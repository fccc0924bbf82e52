//! The receiving end: a socket that is bound, never connected, and cannot send.
//!
//! # Nothing goes back
//!
//! There is no way to send through a [`ReceiverSocket`]: it has no such method, gives its descriptor to nobody, and is
//! shut down for writing, so that the kernel refuses too. The *host* may still speak, and a strict diode's operator
//! has to silence it:
//! * joining a multicast group makes the kernel send IGMP (IPv4) or MLD (IPv6) reports. Either accept that they end at
//!   the diode, or drop them (`nft add rule inet filter output meta l4proto igmp drop`, `icmpv6 type mld2-listener-report`),
//!   or set `join: false` and have another program hold the membership, or use unicast or broadcast;
//! * while nobody listens on the port, the kernel answers datagrams with ICMP "port unreachable";
//! * ARP and neighbour discovery answer for the host's address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::sockopt;
use socket2::Socket;

use crate::batch::ReceiveBatch;
use crate::buffer::{self, BufferGrant, Direction};
use crate::drops::DropCounter;
use crate::options::{bind_interface, local_address, new_socket, option, timespec, with_scope};
use crate::{Engine, OpenError, portable, system};

/// Most that one [`ReceiverSocket::receive`] waits, whatever it is asked for.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// How to open a [`ReceiverSocket`].
#[derive(Clone, Debug)]
pub struct ReceiverOptions {
    /// The address and port to listen on. An unspecified address takes whatever comes to the port, broadcasts too; a
    /// multicast address takes that group's datagrams only.
    pub listen: SocketAddr,
    /// A multicast group to take, when `listen` is unspecified. Not needed when `listen` is the group itself.
    pub group: Option<IpAddr>,
    /// Whether to join the group, which makes the kernel send IGMP or MLD reports. Without joining, datagrams arrive
    /// only if something else on this host holds the membership.
    pub join: bool,
    /// The interface to listen on; others are not heard.
    pub interface: Option<String>,
    /// Bytes that may wait in the kernel while the receiving thread is busy.
    pub receive_buffer: usize,
    /// How datagrams cross from the kernel.
    pub engine: Engine,
}

impl ReceiverOptions {
    /// On `listen`, everything else as it is by default: 16 MiB of buffer, groups are joined, batches.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            group: None,
            join: true,
            interface: None,
            receive_buffer: 16 << 20,
            engine: Engine::default(),
        }
    }

    /// The multicast group meant, wherever it is written.
    fn multicast_group(&self) -> Result<Option<IpAddr>, OpenError> {
        let listen = self.listen.ip();
        let Some(group) = self.group else {
            return Ok(listen.is_multicast().then_some(listen));
        };
        if !group.is_multicast() {
            return Err(OpenError::NotMulticast { group });
        }
        if group.is_ipv4() != listen.is_ipv4() {
            return Err(OpenError::MixedVersions { first: listen, second: group });
        }
        if listen.is_multicast() && listen != group {
            return Err(OpenError::TwoGroups { listen, group });
        }
        Ok(Some(group))
    }
}

/// A socket that receives from anybody and answers nobody.
#[derive(Debug)]
pub struct ReceiverSocket {
    socket: Socket,
    local: SocketAddr,
    buffer: BufferGrant,
    engine: Engine,
    drops: DropCounter,
    /// Whether datagrams carry the counter of drops.
    stamped: bool,
}

impl ReceiverSocket {
    /// Opens, configures, joins and binds. The port must be free: two egresses on one port would share its datagrams.
    pub fn open(options: &ReceiverOptions) -> Result<Self, OpenError> {
        let group = options.multicast_group()?;
        let socket = new_socket(options.listen)?;
        let index = options.interface.as_deref().map(|name| bind_interface(&socket, name)).transpose()?;
        // Before binding, so that no datagram meets the small default buffer or goes uncounted.
        let buffer = buffer::request(&socket, Direction::Receive, options.receive_buffer)
            .map_err(option("SO_RCVBUF"))?;
        let stamped = stamp_drops(&socket)?;
        if let Some(group) = group.filter(|_| options.join) {
            join(&socket, group, index)?;
        }
        let listen = with_scope(options.listen, index);
        socket.bind(&listen.into()).map_err(|cause| OpenError::Bind { address: listen, cause })?;
        refuse_to_send(&socket)?;
        let local = local_address(&socket)?;
        Ok(Self { socket, local, buffer, engine: options.engine, drops: DropCounter::default(), stamped })
    }

    /// Waits up to `timeout` for a datagram, then takes those that are there, at most [`BATCH`](crate::BATCH), without
    /// waiting for more. Returns how many; 0 when nothing came in time (or a signal ended the wait).
    ///
    /// Under load it does not wait and costs one system call per batch. Callers keep `timeout` at 100 ms or less, since
    /// nothing else ends the wait.
    pub fn receive(&mut self, batch: &mut ReceiveBatch, timeout: Duration) -> io::Result<usize> {
        let deadline = Instant::now() + timeout.min(LONGEST_WAIT);
        loop {
            match self.receive_once(batch) {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.wait(left)? {
                // Stamps come with datagrams only; when a flood ends in drops, this is how they show.
                self.observe_drops_now();
                return Ok(0);
            }
            // Woken: a datagram is there, or one with a wrong checksum that the kernel is about to throw away. The
            // deadline bounds the second case.
        }
    }

    /// Waits up to `timeout` until one of `sockets` has something for [`receive`](Self::receive). `false`: none has, or a
    /// signal ended the wait. For a thread that serves several.
    pub fn wait_for_any<'a>(
        sockets: impl IntoIterator<Item = &'a ReceiverSocket>,
        timeout: Duration,
    ) -> io::Result<bool> {
        let mut waiting: Vec<_> =
            sockets.into_iter().map(|one| PollFd::new(&one.socket, PollFlags::IN)).collect();
        match poll(&mut waiting, Some(&timespec(timeout.min(LONGEST_WAIT)))) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Datagrams that the kernel has thrown away at this socket since it was opened: its queue was full, or (rarely) the
    /// UDP checksum was wrong. Never falls. Brought up to date by [`receive`](Self::receive).
    pub fn socket_drops(&self) -> u64 {
        self.drops.total()
    }

    /// The receive buffer asked for and given.
    pub fn buffer(&self) -> BufferGrant {
        self.buffer
    }

    /// The address and port that the socket is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn receive_once(&mut self, batch: &mut ReceiveBatch) -> io::Result<usize> {
        if self.engine == Engine::Batched {
            match system::receive_batch(&self.socket, batch) {
                Ok(received) => {
                    if let Some(reading) = received.drops {
                        self.drops.observe(reading);
                    } else if !self.stamped {
                        self.observe_drops_now();
                    }
                    return Ok(received.datagrams);
                }
                Err(error) if error.raw_os_error() == Some(Errno::NOSYS.raw_os_error()) => {
                    self.engine = Engine::Portable;
                }
                Err(error) => {
                    batch.set_filled(0);
                    return Err(error);
                }
            }
        }
        let received = portable::receive_batch(&self.socket, batch)?;
        self.observe_drops_now();
        Ok(received)
    }

    /// Whether something came within `left`.
    fn wait(&self, left: Duration) -> io::Result<bool> {
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timespec(left))) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn observe_drops_now(&mut self) {
        // A kernel before 4.12 cannot tell; the stamps on datagrams then suffice.
        if let Ok(reading) = system::drops_now(&self.socket) {
            self.drops.observe(reading);
        }
    }
}

/// Joins the group on the interface, and has the socket hear this group only, not those that other programs joined.
fn join(socket: &Socket, group: IpAddr, index: Option<u32>) -> Result<(), OpenError> {
    let failed = |cause: io::Error| OpenError::Join { group, cause };
    match group {
        IpAddr::V4(group) => {
            socket.set_multicast_all_v4(false).map_err(option("IP_MULTICAST_ALL"))?;
            // Interface 0: the kernel goes by its routes.
            sockopt::set_ip_add_membership_with_ifindex(
                socket,
                &group,
                &Ipv4Addr::UNSPECIFIED,
                index.unwrap_or(0),
            )
            .map_err(|e| failed(e.into()))
        }
        IpAddr::V6(group) => {
            socket.set_multicast_all_v6(false).map_err(option("IPV6_MULTICAST_ALL"))?;
            socket.join_multicast_v6(&group, index.unwrap_or(0)).map_err(failed)
        }
    }
}

/// `false`: this kernel has no stamps, as user-mode emulators and gVisor have none; the socket itself is asked then.
fn stamp_drops(socket: &Socket) -> Result<bool, OpenError> {
    match system::stamp_drops(socket) {
        Ok(()) => Ok(true),
        Err(cause) if cause.raw_os_error() == Some(Errno::NOPROTOOPT.raw_os_error()) => Ok(false),
        Err(cause) => Err(option("SO_RXQ_OVFL")(cause)),
    }
}

/// Closes the sending half. Linux does so although it says `ENOTCONN` for a socket that is not connected; the tests
/// hold it to that. It is the second lock: the first is that nothing in this type sends.
fn refuse_to_send(socket: &Socket) -> Result<(), OpenError> {
    match socket.shutdown(Shutdown::Write) {
        Err(cause) if cause.kind() != io::ErrorKind::NotConnected => Err(option("SHUT_WR")(cause)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_refuses_to_send_through_a_receiver() {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let receiver = ReceiverSocket::open(&ReceiverOptions::new(listen.parse().unwrap())).unwrap();
            let peer = std::net::UdpSocket::bind(listen).unwrap();
            let error = receiver.socket.send_to(b"back", &peer.local_addr().unwrap().into()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
            peer.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            assert!(peer.recv(&mut [0; 8]).is_err(), "a byte went back");
        }
    }

    #[test]
    fn any_of_several_sockets_ends_the_wait() {
        let open = || ReceiverSocket::open(&ReceiverOptions::new("127.0.0.1:0".parse().unwrap())).unwrap();
        let mut receivers = [open(), open()];
        let begun = Instant::now();
        assert!(!ReceiverSocket::wait_for_any(&receivers, Duration::from_millis(20)).unwrap());
        assert!(begun.elapsed() >= Duration::from_millis(20));
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.send_to(b"", receivers[1].local_addr()).unwrap();
        assert!(ReceiverSocket::wait_for_any(&receivers, Duration::from_secs(10)).unwrap());
        let mut batch = ReceiveBatch::with_room(1);
        assert_eq!(receivers[0].receive(&mut batch, Duration::ZERO).unwrap(), 0);
        assert_eq!(receivers[1].receive(&mut batch, Duration::ZERO).unwrap(), 1);
        assert!(!ReceiverSocket::wait_for_any(&receivers, Duration::ZERO).unwrap());
    }

    #[test]
    fn groups_are_checked_before_anything_is_opened() {
        let open = |listen: &str, group: Option<&str>| {
            let mut options = ReceiverOptions::new(listen.parse().unwrap());
            options.group = group.map(|g| g.parse().unwrap());
            options.multicast_group()
        };
        assert!(matches!(open("0.0.0.0:1", Some("10.0.0.1")), Err(OpenError::NotMulticast { .. })));
        assert!(matches!(open("[::]:1", Some("239.1.1.1")), Err(OpenError::MixedVersions { .. })));
        assert!(matches!(open("239.1.1.2:1", Some("239.1.1.1")), Err(OpenError::TwoGroups { .. })));
        assert_eq!(open("239.1.1.1:1", None).unwrap(), Some("239.1.1.1".parse().unwrap()));
        assert_eq!(open("0.0.0.0:1", None).unwrap(), None);
    }
}
