//! UDP sockets for one-way links: the only place of DDC that makes unsafe system calls.
//!
//! ```text
//!  link thread                              one way                            receive thread
//!  clock::sleep_until ─▶ SenderSocket::send ═══ UDP ═══▶ ReceiverSocket::receive ─▶ ReceiveBatch
//!  (pacing)              sendmmsg, DF set                recvmmsg, drops counted     64 × 9216 bytes
//! ```
//!
//! * [`SenderSocket`]: connected to one unicast, multicast or broadcast target; sends whole datagrams, never
//!   fragments; sorts the kernel's errors into what passes by itself and what a human must mend ([`SendError`]).
//! * [`ReceiverSocket`]: bound, never connected, and unable to send; takes datagrams in batches and knows how many
//!   the kernel threw away because its queue was full.
//! * [`BufferGrant`]: what the kernel gave of a socket buffer, and the sysctl to set when that is too little.
//! * [`clock`]: sleeping until a deadline to the microsecond, and the clocks that betray a restored machine.
//!
//! It knows nothing of the bytes in a datagram, of rates or of threads; those belong to `ddc-wire`, `ddc-link` and
//! `ddc-proxy`. IPv4 and IPv6 are never mixed in one socket: the payload that fits an MTU differs between them.
//!
//! # System calls, and the way without them
//!
//! `sendmmsg` and `recvmmsg` carry up to [`BATCH`] datagrams per call. Their portable twin moves one datagram per call
//! and contains no unsafe code; it is used when the kernel or a sandbox refuses the batch calls (`ENOSYS`), and the
//! tests hold both to the same behaviour ([`Engine`]).
//!
//! # Offload
//!
//! UDP GSO and GRO are not here yet; they come with the work on speed. Their place: a third [`Engine`], probed at open
//! and given up on `EIO` or `EINVAL`. GSO belongs in `system.rs` beside `send_batch` (equal-sized neighbours of the
//! slice, at most 64 segments and 65,507 bytes per call; only the last may be shorter), with no change to
//! [`SenderSocket::send`]. GRO belongs beside `receive_batch`: [`ReceiveBatch`] gets larger slots, and its iterator
//! splits a slot by the segment size from the control message, so callers still see one datagram at a time.

mod batch;
mod buffer;
pub mod clock;
mod drops;
mod error;
mod options;
mod portable;
mod receiver;
mod sender;
mod system;

pub use batch::{DATAGRAM_ROOM, Datagram, ReceiveBatch};
pub use buffer::{BufferGrant, Direction};
pub use error::{OpenError, SendError};
pub use receiver::{ReceiverOptions, ReceiverSocket};
pub use sender::{SEND_WAIT, SenderOptions, SenderSocket};

/// Most datagrams that one system call moves, and slots of a [`ReceiveBatch`].
///
/// At 64 the cost of entering the kernel is already small beside the cost per datagram, and 64 slots of
/// [`DATAGRAM_ROOM`] still fit a second-level cache.
pub const BATCH: usize = 64;

/// How datagrams cross into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Engine {
    /// `sendmmsg` and `recvmmsg`, up to [`BATCH`] datagrams per call. Falls back to [`Engine::Portable`] for good when
    /// the first call is refused with `ENOSYS`.
    #[default]
    Batched,
    /// One `send` or `recvfrom` per datagram, without unsafe code.
    Portable,
}
