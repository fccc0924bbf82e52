//! Socket buffers: asked for, then checked.
//!
//! The kernel cuts a request to `net.core.rmem_max` or `wmem_max` without an error, and default buffers (208 KiB) lose
//! data at 1 Gbit/s. So the size is asked for by force where that is permitted (CAP_NET_ADMIN), plainly otherwise, and
//! what was really given is read back. Whether too little is an error or a warning is the caller's choice.

use std::fmt;
use std::io;

use socket2::{Domain, Protocol, Socket, Type};

/// Which of a socket's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// `SO_SNDBUF`, limited by `net.core.wmem_max`.
    Send,
    /// `SO_RCVBUF`, limited by `net.core.rmem_max`.
    Receive,
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Direction::Send => "send",
            Direction::Receive => "receive",
        }
    }

    fn sysctl(self) -> &'static str {
        match self {
            Direction::Send => "net.core.wmem_max",
            Direction::Receive => "net.core.rmem_max",
        }
    }
}

/// What was asked of a socket buffer and what the kernel gave, both in bytes of payload.
///
/// The kernel books about twice a datagram's payload and therefore doubles what it is asked for; that factor is taken
/// out here, so `granted` compares with `requested` and tells roughly how much payload can wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferGrant {
    /// Which buffer.
    pub direction: Direction,
    /// Bytes asked for.
    pub requested: usize,
    /// Bytes given.
    pub granted: usize,
}

impl BufferGrant {
    /// What the kernel gives a process without privileges that asks for `requested` bytes, on a socket of its own that is
    /// closed again. A look at this host, whoever looks: a service is rarely allowed to ask by force.
    pub fn of_this_host(direction: Direction, requested: usize) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        ask(&socket, direction, requested, false)
    }

    /// Whether the kernel gave less than was asked for.
    pub fn is_short(&self) -> bool {
        self.granted < self.requested
    }

    /// For the log when [`is_short`](Self::is_short): what was given, what was asked for, and the command that mends it.
    pub fn shortfall(&self) -> Option<String> {
        self.is_short().then(|| {
            format!(
                "the kernel gave a {} buffer of {}, {} were asked for; run: sysctl -w {}={}",
                self.direction.name(),
                Bytes(self.granted),
                Bytes(self.requested),
                self.direction.sysctl(),
                self.requested.checked_next_power_of_two().unwrap_or(self.requested),
            )
        })
    }
}

/// Asks for `requested` bytes and reads back what came of it.
pub(crate) fn request(socket: &Socket, direction: Direction, requested: usize) -> io::Result<BufferGrant> {
    ask(socket, direction, requested, true)
}

fn ask(socket: &Socket, direction: Direction, requested: usize, by_force: bool) -> io::Result<BufferGrant> {
    use rustix::net::sockopt;
    // The kernel holds the doubled size in an int; rustix refuses what does not fit one.
    let bytes = requested.min(i32::MAX as usize / 2);
    let doubled = match direction {
        Direction::Send => {
            if !by_force || sockopt::set_socket_send_buffer_size_force(socket, bytes).is_err() {
                sockopt::set_socket_send_buffer_size(socket, bytes)?;
            }
            sockopt::socket_send_buffer_size(socket)?
        }
        Direction::Receive => {
            if !by_force || sockopt::set_socket_recv_buffer_size_force(socket, bytes).is_err() {
                sockopt::set_socket_recv_buffer_size(socket, bytes)?;
            }
            sockopt::socket_recv_buffer_size(socket)?
        }
    };
    Ok(BufferGrant { direction, requested, granted: doubled / 2 })
}

/// Bytes as people write them, in the largest unit that leaves no fraction.
struct Bytes(usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const KIB: usize = 1024;
        const MIB: usize = 1024 * KIB;
        match self.0 {
            n if n >= MIB && n % MIB == 0 => write!(f, "{} MiB", n / MIB),
            n if n >= KIB => write!(f, "{} KiB", n / KIB),
            n => write!(f, "{n} bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortfall_names_both_sizes_and_the_command() {
        let grant = BufferGrant { direction: Direction::Receive, requested: 25 << 20, granted: 416 << 10 };
        assert_eq!(
            grant.shortfall().as_deref(),
            Some(
                "the kernel gave a receive buffer of 416 KiB, 25 MiB were asked for; \
                 run: sysctl -w net.core.rmem_max=33554432"
            )
        );
        let grant = BufferGrant { direction: Direction::Send, requested: 1 << 20, granted: 1000 };
        assert_eq!(
            grant.shortfall().as_deref(),
            Some(
                "the kernel gave a send buffer of 1000 bytes, 1 MiB were asked for; \
                 run: sysctl -w net.core.wmem_max=1048576"
            )
        );
    }

    /// Even for root, for whom a socket's own request is granted by force.
    #[test]
    fn a_look_at_the_host_finds_the_limit() {
        for direction in [Direction::Send, Direction::Receive] {
            let grant = |requested| BufferGrant::of_this_host(direction, requested).unwrap();
            // Less than what root gets by force, which ends just below 1 GiB.
            let most = grant(1 << 29);
            assert!(most.is_short(), "no host lets everybody have 512 MiB: {most:?}");
            assert!(!grant(most.granted).is_short());
            assert!(grant(most.granted + 4096).is_short());
        }
    }

    #[test]
    fn enough_is_no_shortfall() {
        let grant = BufferGrant { direction: Direction::Send, requested: 4096, granted: 4608 };
        assert!(!grant.is_short());
        assert_eq!(grant.shortfall(), None);
    }
}
