//! The sending end: a socket connected to the one target of a link.
//!
//! It sends and does nothing else: what anybody sends *to* it is thrown away by a socket filter before it is queued.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv, sockopt};
use socket2::Socket;

use crate::buffer::{self, BufferGrant, Direction};
use crate::options::{
    bind_interface, local_address, never_fragment, new_socket, option, reach_out, throw_away_replies,
    timespec, with_scope,
};
use crate::{BATCH, Engine, OpenError, SendError, portable, system};

/// The longest that one [`SenderSocket::send`] waits for room in the kernel before it says [`SendError::Busy`]. Short
/// against the heartbeat's second, long against any queue that drains at all.
pub const SEND_WAIT: Duration = Duration::from_millis(50);

/// Pauses while an interface queue is full: it cannot be polled for, so it is asked again, less and less often.
const QUEUE_PAUSE_FIRST: Duration = Duration::from_micros(50);
const QUEUE_PAUSE_LONGEST: Duration = Duration::from_millis(2);

/// How often in a row the same datagram is tried again after an error that may stem from an ICMP message about an
/// *earlier* one. Each try takes one such error away; an error that stays is the datagram's own.
const RETRIES_OF_ONE: u32 = 3;

/// Error reports taken from the socket's error queue at a time; what is left is taken the next time. The kernel bounds
/// the queue by the socket's receive buffer.
const ERROR_REPORTS: usize = 256;

/// How to open a [`SenderSocket`].
#[derive(Clone, Debug)]
pub struct SenderOptions {
    /// Where to send: a host, a multicast group or a broadcast address.
    pub target: SocketAddr,
    /// The address (and port, unless 0) to send from; chosen by the kernel when absent.
    pub source: Option<SocketAddr>,
    /// The interface to send through, whatever the routes say. Multicast and `255.255.255.255` usually need it.
    pub interface: Option<String>,
    /// Bytes that may wait in the kernel.
    pub send_buffer: usize,
    /// Routers that a multicast datagram may pass, plus one. 1 keeps it on the segment, which is what a diode wants.
    pub multicast_hops: u32,
    /// How datagrams cross into the kernel.
    pub engine: Engine,
}

impl SenderOptions {
    /// To `target`, everything else as it is by default: 16 MiB of buffer, one hop, batches.
    pub fn new(target: SocketAddr) -> Self {
        Self {
            target,
            source: None,
            interface: None,
            send_buffer: 16 << 20,
            multicast_hops: 1,
            engine: Engine::default(),
        }
    }
}

/// A socket that sends to one target, whole datagrams only.
#[derive(Debug)]
pub struct SenderSocket {
    socket: Socket,
    target: SocketAddr,
    local: SocketAddr,
    buffer: BufferGrant,
    /// Whether the batch calls are refused here (`ENOSYS`) or unwanted.
    portable: AtomicBool,
    ignored_errors: AtomicU64,
}

impl SenderSocket {
    /// Opens, configures and connects; nothing is sent.
    pub fn open(options: &SenderOptions) -> Result<Self, OpenError> {
        let target = options.target;
        if target.port() == 0 {
            return Err(OpenError::NoPort { target });
        }
        if let Some(source) = options.source
            && source.is_ipv4() != target.is_ipv4()
        {
            return Err(OpenError::MixedVersions { first: source.ip(), second: target.ip() });
        }

        let socket = new_socket(target)?;
        let index = options.interface.as_deref().map(|name| bind_interface(&socket, name)).transpose()?;
        let target = with_scope(target, index);
        never_fragment(&socket, target.is_ipv6())?;
        throw_away_replies(&socket)?;
        system::report_queue_overflow(&socket, target.is_ipv6()).map_err(option("IP_RECVERR"))?;
        reach_out(&socket, target, index, options.multicast_hops)?;
        let buffer =
            buffer::request(&socket, Direction::Send, options.send_buffer).map_err(option("SO_SNDBUF"))?;

        if let Some(source) = options.source {
            let source = with_scope(source, index);
            socket.bind(&source.into()).map_err(|cause| OpenError::Bind { address: source, cause })?;
        }
        socket.connect(&target.into()).map_err(|cause| OpenError::Connect { target, cause })?;
        let local = local_address(&socket)?;
        Ok(Self {
            socket,
            target,
            local,
            buffer,
            portable: AtomicBool::new(options.engine == Engine::Portable),
            ignored_errors: AtomicU64::new(0),
        })
    }

    /// Hands `datagrams` to the kernel, in order and without copying, and returns how many it took.
    ///
    /// Fewer than all means that the next one met trouble; call again with the rest. An error is returned when the
    /// *first* one could not be sent. May block up to [`SEND_WAIT`] when the kernel's queues are full.
    ///
    /// A target that answers "port unreachable" (an egress that is not running, seen on loopback and without a diode)
    /// is no error: the link is one-way and nobody is supposed to answer. Such answers are counted
    /// ([`ignored_errors`](Self::ignored_errors)) and the datagram is sent.
    pub fn send(&self, datagrams: &[&[u8]]) -> Result<usize, SendError> {
        let mut sent = 0;
        let mut tries = 0;
        let mut wait = Wait::default();
        // Error reports that may be about datagrams sent earlier; they are when the next datagram gets through.
        let mut reports = 0;
        while let rest @ [next, ..] = &datagrams[sent..] {
            let error = match self.send_once(rest) {
                Ok(0) => return Ok(sent), // Not for a list that is not empty; no reason to spin if it were.
                Ok(taken) => {
                    self.ignored_errors.fetch_add(reports, Ordering::Relaxed);
                    // The batch call does not say why it stopped early, and the error is gone; its report is not.
                    reports = if taken < rest.len().min(BATCH) { self.drain_errors() } else { 0 };
                    sent += taken;
                    tries = 0;
                    continue;
                }
                Err(error) => error,
            };
            let code = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            let failure = match code {
                Errno::INTR => continue,
                Errno::AGAIN if wait.for_buffer(self) => continue,
                Errno::NOBUFS | Errno::NOMEM if wait.for_queue() => continue,
                Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM => SendError::Busy,
                _ => {
                    reports += self.drain_errors().max(1);
                    if may_be_about_an_earlier_one(code) && tries < RETRIES_OF_ONE {
                        tries += 1;
                        continue;
                    }
                    self.failure(code, error, next.len())
                }
            };
            return if sent > 0 { Ok(sent) } else { Err(failure) };
        }
        Ok(sent)
    }

    /// The target, with the scope of the interface where that matters (IPv6 link-local).
    pub fn target(&self) -> SocketAddr {
        self.target
    }

    /// The address and port that the datagrams come from.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The send buffer asked for and given.
    pub fn buffer(&self) -> BufferGrant {
        self.buffer
    }

    /// Error reports about datagrams already sent (ICMP: port or host unreachable, too big) that were passed over. Rises
    /// while a target that can answer does not listen; says nothing about delivery when it stands still.
    pub fn ignored_errors(&self) -> u64 {
        self.ignored_errors.load(Ordering::Relaxed)
    }

    fn send_once(&self, datagrams: &[&[u8]]) -> io::Result<usize> {
        if !self.portable.load(Ordering::Relaxed) {
            match system::send_batch(&self.socket, datagrams) {
                Err(error) if error.raw_os_error() == Some(Errno::NOSYS.raw_os_error()) => {
                    self.portable.store(true, Ordering::Relaxed);
                }
                result => return result,
            }
        }
        portable::send_batch(&self.socket, datagrams)
    }

    /// Empties the error queue and returns how many reports stood there. One left would make every poll return at once.
    fn drain_errors(&self) -> u64 {
        let mut nothing = [0u8; 1];
        let report = || recv(&self.socket, &mut nothing[..], RecvFlags::ERRQUEUE | RecvFlags::DONTWAIT).ok();
        std::iter::from_fn(report).take(ERROR_REPORTS).count() as u64
    }

    fn failure(&self, code: Errno, cause: io::Error, bytes: usize) -> SendError {
        let target = self.target;
        match code {
            Errno::MSGSIZE => {
                let mtu = if target.is_ipv6() {
                    sockopt::ipv6_mtu(&self.socket)
                } else {
                    sockopt::ip_mtu(&self.socket)
                }
                .unwrap_or(0) as usize;
                SendError::TooLarge { bytes, mtu, room: payload_room(mtu, target.is_ipv6()), target }
            }
            Errno::PERM | Errno::ACCESS => SendError::Filtered { target, cause },
            // INVAL is what Linux says when the source address is no longer this host's.
            Errno::INVAL => SendError::Unreachable { target, cause },
            _ if is_network_trouble(code) => SendError::Unreachable { target, cause },
            _ => SendError::Io { target, cause },
        }
    }
}

/// Payload of the largest UDP datagram in an IP packet of `mtu` bytes.
fn payload_room(mtu: usize, ipv6: bool) -> usize {
    const LARGEST_PACKET: usize = 65_535;
    const UDP_HEADER: usize = 8;
    let ip_header = if ipv6 { 40 } else { 20 };
    mtu.min(LARGEST_PACKET).saturating_sub(ip_header + UDP_HEADER)
}

/// Errors that also come from ICMP messages: the kernel keeps them and gives them to the next send, which it then does
/// not carry out. Only trying again tells whether the datagram itself is meant.
fn may_be_about_an_earlier_one(code: Errno) -> bool {
    code == Errno::MSGSIZE || is_network_trouble(code)
}

fn is_network_trouble(code: Errno) -> bool {
    matches!(
        code,
        Errno::CONNREFUSED
            | Errno::NETUNREACH
            | Errno::HOSTUNREACH
            | Errno::NETDOWN
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::ADDRNOTAVAIL
            | Errno::NODEV
            | Errno::NXIO
            | Errno::NOPROTOOPT
            | Errno::OPNOTSUPP
            | Errno::PROTO
    )
}

/// Waiting for room within one send, bounded by [`SEND_WAIT`] in all.
#[derive(Default)]
struct Wait {
    until: Option<Instant>,
    pause: Duration,
}

impl Wait {
    fn left(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let until = *self.until.get_or_insert(now + SEND_WAIT);
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Waits until the socket's send buffer has room; false when the time is up.
    fn for_buffer(&mut self, sender: &SenderSocket) -> bool {
        let Some(left) = self.left() else { return false };
        sender.drain_errors();
        let mut sockets = [PollFd::new(&sender.socket, PollFlags::OUT)];
        // An interrupted or failed poll only means that the caller tries again; the time left bounds that.
        let ready = poll(&mut sockets, Some(&timespec(left)));
        if ready.is_ok() && !sockets[0].revents().contains(PollFlags::OUT) {
            // An error report came meanwhile: poll returns at once while it is there. Not to spin on a stream of them:
            std::thread::sleep(QUEUE_PAUSE_FIRST.min(left));
        }
        true
    }

    /// Waits a little for the interface's queue to drain; false when the time is up.
    fn for_queue(&mut self) -> bool {
        let Some(left) = self.left() else { return false };
        self.pause = (self.pause * 2).clamp(QUEUE_PAUSE_FIRST, QUEUE_PAUSE_LONGEST);
        std::thread::sleep(self.pause.min(left));
        true
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::sockopt::{Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};

    use super::*;

    fn open(target: &str) -> SenderSocket {
        SenderSocket::open(&SenderOptions {
            multicast_hops: 3,
            ..SenderOptions::new(target.parse().unwrap())
        })
        .unwrap()
    }

    #[test]
    fn fragmentation_is_forbidden() {
        let sender = open("127.0.0.1:9");
        assert_eq!(sockopt::ip_mtu_discover(&sender.socket).unwrap(), Ipv4PathMtuDiscovery::PROBE);
        let sender = open("[::1]:9");
        assert_eq!(sockopt::ipv6_mtu_discover(&sender.socket).unwrap(), Ipv6PathMtuDiscovery::PROBE);
    }

    #[test]
    fn broadcast_and_multicast_targets_are_permitted() {
        let sender = open("127.255.255.255:9");
        assert!(sender.socket.broadcast().unwrap());
        assert_eq!(sender.send(&[b"to all"]).unwrap(), 1);

        let options = SenderOptions {
            interface: Some("lo".into()),
            multicast_hops: 3,
            ..SenderOptions::new("239.18.0.1:9".parse().unwrap())
        };
        let sender = SenderSocket::open(&options).unwrap();
        assert_eq!(sender.socket.multicast_ttl_v4().unwrap(), 3);
        assert_eq!(sender.send(&[b"to some"]).unwrap(), 1);
    }

    #[test]
    fn room_is_mtu_less_headers() {
        assert_eq!(payload_room(1500, false), 1472);
        assert_eq!(payload_room(1500, true), 1452);
        assert_eq!(payload_room(65_536, false), 65_507);
        assert_eq!(payload_room(0, false), 0);
    }

    /// A send buffer that never drains: the wait is bounded and ends in the temporary error.
    #[test]
    fn waiting_for_room_is_bounded() {
        let sender = open("127.0.0.1:9");
        let mut wait = Wait::default();
        let started = Instant::now();
        while wait.for_queue() {
            assert!(started.elapsed() < Duration::from_secs(5), "waits for ever");
        }
        assert!(started.elapsed() >= SEND_WAIT);
        assert!(!wait.for_buffer(&sender));
    }
}
