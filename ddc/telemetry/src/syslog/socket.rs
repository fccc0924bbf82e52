//! The four transports: a message becomes a datagram or a frame of a stream.
//!
//! | target | framing | how a collector that went away is noticed |
//! |---|---|---|
//! | UDP | datagram | on the same machine the kernel refuses at once; from afar at the next message; a full receive buffer never |
//! | TCP | `LENGTH SP MESSAGE` (RFC 6587 §3.4.1) | the end of the stream is looked for before each message |
//! | Unix stream | `MESSAGE LF` | the same, and another socket under the path, looked for once a second |
//! | Unix datagram | datagram | each message goes to the path, not to a socket found once |
//!
//! A stream that fails inside a frame is closed, and the whole frame goes over the next one: a collector never sees the rest of
//! a frame as the beginning of another. What the kernel has taken and the collector had not read when it died, or when a stream was
//! given up, is lost unseen.
//!
//! Everything here may block for [`Timing::write`] at most (connecting: [`Timing::connect`]); only the writer's thread calls it.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::Target;

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// To connect.
    pub(super) connect: Duration,
    /// One write; then it is looked whether to go on.
    pub(super) write: Duration,
    /// Without a byte taken for so long a stream is given up and opened anew.
    pub(super) stall: Duration,
    /// The first pause after a failure that followed another; each next one doubles.
    pub(super) pause_min: Duration,
    /// The longest pause.
    pub(super) pause_max: Duration,
    /// Without failures for so long, the next is a first one again.
    pub(super) sound_after: Duration,
    /// Between two log lines about one target.
    pub(super) tell_every: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            write: Duration::from_millis(200),
            stall: Duration::from_secs(30),
            pause_min: Duration::from_millis(100),
            pause_max: Duration::from_secs(5),
            sound_after: Duration::from_secs(10),
            tell_every: Duration::from_secs(10),
        }
    }
}

/// How often it is looked whether a path leads to another socket.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why a message was not sent.
#[derive(Debug)]
pub(super) enum SendError {
    /// The transport failed; the message can be tried again.
    Io(io::Error),
    /// The caller wanted no more of it.
    Stopped,
}

impl From<io::Error> for SendError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The way to one target, opened when needed and closed by a failure.
#[derive(Debug)]
pub(super) struct Outlet {
    target: Target,
    timing: Timing,
    open: Option<Open>,
    frame: Vec<u8>,
}

#[derive(Debug)]
enum Open {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Unix { stream: UnixStream, id: Option<SocketId>, look_at: Instant },
    UnixDatagram(UnixDatagram),
}

/// Device and inode of a socket's path.
type SocketId = (u64, u64);

impl Outlet {
    pub(super) fn new(target: Target, timing: Timing) -> Self {
        Self { target, timing, open: None, frame: Vec::with_capacity(1024) }
    }

    /// Sends one message, as long as the target takes its time and `stop` does not say otherwise.
    pub(super) fn send(&mut self, message: &str, stop: &dyn Fn() -> bool) -> Result<(), SendError> {
        let sent = self.try_send(message, stop);
        if sent.is_err() {
            self.open = None;
        }
        sent
    }

    fn try_send(&mut self, message: &str, stop: &dyn Fn() -> bool) -> Result<(), SendError> {
        let open = match &mut self.open {
            Some(open) => open,
            closed => closed.insert(connect(&self.target, &self.timing)?),
        };
        open.check(&self.target)?;
        self.frame.clear();
        match open {
            Open::Udp(_) | Open::UnixDatagram(_) => self.frame.extend_from_slice(message.as_bytes()),
            // Writing to a Vec cannot fail.
            Open::Tcp(_) => drop(write!(self.frame, "{} {message}", message.len())),
            Open::Unix { .. } => drop(writeln!(self.frame, "{message}")),
        }
        let (mut rest, mut give_up) = (&self.frame[..], Instant::now() + self.timing.stall);
        loop {
            match open.write(rest, &self.target) {
                Ok(written) if written >= rest.len() => return open.sent().map_err(SendError::Io),
                Ok(0) => return Err(io::Error::from(ErrorKind::WriteZero).into()),
                Ok(written) => {
                    rest = &rest[written..];
                    give_up = Instant::now() + self.timing.stall;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if Instant::now() >= give_up {
                        let why = "the collector has stopped reading";
                        return Err(io::Error::new(ErrorKind::TimedOut, why).into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
            if stop() {
                return Err(SendError::Stopped);
            }
        }
    }
}

fn connect(target: &Target, timing: &Timing) -> io::Result<Open> {
    match target {
        Target::Udp(address) => {
            let any: SocketAddr = match address {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = UdpSocket::bind(any)?;
            socket.connect(address)?;
            socket.set_write_timeout(Some(timing.write))?;
            Ok(Open::Udp(socket))
        }
        Target::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, timing.connect)?;
            stream.set_write_timeout(Some(timing.write))?;
            stream.set_nodelay(true)?;
            // A collector's machine that vanishes is noticed also while nothing is sent, or while nothing is acknowledged.
            sockopt::set_socket_keepalive(&stream, true)?;
            sockopt::set_tcp_keepidle(&stream, timing.stall)?;
            sockopt::set_tcp_user_timeout(&stream, timing.stall.as_millis() as u32)?;
            Ok(Open::Tcp(stream))
        }
        Target::Unix(path) => {
            let stream = connect_unix(path, timing)?;
            Ok(Open::Unix { stream, id: socket_id(path), look_at: Instant::now() + LOOK_EVERY })
        }
        Target::UnixDatagram(_) => {
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(timing.write))?;
            Ok(Open::UnixDatagram(socket))
        }
    }
}

/// As `UnixStream::connect`, which waits for ever when the listener's backlog is full.
fn connect_unix(path: &Path, timing: &Timing) -> io::Result<UnixStream> {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // For a connection, the time-out of sending is the one that counts.
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(timing.connect))?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_write_timeout(Some(timing.write))?;
    Ok(stream)
}

fn socket_id(path: &Path) -> Option<SocketId> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Open {
    /// Looks whether the collector is still there, before a frame is begun.
    fn check(&mut self, target: &Target) -> io::Result<()> {
        match self {
            Self::Udp(_) | Self::UnixDatagram(_) => Ok(()),
            Self::Tcp(stream) => still_open(stream.as_fd()),
            Self::Unix { stream, id, look_at } => {
                still_open(stream.as_fd())?;
                let now = Instant::now();
                if let Target::Unix(path) = target
                    && now >= *look_at
                {
                    *look_at = now + LOOK_EVERY;
                    let there = socket_id(path);
                    if there.is_some() && there != *id {
                        return Err(io::Error::new(
                            ErrorKind::ConnectionReset,
                            "another socket has taken its place",
                        ));
                    }
                }
                Ok(())
            }
        }
    }

    fn write(&mut self, bytes: &[u8], target: &Target) -> io::Result<usize> {
        match self {
            Self::Udp(socket) => socket.send(bytes),
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix { stream, .. } => stream.write(bytes),
            Self::UnixDatagram(socket) => match target {
                Target::UnixDatagram(path) => socket.send_to(bytes, path),
                _ => Err(ErrorKind::InvalidInput.into()),
            },
        }
    }

    /// After a message: over UDP on one machine, the refusal is there already.
    fn sent(&self) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.take_error()?.map_or(Ok(()), Err),
            _ => Ok(()),
        }
    }
}

/// Fails when the other end has closed. A collector has nothing to say: what comes is thrown away.
fn still_open(stream: BorrowedFd<'_>) -> io::Result<()> {
    let mut scrap = [0; 512];
    loop {
        match rustix::net::recv(stream, &mut scrap, RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                return Err(io::Error::new(ErrorKind::ConnectionReset, "the collector has closed"));
            }
            // As much again may wait; a peer that floods us is looked at again with the next message.
            Ok((read, _)) if read == scrap.len() => {}
            Ok(_) | Err(rustix::io::Errno::AGAIN) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
