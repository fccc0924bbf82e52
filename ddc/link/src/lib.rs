//! DDC's link protocol as state machines: what a sender sends and what a receiver makes of it.
//!
//! ```text
//!  records → pack → protect → seal → pace ═══ UDP ═══▶ open → recover → order → unpack → gaps
//!            └───────── sender/ ─────────┘             └──────────── receiver/ ────────────┘
//! ```
//!
//! Nothing here owns a socket, a thread, a clock or randomness: time and entropy are arguments, so
//! that a test can drive a day of loss, reordering and restarts in a second, from a seed. The wire
//! format is `ddc-wire`'s, the erasure code is `ddc-fec`'s; the sockets are around it in `ddc-proxy`.
#![forbid(unsafe_code)]

pub mod keys;
pub mod receiver;
pub mod sender;
