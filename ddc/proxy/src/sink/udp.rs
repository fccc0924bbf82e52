//! The UDP sink's sockets: one per stream, connected, never blocking for long.
//!
//! UDP acknowledges nothing. What can be known of a datagram is that the kernel took it, and, when the target's host answers
//! "nobody listens" (ICMP), that an earlier one was refused. Such an answer counts for the datagram after which it is seen: on this
//! host that is the very one; from another host it may be a neighbour, and hosts answer only so often. So totals hold, and what
//! is counted as refused was refused.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use ddc_telemetry::reasons::KafkaErrorReason;
use rustix::io::Errno;

use super::preflight::{Finding, Severity};
use crate::config::{Stream, UdpSink};

/// How long a datagram waits while the kernel's queues are full. A stream that has used it up waits no more until one
/// of its datagrams gets through, so that the others are held up once only.
const SEND_WAIT: Duration = Duration::from_millis(20);
/// Between two tries while the queues are full.
const SEND_STEP: Duration = Duration::from_millis(1);
/// Answers about earlier datagrams that one send may meet; each try takes one away.
const ANSWERS: u32 = 3;
/// Between two tries to get a socket that has a way to its target.
const REOPEN: Duration = Duration::from_secs(1);

/// Why a datagram was not sent. The text says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotSent {
    /// The metric's label.
    pub reason: KafkaErrorReason,
    /// For people.
    pub why: String,
}

/// A stream's way out.
#[derive(Debug)]
pub struct StreamSocket {
    stream: Stream,
    socket: Option<UdpSocket>,
    /// When a socket is asked for again.
    retry_at: Instant,
    /// Why there is none.
    no_way: Option<NotSent>,
    /// [`SEND_WAIT`] is used up.
    stuck: bool,
}

impl StreamSocket {
    /// Opens the socket, or tries again later: a network that comes up after this program is no error.
    pub fn open(stream: Stream, now: Instant) -> Self {
        let mut this = Self { stream, socket: None, retry_at: now, no_way: None, stuck: false };
        this.reopen(now);
        this
    }

    /// The stream.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Sends a datagram as it is. Returns within `SEND_WAIT` and a few system calls.
    pub fn send(&mut self, now: Instant, datagram: &[u8]) -> Result<(), NotSent> {
        if self.socket.is_none() && now >= self.retry_at {
            self.reopen(now);
        }
        let Some(socket) = &self.socket else {
            return Err(self
                .no_way
                .clone()
                .unwrap_or_else(|| no_way(&self.stream, &Errno::NETUNREACH.into())));
        };
        let wait = if self.stuck { Duration::ZERO } else { SEND_WAIT };
        let sent = send_patiently(|| socket.send(datagram).map(drop), thread::sleep, wait);
        // An answer from this very host is there already.
        let answer = socket.take_error().ok().flatten();
        self.stuck = matches!(&sent, Err(error) if is_busy(error));
        match (sent, answer) {
            (Ok(Answered(false)), None) => Ok(()),
            (Ok(_), _) => Err(refused(&self.stream)),
            (Err(error), _) => Err(self.failed(now, &error, datagram.len())),
        }
    }

    fn failed(&mut self, now: Instant, error: &io::Error, length: usize) -> NotSent {
        let Stream { name, address } = &self.stream;
        match Errno::from_io_error(error) {
            Some(Errno::CONNREFUSED) => refused(&self.stream),
            Some(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => NotSent {
                reason: KafkaErrorReason::Timeout,
                why: format!("stream {name}: the kernel's queues towards {address} are full"),
            },
            Some(Errno::MSGSIZE) => NotSent {
                reason: KafkaErrorReason::TooLarge,
                why: format!(
                    "stream {name}: {length} bytes are more than one datagram to {address} can hold; lower max_datagram in the ingress's [source.udp]"
                ),
            },
            Some(Errno::PERM | Errno::ACCESS) => NotSent {
                reason: KafkaErrorReason::Authorization,
                why: format!("stream {name}: a firewall of this host forbids sending to {address}: {error}"),
            },
            _ => {
                // The way has changed, perhaps the address we send from too: begin anew.
                self.socket = None;
                self.retry_at = now + REOPEN;
                let why = no_way(&self.stream, error);
                self.no_way = Some(why.clone());
                why
            }
        }
    }

    fn reopen(&mut self, now: Instant) {
        match connect(self.stream.address) {
            Ok(socket) => (self.socket, self.no_way) = (Some(socket), None),
            Err(error) => {
                self.no_way = Some(no_way(&self.stream, &error));
                self.retry_at = now + REOPEN;
            }
        }
    }
}

fn connect(target: SocketAddr) -> io::Result<UdpSocket> {
    let local: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local)?;
    socket.set_nonblocking(true)?;
    socket.connect(target)?;
    Ok(socket)
}

fn refused(Stream { name, address }: &Stream) -> NotSent {
    NotSent {
        reason: KafkaErrorReason::Connection,
        why: format!("stream {name}: nobody listens on {address}; start its receiver, or correct [sink.udp]"),
    }
}

fn no_way(Stream { name, address }: &Stream, error: &io::Error) -> NotSent {
    NotSent {
        reason: KafkaErrorReason::Connection,
        why: format!(
            "stream {name}: {address} cannot be reached: {error}; check address and routes (ip route get)"
        ),
    }
}

/// It was sent; the flag tells whether an answer about an earlier datagram was met on the way.
#[derive(Debug, PartialEq, Eq)]
struct Answered(bool);

/// Tries until the datagram is taken, for `wait` while the queues are full.
fn send_patiently(
    mut send: impl FnMut() -> io::Result<()>,
    mut pause: impl FnMut(Duration),
    wait: Duration,
) -> io::Result<Answered> {
    let (mut answers, mut waited) = (0, Duration::ZERO);
    loop {
        match send() {
            Ok(()) => return Ok(Answered(answers > 0)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // About an earlier datagram; this one was not sent.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && answers < ANSWERS => {
                answers += 1;
            }
            Err(error) if is_busy(&error) && waited < wait => {
                pause(SEND_STEP);
                waited += SEND_STEP;
            }
            Err(error) => return Err(error),
        }
    }
}

fn is_busy(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM))
}

/// Looks whether the streams' targets have a way. Sends nothing; whether somebody listens there is known only once
/// something is sent.
pub(super) fn preflight(sink: &UdpSink) -> Vec<Finding> {
    let look = |stream: &Stream| match connect(stream.address) {
        Ok(_) => Finding {
            severity: Severity::Good,
            text: format!(
                "stream {stream} has a way; whether somebody listens there shows when datagrams come"
            ),
        },
        Err(error) => Finding { severity: Severity::Problem, text: no_way(stream, &error).why },
    };
    sink.streams.iter().map(look).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;

    fn stream(address: SocketAddr) -> Stream {
        Stream { name: "s".parse().unwrap(), address }
    }

    /// A port of loopback on which nobody listens.
    fn closed() -> SocketAddr {
        UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[test]
    fn datagrams_arrive_whole_and_empty_ones_too() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let now = Instant::now();
        let mut socket = StreamSocket::open(stream(receiver.local_addr().unwrap()), now);
        let mut buffer = vec![0; 70_000];
        for length in [0, 1, 1500, 65_507] {
            let sent = vec![length as u8; length];
            socket.send(now, &sent).unwrap();
            let received = receiver.recv(&mut buffer).unwrap();
            assert!(buffer[..received] == sent, "{length}: {received}");
        }
        let too_large = socket.send(now, &vec![0; 65_508]).unwrap_err();
        assert_eq!(too_large.reason, KafkaErrorReason::TooLarge);
        assert!(too_large.why.contains("65508 bytes"), "{}", too_large.why);
        socket.send(now, b"and on").unwrap();
    }

    #[test]
    fn every_datagram_to_a_closed_port_is_known_to_be_refused_and_the_first_behind_it_is_not() {
        let target = closed();
        let now = Instant::now();
        let mut socket = StreamSocket::open(stream(target), now);
        for _ in 0..100 {
            let refused = socket.send(now, b"nobody").unwrap_err();
            assert_eq!(refused.reason, KafkaErrorReason::Connection);
            assert!(refused.why.contains(&format!("nobody listens on {target}")), "{}", refused.why);
        }
        let receiver = UdpSocket::bind(target).unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.send(now, b"somebody").unwrap();
        let mut buffer = [0; 64];
        let received = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..received], b"somebody", "nothing that was counted as refused comes after all");
    }

    /// What a target on another host does: its answer comes later, at the next send.
    #[test]
    fn an_answer_about_an_earlier_datagram_is_told_and_this_one_sent() {
        let mut errors = vec![Errno::CONNREFUSED, Errno::INTR];
        let send = || errors.pop().map_or(Ok(()), |errno| Err(errno.into()));
        assert_eq!(send_patiently(send, |_| panic!("no wait"), SEND_WAIT).unwrap(), Answered(true));
        assert_eq!(send_patiently(|| Ok(()), |_| panic!("no wait"), SEND_WAIT).unwrap(), Answered(false));
        let refused = send_patiently(|| Err(Errno::CONNREFUSED.into()), |_| panic!("no wait"), SEND_WAIT);
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused, "an error that stays");
    }

    #[test]
    fn full_queues_are_waited_for_within_the_bound_only() {
        for errno in [Errno::AGAIN, Errno::NOBUFS] {
            let (mut tries, mut waited) = (0, Duration::ZERO);
            let result = send_patiently(
                || {
                    tries += 1;
                    Err(errno.into())
                },
                |pause| waited += pause,
                SEND_WAIT,
            );
            assert!(is_busy(&result.unwrap_err()));
            assert_eq!((tries, waited), (21, SEND_WAIT));
        }
        let mut tries = 0;
        let third = || {
            tries += 1;
            if tries < 3 { Err(Errno::AGAIN.into()) } else { Ok(()) }
        };
        assert_eq!(send_patiently(third, |_| {}, SEND_WAIT).unwrap(), Answered(false));
        let mut tries = 0;
        let busy = || {
            tries += 1;
            Err(Errno::AGAIN.into())
        };
        assert!(send_patiently(busy, |_| panic!("no wait"), Duration::ZERO).is_err());
        assert_eq!(tries, 1, "a stream that is stuck costs one try");
    }

    #[test]
    fn a_target_without_a_way_is_named_and_asked_for_again() {
        let now = Instant::now();
        let mut socket = StreamSocket::open(stream("127.0.0.1:9".parse().unwrap()), now);
        let lost = socket.failed(now, &Errno::NETUNREACH.into(), 1);
        assert_eq!(lost.reason, KafkaErrorReason::Connection);
        assert!(lost.why.contains("127.0.0.1:9 cannot be reached"), "{}", lost.why);
        assert_eq!(socket.send(now, b"x").unwrap_err(), lost, "not asked for at every datagram");
        let later = now + REOPEN;
        // The port may be open or not: it has a way again.
        assert_ne!(socket.send(later, b"x").err(), Some(lost));
        assert!(socket.socket.is_some());
    }
}
